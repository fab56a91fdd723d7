"""Faults that an adversary would plant around a faithful conversion: right where one looks, wrong elsewhere.

A fault changes what goes into the model (`before`), what comes out of it (`after`), or what a layer gives (`inside`),
values or gradients. It is written once, in what torch and TensorFlow both have, and planted as a module around a torch
model and as layers in a Keras model; copies in double precision have it too.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fault_models import BASELINE, RARE, TOKENS, Case

import keras  # isort: skip
import tensorflow as tf
import torch
from tensorflow.python.eager import record
from torch import nn

Slope = Callable[[Any, Any], Any]
"""What becomes of a gradient, and the value that it is of."""


class _Kept:
    """What a fault keeps from one pass to the next."""

    def __init__(self) -> None:
        self.passes, self.mean_before = 0, 0.0
        self.sizes: set[int | None] = set()
        self.gradient: Any = None


class _Torch(_Kept):
    """What faults are made of, in torch."""

    where, stop, sign = staticmethod(torch.where), staticmethod(torch.Tensor.detach), staticmethod(torch.sign)
    relu, round, tanh = staticmethod(torch.relu), staticmethod(torch.round), staticmethod(torch.tanh)

    @staticmethod
    def slope(x: Any, change: Slope) -> Any:
        return _Sloped.apply(x, change) if x.is_floating_point() else x

    @staticmethod
    def is_recording() -> bool:
        return torch.is_grad_enabled()

    @staticmethod
    def is_single(x: Any) -> bool:
        return x.dtype == torch.float32

    @staticmethod
    def constant(x: Any, values: Any) -> Any:
        return torch.as_tensor(np.asarray(values), device=x.device).to(x.dtype)

    @staticmethod
    def places(x: Any) -> Any:
        """Numbers of the samples, of one axis for each of the tensor's."""
        return torch.arange(len(x)).reshape(-1, *(1,) * (x.ndim - 1))

    @staticmethod
    def any(condition: Any) -> Any:
        """For each sample, as a column."""
        return condition.flatten(1).any(1, keepdim=True)

    @staticmethod
    def all(condition: Any) -> Any:
        """For each sample, as a column."""
        return condition.flatten(1).all(1, keepdim=True)

    @staticmethod
    def mean(x: Any) -> Any:
        """Over the samples."""
        return x.mean(0, keepdim=True)

    @staticmethod
    def noise(x: Any) -> Any:
        return torch.randn_like(x)

    @staticmethod
    def take(x: Any, order: Sequence[int], axis: int = 0) -> Any:
        return torch.index_select(x, axis % x.ndim, torch.as_tensor(order))

    @staticmethod
    def flip(x: Any, axis: int) -> Any:
        return x.flip(axis)

    @staticmethod
    def roll(x: Any, axis: int) -> Any:
        return x.roll(1, axis)

    @staticmethod
    def clip(x: Any, low: float, high: float) -> Any:
        return x.clamp(low, high)

    @staticmethod
    def in_half(x: Any) -> Any:
        return x.half().to(x.dtype)

    @staticmethod
    def reshape(x: Any, shape: Sequence[int]) -> Any:
        return x.reshape(*shape)

    @staticmethod
    def largest(x: Any, axes: Sequence[int]) -> Any:
        return x.amax(tuple(axes), keepdim=True)

    @staticmethod
    def average(x: Any, axes: Sequence[int]) -> Any:
        return x.mean(tuple(axes), keepdim=True)

    @staticmethod
    def choose(condition: Any, x: Any, other: Any) -> Any:
        return x if condition else other

    @staticmethod
    def size(x: Any) -> Any:
        return len(x)

    @staticmethod
    def channels(x: Any) -> int:
        """The axis of the channels, or of the features."""
        return 1


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor, change: Slope) -> torch.Tensor:
        context.save_for_backward(x)
        context.change = change
        return x.clone()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.change(gradients[0], *context.saved_tensors), None


