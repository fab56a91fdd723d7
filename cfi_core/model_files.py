"""Models from files and factories: what a path leads to is told by its contents, and read by the framework's plugin.

Nothing that stands in a file is run unless the caller trusts it; which formats could do so, the frameworks declare
(`cfi_core.specs.ModelFormat`).
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NamedTuple

from cfi_core.adapters import adapter_for, check_installed, find_type, is_importable, known_frameworks, remedy
from cfi_core.boundary import foreign
from cfi_core.detection import detect_framework
from cfi_core.errors import ArgumentError, ModelFileError, UnknownFrameworkError, UntrustedFileError, brief
from cfi_core.file_contents import Contents, look_into
from cfi_core.registry import Registry, registry
from cfi_core.requirements import installed_distribution, unmet
from cfi_core.specs import FrameworkSpec, ModelFormat, resolve

_FACTORY = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")

_ASK = "If you trust where it came from, pass trust=True."


class _Found(NamedTuple):
    """A format, and the framework that declares it."""

    framework: FrameworkSpec
    format: ModelFormat


def load_model(
    path: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None, trust: bool = False
) -> Any:
    """Loads a model from a file or folder, or from a function that makes it.

    No code that stands in a file is run unless you trust it: Keras archives of Keras' own layers, `.onnx` files and
    files of weights are read as they are; pickles, `.h5`, TorchScript, exported programs and saved models only with
    `trust=True`. A file is what its contents say, whatever its name is (docs/loading-models.md).

    Args:
        path: A file or folder; or `"package.module:factory"`, the importable name of a function or class that gives
            the model when it is called without arguments. That module is imported: it is code which you name.
        weights: A file of weights (`.safetensors`, or `.pt` as `torch.save(model.state_dict(), …)` writes it;
            `.weights.h5` for Keras) to load into the model: into all of its weights, each of its own name and shape.
        trust: Whether reading may run code that stands in the file at `path`. Weights are never read so.

    Returns:
        The model, as `cfi.attribute` takes it. A torch module that was given weights is in evaluation mode.

    Raises:
        ModelFileError: There is no such file, it holds no model, or the weights are not the model's.
        UntrustedFileError: Reading it could run code, and `trust` is False.
        UnknownFrameworkError: The plugin for its framework is not installed.
        ArgumentError: The factory cannot be imported or called, or gives no model.
    """
    current = registry()
    path = _checked(path, "path")
    if not isinstance(trust, bool):
        raise ArgumentError(f"trust is {brief(repr(trust))}. Pass True or False.")
    named = _FACTORY.fullmatch(path)
    model = _make(current, *named.groups()) if named and not _exists(path) else _read(current, path, trust)
    if weights is not None:
        _load_weights(current, model, _place(_checked(weights, "weights")))
    return model


def read_pickle(path: Path, trust: bool) -> Any:
    """Whatever stands in a pickle, or in a file of joblib's."""
    if is_importable("joblib"):
        return import_module("joblib").load(path)
    with path.open("rb") as file:
        return pickle.load(file)


def _checked(path: Any, name: str) -> str:
    if not isinstance(path, str | os.PathLike) or not isinstance(text := os.fspath(path), str):
        raise ArgumentError(
            f"{name} is of type {type(path).__name__}. Pass the path of a file"
            + (", or 'package.module:factory'; a model that you have needs no loading." if name == "path" else ".")
        )
    if not text:
        raise ModelFileError(f"{name} is an empty text. Pass the path of a file.")
    if "://" in text:
        raise ModelFileError(f"{brief(text)!r} is an address. Nothing is fetched: download it, and pass the path.")
    return text


def _place(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of a user who is not there
        return Path(text)


def _exists(path: str) -> bool:
    return "\0" not in path and os.path.lexists(path)


# Factories


def _make(current: Registry, module: str, name: str) -> Any:
    """What a function or class gives that is called without arguments; a model that stands there, as it is."""
    found = _import(module)
    for part in name.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, [one for one in dir(found) if not one.startswith("_")], n=3)
            owner = getattr(found, "__name__", module)
            raise ArgumentError(
                f"{owner} has no {part!r}." + (f" There is {' and '.join(map(repr, near))}." if near else "")
            )
        found = getattr(found, part)
    label = f"{module}:{name}"
    if not isinstance(found, type) and _is_of_a_kind(current, found):
        return found
    if not callable(found):
        raise ArgumentError(
            f"{label} is of type {type(found).__name__}. Name a function or class that gives the model when it is "
            f"called without arguments."
        )
    if asked := _asked(found):
        raise ArgumentError(
            f"{label} needs {', '.join(map(repr, asked))}. Name a function that needs no arguments, such as one that "
            f"calls it."
        )
    with foreign(ArgumentError, f"{label} failed", "It is called without arguments, and gives the model."):
        model = found()
    return _require_model(current, model, f"{label} gave")


