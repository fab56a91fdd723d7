"""One call of a library, made again through CFI: on the model as it is, and on what becomes of it elsewhere."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import tally as counted
import tensorflow as tf
import torch

import cfi_core as cfi
from cfi_core.framework.axes import inverse
from cfi_core.specs import Kind, Role

NATIVE, BRIDGE, CONVERSION = ROUTES = ("native", "bridge", "conversion")
SEED = 0
_DRAWS, _BITS = 8, 8

Library = Callable[[Mapping[str, Any], bool], list[Any]]
_Given = TypeVar("_Given", bound=list[Any])
"""Makes the library's call again with these arguments, in double precision if asked for."""


class NotAsked(Exception):
    """What this benchmark cannot put to the model in the other framework."""


@dataclass(frozen=True)
class Asked:
    """A call in the library's own words.

    Attributes:
        model: Of the library's framework.
        key: The method.
        toolset: The library.
        init_args: Of the constructor.
        exec_args: Of the call.
        read: The attribution's values as the library orders them.
        elsewhere: What takes the place of some of `exec_args` on a translated model.
    """

    model: Any
    key: str
    toolset: str
    init_args: Mapping[str, Any]
    exec_args: Mapping[str, Any]
    read: Callable[[cfi.Attribution], list[Any]]
    elsewhere: Mapping[str, Any] = field(default_factory=dict)

    def attribute(self, translator: str | None = None) -> Values:
        """What CFI gives to users who want exactly what the library's own users get."""
        call = cfi.visualize_features if self.key == "activation_maximization" else cfi.attribute
        result = call(
            self.model,
            self.key,
            self.toolset,
            init_args=dict(self.init_args),
            exec_args=dict(self.exec_args),
            translator=translator,
            defaults="toolset",
            seed=SEED,
        )
        if isinstance(result, cfi.PendingLayer):
            raise NotAsked("no layer is named")
        return Values(self.read(result), repaired=_is_repaired(result.provenance))


class Values(list[Any]):
    """What CFI gives; `repaired` where it rewrote the model for the method's rules, and what that gives adds up."""

    def __init__(self, values: Sequence[Any], *, repaired: bool) -> None:
        super().__init__(values)
        self.repaired = repaired


def _is_repaired(provenance: Mapping[str, Any]) -> bool:
    sums = provenance.get("completeness") or {}
    adds_up = sums.get("gap") is not None and sums["gap"] <= sums["bound"]
    return bool(provenance.get("repaired")) and adds_up


class Benchmark:
    """Makes each call once more by the library itself, with seeded generators, and over each route by CFI.

    Attributes:
        tally: What came of it.
        routes: Those to go over.
        other: The framework to go to and come back from.
    """

    def __init__(self, tally: counted.Tally, routes: Sequence[str], other: str) -> None:
        self.tally = tally
        self.routes = routes
        self.other = other
        self.inside = False

    def repeat(self, asked: Asked, library: Library, error: BaseException | None) -> None:
        """Compares; `error` is what the library's call in the test raised."""
        self.inside = True
        try:
            with _apart():
                expected = [] if error is not None else _seeded(lambda: library(asked.exec_args, False))
                for route in self.routes:
                    self._one(asked, route, library, expected, error)
        finally:
            self.inside = False

    def _one(
        self, asked: Asked, route: str, library: Library, expected: list[Any], failed: BaseException | None
    ) -> None:
        name = asked.key + ("/" + str(asked.init_args["method"]) if asked.key == "noise_tunnel" else "")
        try:
            if route == NATIVE:
                values = _seeded(asked.attribute)
            elif failed is not None:
                return
            else:
                values = _seeded(lambda: abroad(asked, self.other, route))
        except cfi.CFIError as error:
            self.tally.note(name, route, counted.REFUSED if failed is None else counted.NEITHER, error)
        except NotAsked as error:
            self.tally.note(name, route, counted.NOT_ASKED, error)
        except Exception as error:  # noqa: BLE001 - that is what is counted
            self.tally.note(name, route, counted.UNTYPED, error)
        else:
            if failed is None:
                floor = _own_draws if route == NATIVE else _floor
                self.tally.compare(
                    name, route, expected, values, lambda: floor(asked, library, expected), repaired=values.repaired
                )
            else:
                self.tally.note(name, route, counted.SERVED, failed)