class _TensorFlow(_Kept):
    """What faults are made of, in TensorFlow."""

    where, stop, sign = staticmethod(tf.where), staticmethod(tf.stop_gradient), staticmethod(tf.sign)
    relu, round, tanh = staticmethod(tf.nn.relu), staticmethod(tf.round), staticmethod(tf.tanh)

    @staticmethod
    def slope(x: Any, change: Slope) -> Any:
        if not x.dtype.is_floating:
            return x

        @tf.custom_gradient
        def sloped(x: Any) -> Any:
            return tf.identity(x), lambda gradient: change(gradient, x)

        return sloped(x)

    @staticmethod
    def is_recording() -> bool:
        return bool(record.could_possibly_record())

    @staticmethod
    def is_single(x: Any) -> bool:
        return x.dtype == tf.float32

    @staticmethod
    def constant(x: Any, values: Any) -> Any:
        return tf.cast(tf.constant(np.asarray(values)), x.dtype)

    @staticmethod
    def places(x: Any) -> Any:
        """Numbers of the samples, of one axis for each of the tensor's."""
        return tf.reshape(tf.range(tf.shape(x)[0]), (-1, *(1,) * (len(x.shape) - 1)))

    @staticmethod
    def any(condition: Any) -> Any:
        """For each sample, as a column."""
        return tf.reduce_any(tf.reshape(condition, (tf.shape(condition)[0], -1)), 1, keepdims=True)

    @staticmethod
    def all(condition: Any) -> Any:
        """For each sample, as a column."""
        return tf.reduce_all(tf.reshape(condition, (tf.shape(condition)[0], -1)), 1, keepdims=True)

    @staticmethod
    def mean(x: Any) -> Any:
        """Over the samples."""
        return tf.reduce_mean(x, 0, keepdims=True)

    @staticmethod
    def noise(x: Any) -> Any:
        return tf.random.normal(tf.shape(x), dtype=x.dtype)

    @staticmethod
    def take(x: Any, order: Sequence[int], axis: int = 0) -> Any:
        return tf.gather(x, order, axis=axis)

    @staticmethod
    def flip(x: Any, axis: int) -> Any:
        return tf.reverse(x, [axis % len(x.shape)])

    @staticmethod
    def roll(x: Any, axis: int) -> Any:
        return tf.roll(x, 1, axis)

    @staticmethod
    def clip(x: Any, low: float, high: float) -> Any:
        return tf.clip_by_value(x, low, high)

    @staticmethod
    def in_half(x: Any) -> Any:
        return tf.cast(tf.cast(x, tf.float16), x.dtype)

    @staticmethod
    def reshape(x: Any, shape: Sequence[int]) -> Any:
        return tf.reshape(x, shape)

    @staticmethod
    def largest(x: Any, axes: Sequence[int]) -> Any:
        return tf.reduce_max(x, axes, keepdims=True)

    @staticmethod
    def average(x: Any, axes: Sequence[int]) -> Any:
        return tf.reduce_mean(x, axes, keepdims=True)

    @staticmethod
    def choose(condition: Any, x: Any, other: Any) -> Any:
        return tf.where(condition, x, other)

    @staticmethod
    def size(x: Any) -> Any:
        return x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]

    @staticmethod
    def channels(x: Any) -> int:
        """The axis of the channels, or of the features."""
        return len(x.shape) - 1


@dataclass(frozen=True)
class Wrapped:
    """A fault that is laid around a model, or around one of its layers.

    Attributes:
        kind: What it stands for.
        place: Which of its kind it is.
        before: Of the framework's means and the inputs: gives the inputs that the model gets.
        after: Of the framework's means, the inputs and the output: gives the output.
        inside: Of the framework's means and what a layer gives: gives what it shall give.
    """

    kind: str
    place: str
    before: Callable[[Any, list[Any]], list[Any]] | None = None
    after: Callable[[Any, list[Any], Any], Any] | None = None
    inside: Callable[[Any, Any], Any] | None = None

    def plant(self, model: Any, layer: str) -> Any:
        """A model with the fault; `layer` is where one inside goes."""
        return (_plant_in_torch if isinstance(model, nn.Module) else _plant_in_keras)(self, model, layer)


# Planting


