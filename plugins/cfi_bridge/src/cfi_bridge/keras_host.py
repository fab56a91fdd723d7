"""Models of other frameworks as functional models of Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from cfi_bridge.span import Span, refuse_second_derivatives, refuse_to_save, run_all, span
from cfi_core.adapters import adapter_for
from cfi_core.contract import BridgeRequest, Converted
from cfi_core.errors import RouteError
from cfi_core.registry import registry

try:
    from tensorflow.python.eager.record import should_record_backprop  # has no public name
except ImportError:

    def should_record_backprop(tensors: Sequence[Any]) -> bool:
        """Whether a tape watches one of the tensors; where that cannot be told, each pass is made ready for one."""
        return True


_numbers = count()


def bridge(request: BridgeRequest) -> Converted:
    """Wraps a model so that it runs in its own framework, inside TensorFlow's gradient tapes.

    The result is a functional model. Inputs, layers and images among the outputs have their channels last; the number
    of samples is open, other sizes are those of the example inputs. The layers that were asked for are the layers
    `layer_0`, `layer_1`, … in the order in which the model computes them.

    Raises:
        RouteError: Keras runs on another backend.
        LayerError: A layer cannot be opened.
    """
    if keras.config.backend() != "tensorflow":
        raise RouteError(
            f"The toolset needs Keras on TensorFlow, and this process runs it on {keras.config.backend()}, for all: "
            f"set KERAS_BACKEND=tensorflow before Keras is imported, or choose a toolset that needs no Keras."
        )
    spanned, examples = span(request, adapter_for(registry(), "tensorflow"), channels_last=True)
    more = examples
    if request.layers or not request.outputs:  # of samples that are computed by themselves only that axis is open
        with suppress(Exception):  # of a model that takes no other number of samples: likewise
            more = run_all(spanned.runner, [_one_more(request, value) for value in request.inputs])

    def describe(values: Sequence[Any], others: Sequence[Any], axes: Sequence[Any]) -> list[_Value]:
        turned = [spanned.outwards(value, turn, None) for value, turn in zip(values, axes, strict=True)]
        larger = [spanned.outwards(value, turn, None) for value, turn in zip(others, axes, strict=True)]
        return [_Value.of(value, other) for value, other in zip(turned, larger, strict=True)]

    layers = describe(examples.activations, more.activations, spanned.layer_axes)
    outputs = describe(examples.outputs, more.outputs, spanned.output_axes)
    number = next(_numbers)
    inputs = [
        keras.Input(batch_shape=value.shape, dtype=value.dtype, name=f"input_{position}")
        for position, value in enumerate(describe(examples.inputs, more.inputs, spanned.input_axes))
    ]
    values = list(inputs)
    for stage, value in enumerate(layers):
        (activation,) = Stage(spanned, stage, (value,), number)(list(values))
        values.append(KerasTap(spanned, stage, number)(activation))
    results = Stage(spanned, len(layers), tuple(outputs), number)(values)
    model = keras.Model(_one_or_all(inputs), _one_or_all(results), name="bridged")
    model.run_eagerly = True  # nothing is gained by a graph, and errors keep their type
    names = [_tap_name(stage) for stage in range(len(layers))]
    return Converted(model, spanned.input_axes, spanned.output_axes, spanned.layers(names), spanned.runner)


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor beforehand: sizes that depend on the number of samples are open."""

    shape: tuple[int | None, ...]
    dtype: str

    @classmethod
    def of(cls, value: Any, other: Any) -> _Value:
        """Of a tensor, and of the one that another number of samples gives."""
        sizes = zip(tuple(value.shape), tuple(other.shape), strict=True)
        shape = [None if axis == 0 or size != larger else size for axis, (size, larger) in enumerate(sizes)]
        return cls(tuple(shape), value.dtype.name)

    @property
    def floating(self) -> bool:
        """Whether gradients can pass."""
        return bool(tf.as_dtype(self.dtype).is_floating)

    def symbol(self) -> Any:
        """A symbolic tensor of Keras."""
        return keras.KerasTensor(self.shape, dtype=self.dtype)


class _Part(keras.layers.Layer):
    """A layer of the bridge: without weights, and it leaves the types of its tensors alone."""

    def __init__(self, spanned: Span, name: str, number: int) -> None:
        super().__init__(name=name, autocast=False, trainable=False)
        self._framework = spanned.original.name
        # Two bridges are two models, though their layers have the same names and no weights.
        self.number = number
        # XLA cannot call Python.
        self.supports_jit = False
        self.built = True

    def get_config(self) -> NoReturn:
        """Refuses: what runs inside would be lost.

        Raises:
            BridgedModelError: Always.
        """
        refuse_to_save(self._framework)


