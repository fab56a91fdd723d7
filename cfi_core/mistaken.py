"""What was passed in the place of a model, and what to pass instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cfi_core.adapters import find_class, find_type, framework_of_tensor, known_frameworks
from cfi_core.errors import CFIError, brief
from cfi_core.registry import Registry

_HOLDERS = ("model", "module", "lightning_module", "network", "net", "best_estimator_", "estimator")
"""Attributes under which what trains a model, or wraps it, holds it."""
_DEPTH = 3
"""How far into dicts of dicts weights are looked for."""


def describe_mistaken(registry: Registry, model: Any) -> str:
    """What the object is that is no model, and what to do, in one or two sentences; empty where nothing is known."""
    if model is None:
        return "The model is None. Pass the model itself; a function that made it may have returned nothing."
    if isinstance(model, type):
        return _describe_class(registry, model)
    if isinstance(model, str | Path):
        return _describe_path(model)
    if isinstance(model, Mapping):
        return _describe_mapping(registry, model)
    if isinstance(model, list | tuple | set | frozenset):
        return _describe_several(registry, model)
    if hasattr(model, "__array__") or framework_of_tensor(registry, model):
        return (
            f"The model is a {type(model).__name__} of numbers. The model comes first, then the key of the method; "
            f"what is explained is passed by name: cfi.attribute(model, 'saliency', inputs=…)."
        )
    return _describe_holder(registry, model)


def _describe_class(registry: Registry, model: type) -> str:
    if not _is_model_class(registry, model):
        return ""
    return (
        f"The model is the class {model.__qualname__}, and no instance of it. Make one (model = {model.__name__}(…)), "
        f"load its weights, and pass that."
    )


def _describe_path(model: str | Path) -> str:
    path, shown = Path(model), repr(brief(str(model)))
    is_file, is_folder = _look(path)
    if is_file or (is_folder and str(model)) or path.suffix[1:].isalnum():
        missing = "" if is_file or is_folder else f" There is no {shown} in {brief(str(Path.cwd()))!r}, though."
        return f"The model is the path {shown}. cfi.load_model({shown}) gives the model of a file; pass that.{missing}"
    return (
        f"The model is the string {shown}, which is no path of a model's file. Pass the model itself, or the path of a "
        f"file to cfi.load_model."
    )


def _look(path: Path) -> tuple[bool, bool]:
    """Whether it is a file, and whether it is a folder."""
    try:
        return path.is_file(), path.is_dir()
    except (OSError, ValueError):  # no name that files can have
        return False, False


def _describe_mapping(registry: Registry, model: Mapping[Any, Any]) -> str:
    held = [key for key, value in model.items() if _is_model(registry, value)]
    if held:
        return f"The model is a dict that holds one: pass what stands under {held[0]!r}."
    if _is_weights(registry, model):
        names = ", ".join(map(repr, list(model)[:3]))
        return (
            f"The model is a dict of weights by name ({names}, …; a state dict), which does not say what is computed "
            f"with them. Make the model, load them into it (such as model.load_state_dict(weights)), and pass it."
        )
    inside = [key for key, value in model.items() if isinstance(value, Mapping) and _is_weights(registry, value)]
    if inside:
        return (
            f"The model is a checkpoint: a dict of {', '.join(map(repr, list(model)[:6]))}, whose weights stand under "
            f"{inside[0]!r}. Make the model, load them into it (such as "
            f"model.load_state_dict(checkpoint[{inside[0]!r}])), and pass the model."
        )
    return (
        f"The model is a {type(model).__name__} of {', '.join(map(repr, list(model)[:6])) or 'nothing'}. Pass a model."
    )


def _is_weights(registry: Registry, model: Mapping[Any, Any], depth: int = _DEPTH) -> bool:
    """Whether a dict holds arrays alone, or dicts of such."""
    values = list(model.values())
    return bool(values) and all(
        (depth > 0 and isinstance(value, Mapping) and _is_weights(registry, value, depth - 1))
        or hasattr(value, "__array__")
        or bool(_tensor_of(registry, value))
        for value in values
    )


def _tensor_of(registry: Registry, value: Any) -> str | None:
    try:
        return framework_of_tensor(registry, value)
    except CFIError:  # of a framework whose plugin is missing: a tensor all the same
        return type(value).__name__


def _describe_several(registry: Registry, model: Iterable[Any]) -> str:
    parts = list(model)
    kind = type(model).__name__
    if parts and all(_is_model(registry, part) for part in parts):
        return f"The model is a {kind} of {len(parts)} models. Pass one of them, or all to cfi.compare."
    kinds = ", ".join(sorted({type(part).__name__ for part in parts})[:4]) or "nothing"
    return f"The model is a {kind} of {kinds}. Pass a model."


def _describe_holder(registry: Registry, model: Any) -> str:
    kind = type(model).__name__
    if is_optimizer(model):
        return (
            f"The model is an optimizer ({kind}), which knows weights and not what is computed with them. Pass the "
            f"model that it trains."
        )
    for name in _HOLDERS:
        try:
            held = getattr(model, name, None)
        except Exception:  # noqa: BLE001 - properties of objects of any kind, which may ask for a run that never was
            continue
        if _is_model(registry, held):
            return f"The model is a {kind}, which holds a {type(held).__name__}: pass its .{name}."
    return ""


def is_optimizer(value: Any) -> bool:
    """Whether it is an optimizer of whatever library; some libraries' have methods of models, too."""
    kinds = [kind.__name__.lower() for kind in type(value).__mro__]
    return not callable(value) and any(kind.endswith("optimizer") for kind in kinds)


def _is_model(registry: Registry, value: Any) -> bool:
    return any(find_type(*pair, value) for spec in known_frameworks(registry).values() for pair in spec.model_types)


def _is_model_class(registry: Registry, kind: type) -> bool:
    found = (find_class(*pair) for spec in known_frameworks(registry).values() for pair in spec.model_types)
    return any(issubclass(kind, one) for one in found if one) or hasattr(kind, "predict")
