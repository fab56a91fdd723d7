"""Step 1 of a call: find the methods that go by a key, and what each needs when it is called with these arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

from cfi_core.catalogue import DISTRIBUTION_OF_TOOLSET, TOOLSETS_OF_METHOD
from cfi_core.errors import ArgumentError, UnknownMethodError
from cfi_core.records import Arguments
from cfi_core.registry import Registry
from cfi_core.specs import Kind, MethodSpec


def find_methods(registry: Registry, arguments: Arguments, kinds: frozenset[Kind]) -> tuple[MethodSpec, ...]:
    """All methods of the key whose toolset can be used, with what each needs when it is called with these arguments.

    Raises:
        UnknownMethodError: There is none; names the nearest keys and the distribution that has it.
    """
    key, toolset = arguments.method_key, arguments.toolset
    if not isinstance(key, str):
        raise UnknownMethodError(f"The method key must be a string such as 'grad_cam', not {key!r}.")
    if toolset is not None:
        _check_toolset(registry, toolset)
    named = [spec for spec in registry.methods.values() if spec.key == key and toolset in (None, spec.toolset)]
    if not named:
        registry.refuse_withdrawn(key)
        raise UnknownMethodError(_unknown(registry, key, toolset))
    fitting = [spec for spec in named if spec.kind in kinds]
    if not fitting:
        call = "visualize_features" if named[0].kind is Kind.FEATURE_VISUALIZATION else "attribute"
        raise UnknownMethodError(f"{key!r} is a method of kind '{named[0].kind}': call cfi.{call}() for it.")
    missing = [registry.lacks(registry.toolsets[spec.toolset]) for spec in fitting]
    if all(missing):
        texts = sorted({text for lacks in missing for text in lacks})
        hint = "" if any(" " in text for text in texts) else f" pip install {' '.join(map(repr, texts))}"
        raise UnknownMethodError(f"{key!r} needs {', '.join(texts)}, which is not installed.{hint}")
    usable = (spec for spec, lacks in zip(fitting, missing, strict=True) if not lacks)
    return tuple(_complete(registry, spec, arguments) for spec in usable)


def _complete(registry: Registry, method: MethodSpec, arguments: Arguments) -> MethodSpec:
    """The method with what it, and the method that it wraps, needs when it is called with these arguments."""
    init_args, exec_args = method.complete(arguments.defaults, arguments.init_args or {}, arguments.exec_args or {})
    given = {**init_args, **exec_args}
    needs = method.needs | {need for name, need in method.argument_needs.items() if given.get(name)}
    wrapped = registry.methods.get((str(init_args.get(method.wraps)), method.toolset)) if method.wraps else None
    if wrapped is None:
        return method if needs == method.needs else replace(method, needs=needs)
    return replace(
        method,
        kind=wrapped.kind,
        needs=needs | wrapped.needs,
        required=tuple(dict.fromkeys((*method.required, *wrapped.required))),
        head=wrapped.head,
        citation=f"{method.citation}; {wrapped.citation}",
        alters_model=method.alters_model or wrapped.alters_model,
        defaults=method.defaults.around(wrapped.defaults),
        guard=wrapped.guard or method.guard,
    )


def _check_toolset(registry: Registry, toolset: str) -> None:
    if not isinstance(toolset, str):
        raise ArgumentError(
            f"toolset must be the name of a toolset ({_join(registry.toolsets)}), not a {type(toolset).__name__}. "
            f"Everything else is passed by name: inputs=, target=, …"
        )
    if toolset not in registry.toolsets:
        near, distribution = nearest(toolset, registry.toolsets), DISTRIBUTION_OF_TOOLSET.get(toolset)
        raise UnknownMethodError(
            f"No toolset {toolset!r} is installed; installed are {_join(registry.toolsets)}."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + (f" pip install {distribution} brings it." if distribution else "")
            + registry.absence_note()
        )


def _unknown(registry: Registry, key: str, toolset: str | None) -> str:
    keys = {offered for offered, by in registry.methods if toolset in (None, by)}
    message = f"No installed plugin offers the method {key!r}{f' of toolset {toolset!r}' if toolset else ''}."
    elsewhere = {by for offered, by in registry.methods if offered == key}
    lacking = [name for name in TOOLSETS_OF_METHOD.get(key, ()) if name not in registry.toolsets]
    absent = {DISTRIBUTION_OF_TOOLSET[name] for name in lacking if toolset in (None, name)}
    near = nearest(key, {*keys, *(TOOLSETS_OF_METHOD if toolset is None else ())})
    if toolset and elsewhere:
        message += f" Offered by {_join(elsewhere)}."
    elif absent:
        message += f" pip install {' or '.join(sorted(absent))} brings it."
    elif near:
        message += f" Nearest: {_join(near)}."
    else:
        message += f" {len(keys)} methods are offered; cfi.methods() lists them."
    return message + registry.absence_note()


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that look alike, whatever their case and separators."""
    plain = {_plain(other): other for other in known}
    return [plain[match] for match in get_close_matches(_plain(name), sorted(plain), n=3, cutoff=0.5)]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def _join(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
