"""What both hosts have in common: a model's stages, computed for tensors of another framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NoReturn

from cfi_core.contract import BridgedLayer, BridgeRequest
from cfi_core.errors import MethodError, NoGradientError
from cfi_core.framework import ForesightRunner, FrameworkAdapter, Pullback, Runner, hand_over, recorded_pass
from cfi_core.turns import Lock

Axes = tuple[int, ...] | None

HostPullback = Callable[[Sequence[Any | None], Sequence[bool]], tuple[Any | None, ...]]

_IMAGE_RANK = 4


class BridgedModelError(MethodError, NotImplementedError):
    """A bridged model is to be copied with its weights, or saved."""


class LateRunner(Runner):
    """Without layers; made at the first pass that it is asked for, which the model may have made by itself."""

    def __init__(self, make: Callable[[], Runner]) -> None:
        self._make, self._lock = make, Lock()
        self._made: Runner | None = None

    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs."""
        return self._runner().run(stage, values)

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        """The outputs, and their pullback."""
        return self._runner().linearize(stage, values)

    def settle(self) -> None:
        """Makes it now, for many passes."""
        self._runner().settle()

    def _runner(self) -> Runner:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


@dataclass(frozen=True, eq=False)
class Examples:
    """What one pass through all stages took and gave: tensors of the model's own framework, in its own axes."""

    inputs: tuple[Any, ...]
    activations: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Span:
    """The stages of a model, for tensors of the host framework in the host's axes.

    Attributes:
        host: Adapter of the framework that the tensors come from and go to.
        original: Adapter of the model's own framework.
        model: The model.
        runner: Its stages.
        host_turns: Whether axes are permuted on the host's side of the crossing, or on the original's.
        input_axes: For each input, the permutation from the model's axes to the host's; None: unchanged.
        layer_axes: For the activation of each opened layer, the permutation from the original's axes.
        output_axes: For each output, the permutation from the original's axes.
    """

    host: FrameworkAdapter
    original: FrameworkAdapter
    model: Any
    runner: ForesightRunner
    host_turns: bool
    input_axes: tuple[Axes, ...]
    layer_axes: tuple[Axes, ...]
    output_axes: tuple[Axes, ...]

    def run(self, stage: int, values: Sequence[Any], place: Any) -> tuple[Any, ...]:
        """The results of a stage; no framework records a gradient.

        Args:
            stage: Position of an opened layer, or their number for the outputs.
            values: The inputs, and the activations of the layers before.
            place: Model of the host framework on whose device the results shall lie.
        """
        inner = self._all_inwards(values)
        known = recorded_pass(inner)
        results = self.runner.run(stage, inner) if known is None else known[0]
        return self._all_outwards(results, self._axes_of(stage), place)

    def linearize(self, stage: int, values: Sequence[Any], place: Any) -> tuple[tuple[Any, ...], HostPullback]:
        """The same results, and the function from cotangents of them (None: zero) to the wanted gradients."""
        inner = self._all_inwards(values)
        results, pullback = recorded_pass(inner) or self.runner.linearize(stage, inner)
        value_axes, result_axes = (*self.input_axes, *self.layer_axes), self._axes_of(stage)

        def host_pullback(cotangents: Sequence[Any | None], wanted: Sequence[bool]) -> tuple[Any | None, ...]:
            if all(cotangent is None for cotangent in cotangents):
                return (None,) * len(wanted)
            sent = [
                None if cotangent is None else self._inwards(cotangent, axes)
                for cotangent, axes in zip(cotangents, result_axes, strict=True)
            ]
            return tuple(
                None if gradient is None else self.outwards(gradient, axes, place)
                for gradient, axes in zip(pullback(sent, wanted), value_axes, strict=False)
            )

        return self._all_outwards(results, result_axes, place), host_pullback

    def outwards(self, tensor: Any, axes: Axes, place: Any) -> Any:
        """A tensor of the model's framework as one of the host's."""
        if axes is not None and not self.host_turns:
            tensor = self.original.permute(tensor, axes)
        tensor = hand_over(tensor, self.original, self.host, place)
        return self.host.permute(tensor, axes) if axes is not None and self.host_turns else tensor

    def layers(self, names: Sequence[str]) -> Mapping[str, BridgedLayer]:
        """The opened layers, for the names that they have in the host's model."""
        bridged = (BridgedLayer(name, axes) for name, axes in zip(names, self.layer_axes, strict=True))
        return MappingProxyType(dict(zip(self.runner.layers, bridged, strict=True)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Span:
        """Copies of a host's model run the same original."""
        return self

    def __reduce__(self) -> NoReturn:
        refuse_to_save(self.original.name)

    def _inwards(self, tensor: Any, axes: Axes) -> Any:
        if axes is not None and self.host_turns:
            tensor = self.host.permute(tensor, _inverse(axes))
        tensor = hand_over(tensor, self.host, self.original, self.model)
        return self.original.permute(tensor, _inverse(axes)) if axes is not None and not self.host_turns else tensor

    def _all_inwards(self, values: Sequence[Any]) -> list[Any]:
        axes = (*self.input_axes, *self.layer_axes)
        return [self._inwards(value, turn) for value, turn in zip(values, axes, strict=False)]

    def _all_outwards(self, results: Sequence[Any], axes: Sequence[Axes], place: Any) -> tuple[Any, ...]:
        return tuple(self.outwards(result, turn, place) for result, turn in zip(results, axes, strict=True))

    def _axes_of(self, stage: int) -> tuple[Axes, ...]:
        return self.output_axes if stage == len(self.layer_axes) else (self.layer_axes[stage],)


def span(request: BridgeRequest, host: FrameworkAdapter, *, channels_last: bool) -> tuple[Span, Examples]:
    """Opens the model at the layers that are asked for, and runs every stage once whose results are not known.

    Args:
        request: The model.
        host: Adapter of the framework that it shall run in.
        channels_last: Where the host has the channels of inputs, layers and images among the outputs; otherwise they
            follow the samples. There they are moved on the original's side of the crossing, otherwise on the host's.

    Raises:
        LayerError: A layer cannot be opened.
    """
    original, model = request.adapter, request.model
    make = partial(original.runner, model, request.inputs, tuple(dict.fromkeys(request.layers)))
    is_known = request.outputs and not request.layers
    runner = ForesightRunner(LateRunner(make) if is_known and not request.often else make(), original.same_values)
    if request.often:
        runner.settle()
    examples = Examples(request.inputs, (), request.outputs) if is_known else run_all(runner, request.inputs)

    def turn(shape: Sequence[int], layer: str | None = None) -> Axes:
        return _move(len(shape), original.channel_axis(model, shape, layer=layer), channels_last)

    spanned = Span(
        host,
        original,
        model,
        runner,
        not channels_last,
        tuple(turn(tuple(value.shape)) for value in examples.inputs),
        tuple(
            turn(tuple(value.shape), layer) for layer, value in zip(runner.layers, examples.activations, strict=True)
        ),
        # What a model gives for a sequence has no place for channels that others would rely on; images do.
        tuple(turn(tuple(value.shape)) if len(value.shape) >= _IMAGE_RANK else None for value in examples.outputs),
    )
    return spanned, examples


def run_all(runner: Runner, inputs: Sequence[Any]) -> Examples:
    """Runs every stage once."""
    activations: list[Any] = []
    for stage in range(len(runner.layers)):
        activations.extend(runner.run(stage, (*inputs, *activations)))
    outputs = runner.run(len(runner.layers), (*inputs, *activations))
    return Examples(tuple(inputs), tuple(activations), tuple(outputs))


def refuse_to_save(framework: str) -> NoReturn:
    """Says why a bridged model cannot be written down.

    Raises:
        BridgedModelError: Always.
    """
    raise BridgedModelError(
        f"This model runs a {framework} model that lives in this process, so it can be neither saved nor rebuilt from "
        f"a configuration. Save the {framework} model, or translate it with translator='conversion'."
    )


def refuse_second_derivatives() -> NoReturn:
    """Says why gradients cannot be differentiated in turn.

    Raises:
        NoGradientError: Always.
    """
    raise NoGradientError(
        "Second derivatives do not pass a bridge between two frameworks. Use a method that needs first derivatives "
        "only, or a converted model (translator='conversion')."
    )


def _move(rank: int, channel: int | None, channels_last: bool) -> Axes:
    """The permutation that brings the channel axis to the host's place; None if it is there, or if there is none."""
    place = rank - 1 if channels_last else 1
    if channel is None or channel == place:
        return None
    axes = [axis for axis in range(rank) if axis != channel]
    axes.insert(place, channel)
    return tuple(axes)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
