"""What the tests of TensorFlow's runner share: values, and the comparison with TensorFlow alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cfi_core.framework import Runner, flatten
from cfi_tensorflow.adapter import TensorFlowAdapter
from cfi_tensorflow.runners import GraphRunner, PatientRunner

ADAPTER = TensorFlowAdapter()


def random(*shape: int, dtype: str = "float32") -> tf.Tensor:
    return tf.constant(np.random.default_rng(5).normal(size=shape), dtype)


def tokens(*shape: int, below: int = 11) -> tf.Tensor:
    return tf.constant(np.random.default_rng(5).integers(1, below, size=shape))


def apart(a: Any, b: Any) -> float:
    a, b = (np.asarray(value).astype(np.float64) for value in (a, b))
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0))


def chain(runner: Runner, inputs: Sequence[Any], cotangents: Sequence[Any]) -> tuple[Any, Any, dict[str, Any], Any]:
    """Outputs, input gradients, layer gradients and activations, as a host puts them together from the stages."""
    values = list(inputs)
    pullbacks, activations = [], {}
    for stage, name in enumerate(runner.layers):
        (activation,), pullback = runner.linearize(stage, values)
        assert apart(runner.run(stage, values)[0], activation) < 1e-6
        pullbacks.append(pullback)
        activations[name] = activation
        values.append(activation)
    outputs, pullback = runner.linearize(len(runner.layers), values)
    everything = [True] * len(values)
    gradients = [0.0 if found is None else found for found in pullback(cotangents, everything)]
    at_layers = {}
    for stage in reversed(range(len(pullbacks))):
        position = len(inputs) + stage
        at_layers[runner.layers[stage]] = gradients[position]
        back = pullbacks[stage]([gradients[position]], everything[:position])
        for i, found in enumerate(back):
            gradients[i] = gradients[i] if found is None else gradients[i] + found
    return outputs, gradients[: len(inputs)], at_layers, activations


def check(
    model: Any,
    inputs: Sequence[tf.Tensor],
    names: Sequence[str] = (),
    *,
    call: Callable[..., Any] | None = None,
    kind: type = GraphRunner,
    outputs_within: float = 1e-6,
    gradients_within: float = 1e-5,
) -> Runner:
    """The stages together compute the model, for other numbers of samples than it was made for too."""
    runner = ADAPTER.runner(model, inputs, names)
    assert set(runner.layers) == set(names)
    if isinstance(runner, PatientRunner):
        _check_passes(runner.current, model, inputs, names, call, outputs_within, gradients_within)
        runner.settle()
        runner = runner.current
    assert type(runner) is kind
    _check_passes(runner, model, inputs, names, call, outputs_within, gradients_within)
    return runner


def _check_passes(
    runner: Runner,
    model: Any,
    inputs: Sequence[tf.Tensor],
    names: Sequence[str],
    call: Callable[..., Any] | None,
    outputs_within: float,
    gradients_within: float,
) -> None:
    call = call or (lambda *values: model(values[0] if len(values) == 1 else list(values), training=False))
    for samples in (len(inputs[0]), 1, 3):
        given = [tf.gather(value, np.arange(samples) % len(value)) for value in inputs]
        floating = [value for value in given if value.dtype.is_floating]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(floating)
            expected = flatten(call(*given))
            cotangents = [tf.cast(random(*value.shape), value.dtype) for value in expected]
            total = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(expected, cotangents, strict=True)])
        own = iter(tape.gradient(total, floating, unconnected_gradients="zero"))
        outputs, gradients, at_layers, activations = chain(runner, given, cotangents)
        plain = runner.run(len(names), [*given, *(activations[name] for name in runner.layers)])
        assert all(np.abs(np.asarray(value)).max() > 0 for value in expected)
        for output, again, value in zip(outputs, plain, expected, strict=True):
            assert output.dtype == value.dtype
            assert apart(output, value) < outputs_within and apart(again, value) < outputs_within
        for value, gradient in zip(given, gradients, strict=True):
            if value.dtype.is_floating:
                assert apart(gradient, tf.convert_to_tensor(next(own))) < gradients_within
        arrays = [np.asarray(value) for value in cotangents]
        read = ADAPTER.activations(model, given, names)
        found = ADAPTER.layer_gradients(model, given, arrays, names)
        for name in names:
            assert apart(activations[name], read[name]) < outputs_within
            if name in found:
                assert apart(at_layers[name], found[name]) < gradients_within
