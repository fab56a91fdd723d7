"""The adapters of frameworks, made when they are first needed, and what models and tensors are told by."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

import numpy as np

from cfi_core.boundary import foreign
from cfi_core.catalogue import DISTRIBUTION_OF_FRAMEWORK, FRAMEWORKS
from cfi_core.coexistence import load_safely
from cfi_core.errors import FOREIGN, ArgumentError, InputError, UnknownFrameworkError, brief, summary
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.progress import phase
from cfi_core.registry import Registry
from cfi_core.specs import FrameworkSpec, resolve

_OF_SPARSE = ("toarray", "to_tensor")
"""Methods of arrays that are sparse or ragged, in whatever library."""

_adapters: dict[str, FrameworkAdapter] = {}


def adapter_for(registry: Registry, framework: str) -> FrameworkAdapter:
    """The adapter of a framework; imports the framework.

    Raises:
        UnknownFrameworkError: The framework or the plugin for it is not installed, or its adapter does not load.
    """
    spec = registry.frameworks.get(framework)
    if spec is None:
        raise UnknownFrameworkError(
            f"No plugin describes the framework {framework!r}; known are {', '.join(sorted(registry.frameworks))}."
            + (f" {remedy(registry, framework)}." if framework in FRAMEWORKS else "")
        )
    if spec.adapter not in _adapters:
        if not is_importable(spec.module):
            raise UnknownFrameworkError(f"{framework} is not usable here: no module {spec.module!r} is installed.")
        with phase(f"loading {framework}"):
            load_safely(registry)
        origin = registry.origin_of(spec).label
        advice = f"Models of {framework} cannot be used until {origin} is updated or uninstalled; all others can."
        with foreign(UnknownFrameworkError, f"The adapter of {framework} in {origin} does not load", advice):
            _adapters[spec.adapter] = resolve(spec.adapter, framework)()
    return _adapters[spec.adapter]


def find_framework(registry: Registry, name: str) -> FrameworkSpec:
    """The framework of that name.

    Raises:
        ArgumentError: There is none; says what it is called, or which plugin brings it.
    """
    known = known_frameworks(registry)
    for spec in known.values():
        if name in spec.aliases:
            raise ArgumentError(f"{name!r} models are of the framework {spec.name!r}: pass {spec.name!r}.")
    if name in registry.frameworks:
        return registry.frameworks[name]
    if name in known:
        raise ArgumentError(f"Nothing installed understands {name} models: {remedy(registry, name)}.")
    raise ArgumentError(f"There is no framework {name!r}; known are {', '.join(sorted(registry.frameworks))}.")


def framework_of_tensor(registry: Registry, value: Any) -> str | None:
    """The framework that a tensor belongs to; None for anything else.

    Raises:
        UnknownFrameworkError: The plugin for it is not installed.
    """
    for spec in known_frameworks(registry).values():
        if any(find_type(*names, value) for names in spec.tensor_types):
            check_installed(registry, spec, f"A {type(value).__qualname__} is a tensor of {spec.name}")
            return spec.name
    return None


def as_array(registry: Registry, value: Any, name: str) -> np.ndarray:
    """An array, a tensor of any known framework or nested lists as a numpy array, which messages call by that name.

    Raises:
        InputError: They are no array of numbers, or one with values left out.
    """
    framework = framework_of_tensor(registry, value)
    if framework is not None:
        return _read(adapter_for(registry, framework), value, name)
    if isinstance(value, dict):
        raise InputError(f"{name} is a dict. Pass a tuple of arrays in the order of the model's inputs.")
    if is_masked(value):
        raise InputError(
            f"{name} is a masked array, and its mask would be lost. Fill it with a value that the model knows "
            f"(x.filled(0)), or pass the mask as an input of its own."
        )
    if any(hasattr(value, method) for method in _OF_SPARSE) or "Sparse" in type(value).__name__:
        raise InputError(
            f"{name} is a {type(value).__name__}, which is no dense array. Make it one first (such as x.toarray() of "
            f"sparse, x.to_tensor() of ragged ones)."
        )
    if said := _describe_no_array(value):
        raise InputError(f"{name} {said}")
    try:
        array = np.asarray(value)
    except FOREIGN as error:  # objects of any library refuse in their own way
        raise InputError(f"{name} is no array ({summary(error)}). Pass an array with the sample axis first.") from error
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise InputError(f"{name} holds {array.dtype} of shape {array.shape}; pass an array of numbers, samples first.")
    return array


def _describe_no_array(value: Any) -> str:
    """What the object is that people pass for an array, and how to make one of it; empty for any other."""
    parts = value if isinstance(value, list | tuple) else (value,)
    first, several = (parts[0] if len(parts) else None), isinstance(value, list | tuple)
    if isinstance(first, PurePath) or (isinstance(first, str) and PurePath(first).suffix[1:].isalnum()):
        what = f"is a list of {len(parts)} paths" if several else f"is the path {brief(str(first))!r}"
        return (
            f"{what}, and the model takes an array of numbers. Read the file and prepare it as in training; of a "
            f"picture, for example, np.asarray(Image.open(path), 'float32') / 255, samples first."
        )
    if isinstance(first, str) and " " in first:
        what = f"is a list of {len(parts)} texts" if several else "is a text"
        return f"{what}, and the model takes an array of numbers. Pass tokens, or a pipeline that makes them of texts."
    if _is_picture(first):
        what = f"is a list of {len(parts)} pictures" if several else f"is a picture ({type(first).__name__})"
        return (
            f"{what}, whose numbers the model takes only when they are prepared as it was trained. Make arrays of one "
            f"size and stack them, samples first: np.stack([np.asarray(picture, 'float32') / 255 for picture in "
            f"pictures]), with the mean, scale and axis order that your model needs."
        )
    if not isinstance(value, list | tuple | str | bytes | Mapping) and _gives_batches(value):
        return (
            f"is a {type(value).__name__}, which gives batches or samples one after the other. Pass the inputs of one "
            f"batch, without its labels: next(iter(loader))[0]."
        )
    return ""


def _is_picture(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("mode", "size", "convert", "getbands"))


def _gives_batches(value: Any) -> bool:
    """Whether it is a data loader, a data set or a generator, rather than one batch."""
    if hasattr(value, "__array__") or hasattr(value, "dtype"):
        return False
    is_sequence = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return is_sequence or any(hasattr(value, name) for name in ("__next__", "element_spec", "dataset"))


def is_masked(value: Any) -> bool:
    """Whether this is a masked array of numpy, or a sequence of some, of which something is left out."""
    parts = value if isinstance(value, list | tuple) else (value,)
    return any(np.ma.is_masked(part) for part in parts)


def _read(adapter: FrameworkAdapter, tensor: Any, name: str) -> np.ndarray:
    if reason := adapter.unreadable(tensor):
        raise InputError(f"{name} {reason}.")
    try:
        return adapter.to_numpy(tensor)
    except FOREIGN as error:  # subclasses of tensors refuse in their own way
        kind = f"{type(tensor).__name__} of {getattr(tensor, 'dtype', 'no type')}"
        raise InputError(
            f"{name} is a {kind} that cannot be read as an array ({summary(error)}). Pass a dense one of plain numbers."
        ) from error


def is_array(registry: Registry, value: Any) -> bool:
    """Whether the value is an array of numpy or a tensor of any known framework."""
    return isinstance(value, np.ndarray) or framework_of_tensor(registry, value) is not None


def is_number(value: Any) -> bool:
    """Whether the value is one number, also in an array or tensor without axes."""
    if isinstance(value, np.ndarray | np.generic):
        return value.ndim == 0 and value.dtype.kind in "biuf"
    try:
        shape = getattr(value, "shape", None)
        return isinstance(value, int | float) if shape is None else len(shape) == 0
    except FOREIGN:  # a nested tensor has none, and what a class or a module calls so is none
        return False


def number(registry: Registry, value: Any) -> int | float:
    """One number (see `is_number`) as one of Python's: toolsets take these alone, or arrays with axes."""
    is_tensor = framework_of_tensor(registry, value) is not None
    plain: int | float = (as_array(registry, value, "a number") if is_tensor else np.asarray(value)).item()
    return plain