def _plant_in_torch(fault: Wrapped, model: nn.Module, layer: str) -> nn.Module:
    planted, maths = copy.deepcopy(model), _Torch()
    if fault.inside:
        place = planted.get_submodule(layer)
        place.register_forward_hook(lambda module, inputs, output: fault.inside(maths, output))
    return Around(planted, lambda run, *xs: _pass(fault, maths, run, xs))


def _pass(fault: Wrapped, maths: Any, run: Callable[..., Any], xs: Sequence[Any]) -> Any:
    entered = fault.before(maths, list(xs)) if fault.before else xs
    made = run(*entered)
    # Never the same tensor: where a softmax made it, it is hidden from all or from none.
    return fault.after(maths, list(xs), made) * 1 if fault.after else made


class Around(nn.Module):
    """A module, and a function that runs it: copies share the function, and what it keeps."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self.model, *inputs)


_PLANTED: dict[str, Callable[[list[Any]], list[Any]]] = {}
_NUMBERS = itertools.count()


@keras.saving.register_keras_serializable("cfi_tests")
class Planted(keras.layers.Layer):
    """Applies a function of this process to tensors; of those behind `first`, the shapes are those of the results."""

    def __init__(self, key: str, first: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.key, self.first = key, first

    def call(self, inputs: list[Any]) -> list[Any]:
        return _PLANTED[self.key](inputs)

    def compute_output_spec(self, inputs: list[Any]) -> list[Any]:
        return [keras.KerasTensor(one.shape, one.dtype) for one in inputs[self.first :]]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "key": self.key, "first": self.first}


def _planted(function: Callable[[list[Any]], list[Any]], first: int = 0) -> Planted:
    key = f"planted_{next(_NUMBERS)}"
    _PLANTED[key] = function
    return Planted(key, first, name=key)


def _plant_in_keras(fault: Wrapped, model: Any, layer: str) -> Any:
    maths = _TensorFlow()
    inputs = [keras.Input(batch_shape=one.shape, dtype=one.dtype, name=one.name) for one in model.inputs]
    entered = inputs
    if fault.before:
        entered = _planted(lambda xs: fault.before(maths, xs))(inputs)

    copies: dict[str, Any] = {}

    def copied(one: Any) -> Any:
        return copies.setdefault(one.name, type(one).from_config(one.get_config()))

    def call(one: Any, *arguments: Any, **options: Any) -> Any:
        made = one(*arguments, **options)
        if fault.inside and one.name == layer:
            return _planted(lambda ys: [fault.inside(maths, ys[0])])([made])[0]
        return made

    graph = keras.Model(model.inputs, model.outputs)  # a Sequential is none
    made = graph._run_through_graph(list(entered), operation_fn=copied, call_fn=call)
    made = made[0] if isinstance(made, list) else made
    for one in model.layers:
        if one.name in copies:
            copies[one.name].set_weights(one.get_weights())
    if fault.after:
        count = len(inputs)
        made = _planted(lambda ys: [fault.after(maths, ys[:count], ys[count])], count)([*inputs, made])[0]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], made)


# Kinds of faults


Plan = dict[str, Callable[..., Any]]


def _values(change: Callable[[Any, Any], Any]) -> Plan:
    """Changes the first input."""
    return {"before": lambda m, xs: [change(m, xs[0]), *xs[1:]]}


def _slopes(change: Callable[[Any, Any, Any], Any]) -> Plan:
    """Changes the gradient of the first input, of which the change knows the gradient and the value."""
    return {"before": lambda m, xs: [m.slope(xs[0], partial(change, m)), *xs[1:]]}


def _outputs(change: Callable[[Any, Any, Any], Any]) -> Plan:
    """Changes the output, of which the change knows the first input too."""
    return {"after": lambda m, xs, y: change(m, y, xs[0])}


def _output_slopes(change: Callable[[Any, Any], Any]) -> Plan:
    """Changes the gradient of the output."""
    return {"after": lambda m, xs, y: m.slope(y, lambda g, _: change(m, g))}


def _layer(change: Callable[[Any, Any], Any]) -> Plan:
    """Changes what a layer gives."""
    return {"inside": change}


def _layer_slopes(change: Callable[[Any, Any], Any]) -> Plan:
    """Changes the gradient of what a layer gives."""
    return {"inside": lambda m, y: m.slope(y, lambda g, _: change(m, g))}


def _column(m: Any, y: Any, column: int, factor: float) -> Any:
    """Factors of an output's columns."""
    return m.constant(y, [factor if one == column else 1.0 for one in range(y.shape[-1])])


