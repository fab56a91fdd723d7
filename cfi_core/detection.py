"""Step 2 of a call: tell which framework a model lives in, without importing any."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cfi_core.coexistence import load_safely
from cfi_core.errors import UnknownFrameworkError
from cfi_core.frameworks.base import FrameworkAdapter
from cfi_core.registry import Registry
from cfi_core.specs import FrameworkSpec, resolve

_adapters: dict[str, FrameworkAdapter] = {}


_FUNCTIONS_FALL_TO = "numpy"


def detect_framework(registry: Registry, model: Any, inputs: Any = None) -> FrameworkSpec:
    """The framework whose model types the model is an instance of, or whose files the path names.

    Any other callable is a function of the tensors that the inputs are; of numpy arrays, if they are no tensors.

    Raises:
        UnknownFrameworkError: There is none, or more than one.
    """
    matches = [spec for spec in registry.frameworks.values() if _is_model(spec, model)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(sorted(registry.frameworks))
    if matches:
        names = " and ".join(sorted(spec.name for spec in matches))
        raise UnknownFrameworkError(
            f"The model ({_describe(model)}) is a model of {names} at once. A Keras model is understood with "
            f"the tensorflow backend only: set KERAS_BACKEND=tensorflow before importing keras."
        )
    if callable(model) and not isinstance(model, type):
        spec = registry.frameworks.get(_framework_of_inputs(registry, inputs) or _FUNCTIONS_FALL_TO)
        if spec is not None and spec.takes_functions:
            return spec
    raise UnknownFrameworkError(
        f"{_describe(model)} is a model of no known framework ({known}). Pass a torch.nn.Module, a Keras 3 model, "
        f"an onnx.ModelProto, the path of an .onnx file or a function, or install a plugin for its framework."
    )


def adapter_for(registry: Registry, framework: str) -> FrameworkAdapter:
    """The adapter of a framework; imports the framework.

    Raises:
        UnknownFrameworkError: The framework is not installed.
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
        _adapters[spec.adapter] = resolve(spec.adapter)()
    return _adapters[spec.adapter]


def framework_of_tensor(registry: Registry, value: Any) -> str | None:
    """The framework that a tensor belongs to; None for anything else."""
    for spec in registry.frameworks.values():
        if any(_is_instance(value, module, name) for module, name in spec.tensor_types):
            return spec.name
    return None


def _framework_of_inputs(registry: Registry, inputs: Any) -> str | None:
    parts = inputs if isinstance(inputs, list | tuple) else (inputs,)
    return next((name for part in parts if (name := framework_of_tensor(registry, part)) is not None), None)


def _is_model(spec: FrameworkSpec, model: Any) -> bool:
    if isinstance(model, str | Path):
        return Path(model).suffix in spec.file_suffixes
    return any(_is_instance(model, module, name) for module, name in spec.model_types)


def _is_instance(value: Any, module: str, name: str) -> bool:
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(value, found)


def _describe(model: Any) -> str:
    if isinstance(model, str | Path):
        return f"The path {str(model)!r}"
    kind = type(model)
    return f"An object of type {kind.__module__}.{kind.__qualname__}"
