"""Nothing of a run stays behind, also after an error."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit.composites import EpsilonPlus
from zennit.core import Hook
from zennit_models import Plain, Residual, attribute, images, relevance

import cfi_core as cfi
from cfi_core.contract import MethodRequest, Target
from cfi_zennit.run import run
from cfi_zennit.table import METHODS, method_spec

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
KEYS = ["saliency", "smooth_grad", "occlusion", "guided_backprop", "lrp_epsilon_plus", "excitation_backprop"]


class Failing(Hook):
    def backward(self, module: nn.Module, grad_input: Any, grad_output: Any) -> Any:
        raise ValueError("a rule of the user's failed")


def marks(model: nn.Module) -> list[Any]:
    return [
        (type(module), sorted(vars(module)), [list(getattr(module, hooks)) for hooks in _HOOKS])
        for module in model.modules()
    ]


def content(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def request(key: str, model: nn.Module, x: Tensor, init_args: Mapping[str, Any] | None = None) -> MethodRequest:
    method = method_spec(METHODS[key])
    given, exec_args = method.complete("raw", init_args or {}, {})
    return MethodRequest(method, model, (x.clone(),), Target(index=(1,)), init_args=given, exec_args=exec_args)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("make", [Plain, Residual])
def test_the_users_model_is_as_it_was(key: str, make: type[nn.Module]) -> None:
    model, x = make().eval(), images(dtype=torch.float32)
    model.register_forward_hook(lambda *_: None)
    next(model.parameters()).requires_grad_(False)
    seen, held = marks(model), content(model)
    gradients = [one.requires_grad for one in model.parameters()]
    attribute(model, key, x)
    assert marks(model) == seen
    assert gradients == [one.requires_grad for one in model.parameters()]
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters())


@pytest.mark.parametrize("layer_map", [[(nn.Linear, Failing())], [(nn.Conv2d, Failing())]])
def test_no_hook_stays_after_an_error(layer_map: Any) -> None:
    """On the copy that ran, too: the way back fails in the middle."""
    model, x = Plain().eval(), images(dtype=torch.float32)
    seen = [hooks for _, _, hooks in marks(model)]
    composite = EpsilonPlus(layer_map=layer_map)
    with pytest.raises(cfi.MethodError, match="a rule of the user's failed"):
        run(request("zennit_lrp", model, x, {"composite": composite}))
    assert [hooks for _, _, hooks in marks(model)] == seen
    assert not composite.handles and not composite.hook_refs


@pytest.mark.parametrize("key", KEYS)
def test_no_hook_stays_on_the_copy_that_ran(key: str) -> None:
    model = Plain().eval()
    run(request(key, model, images(dtype=torch.float32)))
    assert all(not any(hooks) for _, _, hooks in marks(model))


def test_inputs_are_left_alone() -> None:
    asked = request("lrp_epsilon_plus", Residual().eval(), images(dtype=torch.float32))
    before = asked.inputs[0].clone()
    run(asked)
    assert torch.equal(asked.inputs[0], before) and not asked.inputs[0].requires_grad


def test_nothing_of_a_run_is_held_in_memory() -> None:
    """A user of Zennit's saw memory grow with every run."""
    model, x = Residual().eval(), images(dtype=torch.float32)
    copied = Residual().eval()
    run(request("lrp_epsilon_plus", copied, x))
    of_run = weakref.ref(copied)
    del copied
    gc.collect()
    assert of_run() is None
    relevance(model, "lrp_epsilon_plus", x)
    gc.collect()
    tensors = [sum(type(one) is Tensor for one in gc.get_objects())]
    for _ in range(20):
        relevance(model, "lrp_epsilon_plus", x)
    gc.collect()
    tensors.append(sum(type(one) is Tensor for one in gc.get_objects()))
    assert tensors[1] <= tensors[0] + 2


def test_under_no_grad_and_in_inference_mode() -> None:
    model, x = Plain().eval(), images(dtype=torch.float32)
    expected = relevance(model, "lrp_epsilon_plus", x)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert (relevance(model, "lrp_epsilon_plus", x) == expected).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model, x = Residual().eval(), images(dtype=torch.float32)
    expected = relevance(model, "lrp_epsilon_plus", x, init_args={"stabilizer": 1e-3})
    found = relevance(model.to(dtype), "lrp_epsilon_plus", x.to(dtype), init_args={"stabilizer": 1e-3})
    assert abs(found - expected).max() < (1e-5 if dtype is torch.float64 else 0.2) * abs(expected).max()
