"""A fake plugin: two frameworks in numpy, a conversion and a bridge between them, and a toolset for the second.

`paint` models take images channels first, `print` models channels last. Both compute the same small network
with closed-form gradients, so that the whole way of a call can be tested where no framework is installed:

    mix: 1×1 convolution → relu → pool: mean over space → head: linear layer (→ softmax)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from time import sleep
from typing import Any

import numpy as np

from cfi_core import progress
from cfi_core.contract import Axes, BridgedLayer, BridgeRequest, Converted, MethodRequest, MethodResult
from cfi_core.errors import TranslationError
from cfi_core.framework import FrameworkAdapter, Layer, Pullback, Runner
from cfi_core.framework.axes import Arrays, unpermute
from cfi_core.hookspec import hookimpl
from cfi_core.specs import (
    ANY,
    RUNNABLE,
    Defaults,
    Documentation,
    FrameworkSpec,
    Head,
    Kind,
    MethodSpec,
    Need,
    Role,
    ToolsetSpec,
    TranslatorSpec,
)

STEPS = ("mix", "relu", "pool", "head")
_Names = Sequence[str] | None


class Network:
    """The network, in one of two layouts.

    Attributes:
        mix: Weights `(hidden, channels)` of the 1×1 convolution.
        head: Weights `(classes, hidden)`.
        softmax: Whether the outputs are probabilities.
        refuses: The translator fails on it.
        distorts: The translator makes something else of it.
        training: A mark that a call must leave as it is.
        channel: Position of the channel axis of images.
        spatial: Positions of the spatial axes.
    """

    channel: int
    spatial: tuple[int, int]

    def __init__(
        self, mix: np.ndarray, head: np.ndarray, *, softmax: bool = False, refuses: bool = False, distorts: bool = False
    ) -> None:
        self.mix, self.head, self.softmax = mix, head, softmax
        self.refuses, self.distorts, self.training = refuses, distorts, False

    @property
    def steps(self) -> tuple[str, ...]:
        """What it does to images, one after the other."""
        return (*STEPS, "softmax") if self.softmax else STEPS

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All activations."""
        activations, value = {}, images
        for step in STEPS:
            activations[step] = value = self.apply(step, value)[0]
        return activations

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits, or probabilities."""
        if images.ndim != 4 or images.shape[self.channel] != self.mix.shape[1]:
            raise ValueError(f"a {type(self).__name__} takes {self.mix.shape[1]} channels on axis {self.channel}")
        return self.normalise(self.layers(images)["head"])

    def normalise(self, logits: np.ndarray) -> np.ndarray:
        """Applies the softmax, if there is one."""
        if not self.softmax:
            return logits
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def gradients(self, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        """Gradient of `sum(output * cotangent)` at the input and at every layer, in closed form."""
        values = {"input": images, **self.layers(images)}
        gradients, gradient = {"head": cotangent}, cotangent
        for (name, value), step in reversed(list(zip(values.items(), self.steps, strict=False))):
            gradients[name] = gradient = self.apply(step, value)[1](gradient)
        return gradients

    def apply(self, step: str, value: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """What a step makes of a value, and what carries a gradient back to the value."""
        if step == "mix":
            return self._along_channels(value, self.mix.T), lambda gradient: self._along_channels(gradient, self.mix)
        if step == "relu":
            return np.maximum(value, 0), lambda gradient: gradient * (value > 0)
        if step == "pool":
            share = np.ones_like(value) / np.prod([value.shape[axis] for axis in self.spatial])
            return value.mean(axis=self.spatial), lambda gradient: np.expand_dims(gradient, self.spatial) * share
        if step == "head":
            return value @ self.head.T, lambda gradient: gradient @ self.head
        output = self.normalise(value)
        return output, lambda gradient: output * (gradient - (output * gradient).sum(axis=1, keepdims=True))

    def _along_channels(self, images: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.moveaxis(images, self.channel, -1) @ matrix, -1, self.channel)


class Painting(Network):
    """A model of the framework `paint`: channels first."""

    channel, spatial = 1, (2, 3)


class Print(Network):
    """A model of the framework `print`: channels last."""

    channel, spatial = 3, (1, 2)


class NetworkRunner(Runner):
    """The network is a chain of steps, so a stage is some of them in a row."""

    def __init__(self, model: Network, layers: Sequence[str]) -> None:
        self._model = model
        self.layers = tuple(name for name in model.steps if name in layers)
        bounds = [0, *(model.steps.index(name) + 1 for name in self.layers), len(model.steps)]
        self._stages = [model.steps[start:end] for start, end in pairwise(bounds)]

    def run(self, stage: int, values: Arrays) -> tuple[np.ndarray, ...]:
        return self.linearize(stage, values)[0]

    def linearize(self, stage: int, values: Arrays) -> tuple[tuple[np.ndarray, ...], Pullback]:
        value, others, pullbacks = values[-1], len(values) - 1, []
        for step in self._stages[stage]:
            value, carry = self._model.apply(step, value)
            pullbacks.append(carry)

        def pullback(cotangents: Sequence[Any], wanted: Sequence[bool]) -> tuple[np.ndarray | None, ...]:
            gradient = np.zeros_like(value) if cotangents[0] is None else cotangents[0]
            for carry in reversed(pullbacks):
                gradient = carry(gradient)
            return (*[None] * others, gradient if wanted[-1] else None)

        return (value,), pullback


class BridgedPrint(Print):
    """A model of any framework, run as if it were a print."""

    def __init__(self, request: BridgeRequest) -> None:
        self._adapter, self._original = request.adapter, request.model
        self._runner = request.adapter.runner(request.model, request.inputs, request.layers)
        first, *activations, outputs = self._run(request.inputs[0])
        layers = dict(zip(self._runner.layers, activations, strict=True))
        self.axes = {"input": self._to_last(first)} | {name: self._to_last(layers[name], name) for name in layers}
        # What the adapter reads off a print: its floating point type and its number of classes.
        array = request.adapter.to_numpy(outputs)
        super().__init__(np.zeros((1, 1), array.dtype), np.zeros((array.shape[1], 1), array.dtype))

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The layers that were asked for."""
        values = self._leave(self._run(self._enter(images))[:-1])
        return {name: values[name] for name in self._runner.layers}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """What the model gives."""
        return self._adapter.to_numpy(self._run(self._enter(images))[-1])

    def gradients(self, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        """By the pullbacks of all stages, the last one first."""
        values, pullbacks = [self._enter(images)], []
        for stage in range(len(self.axes)):
            results, pullback = self._runner.linearize(stage, values)
            pullbacks.append(pullback)
            values.extend(results)
        gradients = [None] * len(pullbacks) + [self._adapter.tensor(cotangent, self._original)]
        for stage in reversed(range(len(pullbacks))):
            for position, part in enumerate(pullbacks[stage]([gradients[stage + 1]], [True] * (stage + 1))):
                if part is not None:
                    gradients[position] = part if gradients[position] is None else gradients[position] + part
        return self._leave(gradients[:-1])

    def _run(self, inputs: Any) -> list[Any]:
        """The inputs, the activations and the outputs."""
        values = [inputs]
        for stage in range(len(self._runner.layers) + 1):
            values.extend(self._runner.run(stage, values))
        return values

    def _to_last(self, value: Any, layer: str | None = None) -> tuple[int, ...]:
        channel = self._adapter.channel_axis(self._original, value.shape, layer=layer)
        return tuple(sorted(range(len(value.shape)), key=lambda axis: axis == channel))

    def _enter(self, images: np.ndarray) -> Any:
        return self._adapter.tensor(unpermute(images, self.axes["input"]), self._original)

    def _leave(self, values: Sequence[Any]) -> dict[str, np.ndarray]:
        named = zip(self.axes.items(), map(self._adapter.to_numpy, values), strict=True)
        return {name: np.transpose(array, axes) for (name, axes), array in named}


def as_print(request: BridgeRequest) -> Converted:
    """Bridges a model of any framework."""
    model = BridgedPrint(request)
    layers = {name: BridgedLayer(name, axes) for name, axes in model.axes.items() if name != "input"}
    return Converted(model, (model.axes["input"],), (None,), layers)


class NetworkAdapter(FrameworkAdapter):
    """Serves both frameworks."""

    name = "fake"

    def twin(self, model: Network, *, share_weights: bool = True) -> Network:
        if isinstance(model, BridgedPrint):
            return model
        mix, head = (model.mix, model.head) if share_weights else (model.mix.copy(), model.head.copy())
        return type(model)(mix, head, softmax=model.softmax, refuses=model.refuses, distorts=model.distorts)

    def weights(self, model: Network) -> Mapping[str, tuple[np.ndarray, ...]]:
        return {"mix": (model.mix,), "head": (model.head,)}

    def with_weights(self, model: Network, weights: Mapping[str, Sequence[np.ndarray]]) -> Network:
        copy = self.twin(model, share_weights=False)
        for name, (array,) in weights.items():
            setattr(copy, name, np.asarray(array, copy.mix.dtype))
        return copy

    def in_training_mode(self, model: Network) -> bool:
        return model.training

    def fingerprint(self, model: Network) -> str:
        return repr((model.mix.tobytes(), model.head.tobytes(), model.softmax, model.refuses, model.distorts))

    def declares_integer(self, model: Network, position: int) -> bool | None:
        return False

    def channel_axis(self, model: Network, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        return model.channel if len(shape) == 4 else None

    def without_softmax(self, model: Network, inputs: Sequence[Any]) -> Network | None:
        return type(model)(model.mix, model.head) if model.softmax else None

    def outputs(self, model: Network, inputs: Arrays) -> np.ndarray:
        return model(*inputs)

    def vjp(
        self, model: Network, inputs: Arrays, cotangents: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        assert cotangents[0] is not None
        return [self.outputs(model, inputs)], [model.gradients(inputs[0], cotangents[0])["input"]]

    def layers(self, model: Network, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        shapes = {name: value.shape[1:] for name, value in model.layers(inputs[0]).items()} if inputs else {}
        return tuple(Layer(name, name.title(), shapes.get(name)) for name in STEPS)

    def layer_name(self, model: Network, reference: Any) -> str | None:
        return reference if isinstance(reference, str) and reference in STEPS else None

    def layer_object(self, model: Network, name: str) -> str:
        return name

    def activations(self, model: Network, inputs: Arrays, names: _Names = None) -> Mapping[str, np.ndarray]:
        return {name: value for name, value in model.layers(inputs[0]).items() if names is None or name in names}

    def layer_gradients(
        self, model: Network, inputs: Arrays, cotangents: Arrays, names: _Names = None
    ) -> Mapping[str, np.ndarray]:
        gradients = model.gradients(inputs[0], cotangents[0])
        return {k: v for k, v in gradients.items() if k != "input" and (names is None or k in names)}

    def runner(self, model: Network, inputs: Arrays, layers: Sequence[str] = ()) -> NetworkRunner:
        return NetworkRunner(model, layers)

    def tensor(self, value: Any, model: Any) -> np.ndarray:
        array = np.array(value)
        return array.astype(model.mix.dtype) if np.issubdtype(array.dtype, np.floating) else array


def to_print(model: Painting, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Translates a painting into a print."""
    if model.refuses:
        raise TranslationError("paint2print has no rule for this painting; use another translator.")
    head = model.head[::-1] if model.distorts else model.head
    return Converted(Print(model.mix, head, softmax=model.softmax), input_axes=((0, 2, 3, 1),), output_axes=(None,))


def run(request: MethodRequest) -> MethodResult:
    """The methods of `press`, the toolset of prints."""
    key, model, options = request.method.key, request.model, request.exec_args
    if options.get("fail"):
        raise RuntimeError("the press is jammed")
    images = request.inputs[0]
    if key == "press_slowly":
        return _press_slowly(request, **options)
    if key == "press_noise":
        return MethodResult((np.random.normal(size=images.shape),), Axes.INPUT)  # as toolsets do
    if key == "press_layer":
        return MethodResult((model.layers(images)[request.layer[0]],), Axes.LAYER)
    if key == "press_neuron":
        marked = np.zeros_like(model.layers(images)[request.layer[0]])
        marked[(slice(None), *request.neuron)] = 1
        return MethodResult((marked,), Axes.LAYER)
    cotangent = np.zeros((len(images), model.head.shape[0]))
    assert request.target is not None
    for sample, index in enumerate(request.target.indices(len(images))):
        cotangent[(sample, *index)] = 1
    gradients = model.gradients(images, cotangent)
    if key == "press_map":
        layer = request.layer[0]
        weights = gradients[layer].mean(axis=model.spatial, keepdims=True)
        return MethodResult(((weights * model.layers(images)[layer]).sum(axis=model.channel),), Axes.LAYER_MAP)
    scale = options.get("scale", 1.0)
    return MethodResult((gradients["input"] * scale,), Axes.INPUT, {"loss": 0.5}, {"scale": scale})


def _press_slowly(request: MethodRequest, passes: int, seconds: float, each: Callable[[], Any]) -> MethodResult:
    """Runs the model so many times, waits a while in each pass, and tells of it."""
    progress.steps(passes, "passes")
    for _ in range(passes):
        request.model(request.inputs[0])
        each()
        sleep(seconds)
        progress.tick()
    return MethodResult((np.ones_like(request.inputs[0]),), Axes.INPUT)


def press(images: Any, scale: float = 1.0, fail: bool = False, window: Any = None) -> None:
    """Stands for the call of a library, which says what its arguments mean.

    Args:
        images: What is pressed.
        scale (float, optional): What the gradient is multiplied by. Defaults to 1.0.
        fail: Whether the press is jammed.
        window (tuple of ints): Nothing is done with it.
    """


def _method(key: str, kind: Kind = Kind.ATTRIBUTION, **fields: Any) -> MethodSpec:
    return MethodSpec(
        key=key,
        toolset="press",
        kind=kind,
        needs=frozenset({Need.FORWARD, Need.INPUT_GRADIENT}),
        implementation=f"{__name__}:run",
        citation="the closed form in this module",
        exec_args=("images", "scale", "fail", "window", "engrave"),
        roles={"images": Role.INPUTS, "window": Role.WINDOW},
        argument_needs={"engrave": Need.MODULES},
        documentation=Documentation(
            exec_args=(f"{__name__}:press",),
            words={"engrave": "Makes the method ask for modules."},
            example=dict.fromkeys(fields.get("own_required", ()), "1.0"),
        ),
        **fields,
    )


def _translator(name: str, function: str, **fields: Any) -> TranslatorSpec:
    return TranslatorSpec(name=name, target="print", cost=1, implementation=f"{__name__}:{function}", **fields)


@hookimpl
def cfi_frameworks() -> list[FrameworkSpec]:
    """The frameworks `paint` and `print`."""
    fields: dict[str, Any] = {"tensor_types": (), "adapter": f"{__name__}:NetworkAdapter", "module": __name__}
    models = {"paint": "Painting", "print": "Print"}
    return [FrameworkSpec(name=name, model_types=((__name__, kind),), **fields) for name, kind in models.items()]


@hookimpl
def cfi_toolsets() -> list[ToolsetSpec]:
    """The toolset `press`, which works on prints."""
    return [ToolsetSpec(name="press", framework="print")]


@hookimpl
def cfi_methods() -> list[MethodSpec]:
    """Its methods."""
    return [
        _method("press_gradient", optional=("target",), head=Head.LOGIT),
        _method("press_probability", optional=("target",), head=Head.OUTPUT),
        _method("press_noise"),
        _method("press_layer", Kind.LAYER, required=("inputs", "layer")),
        _method("press_map", Kind.LAYER, required=("inputs", "layer"), optional=("target",)),
        _method("press_neuron", Kind.NEURON, required=("inputs", "layer", "neuron")),
    ]


@hookimpl
def cfi_translators() -> list[TranslatorSpec]:
    """The translator from paintings to prints."""
    return [_translator("paint2print", "to_print", source="paint", preserves=frozenset(Need))]


def _nothing() -> None:
    """What is done in each pass, if nothing else is given."""


class bridge_plugin:
    """A second fake plugin: the bridge from any framework to `print`."""

    @staticmethod
    @hookimpl
    def cfi_translators() -> list[TranslatorSpec]:
        """The bridge."""
        return [_translator("bridge-to-print", "as_print", source=ANY, preserves=RUNNABLE, kind="bridge")]


class slow_plugin:
    """A third fake plugin: a method of `press` with a known number of passes, each of which takes a while."""

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        """The method."""
        slow = _method("press_slowly")
        defaults = Defaults(raw={"passes": 1, "seconds": 0.0, "each": _nothing})
        own = ("passes", "seconds", "each")
        plain = replace(slow, roles={}, argument_needs={}, documentation=Documentation())
        return [replace(plain, exec_args=own, defaults=defaults)]
