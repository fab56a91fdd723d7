"""The user's model and process are the same after a call as before it, also after an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_arguments import ARGUMENTS
from process_state import assert_same, keras_state, process_state, torch_state
from shared_cnn import Twins
from torch import nn

import cfi_core as cfi

pytestmark = pytest.mark.filterwarnings("ignore:The model is in training mode")


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("saliency", "captum", {}),
    ("saliency", "tf-keras-vis", {}),
    ("smooth_grad", "tf-keras-vis", {"exec_args": {"smooth_samples": 2}}),
    ("grad_cam", "tf-keras-vis", {"layer": "relu2"}),
    ("score_cam", "tf-keras-vis", {"layer": "relu2"}),
    ("deep_lift", "captum", {"baselines": 0.0}),
    ("guided_backprop", "captum", {}),
    ("lrp", "captum", {}),
    ("layer_conductance", "captum", {"layer": "relu2", "exec_args": {"n_steps": 4}}),
    ("gradient_shap", "captum", {"baselines": "noise"}),
    # and calls that fail in the toolset
    ("integrated_gradients", "captum", {"exec_args": {"method": "no such rule"}, "fails": True}),
    ("occlusion", "captum", {"exec_args": {"sliding_window_shapes": (99, 99, 99)}, "fails": True}),
    ("grad_cam", "tf-keras-vis", {"layer": "fc", "fails": True}),
    ("saliency", "tf-keras-vis", {"exec_args": {"gradient_modifier": lambda g: 1 / 0}, "fails": True}),
]


@pytest.mark.parametrize("translator", [None, "conversion"])
@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize(
    ("key", "toolset", "arguments"), CALLS, ids=[f"{k}-{t}-{i}" for i, (k, t, _) in enumerate(CALLS)]
)
def test_nothing_of_the_user_changes(softmax_twins: Twins, framework, key, toolset, arguments, translator):
    arguments = dict(arguments, translator=translator)
    fails = arguments.pop("fails", False)
    if framework == "torch":
        model, images, state = softmax_twins.torch_model, torch.tensor(softmax_twins.first), torch_state
        model.train()
        model.fc.weight.requires_grad_(False)
        model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
        handle = model.conv2.register_forward_hook(lambda *_: None)
    else:
        model, images, state = softmax_twins.keras_model, softmax_twins.last, keras_state
    if isinstance(arguments.get("baselines"), str):
        arguments["baselines"] = np.zeros((2, *images.shape[1:]), np.float32)
    given = np.array(images)
    before, process = state(model), process_state()
    try:
        if fails:
            with pytest.raises(cfi.CFIError):
                cfi.attribute(model, key, toolset, inputs=images, target=[1, 3], **arguments)
        else:
            cfi.attribute(model, key, toolset, inputs=images, target=[1, 3], **arguments)
        assert_same(before, state(model))
        assert_same(process, process_state())
        np.testing.assert_array_equal(given, np.array(images))
    finally:
        if framework == "torch":
            handle.remove()
            model.conv1.weight.grad = None
            model.fc.weight.requires_grad_(True)
            model.eval()


@pytest.mark.filterwarnings("ignore:TorchRay is licensed")
@pytest.mark.parametrize(
    ("toolset", "key"),
    [
        *(("captum", key) for key in ("saliency", "deep_lift", "lrp")),
        *(("zennit", key) for key in ("zennit_lrp", "smooth_grad")),
        *(("torchray", key) for key in ("excitation_backprop", "extremal_perturbation", "grad_cam")),
        *(("shap", key) for key in ("deep_lift_shap", "gradient_shap", "partition_shap")),
    ],
)
def test_gradients_that_the_user_has_gathered_stay(twins: Twins, toolset: str, key: str):
    """And what is trained is so in every pass of the method: another thread may train the model meanwhile."""
    model, seen = twins.torch_model, set()
    parameters = dict(model.named_parameters())

    def look(*_: Any) -> None:
        for name, one in parameters.items():
            seen.add((one.requires_grad, one.grad is gathered[name]))

    gathered = {name: torch.full_like(one, 3.0) for name, one in parameters.items()}
    for name, one in parameters.items():
        one.grad = gathered[name]
    handle = model.conv1.register_forward_hook(look)
    try:
        arguments = ARGUMENTS[toolset][key]
        cfi.attribute(model, key, toolset, inputs=torch.tensor(twins.first), seed=0, **arguments)
        look()
        assert seen == {(True, True)}
        assert all((one == 3).all() for one in gathered.values())
    finally:
        handle.remove()
        for one in parameters.values():
            one.grad = None


def test_the_users_hooks_still_fire(twins: Twins):
    seen = []
    handle = twins.torch_model.conv2.register_forward_hook(lambda *_: seen.append(1))
    try:
        cfi.attribute(twins.torch_model, "saliency", "captum", inputs=twins.first, target=0)
    finally:
        handle.remove()
    assert seen


def test_buffers_of_a_model_in_training_mode_stay(twins: Twins):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 12 * 18, 2)
    ).train()
    before = torch_state(model)
    for toolset in ("captum", "tf-keras-vis"):
        cfi.attribute(model, "saliency", toolset, inputs=twins.first, target=0)
    assert_same(before, torch_state(model))


def test_a_model_that_cannot_be_copied_is_refused(twins: Twins):
    import threading

    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 20, 2)).eval()
    model.lock = threading.Lock()
    with pytest.raises(cfi.InputError, match="cannot be copied"):
        cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=0)


def test_results_kept_on_a_module_do_not_stop_the_copy(twins: Twins):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 20, 2)).eval()
    model.kept = model(torch.tensor(twins.first))  # not a leaf: plain deepcopy refuses it
    result = cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=1)
    np.testing.assert_allclose(result.values[0].ravel(), model[1].weight[1].detach().numpy(), rtol=1e-6)