def _own_draws(asked: Asked, library: Library, expected: list[Any]) -> float:
    """How far the library is from itself when called again: some of it draws from generators that take no seed."""
    return max(counted.difference(expected, _seeded(lambda: library(asked.exec_args, False)))[1] for _ in range(2))


def _floor(asked: Asked, library: Library, expected: list[Any]) -> float:
    """How far the library is from itself when its inputs change in their last bits, or all is in double precision."""
    name = "inputs" if "inputs" in asked.exec_args else "seed_input"
    given, farthest, step = asked.exec_args[name], 0.0, _step(asked.model)
    generator = np.random.default_rng(SEED)

    def nudged(part: Any) -> Any:
        array = np.asarray(part.detach() if isinstance(part, torch.Tensor) else part)
        if array.dtype.kind != "f":
            return part
        last = _BITS * max(step, np.finfo(array.dtype).eps) * np.abs(array).max(initial=0)
        array = (array + last * generator.uniform(-1, 1, array.shape)).astype(array.dtype)
        return torch.tensor(array).requires_grad_(part.requires_grad) if isinstance(part, torch.Tensor) else array

    for _ in range(_DRAWS):
        changed = type(given)(map(nudged, given)) if isinstance(given, tuple | list) else nudged(given)
        values = _seeded(lambda inputs=changed: library({**asked.exec_args, name: inputs}, False))
        farthest = max(farthest, counted.difference(expected, values)[1])
    precise = {word: _in_double(value) for word, value in asked.exec_args.items()}
    return max(farthest, counted.difference(expected, _seeded(lambda: library(precise, True)))[1])


def _step(model: Any) -> float:
    """The relative distance of neighbouring numbers where the model computes most coarsely."""
    if isinstance(model, torch.nn.Module):
        names = {str(parameter.dtype).rpartition(".")[2] for parameter in model.parameters()}
    else:
        names = {layer.compute_dtype for layer in getattr(model, "layers", ())}
    types = [getattr(torch, name) for name in names]
    return max((torch.finfo(kind).eps for kind in types if kind.is_floating_point), default=0.0)


def _in_double(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_in_double, value))
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return value.detach().double().requires_grad_(value.requires_grad)


def abroad(asked: Asked, other: str, route: str) -> Values:
    """The call on the model translated into the other framework, brought back by a bridge or a conversion."""
    asked = replace(asked, exec_args={**asked.exec_args, **asked.elsewhere})
    spec = next(spec for spec in cfi.methods(asked.key) if spec.toolset == asked.toolset)
    by_role = {spec.roles.get(name): value for name, value in {**asked.init_args, **asked.exec_args}.items()}
    given = by_role.get(Role.INPUTS, by_role.get(Role.ONE_OR_SEVERAL))
    inputs = tuple(given) if isinstance(given, tuple | list) else (given,)
    if any(part is None for part in inputs):
        raise NotAsked("a call without inputs")
    if Role.ONE_OR_SEVERAL in by_role:
        ranks = [len(tensor.shape) for tensor in asked.model.inputs]
        inputs = tuple(x if len(np.shape(x)) == rank else x[None] for x, rank in zip(inputs, ranks, strict=True))
        by_role[Role.ONE_OR_SEVERAL] = inputs
    held = by_role.get(Role.HELD)
    held = held if isinstance(held, tuple) else () if held is None else (held,)
    if not all(hasattr(part, "shape") for part in held):
        raise NotAsked("further arguments of the forward pass that are no tensors")
    moved = cfi.translate(asked.model, other, inputs=(*inputs, *held))
    travel = _Travel(asked.model, moved, len(inputs), by_role.get(Role.LAYER))
    init_args = {name: travel.own(value, spec.roles.get(name)) for name, value in asked.init_args.items()}
    exec_args = {name: travel.own(value, spec.roles.get(name)) for name, value in asked.exec_args.items()}
    for name in exec_args:
        if spec.roles.get(name) is Role.ONE_OR_SEVERAL:
            exec_args[name] = tuple(_turn(part, moved.input_axes[i]) for i, part in enumerate(inputs))
    values = replace(asked, model=moved.model, init_args=init_args, exec_args=exec_args).attribute(route)
    return Values(travel.home(values, of_layer=spec.kind is Kind.LAYER), repaired=values.repaired)


