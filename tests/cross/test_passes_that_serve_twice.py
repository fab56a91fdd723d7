"""Where a method needs one pass at the inputs, the first pass of a call over a bridge is the pass of its run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import cfi_core as cfi
from cfi_bridge import span
from cfi_core.framework import Recorded

SAMPLES, TARGETS = 3, [1, 0, 3]


class Counted(nn.Sequential):
    """Knows how many samples its passes had, and whether they recorded gradients."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.passes: list[tuple[int, bool]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        twin = Counted(*(module for module in self))
        twin.passes = self.passes
        return twin

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().forward(values)
        self.passes.append((len(values), found.requires_grad))
        return found


@pytest.fixture
def torch_model() -> Counted:
    torch.manual_seed(0)
    return Counted(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4 * 5, 5)).eval()


@pytest.fixture
def torch_inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SAMPLES, 3, 6, 7)).astype(np.float32)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    cfi.forget_translations()


def by_torch(model: nn.Module, inputs: np.ndarray) -> np.ndarray:
    leaf = torch.tensor(inputs, requires_grad=True)
    score = model(leaf)[torch.arange(len(inputs)), TARGETS[: len(inputs)]].sum()
    return torch.autograd.grad(score, leaf)[0].numpy()


def saliency(model: Any, inputs: np.ndarray, toolset: str, **more: Any) -> cfi.Attribution:
    made = cfi.attribute(model, "saliency", toolset, inputs=inputs, target=TARGETS[: len(inputs)], **more)
    assert isinstance(made, cfi.Attribution)
    return made


def is_served(made: cfi.Attribution) -> bool:
    return any("made by itself" in note for note in made.certificate.notes)  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, SAMPLES])
def test_a_torch_model_runs_twice_in_all(torch_model: Counted, torch_inputs: np.ndarray, count: int) -> None:
    inputs = torch_inputs[:count]
    made = saliency(torch_model, inputs, "tf-keras-vis")
    # The pass that records is the run's; the other one tells whether the model is a function.
    assert [torch_model.passes[0], len(torch_model.passes)] == [(count, True), 2]
    assert not torch_model.passes[1][1]
    assert is_served(made)
    np.testing.assert_allclose(made.values, by_torch(torch_model, inputs), rtol=1e-5, atol=1e-7)


def test_a_keras_model_runs_twice_in_all() -> None:
    passes: list[int] = []

    class Seen(keras.layers.Layer):
        def call(self, values: Any) -> Any:
            passes.append(0 if tf.is_symbolic_tensor(values) else int(values.shape[0]))
            return values

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6, 7, 3)), Seen(), layers.Conv2D(4, 3, activation="tanh"), layers.Flatten(), layers.Dense(5)]
    )
    inputs = np.random.default_rng(0).normal(size=(SAMPLES, 6, 7, 3)).astype(np.float32)
    passes.clear()
    made = saliency(model, inputs, "captum")
    sizes = [one for one in passes if one]
    assert [sizes[0], len(sizes)] == [SAMPLES, 2]
    assert is_served(made)
    values = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(values)
        score = tf.reduce_sum(tf.gather_nd(model(values), list(enumerate(TARGETS))))
    np.testing.assert_allclose(made.values, tape.gradient(score, values), rtol=1e-5, atol=1e-7)


def test_the_second_call_is_served_too(torch_model: Counted, torch_inputs: np.ndarray) -> None:
    saliency(torch_model, torch_inputs, "tf-keras-vis")
    for inputs in (torch_inputs, torch_inputs[::-1].copy()):
        torch_model.passes.clear()
        made = saliency(torch_model, inputs, "tf-keras-vis")
        np.testing.assert_allclose(made.values, by_torch(torch_model, inputs), rtol=1e-5, atol=1e-7)
        assert is_served(made)


def test_after_a_step_of_training_the_new_model_is_explained(torch_model: Counted, torch_inputs: np.ndarray) -> None:
    saliency(torch_model, torch_inputs, "tf-keras-vis")
    with torch.no_grad():
        for parameter in torch_model.parameters():
            parameter.mul_(-1.5)
    made = saliency(torch_model, torch_inputs, "tf-keras-vis")
    np.testing.assert_allclose(made.values, by_torch(torch_model, torch_inputs), rtol=1e-5, atol=1e-7)


def test_a_softmax_that_is_left_out_takes_the_pass_out_of_use(torch_model: Counted, torch_inputs: np.ndarray) -> None:
    made = saliency(nn.Sequential(*torch_model, nn.Softmax(1)).eval(), torch_inputs, "tf-keras-vis")
    assert not is_served(made)
    np.testing.assert_allclose(made.values, by_torch(torch_model, torch_inputs), rtol=1e-4, atol=1e-6)


def test_another_method_is_certified_anew(torch_model: Counted, torch_inputs: np.ndarray) -> None:
    saliency(torch_model, torch_inputs, "tf-keras-vis")
    made = cfi.attribute(
        torch_model, "smooth_grad", "tf-keras-vis", inputs=torch_inputs, target=TARGETS, seed=0,
        exec_args={"smooth_samples": 2},
    )  # fmt: skip
    assert isinstance(made, cfi.Attribution)
    assert not is_served(made)
    assert made.certificate.measurements[0].gradient_difference is not None  # type: ignore[union-attr]


def test_passes_that_nobody_expected_are_certified_and_run_again(
    torch_model: Counted, torch_inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a toolset that shifts the inputs after all: the bridge's own passes have evidence before they count."""
    given = Recorded.of

    def missed(self: Recorded, values: Any) -> Any:
        return given(self, [value + 1 for value in values] if self.outputs is not None else values)

    monkeypatch.setattr(Recorded, "of", missed)
    made = saliency(torch_model, torch_inputs, "tf-keras-vis")
    assert not is_served(made)
    assert made.certificate.faithful  # type: ignore[union-attr]
    np.testing.assert_allclose(made.values, by_torch(torch_model, torch_inputs), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("what", ["_inwards", "outwards"])
def test_a_bridge_that_does_not_hand_on_what_it_gets_is_refused(
    torch_model: Counted, torch_inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    real = getattr(span.Span, what)

    def halves(self: span.Span, tensor: Any, axes: Any, *place: Any) -> Any:
        found = real(self, tensor, axes, *place)
        return found * 0.5 if len(found.shape) == 2 else found  # outputs and cotangents

    monkeypatch.setattr(span.Span, what, halves)
    with pytest.raises(cfi.UnfaithfulTranslationError, match="differ by"):
        saliency(torch_model, torch_inputs, "tf-keras-vis", translator="bridge")


def test_a_model_that_is_random_is_not_served(torch_model: Counted, torch_inputs: np.ndarray) -> None:
    class Noisy(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values + 0.1 * torch.rand_like(values)

    model = nn.Sequential(Noisy(), *torch_model).eval()
    with pytest.warns(cfi.ModelWarning, match="random"), pytest.raises(cfi.UnfaithfulTranslationError):
        saliency(model, torch_inputs, "tf-keras-vis", translator="bridge")


def test_a_model_that_gives_something_else_where_it_records_is_told(
    torch_model: Counted, torch_inputs: np.ndarray
) -> None:
    class Otherwise(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values if torch.is_grad_enabled() else 2 * values

    with pytest.warns(cfi.ModelWarning, match="where gradients are recorded"):
        saliency(nn.Sequential(Otherwise(), *torch_model).eval(), torch_inputs, "tf-keras-vis")
