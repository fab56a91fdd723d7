"""The user's call as given, with the toolset's own words sorted into their roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from cfi_core.errors import ArgumentError
from cfi_core.specs import UNIFORM_ARGUMENTS, Head, MethodSpec, Role, Translator


@dataclass(frozen=True, eq=False)
class Call:
    """One call of `cfi.attribute` or `cfi.visualize_features`.

    Attributes:
        own_target: The target is named in the toolset's own words (a score function).

    Raises:
        ArgumentError: `head`, `seed`, `init_args` or `exec_args` are of the wrong form.
    """

    model: Any
    method_key: str
    toolset: str | None = None
    inputs: Any = None
    target: Any = None
    layer: Any = None
    neuron: Any = None
    baselines: Any = None
    init_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    exec_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    translator: Translator = None
    head: str | None = None
    seed: int | None = None
    own_target: bool = False

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in tuple(Head):
            raise ArgumentError(f"head={self.head!r} is neither 'logit' nor 'output'.")
        seed = self.seed
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32):
            raise ArgumentError(f"seed={seed!r} is no integer between 0 and 2**32 - 1.")
        for name in ("init_args", "exec_args"):
            if not isinstance(getattr(self, name), Mapping):
                raise ArgumentError(
                    f"{name} must be a dict of the toolset's own arguments, not {getattr(self, name)!r}."
                )


def sort_arguments(call: Call, method: MethodSpec) -> Call:
    """Step 4 of a call: checks the arguments by name, and lifts own words into the uniform ones they mean.

    Args:
        call: As the user gave it.
        method: The method that is to run.

    Returns:
        The call with `inputs`, `target`, `layer`, `neuron` and `baselines` in their uniform places, and with
        only such own arguments left as have no uniform meaning.

    Raises:
        ArgumentError: An argument is unknown, given twice, required and missing, or has no meaning here.
    """
    lifted: dict[str, Any] = {name: getattr(call, name) for name in UNIFORM_ARGUMENTS}
    origin = {name: name for name, value in lifted.items() if value is not None}
    init_args = _own(call.init_args, "init_args", method.init_args, method, lifted, origin)
    exec_args = _own(call.exec_args, "exec_args", method.exec_args, method, lifted, origin)
    own_target = any(method.roles.get(name) is Role.OWN_TARGET for name in (*init_args, *exec_args))
    if own_target and lifted["target"] is not None:
        raise ArgumentError(
            f"{method.key} of {method.toolset} got its target twice: as {origin['target']!r} and in the toolset's own "
            f"words. Keep one of them."
        )
    understood = (*method.required, *method.optional)
    for name in origin:
        if name not in understood:
            raise ArgumentError(
                f"{method.key} of {method.toolset} takes no {origin[name]!r}. It understands "
                f"{', '.join(understood)}; leave {origin[name]!r} out."
            )
    for name in method.required:
        # A missing layer is no error: the call ends in a PendingLayer.
        if name != "layer" and lifted[name] is None:
            raise ArgumentError(_missing(name, method))
    return replace(call, **lifted, init_args=init_args, exec_args=exec_args, own_target=own_target)


def _own(
    given: Mapping[str, Any],
    where: str,
    names: tuple[str, ...],
    method: MethodSpec,
    lifted: dict[str, Any],
    origin: dict[str, str],
) -> Mapping[str, Any]:
    rest: dict[str, Any] = {}
    for name, value in given.items():
        role = method.roles.get(name)
        uniform: str | None = role.value if role is not None and role.value in UNIFORM_ARGUMENTS else None
        if uniform is None and role is None and name in UNIFORM_ARGUMENTS and name not in names:
            uniform = name
        if uniform is None and name not in names:
            raise ArgumentError(_unknown(name, where, names, method))
        if uniform is None:
            rest[name] = value
        elif value is not None:
            if uniform in origin:
                raise ArgumentError(
                    f"{uniform!r} is given twice: as {origin[uniform]!r} and as {where}[{name!r}]. Keep one of them."
                )
            lifted[uniform], origin[uniform] = value, f"{where}[{name!r}]"
    return MappingProxyType(rest)


def _unknown(name: str, where: str, names: tuple[str, ...], method: MethodSpec) -> str:
    message = f"{method.key} of {method.toolset} takes no {where}[{name!r}]."
    other = "exec_args" if where == "init_args" else "init_args"
    others = method.exec_args if where == "init_args" else method.init_args
    if name in others:
        return f"{message} It belongs into {other}."
    near = get_close_matches(name, names, n=3)
    if near:
        return f"{message} Nearest: {', '.join(near)}."
    return f"{message} {where} may hold: {', '.join(names) or 'nothing'}."


def _missing(name: str, method: MethodSpec) -> str:
    hint = {
        "inputs": "pass inputs= with the samples to explain, sample axis first",
        "target": "pass target= with the class index, one per sample, a tuple into the output or a callable",
        "neuron": "pass neuron= with the index of one unit of the layer's output, in your model's axis order",
        "baselines": "pass baselines= with reference inputs, in your model's axis order",
    }[name]
    return f"{method.key} of {method.toolset} needs {name!r}: {hint}."