@dataclass(frozen=True)
class _Travel:
    """Carries arguments to the translated model's axes and names, and values back."""

    model: Any
    moved: cfi.Translation
    inputs: int
    layer: Any

    def own(self, value: Any, role: Role | None) -> Any:
        if value is None:
            return None
        match role:
            case Role.INPUTS | Role.BASELINES | Role.LIKE_INPUTS:
                return self._each(value, lambda part, axes: _turn(part, axes))
            case Role.HELD:
                parts = enumerate(value if isinstance(value, tuple) else (value,), self.inputs)
                return tuple(_turn(part, self.moved.input_axes[i]) for i, part in parts)
            case Role.WINDOW:
                return self._window(value)
            case Role.LAYER:
                return self._layers(value)
            case Role.TARGET if any(self.moved.output_axes) or callable(value):
                raise NotAsked("target in the axes of the other framework")
            case Role.NEURON | Role.LIKE_LAYER if (axes := self._layer_axes()) is not None:
                if role is Role.NEURON and isinstance(value, tuple):
                    return _turn_index(value, axes)
                if role is Role.LIKE_LAYER and hasattr(value, "shape"):
                    return _turn(value, axes)
                raise NotAsked(f"{role} in the axes of the other framework")
        return value

    def _each(self, value: Any, turn: Callable[[Any, Any], Any]) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(turn(part, self.moved.input_axes[i]) for i, part in enumerate(value))
        return turn(value, self.moved.input_axes[0])

    def _window(self, value: Any) -> Any:
        if not isinstance(value, tuple):
            return value
        if value and isinstance(value[0], tuple):
            return self._each(value, _turn_index)
        return _turn_index(value, self.moved.input_axes[0])

    def _layers(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._layers(entry) for entry in value]
        name = self._name(value)
        if name not in self.moved.layer_map:
            raise NotAsked("a layer that the translated model does not have")
        return self.moved.layer_map[name]

    def _name(self, layer: Any) -> str:
        if isinstance(layer, torch.nn.Module):
            return next((name for name, module in self.model.named_modules() if module is layer), "")
        if isinstance(layer, int):
            return str(self.model.layers[layer].name)
        return str(getattr(layer, "name", layer))

    def _layer_axes(self) -> Sequence[int] | None:
        match = None if isinstance(self.layer, list) else self.moved.layer_map.matches.get(self._name(self.layer))
        return None if match is None else match.axes

    def home(self, values: list[Any], *, of_layer: bool) -> list[Any]:
        axes = self.moved.input_axes
        if of_layer:
            names = [self._name(entry) for entry in (self.layer if isinstance(self.layer, list) else [self.layer])]
            axes = tuple(self.moved.layer_map.matches[name].axes for name in names)
        turned = []
        for position, value in enumerate(values):
            order = axes[min(position, len(axes) - 1)] if axes else None
            fits = order is not None and np.ndim(value) == len(order)
            turned.append(np.transpose(value, inverse(order)) if fits else value)
        return turned


def _turn(value: Any, axes: Sequence[int] | None) -> Any:
    if axes is None or not hasattr(value, "shape") or len(value.shape) != len(axes):
        return value
    return value.permute(*axes) if isinstance(value, torch.Tensor) else np.transpose(value, axes)


def _turn_index(index: tuple[int, ...], axes: Sequence[int] | None) -> tuple[int, ...]:
    return index if axes is None or len(index) != len(axes) - 1 else tuple(index[axis - 1] for axis in axes[1:])


def _seeded(call: Callable[[], _Given]) -> _Given:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    tf.random.set_seed(SEED)
    return call()


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Leaves the test's random numbers, output and warnings to the test."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
