"""Step 1 of a call: find the methods that go by a key, and what each needs when it is called with these arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cfi_core.errors import UnknownMethodError
from cfi_core.lookup import check_toolset, describe_unknown
from cfi_core.records import Arguments
from cfi_core.registry import Registry
from cfi_core.specs import Kind, MethodSpec, Samples


def find_methods(registry: Registry, arguments: Arguments, kinds: frozenset[Kind]) -> tuple[MethodSpec, ...]:
    """All methods of the key whose toolset can be used, with what each needs when it is called with these arguments.

    Raises:
        UnknownMethodError: There is none; names the nearest keys and the distribution that has it.
    """
    key, toolset = arguments.method_key, arguments.toolset
    if not isinstance(key, str):
        raise UnknownMethodError(f"The method key must be a string such as 'grad_cam', not {key!r}.")
    if toolset is not None:
        check_toolset(registry, toolset)
    named = [spec for spec in registry.methods.values() if spec.key == key and toolset in (None, spec.toolset)]
    if not named:
        registry.refuse_withdrawn(key)
        raise UnknownMethodError(describe_unknown(registry, key, toolset))
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
    method = replace(method, samples=_samples(method, wrapped, given))
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
        own_required=(*method.own_required, *wrapped.own_required),
    )


def _samples(method: MethodSpec, wrapped: MethodSpec | None, given: Mapping[str, Any]) -> Samples:
    """Which samples may be explained together with these arguments: the narrowest of what any part of it says."""
    said = {method.samples, wrapped.samples if wrapped else method.samples}
    usual = method.defaults.raw
    if any(name in given and given[name] != usual.get(name) for name in method.alone_with):
        said.add(Samples.ALONE)
    return max(said, key=list(Samples).index)
