"""The adapters of frameworks, made when they are first needed, and tensors of whatever framework."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from cfi_core.boundary import make_adapter
from cfi_core.coexistence import load_safely
from cfi_core.errors import InputError, UnknownFrameworkError
from cfi_core.frameworks.axes import Permutation, permute
from cfi_core.frameworks.base import FrameworkAdapter
from cfi_core.registry import Registry

_adapters: dict[str, FrameworkAdapter] = {}


def adapter_for(registry: Registry, framework: str) -> FrameworkAdapter:
    """The adapter of a framework; imports the framework.

    Raises:
        UnknownFrameworkError: The framework is not installed, or its adapter does not load.
    """
    spec = registry.frameworks.get(framework)
    if spec is None:
        raise UnknownFrameworkError(
            f"No plugin describes the framework {framework!r}; known are {', '.join(sorted(registry.frameworks))}."
        )
    if spec.adapter not in _adapters:
        if spec.module not in sys.modules and find_spec(spec.module) is None:
            raise UnknownFrameworkError(f"{framework} is not usable here: no module {spec.module!r} is installed.")
        load_safely()
        _adapters[spec.adapter] = make_adapter(spec, registry.origin_of(spec).label)
    return _adapters[spec.adapter]


def is_instance(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class that is named, not imported: of a module that is not loaded it cannot be."""
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(value, found)


def framework_of_tensor(registry: Registry, value: Any) -> str | None:
    """The framework that a tensor belongs to; None for anything else."""
    for spec in registry.frameworks.values():
        if any(is_instance(value, module, name) for module, name in spec.tensor_types):
            return spec.name
    return None


def is_array(registry: Registry, value: Any) -> bool:
    """Whether the value is a numpy array or a tensor of a known framework."""
    return isinstance(value, np.ndarray) or framework_of_tensor(registry, value) is not None


def as_array(registry: Registry, value: Any, name: str) -> np.ndarray:
    """The values as a numpy array.

    Args:
        registry: What is installed.
        value: An array, a tensor of any known framework, nested lists or a number.
        name: What messages call it.

    Raises:
        InputError: They are no array of numbers.
    """
    framework = framework_of_tensor(registry, value)
    if framework is not None:
        return adapter_for(registry, framework).to_numpy(value)
    if isinstance(value, dict):
        raise InputError(f"{name} is a dict. Pass a tuple of arrays in the order of the model's inputs.")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is no array: {error}. Pass an array with the sample axis first.") from error
    if array.dtype.kind not in "fiub" or array.ndim == 0:
        raise InputError(f"{name} holds {array.dtype} of shape {array.shape}; pass an array of numbers, samples first.")
    return array


def as_arrays(registry: Registry, value: Any) -> tuple[Any, ...]:
    """One entry for each model input: a tuple or list of arrays is several inputs, anything else one."""
    if isinstance(value, list | tuple) and value and all(is_array(registry, entry) for entry in value):
        return tuple(value)
    return (value,)


def as_tensor(
    registry: Registry, adapter: FrameworkAdapter, model: Any, value: Any, axes: Permutation | Sequence[int]
) -> Any:
    """A fresh tensor of the adapter's framework with permuted axes, without a detour where it already is one."""
    axes = None if axes is None else tuple(axes)
    if adapter.is_tensor(value):
        tensor = adapter.tensor(value, model)
        return tensor if axes is None else adapter.permute(tensor, axes)
    return adapter.tensor(permute(as_array(registry, value, "an array"), axes), model)