class KerasTap(_Part):
    """Stands for a layer of the model: its output is that layer's activation."""

    def __init__(self, spanned: Span, stage: int, number: int) -> None:
        super().__init__(spanned, _tap_name(stage), number)
        self.layer = spanned.runner.layers[stage]

    def call(self, activation: Any) -> Any:
        """The activation."""
        return activation

    def compute_output_spec(self, activation: Any) -> Any:
        """As it comes."""
        return keras.KerasTensor(activation.shape, dtype=activation.dtype)


class Stage(_Part):
    """Computes the activation of a layer, or the outputs, from the inputs and the activations before."""

    def __init__(self, spanned: Span, stage: int, results: tuple[_Value, ...], number: int) -> None:
        super().__init__(spanned, f"stage_{stage}", number)
        self._span = spanned
        self._stage = stage
        self._expected = results

    def call(self, values: Sequence[Any]) -> list[Any]:
        """The results, with exact gradients where a tape records."""
        with _own_errors():
            return self._eager(values) if tf.executing_eagerly() else self._trace(values)

    def compute_output_spec(self, values: Sequence[Any]) -> list[Any]:
        """What the results are like."""
        return [value.symbol() for value in self._expected]

    def _eager(self, values: Sequence[Any]) -> list[Any]:
        wanted = [value.dtype.is_floating and should_record_backprop([value]) for value in values]
        if not any(wanted):
            return list(self._span.run(self._stage, values, None))
        results, pullback = self._span.linearize(self._stage, values, None)

        def gradient(*cotangents: Any) -> list[Any]:
            gradients = list(pullback(self._differentiable(cotangents), wanted))
            sources = [*values, *(cotangent for cotangent in cotangents if cotangent is not None)]
            return _first_order(sources, gradients) if should_record_backprop(sources) else gradients

        return _record(values, results, gradient)

    def _trace(self, values: Sequence[Any]) -> list[Any]:
        """In a graph, which may run without its gradient, the forward pass leaves nothing behind for it.

        TensorFlow's own gradient of `py_function` would keep the last pass only, and mix up two that wait for theirs.
        """
        results = tf.py_function(self._run, list(values), [value.dtype for value in self._expected])
        for result, expected in zip(results, self._expected, strict=True):
            result.set_shape(expected.shape)

        def gradient(*cotangents: Any) -> list[Any]:
            given = [cotangent for cotangent in self._differentiable(cotangents) if cotangent is not None]
            floating = [value for value in values if value.dtype.is_floating]
            found = iter(tf.py_function(self._pull, [*values, *given], [value.dtype for value in floating]))
            gradients = [next(found) if value.dtype.is_floating else None for value in values]
            for value, one in zip(values, gradients, strict=True):
                if one is not None:
                    one.set_shape(value.shape)
            return _first_order([*values, *given], gradients)

        return _record(values, results, gradient)

    def _run(self, *values: Any) -> list[Any]:
        return list(self._span.run(self._stage, values, None))

    def _pull(self, *tensors: Any) -> list[Any]:
        """The gradients to all floating point values, from the values and the cotangents of floating point results."""
        taken = len(self._span.input_axes) + self._stage
        values, given = tensors[:taken], iter(tensors[taken:])
        wanted = [value.dtype.is_floating for value in values]
        _, pullback = self._span.linearize(self._stage, values, None)
        gradients = pullback([next(given) if value.floating else None for value in self._expected], wanted)
        return [
            tf.zeros_like(value) if one is None else one
            for value, one, is_wanted in zip(values, gradients, wanted, strict=True)
            if is_wanted
        ]

    def _differentiable(self, cotangents: Sequence[Any]) -> list[Any]:
        return [one if value.floating else None for one, value in zip(cotangents, self._expected, strict=True)]


def _record(values: Sequence[Any], results: Sequence[Any], gradient: Callable[..., list[Any]]) -> list[Any]:
    """The results as TensorFlow's tapes shall see them: made of the values, with this gradient."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def record(*_: Any) -> Any:
        return tuple(results), gradient

    return list(record(*values))


def _first_order(sources: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
    """The gradients, with an error instead of a wrong zero where they are differentiated in turn."""

    def refuse(*_: Any) -> NoReturn:
        refuse_second_derivatives()

    found = iter(_record(sources, [one for one in gradients if one is not None], refuse))
    return [None if one is None else next(found) for one in gradients]


@contextmanager
def _own_errors() -> Iterator[None]:
    """Lets errors of the model through as they are.

    Keras puts another exception in the place of one that a layer raises, unless it bears this mark.
    """
    try:
        yield
    except Exception as error:
        with suppress(AttributeError):  # of a class with slots
            error._keras_call_info_injected = True  # type: ignore[attr-defined]
        raise


def _one_or_all(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _tap_name(stage: int) -> str:
    return f"layer_{stage}"


def _one_more(request: BridgeRequest, value: Any) -> Any:
    """The input with its first sample once more at the end."""
    array = request.adapter.to_numpy(value)
    return request.adapter.tensor(np.concatenate([array, array[:1]]), request.model)