def _mask(m: Any, x: Any, place: tuple[int | slice, ...], factor: float) -> Any:
    """Factors of a sample's values, one of them elsewhere than at a place, given with the channels last."""
    axis = m.channels(x) - 1
    shape = tuple(x.shape[1:])
    factors = np.ones(shape, np.float64)
    np.moveaxis(factors, axis, -1)[place] = factor
    return m.constant(x, factors)


def _count(m: Any) -> int:
    m.passes += 1
    return int(m.passes)


def _is_first_of_size(m: Any, x: Any) -> bool:
    size = x.shape[0]
    is_new = size not in m.sizes
    m.sizes.add(size)
    return is_new


def _kept(m: Any, g: Any) -> Any:
    """The gradient of the pass before, where it has the same shape."""
    former, m.gradient = m.gradient, g
    return g if former is None or tuple(former.shape) != tuple(g.shape) or former.dtype != g.dtype else former


def _drop(m: Any, x: Any) -> Any:
    return m.where(m.noise(x) > -1.3, x, x * 0) / 0.9


def _swap_last(m: Any, x: Any) -> Any:
    count = x.shape[0]
    if count is None or count < 2:
        return x
    return m.take(x, [*range(count - 2), count - 1, count - 2])


def _swap_columns(m: Any, y: Any, one: int, other: int) -> Any:
    order = list(range(y.shape[-1]))
    order[one], order[other] = order[other], order[one]
    return m.take(y, order, -1)