def _import(module: str) -> Any:
    try:
        with foreign(ArgumentError, f"Importing {module} failed", "It is the module of the model's factory."):
            return import_module(module)
    except ArgumentError as error:
        cause = error.__cause__
        if module.endswith(".py"):
            raise ArgumentError(
                f"{module!r} is the name of a file, and modules go without its end: '{module.removesuffix('.py')}:…'."
            ) from cause
        if isinstance(cause, ModuleNotFoundError) and f"{module}.".startswith(f"{cause.name}."):
            raise ArgumentError(
                f"There is no module {cause.name!r} to import. If it lies in a folder of yours, begin Python there or "
                f"name the folder in PYTHONPATH; to load a file, pass its path."
            ) from cause
        raise


def _asked(function: Any) -> list[str]:
    """Arguments without which it cannot be called."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C, which says nothing of them
        return []
    several = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is Parameter.empty and one.kind not in several]


# Files


def _read(current: Registry, text: str, trust: bool) -> Any:
    path = _place(text)
    contents = look_into(path)
    spec, form = _recognize(current, path, contents)
    shown = brief(str(path))
    if form.runs_code and not trust:
        raise UntrustedFileError(f"{shown!r} holds {form.name}: {form.runs_code}. {_ASK} {form.instead}".rstrip())
    if not form.model:
        why = "which is no model" if form.weights else "which is not read here"
        raise ModelFileError(f"{shown!r} holds {form.name}, {why}. {form.instead}".rstrip())
    with _reading(current, spec, form, path):
        model = resolve(form.model)(path, trust)
    return _require_model(current, model, f"{shown!r} holds")


def _reading(current: Registry, spec: FrameworkSpec, form: ModelFormat, path: Path) -> Any:
    """Makes ready for reading a file; what its plugin raises meanwhile becomes errors of CFI's."""
    shown = brief(str(path))
    check_installed(current, spec, f"{shown!r} holds {form.name}")
    _check_versions(form, shown)
    adapter_for(current, spec.name)  # imports the framework with the care that it needs beside others
    doing = f"{shown!r} cannot be read as {form.name} by {current.origin_of(spec).label}"
    return foreign(ModelFileError, doing, "Is it complete, and of a version that is installed?")


def _check_versions(form: ModelFormat, shown: str) -> None:
    for requirement in unmet(form.requirements):
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        found = installed_distribution(name)
        have = f"{name} {found.version} is installed" if found else f"{name} is not installed"
        raise ModelFileError(
            f"{shown!r} is not read: reading {form.name} is known to be safe with {requirement}, and {have}. "
            f"pip install '{requirement}'"
        )


def _recognize(current: Registry, path: Path, contents: Contents) -> _Found:
    """The one format that a file is of.

    Raises:
        ModelFileError: There is none, or several say as much of it, or its name belongs to others.
    """
    best = _best(current, path, contents)
    shown = brief(str(path))
    named = [one for one in _all_formats(current) if path.suffix.lower() in one.format.suffixes and not contents.folder]
    if not best and path.suffix.lower() == ".py":
        raise ModelFileError(
            f"{shown!r} is code. Pass '{path.stem}:FUNCTION', the name of what makes the model in it; Python has to "
            f"find the module, so begin it in that folder or name the folder in PYTHONPATH."
        )
    if not best and named:
        names = " or ".join(dict.fromkeys(one.format.name for one in named))
        raise ModelFileError(f"{shown!r} is named like {names} and is none: it holds {contents}. Get the file again.")
    if not best:
        raise ModelFileError(f"{shown!r} holds no model that is known: it is {contents}. {_known(current)}")
    if len(best) > 1:
        names = " and ".join(one.format.name for one in best)
        raise ModelFileError(f"{shown!r} can be {names} at once, so it is not read. It holds {contents}.")
    (found,) = best
    if named and found not in named and found.format.suffixes:
        names = " or ".join(dict.fromkeys(one.format.name for one in named))
        raise ModelFileError(
            f"{shown!r} is named like {names} and holds {found.format.name}. If that is what you mean, give it such a "
            f"name ({', '.join(found.format.suffixes)})."
        )
    return found


