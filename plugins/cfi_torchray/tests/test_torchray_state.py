"""The user's model, inputs and process are as before, also after errors; calls of several threads do not disturb."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchray.attribution import excitation_backprop
from torchray_models import Plain, images, seeded

import cfi_core as cfi

PATCHED = [
    *((torch, name) for name in ("relu", "relu_")),
    *(
        (F, name)
        for name in ("conv1d", "conv2d", "conv3d", "linear", "batch_norm", "avg_pool2d", "adaptive_avg_pool2d")
    ),
    (excitation_backprop, "eltwise_sum"),
]
CALLS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "deconvolution": {},
    "guided_backprop": {},
    "linear_approx": {},
    "excitation_backprop": {},
    "grad_cam": {"layer": "3"},
    "contrastive_excitation_backprop": {"layer": "2", "exec_args": {"contrast_layer": "5"}},
    "rise": {"exec_args": {"num_masks": 30, "num_cells": 3}},
    "extremal_perturbation": {"exec_args": {"max_iter": 8, "step": 2, "sigma": 3}},
}


def functions() -> list[Any]:
    return [getattr(place, name) for place, name in PATCHED]


def run(model: nn.Module, key: str, **more: Any) -> np.ndarray:
    arguments = {"inputs": images(), "target": [1, 3], "seed": 3, **CALLS[key], **more}
    return np.asarray(cfi.attribute(model, key, "torchray", **arguments).values)


@pytest.mark.parametrize("key", CALLS)
def test_the_model_keeps_its_gradients_and_the_process_its_functions(key: str) -> None:
    model, before = seeded(Plain), functions()
    model[0].weight.requires_grad_(False)
    for position, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, position) if position % 2 else None
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    x = torch.tensor(images(), requires_grad=True)
    run(model, key, inputs=x)
    assert x.grad is None
    assert functions() == before
    assert torch.equal(torch.get_rng_state(), random)
    for position, parameter in enumerate(model.parameters()):
        assert parameter.requires_grad == bool(position)
        assert (parameter.grad is None) if position % 2 == 0 else bool((parameter.grad == position).all())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Fragile(nn.Module):
    """Fails while it is explained, and only then."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = seeded(Plain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.relu is not RELU or F.linear is not LINEAR:
            raise RuntimeError("the model's own fault")
        return self.plain(x)


RELU, LINEAR = torch.relu, F.linear


@pytest.mark.parametrize("key", ["deconvolution", "guided_backprop", "excitation_backprop"])
def test_functions_are_put_back_after_an_error(key: str) -> None:
    before = functions()
    with pytest.raises(cfi.MethodError, match="the model's own fault"):
        run(Fragile().eval(), key)
    assert functions() == before


def test_a_context_that_leaves_its_rule_behind_is_put_right() -> None:
    class Leaving:
        def __enter__(self) -> None:
            rule = type(
                "Rule",
                (torch.autograd.Function,),
                {
                    "forward": staticmethod(lambda ctx, x: x.clamp(min=0)),
                    "backward": staticmethod(lambda ctx, g: g),
                },
            )
            torch.relu = torch.relu_ = rule.apply

        def __exit__(self, *raised: object) -> None:
            pass

    before = functions()
    run(seeded(Plain), "saliency", exec_args={"context_builder": Leaving})
    assert functions() == before


def test_calls_of_several_threads_give_the_values_of_one() -> None:
    model = seeded(Plain)
    keys = [key for key in CALLS if key != "extremal_perturbation"] * 4
    serial = {key: run(model, key) for key in CALLS}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda key: run(model, key), keys))
    for key, values in zip(keys, found, strict=True):
        np.testing.assert_array_equal(values, serial[key], err_msg=key)


def test_a_rule_is_not_seen_by_other_calls() -> None:
    """While one thread is inside a guided pass, another call waits for its turn instead of taking the rule."""
    inside, done = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = seeded(Plain)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.relu is not RELU:
                inside.set()
                done.wait(0.3)
            return self.plain(x)

    expected = run(seeded(Plain), "saliency")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, Waiting().eval(), "guided_backprop")
        assert inside.wait(20)
        found = pool.submit(run, seeded(Plain), "saliency").result()
        done.set()
        first.result()
    np.testing.assert_array_equal(found, expected)