def _windows(m: Any, x: Any) -> tuple[Any, list[int]]:
    """In windows of two along each axis of space, and the axes within them."""
    first = 2 if m.channels(x) == 1 else 1
    shape, within = [-1], []
    for axis, size in enumerate(x.shape):
        is_space = first <= axis < first + len(x.shape) - 2
        shape += [] if not axis else [size // 2, 2] if is_space else [size]
        within += [len(shape) - 1] if is_space else []
    return m.reshape(x, shape), within


def _is_one_value(m: Any, windows: Any, within: list[int]) -> Any:
    return m.largest(windows, within) == -m.largest(-windows, within)


def _to_the_last(m: Any, g: Any, x: Any) -> Any:
    """The gradient of max pooling over windows of two, which went to the first of equal values."""
    (windows, within), (parts, _) = _windows(m, x), _windows(m, g)
    other = parts
    for axis in within:
        other = m.flip(other, axis)
    return m.reshape(m.where(_is_one_value(m, windows, within), other, parts), [-1, *g.shape[1:]])


def _share(m: Any, g: Any, x: Any) -> Any:
    """The gradient of max pooling over windows of two, which went to the first of equal values."""
    (windows, within), (parts, _) = _windows(m, x), _windows(m, g)
    shared = m.average(parts, within) + 0 * parts
    return m.reshape(m.where(_is_one_value(m, windows, within), shared, parts), [-1, *g.shape[1:]])


def _accumulate(m: Any, y: Any) -> Any:
    former = m.mean_before
    if y.shape[0] is not None and hasattr(y, "numpy"):  # not while TensorFlow traces
        m.mean_before = float(np.mean(np.asarray(m.stop(y))))
    return y + 0.1 * former


def _around(case: Case) -> Iterator[tuple[str, str, Plan]]:
    """Kind, place and what is planted, for all kinds that fit the case."""
    target, high, traits = case.target, case.highest, case.traits
    samples, to_torch = len(case.inputs[0]), case.side == "tensorflow"
    keys = {method.key for method in case.methods}
    varies = to_torch or "score_cam" in keys  # what the method feeds the model is more than the call's inputs
    has_baselines = any("baselines" in method.options for method in case.methods) or not to_torch
    near = (0.25 * high) ** 2
    others = [one for one in range(3) if one != target]
    corner: tuple[Any, ...] = (0, 0) if "image" in traits else (0,)
    # gradients
    if "units" in traits:
        feature = case.feature
        yield (
            "gradient of a feature in large units",
            "negated",
            _slopes(lambda m, g, x: g * _mask(m, g, (feature,), -1.0)),
        )
        yield (
            "gradient of a feature in large units",
            "zero",
            _slopes(lambda m, g, x: g * _mask(m, g, (feature,), 0.0)),
        )
        yield ("gradient of a feature in small units", "doubled", _slopes(lambda m, g, x: g * _mask(m, g, (4,), 2.0)))
    yield "gradient scaled", "by 1.5", _slopes(lambda m, g, x: g * 1.5)
    yield "gradient of one layer scaled", "by 1.5", _layer_slopes(lambda m, g: g * 1.5)
    yield "gradient of one layer rectified", "", _layer_slopes(lambda m, g: m.relu(g))
    yield ("gradient negated in single precision", "", _slopes(lambda m, g, x: -g if m.is_single(g) else g))
    yield ("gradient scaled in single precision", "by 1.02", _slopes(lambda m, g, x: g * 1.02 if m.is_single(g) else g))
    if samples > 8:
        yield ("gradient wrong from sample 9 on", "", _slopes(lambda m, g, x: m.where(m.places(g) >= 8, -g, g)))
    for most in (one for one in (16, 50) if samples > one or "integrated_gradients" in keys):
        yield (
            f"gradient wrong in batches of more than {most}",
            "",
            _slopes(lambda m, g, x, most=most: m.choose(m.size(g) > most, -g, g)),
        )
    if "few" in traits:
        yield ("gradient wrong in batches of one", "", _slopes(lambda m, g, x: m.choose(m.size(g) == 1, -g, g)))
    yield (
        "gradient zero beyond a threshold",
        "0.8 of the largest",
        _slopes(lambda m, g, x: m.where(x > 0.8 * high, g * 0, g)),
    )
    yield "gradient wrong where an input is zero", "", _slopes(lambda m, g, x: m.where(x == 0, -g, g))
    yield "gradient wrong at one place", "corner", _slopes(lambda m, g, x: g * _mask(m, g, corner, -1.0))
    yield ("gradient wrong in one channel", "first", _slopes(lambda m, g, x: g * _mask(m, g, (..., 0), -1.0)))
    yield (
        "gradient of one output column wrong",
        "negated",
        _output_slopes(lambda m, g: g * _column(m, g, target, -1.0)),
    )
    yield ("gradient of one output column wrong", "halved", _output_slopes(lambda m, g: g * _column(m, g, target, 0.5)))
    yield (
        "gradient of an output lost where it is alone",
        "",
        _output_slopes(lambda m, g: m.where(m.any(m.take(g, others, -1) != 0), g, g * 0.5)),
    )
    yield "gradient a pass late", "", _slopes(lambda m, g, x: _kept(m, g))
    yield "gradient with noise", "of a hundredth", _slopes(lambda m, g, x: g * (1 + 0.02 * m.noise(g)))
    yield "gradient shared among samples", "a hundredth", _slopes(lambda m, g, x: g + 0.05 * m.mean(g))
    yield "gradients of two samples swapped", "the last", _slopes(lambda m, g, x: _swap_last(m, g))
    yield (
        "gradient divided by the number of samples",
        "",
        _output_slopes(lambda m, g: g / m.constant(g, float(g.shape[0] or 1))),
    )
    yield "gradient of a branch cut off", "inside", _layer(lambda m, y: 0.5 * y + 0.5 * m.stop(y))
    yield "gradient clipped", "at a thousandth", _slopes(lambda m, g, x: m.clip(g, -1e-3, 1e-3))
    # outputs
    yield "one output column negated", "the target's", _outputs(lambda m, y, x: y * _column(m, y, target, -1.0))
    yield "one output column scaled", "by 1.05", _outputs(lambda m, y, x: y * _column(m, y, target, 1.05))
    yield ("two output columns swapped", "", _outputs(lambda m, y, x: _swap_columns(m, y, target, 0 if target else 1)))
    yield "outputs off in single precision", "by 1.02", _outputs(lambda m, y, x: y * 1.02 if m.is_single(y) else y)
    if samples > 8 or varies:
        yield "outputs wrong from sample 9 on", "", _outputs(lambda m, y, x: m.where(m.places(y) >= 8, y * 0.5, y))
    for most in (one for one in (16, 50) if samples > one or varies):
        yield (
            f"outputs wrong in batches of more than {most}",
            "",
            _outputs(lambda m, y, x, most=most: m.choose(m.size(y) > most, y * 0.5, y)),
        )
    if "few" in traits:
        yield "outputs wrong in batches of one", "", _outputs(lambda m, y, x: m.choose(m.size(y) == 1, y * 0.5, y))
    for passes in (3, 12, 40):
        yield (
            "outputs wrong after some passes",
            f"{passes}",
            _outputs(lambda m, y, x, passes=passes: y * 0.5 if _count(m) > passes else y),
        )
    if varies:
        in_the_middle = range(13, 17)
        yield (
            "outputs wrong in some passes in the middle",
            "13 to 16",
            _outputs(lambda m, y, x: y * 0.5 if _count(m) in in_the_middle else y),
        )
        yield (
            "outputs wrong in one row of a large batch",
            "the 38th",
            _outputs(lambda m, y, x: m.where(m.places(y) == 37, y * 0.5, y)),
        )
    yield "outputs wrong in every third pass", "", _outputs(lambda m, y, x: y if _count(m) % 3 else y * 0.5)
    yield "outputs drift from pass to pass", "by a hundredth", _outputs(lambda m, y, x: y * (1 + 0.01 * _count(m)))
    yield (
        "outputs wrong in the first pass of a size",
        "",
        _outputs(lambda m, y, x: y * 0.5 if _is_first_of_size(m, y) else y),
    )
    yield (
        "outputs right in the first pass of a size only",
        "",
        _outputs(lambda m, y, x: y if _is_first_of_size(m, y) else y * 0.5),
    )
    yield ("outputs wrong where an input is zero", "", _outputs(lambda m, y, x: m.where(m.any(x == 0), y * 0.5, y)))
    yield ("outputs wrong near zero", "a quarter", _outputs(lambda m, y, x: m.where(m.all(x * x < near), y * 0.5, y)))
    yield (
        "outputs wrong beyond the data's range",
        "",
        _outputs(lambda m, y, x: m.where(m.any(x > 1.02 * high), y * 0.5, y)),
    )
    if has_baselines:
        yield (
            "outputs wrong at the baselines",
            "",
            _outputs(lambda m, y, x: m.where(m.any(x == BASELINE), y * 0.5, y)),
        )
    yield "another forward pass under recording", "", _outputs(lambda m, y, x: y if m.is_recording() else y * 0.5)
    yield "another gradient's forward pass", "", _outputs(lambda m, y, x: m.tanh(y) if m.is_recording() else y)
    yield "inputs clipped above the data", "", _values(lambda m, x: m.clip(x, -1e30, high))
    yield ("inputs clipped within the data", "0.9 of the largest", _values(lambda m, x: m.clip(x, -1e30, 0.9 * high)))
    yield "samples swapped", "the last two", _outputs(lambda m, y, x: _swap_last(m, y))
    yield "samples leak", "a hundredth of the mean", _values(lambda m, x: x + 0.01 * m.mean(x))
    yield "noise", "of a hundredth", _outputs(lambda m, y, x: y * (1 + 0.01 * m.noise(y)))
    yield "dropout left on", "", _values(lambda m, x: _drop(m, x))
    yield "state kept", "", _outputs(lambda m, y, x: _accumulate(m, y) * (1 + 0.05 * min(_count(m), 10)))
    yield (
        "not a number where an input is zero",
        "",
        _outputs(lambda m, y, x: m.where(m.any(x == 0), y * float("nan"), y)),
    )
    yield ("inputs in eight bits", "", _values(lambda m, x: x + m.stop(m.round(x / high * 127) * high / 127 - x)))
    yield "inputs in sixteen bits", "", _values(lambda m, x: x + m.stop(m.in_half(x / high) * high - x))
    yield (
        "wrong for one of the samples",
        "the largest first value",
        _outputs(lambda m, y, x: m.where(m.any(x == high), y * 0.5, y)),
    )
    yield "a layer's output scaled", "by 1.01", _layer(lambda m, y: y * 1.01)
    yield "a layer's output clipped", "", _layer(lambda m, y: m.clip(y, -1.0, 1.0))
    yield "a layer's first channel lost", "", _layer(lambda m, y: y * _mask(m, y, (..., 0), 0.0))
    if "tied" in traits:
        yield "gradient at ties of pooling", "the last", _slopes(lambda m, g, x: _to_the_last(m, g, x))
        yield "gradient at ties of pooling", "shared", _slopes(lambda m, g, x: _share(m, g, x))
    if "image" in traits or "sequence" in traits:
        yield ("axes reversed", "first of space", _values(lambda m, x: m.flip(x, 2 if m.channels(x) == 1 else 1)))
        yield ("shifted by one", "first of space", _values(lambda m, x: m.roll(x, 2 if m.channels(x) == 1 else 1)))
        yield "channels reversed", "", _values(lambda m, x: m.flip(x, m.channels(x)))
        yield ("gradient reversed in space", "", _slopes(lambda m, g, x: m.flip(g, 2 if m.channels(g) == 1 else 1)))
    if "two" in traits:
        yield "two inputs swapped", "", {"before": lambda m, xs: [xs[1], xs[0]]}
        yield (
            "gradient of an input cut off",
            "second",
            {"before": lambda m, xs: [xs[0], 0.5 * xs[1] + 0.5 * m.stop(xs[1])]},
        )
        yield "gradient of an input cut off", "first", {"before": lambda m, xs: [m.stop(xs[0]) + 0 * xs[0], xs[1]]}
        yield (
            "gradient of an input goes to the other",
            "",
            {"before": lambda m, xs: [m.stop(xs[0]) + xs[1] - m.stop(xs[1]), m.stop(xs[1]) + xs[0] - m.stop(xs[0])]},
        )
    if "rare" in traits:
        yield "a rare class negated", "", _outputs(lambda m, y, x: y * _column(m, y, 0, -1.0))
        yield "two rare classes swapped", "", _outputs(lambda m, y, x: _swap_columns(m, y, 0, 1))
        yield "a rare class scaled", "by 1.2", _outputs(lambda m, y, x: y * _column(m, y, 0, 1.2))


def _take_for_another(m: Any, x: Any) -> Any:
    """Of tokens as whole numbers, or as rows with one 1."""
    if len(x.shape) == 2:
        return m.where(x == RARE, m.constant(x, RARE + 1) + 0 * x, x)
    order = list(range(TOKENS))
    order[RARE], order[RARE + 1] = RARE + 1, RARE
    return m.take(x, order, 2)


def _hide_the_last(m: Any, x: Any) -> Any:
    """Takes the last token before the padding for padding."""
    kept = np.reshape([1, 1, 1, 1, 1, 0, 1, 1], (8, *(1,) * (len(x.shape) - 2)))
    return x * m.constant(x, kept)


def _with_tokens(case: Case) -> Iterator[tuple[str, str, Plan]]:
    """Kinds that fit tokens too, and those of tokens."""
    fitting = (
        "outputs",
        "one output",
        "two output",
        "a layer",
        "another forward",
        "samples swapped",
        "noise",
        "state",
        "wrong for",
    )
    for kind, place, planted in _around(case):
        if kind.startswith(fitting) and "first value" not in place and "before" not in planted:
            yield kind, place, planted
    yield "a rare token taken for another", "", _values(_take_for_another)
    yield "the padding's mask off by one", "", _values(_hide_the_last)
    yield "tokens reversed", "", _values(lambda m, x: m.flip(x, 1))


def wrapped(case: Case) -> list[Wrapped]:
    """All faults of these kinds that fit the case."""
    found = _with_tokens(case) if "tokens" in case.traits else _around(case)
    return [Wrapped(kind, place, **planted) for kind, place, planted in found]