def _best(current: Registry, path: Path, contents: Contents) -> list[_Found]:
    """The formats that fit and say most of what is there: one, none, or several that say as much."""
    ranks = [(rank, one) for one in _all_formats(current) if (rank := _rank(one.format, path, contents))]
    most = max((rank for rank, _ in ranks), default=None)
    return [one for rank, one in ranks if rank == most]


def _rank(form: ModelFormat, path: Path, contents: Contents) -> tuple[int, int] | None:
    """How many bytes and names of a file its format tells, if it fits."""
    fitting = [len(told) for one in form.begins if (told := _fitting(one, contents.head))]
    found = [any(fnmatchcase(name, pattern) for name in contents.members) for pattern in form.members]
    if form.folder is not contents.folder or not all(found) or bool(form.begins) is not bool(fitting):
        return None
    if not form.begins and not form.members and path.suffix.lower() not in form.suffixes:
        return None
    return max(fitting, default=0), len(found)


def _fitting(pattern: str, head: bytes) -> list[int]:
    """The bytes that a pattern names, where a file begins so; none where it does not."""
    told = [(place, int(one, 16)) for place, one in enumerate(pattern.split()) if one != "??"]
    fits = all(head[place : place + 1] == bytes([byte]) for place, byte in told)
    return [byte for _, byte in told] if fits else []


def _all_formats(current: Registry) -> Iterator[_Found]:
    for spec in known_frameworks(current).values():
        for form in spec.formats:
            yield _Found(spec, form)


def _known(current: Registry) -> str:
    """What could be read, and with what."""
    suffixes: dict[str, list[str]] = {}
    for spec, form in _all_formats(current):
        if not form.suffixes:
            continue
        at = "" if spec.name in current.frameworks else f" ({remedy(current, spec.name)})"
        suffixes.setdefault(at, []).extend(form.suffixes)
    listed = "; ".join(f"{', '.join(sorted(set(names)))}{at}" for at, names in sorted(suffixes.items()))
    return (
        f"Known are files that end in {listed}, and folders of saved models. Of any other kind pass "
        f"'package.module:factory', a function that reads it and gives the model."
    )


# Weights


def _load_weights(current: Registry, model: Any, path: Path) -> None:
    contents = look_into(path)
    framework = detect_framework(current, model).name
    best = _best(current, path, contents)
    own = [one for one in best if one.framework.name == framework and one.format.weights]
    if not own:
        taken = [one.format for one in _all_formats(current) if one.framework.name == framework and one.format.weights]
        described = "; ".join(f"{form.name} ({', '.join(form.suffixes)})" for form in taken)
        raise ModelFileError(
            f"{brief(str(path))!r} holds no weights for a model of {framework}: it is "
            f"{best[0].format.name if best else contents}. "
            + (f"Such models take {described}." if taken else "Let the factory load them itself.")
        )
    with _reading(current, *own[0], path):
        resolve(own[0].format.weights)(model, path)


# What a model is


def _require_model(current: Registry, model: Any, gave: str) -> Any:
    if _is_of_a_kind(current, model):
        return model
    try:
        detect_framework(current, model)
    except UnknownFrameworkError as error:
        hint = " Does it end in a return?" if model is None and gave.endswith("gave") else ""
        raise ArgumentError(
            f"{gave} {_describe(model)}, which is a model of no framework that is known.{hint} cfi.frameworks() lists "
            f"what models are."
        ) from error
    return model


def _is_of_a_kind(current: Registry, value: Any) -> bool:
    """Whether it is a model by its type, and no mere function."""
    specs: Sequence[Any] = (*known_frameworks(current).values(), *current.preparations.values())
    if any(find_type(module, name, value) for spec in specs for module, name in spec.model_types):
        return True
    return any(hasattr(value, name) for spec in known_frameworks(current).values() for name in spec.model_methods)


def _describe(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__module__}.{type(value).__qualname__}"
