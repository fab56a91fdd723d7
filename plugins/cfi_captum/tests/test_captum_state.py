"""Nothing of a run stays behind on the model, also after an error."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from captum_models import IMAGE, SmallCNN, attribute, images
from torch import nn

from cfi_core.contract import Target
from cfi_core.errors import CFIError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
KEYS = ["saliency", "deep_lift", "deep_lift_shap", "guided_backprop", "lrp", "layer_lrp", "grad_cam", "neuron_gradient"]


def _marks(model: nn.Module) -> list[Any]:
    return [
        (type(module), sorted(vars(module)), [list(getattr(module, hooks)) for hooks in _HOOKS])
        for module in model.modules()
    ]


def _parameters(model: nn.Module) -> list[tuple[bool, bool, torch.Tensor]]:
    return [(p.requires_grad, p.grad is None, p.detach().clone()) for p in model.parameters()]


def _arguments(key: str, model: SmallCNN) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if key in ("layer_lrp", "grad_cam", "neuron_gradient"):
        arguments["layer"] = model.conv2
    if key == "neuron_gradient":
        arguments["neuron"] = (1, 1, 1)
    if key == "deep_lift_shap":
        arguments["baselines"] = torch.randn(2, *IMAGE)
    return arguments


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("fails", [False, True])
def test_no_marks_are_left(key: str, fails: bool) -> None:
    model = SmallCNN().eval()
    model.conv1.weight.requires_grad_(False)
    keep = model.relu1.register_forward_hook(lambda *_: None)
    marks, parameters = _marks(model), _parameters(model)
    target = Target(index=(99,)) if fails else Target(index=(1,))
    if fails and key != "neuron_gradient":
        with pytest.raises(CFIError):
            attribute(key, model, images(), target=target, **_arguments(key, model))
    elif fails:
        with pytest.raises(CFIError):
            attribute(key, model, images(), **{**_arguments(key, model), "neuron": (99, 0, 0)})
    else:
        attribute(key, model, images(), target=target, **_arguments(key, model))
    assert _marks(model) == marks
    for before, after in zip(parameters, _parameters(model), strict=True):
        assert before[:2] == after[:2]
        assert torch.equal(before[2], after[2])
    keep.remove()


@pytest.mark.parametrize("key", ["deep_lift", "lrp", "guided_backprop"])
def test_a_second_run_gives_the_same(key: str) -> None:
    model, x = SmallCNN().eval(), images()
    first = attribute(key, model, x).values
    torch.testing.assert_close(attribute(key, model, x).values, first, rtol=0, atol=0)


def test_inputs_are_left_alone() -> None:
    from captum_models import request

    from cfi_captum.run import run

    asked = request("integrated_gradients", SmallCNN(), images())
    before = asked.inputs[0].clone()
    run(asked)
    assert torch.equal(asked.inputs[0], before)


FIRST_CALL = """
import random
import torch
import cfi_core as cfi

before = random.getstate()
model = torch.nn.Linear(3, 2).eval()
few = {"n_samples": 9}
cfi.attribute(model, "kernel_shap", "captum", inputs=torch.ones(1, 3), target=0, baselines=0, exec_args=few)
assert random.getstate() == before
"""


def test_what_the_first_call_loads_draws_nothing_from_the_users_generator() -> None:
    """Scikit-learn does while it is loaded, with rich beside it."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FIRST_CALL], check=True, capture_output=True, timeout=120)
