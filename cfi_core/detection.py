"""Step 2 of a call: tell which framework a model lives in, without importing any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfi_core.adapters import adapter_for, framework_of_tensor, is_instance
from cfi_core.errors import UnknownFrameworkError
from cfi_core.records import Arguments, Original
from cfi_core.registry import Registry
from cfi_core.specs import FrameworkSpec, MethodSpec, Role

_FUNCTIONS_FALL_TO = "numpy"


def find_original(registry: Registry, arguments: Arguments, methods: Sequence[MethodSpec]) -> Original:
    """The user's model, loaded, with its framework and the framework's adapter.

    Raises:
        UnknownFrameworkError: It is of no known framework, or of several.
    """
    return load_original(registry, arguments.model, _given_inputs(arguments, methods))


def load_original(registry: Registry, model: Any, inputs: Any = None) -> Original:
    """A model, loaded, with its framework and the framework's adapter; `inputs` tell it for a plain function.

    Raises:
        UnknownFrameworkError: It is of no known framework, or of several.
    """
    framework = detect_framework(registry, model, inputs).name
    adapter = adapter_for(registry, framework)
    return Original(framework, adapter, adapter.load(model))


def detect_framework(registry: Registry, model: Any, inputs: Any = None) -> FrameworkSpec:
    """The framework whose model types the model is an instance of, or whose files the path names.

    Any other callable is a function of the tensors that the inputs are; of numpy arrays, if they are no tensors.

    Raises:
        UnknownFrameworkError: There is none, or more than one.
    """
    matches = [spec for spec in registry.frameworks.values() if _is_model(spec, model)]
    if len(matches) == 1:
        return matches[0]
    for contested in registry.contested_frameworks():
        if _is_model(contested, model):
            registry.frameworks[contested.name]  # raises: two plugins claim it
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


def _given_inputs(arguments: Arguments, methods: Sequence[MethodSpec]) -> Any:
    """The inputs, in whichever words they were given."""
    if arguments.inputs is not None:
        return arguments.inputs
    own = arguments.exec_args or {}
    names = (name for method in methods for name, role in method.roles.items() if role is Role.INPUTS)
    return next((own[name] for name in names if name in own), None)


def _framework_of_inputs(registry: Registry, inputs: Any) -> str | None:
    parts = inputs if isinstance(inputs, list | tuple) else (inputs,)
    return next((name for part in parts if (name := framework_of_tensor(registry, part)) is not None), None)


def _is_model(spec: FrameworkSpec, model: Any) -> bool:
    if isinstance(model, str | Path):
        return Path(model).suffix in spec.file_suffixes
    return any(is_instance(model, module, name) for module, name in spec.model_types)


def _describe(model: Any) -> str:
    if isinstance(model, str | Path):
        return f"The path {str(model)!r}"
    kind = type(model)
    return f"An object of type {kind.__module__}.{kind.__qualname__}"