def as_arrays(registry: Registry, value: Any) -> tuple[Any, ...]:
    """One entry for each model input: a tuple or list of arrays is several inputs, anything else one."""
    parts = value if isinstance(value, list | tuple) else ()
    several = all(is_array(registry, part) for part in parts)
    return tuple(parts) if parts and several else (value,)


def known_frameworks(registry: Registry) -> dict[str, FrameworkSpec]:
    """All frameworks that installed plugins describe, and those of the project's own plugins that are missing."""
    return {**FRAMEWORKS, **registry.contested_frameworks(), **registry.frameworks}


def check_installed(registry: Registry, spec: FrameworkSpec, what: str) -> None:
    """Refuses what only a plugin that is missing could understand, or what two plugins claim.

    Raises:
        PluginConflictError: Two plugins claim the framework.
        UnknownFrameworkError: Names the distribution to install.
    """
    if spec.name not in registry.frameworks:
        raise UnknownFrameworkError(f"{what}, which nothing installed understands: {remedy(registry, spec.name)}.")


def remedy(registry: Registry, framework: str) -> str:
    """What to do about a framework whose plugin is missing."""
    distribution = DISTRIBUTION_OF_FRAMEWORK[framework]
    absent = [plugin for plugin in registry.plugins if plugin.distribution == distribution and not plugin.loaded]
    return f"{distribution} was {absent[0].state}" if absent else f"pip install {distribution}"


def find_type(module: str, name: str, value: Any) -> type | None:
    """The class of that name, if the value is of it; of a module that is not loaded it cannot be."""
    found = find_class(module, name)
    return found if found and isinstance(value, found) else None


def find_class(module: str, name: str) -> type | None:
    """The class of that name; None if its module is not loaded."""
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def is_importable(module: str) -> bool:
    """Whether a module is installed; it is not imported, and may be hidden (`sys.modules["module"] = None`)."""
    return sys.modules[module] is not None if module in sys.modules else find_spec(module) is not None
