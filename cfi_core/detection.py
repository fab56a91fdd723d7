"""Step 2 of a call: tell which framework a model lives in, without importing any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cfi_core.adapters import adapter_for, check_installed, find_type, framework_of_tensor, known_frameworks
from cfi_core.columns import take_table
from cfi_core.errors import UnknownFrameworkError, brief
from cfi_core.mistaken import describe_mistaken, is_optimizer
from cfi_core.naming import name_inputs
from cfi_core.records import Arguments, Original
from cfi_core.registry import Registry
from cfi_core.specs import FrameworkSpec, MethodSpec, Need, Role
from cfi_core.strings import hold_strings


def find_original(registry: Registry, arguments: Arguments, methods: Sequence[MethodSpec]) -> Original:
    """The user's model, loaded (see `load_original`); a plain function's framework is told by the inputs."""
    roles = (Role.INPUTS, Role.ONE_OR_SEVERAL)
    own = (value for method in methods for role in roles for value in arguments.of_role(role, method))
    inputs = next(own, None) if arguments.inputs is None else arguments.inputs
    baselines = arguments.baselines
    if baselines is None:  # in the toolset's own words, then
        own = (arguments.own.get(name) for name in ("baselines", *_names_of(Role.BASELINES, methods)))
        baselines = next((value for value in own if value is not None), None)
    gradients = any(Need.INPUT_GRADIENT in method.needs for method in methods)
    return load_original(registry, arguments.model, inputs, arguments.explain, baselines, gradients=gradients)


def _names_of(role: Role, methods: Sequence[MethodSpec]) -> list[str]:
    return [name for method in methods for name, one in method.roles.items() if one is role]


def load_original(
    registry: Registry,
    model: Any,
    inputs: Any = None,
    explain: Sequence[str] | None = None,
    baselines: Any = None,
    *,
    gradients: bool = False,
) -> Original:
    """A model, loaded, with its framework (see `detect_framework`) and the framework's adapter.

    Where inputs are given by name or as a table, it takes them so (see `cfi_core.naming.name_inputs` and
    `cfi_core.columns.take_table`; where words are to be held beside what is differentiated, `cfi_core.strings`).
    """
    framework = detect_framework(registry, model, inputs).name
    adapter = adapter_for(registry, framework)
    original = Original(framework, adapter, adapter.load(model))
    if gradients and (held := hold_strings(registry, original, inputs, explain)).coded:
        return held
    original = take_table(registry, original, inputs, explain, baselines)
    return original if original.table else name_inputs(registry, original, inputs, explain)


def detect_framework(registry: Registry, model: Any, inputs: Any = None) -> FrameworkSpec:
    """The framework whose model types the model is an instance of, or whose files the path names.

    A model that is of several types is one of the framework with the most special type. Any other callable is a
    function of the tensors that the inputs are; of numpy arrays, if they are no tensors.

    Raises:
        UnknownFrameworkError: There is none, or more than one, or the plugin for it is not installed.
    """
    if is_optimizer(model):
        raise UnknownFrameworkError(describe_mistaken(registry, model))
    known = known_frameworks(registry).values()
    types = {spec.name: [kind for pair in spec.model_types if (kind := find_type(*pair, model))] for spec in known}
    matches = [spec for spec in known if types[spec.name] and not _is_surpassed(spec.name, types)]
    if isinstance(model, str | Path):
        matches = [spec for spec in known if Path(model).suffix in spec.file_suffixes]
    if len(matches) > 1:
        names = " and ".join(sorted(spec.name for spec in matches))
        raise UnknownFrameworkError(
            f"The model ({_describe(model)}) is a model of {names} at once. Pass a function that calls it: it is of "
            f"the framework that its inputs are of."
        )
    specs = registry.frameworks.values()
    if not matches and callable(model) and not isinstance(model, type):
        parts = inputs.values() if isinstance(inputs, Mapping) else inputs
        parts = parts if isinstance(parts, list | tuple) or parts is not inputs else (inputs,)
        found = (framework_of_tensor(registry, part) for part in parts)
        name = next(filter(None, found), "numpy")
        matches = [spec for spec in specs if spec.name == name and spec.takes_functions]
    if not matches and not isinstance(model, type):
        matches = [spec for spec in specs if any(hasattr(model, name) for name in spec.model_methods)]
    if not matches:
        if mistaken := describe_mistaken(registry, model):
            raise UnknownFrameworkError(mistaken)
        described = "; ".join(f"{spec.name}: {spec.models}" for spec in specs if spec.models)
        raise UnknownFrameworkError(
            f"{_describe(model)} is a model of no known framework. Known are {described}. Pass one of these, or "
            f"install a plugin for its framework."
        )
    check_installed(registry, matches[0], f"{_describe(model)} is a model of {matches[0].name}")
    return matches[0]


def _is_surpassed(name: str, types: dict[str, list[type]]) -> bool:
    """Whether another framework's type is derived from one of this framework's, and so says more of the model."""
    others = [kind for other, theirs in types.items() if other != name for kind in theirs]
    return any(issubclass(special, one) and special is not one for special in others for one in types[name])


def _describe(model: Any) -> str:
    if isinstance(model, str | Path):
        return f"The path {brief(str(model))!r}"
    kind = type(model)
    return f"An object of type {kind.__module__}.{kind.__qualname__}"
