"""Records what the passes of a run feed to a graph of Keras layers, and what goes back through it.

Toolsets build models of their own from the tensors of the graph, so what is watched is the computation between its
symbolic inputs and outputs, in whichever model it happens. For that CFI stands in for the methods of Keras that run
graphs of layers (`predict` compiles them, so it is seen from outside), while anybody watches; what other threads run,
and other graphs, goes on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.ops.function import Function

from cfi_core.framework import Pass, Passes
from cfi_core.turns import Lock

Read = Callable[[Any], np.ndarray]

_watching: ContextVar[_Graph | None] = ContextVar("cfi_tensorflow_watching", default=None)
_lock = Lock()
_watchers = 0


@contextmanager
def watch_passes(model: keras.Model, passes: Passes, read: Read) -> Iterator[None]:
    """Watches the graph of a model."""
    with _watched_by(_Watch(model, passes, read)):
        yield


@contextmanager
def count_passes(model: keras.Model, count: Callable[[int], None]) -> Iterator[None]:
    """Counts the samples of each forward pass of the graph of a model."""
    with _watched_by(_Count(model, count)):
        yield


@contextmanager
def _watched_by(watch: _Graph) -> Iterator[None]:
    token = _watching.set(watch)
    _count(1)
    try:
        yield
    finally:
        _count(-1)
        _watching.reset(token)


def _count(more: int) -> None:
    global _watchers
    with _lock:
        if not _watchers:
            _RUN.step_in()
            _PREDICT.step_in()
        _watchers += more
        if not _watchers:
            _RUN.step_out()
            _PREDICT.step_out()


class _StandIn:
    """A function of ours in the place of a method, as long as there is anybody who watches.

    Somebody else may have put one there before, or do so meanwhile: that one stays.
    """

    def __init__(self, owner: type, name: str, function: Callable[..., Any]) -> None:
        self._owner, self._name, self._function = owner, name, function
        self._is_below = False  # of a function that somebody has put in the place of ours
        self.original: Callable[..., Any] = getattr(owner, name)

    def step_in(self) -> None:
        """Unless it is there already, or what is there calls it."""
        present = getattr(self._owner, self._name)
        if present is self.original or not self._is_below:
            self.original, self._is_below = present, False
            setattr(self._owner, self._name, self._function)

    def step_out(self) -> None:
        """What was there comes back; what came since stays, and goes on to call it through ours."""
        self._is_below = getattr(self._owner, self._name) is not self._function
        if not self._is_below:
            setattr(self._owner, self._name, self.original)


def _run_watched(function: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    watch = _watching.get()
    if watch is None or not watch.knows(function):
        return _RUN.original(function, inputs, *args, **kwargs)
    return watch.run(function, keras.tree.flatten(inputs), *args, **kwargs)


def _predict_watched(model: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    outputs = _PREDICT.original(model, x, *args, **kwargs)
    watch = _watching.get()
    if watch is not None and isinstance(model, Function) and watch.knows(model):
        watch.see(model, *([*map(tf.convert_to_tensor, keras.tree.flatten(values))] for values in (x, outputs)))
    return outputs


_RUN = _StandIn(Function, "_run_through_graph", _run_watched)
_PREDICT = _StandIn(TensorFlowTrainer, "predict", _predict_watched)


class _Graph:
    """Somebody who wants to know when the graph of a model runs."""

    def __init__(self, model: keras.Model) -> None:
        self._inputs = [id(tensor) for tensor in model.inputs]
        self._model = model  # whose tensors keep their identities

    def knows(self, function: Any) -> bool:
        """Whether it computes from the inputs of the graph."""
        return [id(tensor) for tensor in function.inputs] == self._inputs

    def run(self, function: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """The same as the function itself."""
        # When a model is built or compiled, its graph runs too, on other things than values.
        if not all(isinstance(value, tf.Tensor) and not tf.is_symbolic_tensor(value) for value in inputs):
            return _RUN.original(function, inputs, *args, **kwargs)
        return self.run_pass(function, inputs, *args, **kwargs)

    def run_pass(self, function: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """The same, on values."""
        raise NotImplementedError

    def see(self, function: Any, inputs: list[Any], outputs: list[Any]) -> None:
        """What was predicted for what, in however many passes."""
        raise NotImplementedError


class _Count(_Graph):
    def __init__(self, model: keras.Model, count: Callable[[int], None]) -> None:
        super().__init__(model)
        self._count = count
        self._passes = 0  # since something was predicted last

    def run_pass(self, function: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        outputs = _RUN.original(function, inputs, *args, **kwargs)
        self._passes += 1
        self._count(_samples_of(inputs))
        return outputs

    def see(self, function: Any, inputs: list[Any], outputs: list[Any]) -> None:
        if not self._passes:  # otherwise it was predicted layer by layer, and each pass was seen
            self._count(_samples_of(inputs))
        self._passes = 0


def _samples_of(inputs: list[Any]) -> int:
    return int(inputs[0].shape[0]) if inputs and inputs[0].shape.rank else 1


class _Watch(_Graph):
    def __init__(self, model: keras.Model, passes: Passes, read: Read) -> None:
        super().__init__(model)
        self._outputs = {id(tensor): position for position, tensor in enumerate(model.outputs)}
        self._passes, self._read = passes, read

    def run_pass(self, function: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        kept: list[Pass] = []
        taps = [_tap(value, partial(self._keep, kept, "gradients", i)) for i, value in enumerate(inputs)]
        outputs = keras.tree.flatten(_RUN.original(function, taps, *args, **kwargs))
        self.see(function, inputs, outputs, kept)
        for i, position in enumerate(map(self._position, function.outputs)):
            if position is not None:
                outputs[i] = _tap(outputs[i], partial(self._keep, kept, "cotangents", position))
        return keras.tree.pack_sequence_as(function._outputs_struct, outputs)

    def see(self, function: Any, inputs: list[Any], outputs: list[Any], kept: list[Pass] | None = None) -> None:
        """Keeps some samples of a pass."""
        samples = {int(value.shape[0]) if value.shape.rank else 0 for value in inputs}
        known = [
            (i, value) for i, value in zip(map(self._position, function.outputs), outputs, strict=True) if i is not None
        ]
        if len(samples) != 1 or 0 in samples or not known:
            return
        one = self._passes.open(samples.pop(), _extremes(inputs[0]))
        one.inputs = [self._rows(one, value) for value in inputs]
        one.outputs = {i: self._rows(one, value) for i, value in known if len(value) == one.samples}
        if kept is not None:
            kept.append(one)

    def _position(self, tensor: Any) -> int | None:
        return self._outputs.get(id(tensor))

    def _keep(self, kept: list[Pass], what: str, position: int, gradient: Any) -> None:
        if kept and not tf.is_symbolic_tensor(gradient):
            getattr(kept[0], what).setdefault(position, self._rows(kept[0], tf.convert_to_tensor(gradient)))

    def _rows(self, kept: Pass, value: Any) -> np.ndarray:
        return np.array(self._read(tf.gather(value, kept.rows)))


def _tap(value: Any, keep: Callable[[Any], None]) -> Any:
    """The same value, which shows its gradient."""
    if not value.dtype.is_floating:
        return value

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def tap(x: Any) -> Any:
        def back(gradient: Any) -> Any:
            keep(gradient)
            return gradient

        return tf.identity(x), back

    made = tap(value)
    mask = keras.src.backend.get_keras_mask(value)
    if mask is not None:
        keras.src.backend.set_keras_mask(made, mask)
    return made


def _extremes(values: Any) -> list[int]:
    """The samples with the largest and the smallest value."""
    if not (values.dtype.is_floating or values.dtype.is_integer):
        return []
    rows = tf.reshape(values, (len(values), -1))
    return [int(tf.argmax(tf.reduce_max(rows, 1))), int(tf.argmin(tf.reduce_min(rows, 1)))]
