"""Explainers of both frameworks: each batch gives what a call gives, also a pickled one; a changed model is noticed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
from method_arguments import CAPTUM, TF_KERAS_VIS, in_keras_order
from shared_cnn import Twins, make_twins

import cfi_core as cfi

OTHER = np.random.default_rng(23)
CASES = [
    *(("captum", key, side) for key in CAPTUM for side in ("torch", "keras")),
    *(("tf-keras-vis", key, side) for key in TF_KERAS_VIS for side in ("torch", "keras")),
]


def ask(twins: Twins, toolset: str, key: str, side: str) -> tuple[Any, np.ndarray, dict[str, Any]]:
    """Model, inputs and arguments of a method."""
    arguments = (CAPTUM if toolset == "captum" else TF_KERAS_VIS)[key]
    if side == "torch":
        return twins.torch_model, twins.first, arguments
    return twins.keras_model, twins.last, in_keras_order(arguments)


@pytest.mark.parametrize(("toolset", "key", "side"), CASES)
def test_another_batch_gives_what_a_call_gives(twins: Twins, toolset: str, key: str, side: str) -> None:
    model, images, arguments = ask(twins, toolset, key, side)
    other = OTHER.normal(size=images.shape).astype(np.float32)
    explainer = cfi.Explainer(model, key, toolset, seed=5, checks="first", **arguments)
    explainer(images)
    found, again = explainer(other), explainer(other)
    wanted = cfi.attribute(model, key, toolset, inputs=other, seed=5, **arguments)
    assert found.provenance["checks"] != "in full" or "callable" in str(arguments)
    np.testing.assert_array_equal(found.values, again.values)  # what the run before left behind is nothing
    scale = np.abs(wanted.values).max()
    np.testing.assert_allclose(found.values, wanted.values, atol=2e-6 * scale)
    assert found.dims == wanted.dims and found.layer == wanted.layer and found.route == wanted.route
    for name in ("explained", "target", "classes", "applied", "layer", "seed", "function", "init_args", "exec_args"):
        assert found.provenance[name] == wanted.provenance[name], name


def change_torch(twins: Twins, how: str) -> None:
    import torch

    parameter = twins.torch_model.fc.weight
    if how == "a step of training":
        with torch.no_grad():
            parameter.mul_(-1)
    elif how == "behind autograd's back":
        parameter.data[:] = -parameter.data
    elif how == "another parameter":
        twins.torch_model.fc.weight = torch.nn.Parameter(-parameter.detach())
    elif how == "another layer":
        twins.torch_model.relu2 = torch.nn.Tanh().eval()
    elif how == "a setting":
        twins.torch_model.conv1.padding = twins.torch_model.conv1.dilation = (2, 2)
    else:
        twins.torch_model.fc.register_forward_hook(lambda module, args, output: -output)


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
@pytest.mark.parametrize(
    "how",
    ["a step of training", "behind autograd's back", "another parameter", "another layer", "a setting", "a hook"],
)
def test_a_torch_model_that_changes(toolset: str, how: str) -> None:
    twins = make_twins(softmax=False)
    explainer = cfi.Explainer(twins.torch_model, "saliency", toolset, target=1, checks="first")
    before = explainer(twins.first).values
    change_torch(twins, how)
    found = explainer(twins.first)
    assert found.provenance["checks"] == "in full"
    wanted = cfi.attribute(twins.torch_model, "saliency", toolset, inputs=twins.first, target=1).values
    np.testing.assert_allclose(found.values, wanted, atol=1e-6 * np.abs(wanted).max())
    assert np.abs(found.values - before).max() > 1e-3 * np.abs(before).max()


@pytest.mark.parametrize("toolset", ["captum", "tf-keras-vis"])
def test_a_keras_model_that_changes(toolset: str) -> None:
    twins = make_twins(softmax=False)
    explainer = cfi.Explainer(twins.keras_model, "saliency", toolset, target=1, checks="first")
    explainer(twins.last)
    assert explainer(twins.last).provenance["checks"] != "in full"
    head = twins.keras_model.get_layer("fc")
    head.set_weights([-one for one in head.get_weights()])
    found = explainer(twins.last)
    assert found.provenance["checks"] == "in full"
    wanted = cfi.attribute(twins.keras_model, "saliency", toolset, inputs=twins.last, target=1).values
    np.testing.assert_allclose(found.values, wanted, atol=1e-6 * np.abs(wanted).max())
    twins.keras_model.get_layer("relu2").negative_slope = 0.5
    assert explainer(twins.last).provenance["checks"] == "in full"


def onnx_model(twins: Twins) -> Any:
    """The torch model as an ONNX graph."""
    import io

    import onnx
    import torch

    held = io.BytesIO()
    torch.onnx.export(
        twins.torch_model,
        (torch.tensor(twins.first),),
        held,
        dynamo=False,
        opset_version=13,
        input_names=["image"],
        dynamic_axes={"image": {0: "n"}},
    )
    return onnx.load_from_string(held.getvalue())


MODELS: dict[str, tuple[Callable[[Twins], Any], str]] = {
    "torch": (lambda twins: twins.torch_model, "first"),
    "keras": (lambda twins: twins.keras_model, "last"),
    "onnx": (onnx_model, "first"),
}


@pytest.mark.parametrize("pickles", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("kind", MODELS)
def test_it_goes_through_pickle_as_its_model_does(twins: Twins, kind: str, pickles: Any) -> None:
    make, layout = MODELS[kind]
    model, images = make(twins), getattr(twins, layout)
    layer = None if kind == "onnx" else twins.torch_model.conv2 if kind == "torch" else model.get_layer("conv2")
    method = "occlusion" if kind == "onnx" else "grad_cam"
    own = {"exec_args": {"sliding_window_shapes": (3, 4, 5)}} if kind == "onnx" else {"layer": layer}
    explainer = cfi.Explainer(model, method, "captum", inputs=images, target=1, seed=1, **own)
    again = pickle.loads(pickles.dumps(explainer))
    np.testing.assert_array_equal(again(images).values, explainer(images).values)
    assert again.fingerprint == explainer.fingerprint


def test_a_target_function_is_asked_in_full(twins: Twins) -> None:
    explainer = cfi.Explainer(twins.keras_model, "saliency", "captum", checks="first")
    for images in (twins.last, twins.last[::-1].copy()):
        found = explainer(images, lambda outputs: outputs[:, 0] - outputs[:, 1])
        wanted = cfi.attribute(
            twins.keras_model, "saliency", "captum", inputs=images, target=lambda outputs: outputs[:, 0] - outputs[:, 1]
        )
        assert found.provenance["checks"] == "in full"
        np.testing.assert_allclose(found.values, wanted.values, atol=1e-6 * np.abs(wanted.values).max())


def test_two_twins_are_never_in_one_run(twins: Twins) -> None:
    """Threads that share an explainer do not share what a toolset hangs its hooks on."""
    from concurrent.futures import ThreadPoolExecutor

    batches = [OTHER.normal(size=twins.first.shape).astype(np.float32) for _ in range(12)]
    arguments = {"target": 2, "layer": "conv2"}
    explainer = cfi.Explainer(twins.torch_model, "grad_cam", "captum", checks="first", **arguments)
    explainer(batches[0])
    wanted = [cfi.attribute(twins.torch_model, "grad_cam", "captum", inputs=one, **arguments).values for one in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: explainer(batch).values, batches))
    for values, others in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(values, others)


class Counted:
    """How often a model runs, and how often it is gone back through."""

    def __init__(self, twins: Twins) -> None:
        import torch

        class Counting(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                self.forward += len(x) > 1
                return x.clone()

            @staticmethod
            def backward(ctx: Any, gradient: Any) -> Any:
                self.backward += 1
                return gradient

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = twins.torch_model

            def forward(self, x: Any) -> Any:
                return self.inner(Counting.apply(x))

        self.forward = self.backward = 0
        self.model = Model().eval()


@pytest.mark.parametrize("key", ["grad_cam", "grad_cam_plus_plus", "layer_cam"])
def test_one_pass_of_a_torch_model_tells_the_class_and_serves_the_map(twins: Twins, key: str) -> None:
    counted, images = Counted(twins), twins.first
    explainer = cfi.Explainer(
        counted.model, key, "tf-keras-vis", layer="inner.conv2", target="predicted", seed=0, checks="first"
    )
    explainer(images)
    counted.forward = counted.backward = 0
    other = OTHER.normal(size=images.shape).astype(np.float32)
    found = explainer(other)
    assert (counted.forward, counted.backward) == (1, 0)  # gradients end at the layer
    wanted = cfi.attribute(counted.model, key, "tf-keras-vis", inputs=other, layer="inner.conv2", target="predicted")
    np.testing.assert_allclose(found.values, wanted.values, atol=2e-6 * np.abs(wanted.values).max())
    assert found.provenance["target"] == wanted.provenance["target"]
    predicted = [[one["class"] for one in each.provenance["predicted"]] for each in (found, wanted)]
    assert predicted[0] == predicted[1]


@pytest.mark.parametrize(("key", "passes"), [("saliency", 1), ("integrated_gradients", 2)])
def test_where_a_run_begins_with_other_rows_the_model_is_asked_for_its_class(
    twins: Twins, key: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cfi_core.checking import forecast

    asked = []
    plain = forecast.run_original
    monkeypatch.setattr(forecast, "run_original", lambda *a, **b: (asked.append(1), plain(*a, **b))[1])
    images = twins.last
    own = {"exec_args": {"n_steps": 4}} if passes == 2 else {}
    explainer = cfi.Explainer(twins.keras_model, key, "captum", target="predicted", seed=0, checks="first", **own)
    explainer(images)
    for _ in range(3):
        other = OTHER.normal(size=images.shape).astype(np.float32)
        found = explainer(other)
        wanted = cfi.attribute(twins.keras_model, key, "captum", inputs=other, target="predicted", seed=0, **own)
        assert found.provenance["target"] == wanted.provenance["target"]
        np.testing.assert_allclose(found.values, wanted.values, atol=2e-6 * np.abs(wanted.values).max())
    assert len(asked) == (0 if passes == 1 else 2)  # the first of them was made ahead, and for nothing


def test_where_rounding_may_decide_the_model_itself_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    from cfi_core.checking import forecast

    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.set_weights([np.ones((3, 2), np.float32)])  # two classes that are always equal
    asked = []
    plain = forecast.run_original
    monkeypatch.setattr(forecast, "run_original", lambda *a, **b: (asked.append(1), plain(*a, **b))[1])
    explainer = cfi.Explainer(model, "saliency", "captum", target="predicted", seed=0, checks="first")
    for _ in range(2):
        found = explainer(OTHER.normal(size=(4, 3)).astype(np.float32))
    assert asked
    assert [one["class"] for one in found.provenance["predicted"]] == [0, 0, 0, 0]


@pytest.mark.parametrize(("translator", "batches"), [("bridge", 4), ("conversion", 1)])
def test_weights_of_a_single_layer_are_noticed(translator: str, batches: int) -> None:
    """Within four batches where the model runs itself, whose values are the new ones in any case; else at once."""
    twins = make_twins(softmax=False)
    model, images = twins.keras_model, twins.last
    own = {"translator": translator, "target": 1, "seed": 0}
    explainer = cfi.Explainer(model, "saliency", "captum", checks="first", **own)
    for _ in range(3):
        explainer(images)
    layer = model.get_layer("conv1")
    layer.set_weights([-weight for weight in layer.get_weights()])
    wanted = cfi.attribute(model, "saliency", "captum", inputs=images, **own).values
    checks = []
    for _ in range(batches):
        found = explainer(images)
        checks.append(found.provenance["checks"])
        np.testing.assert_allclose(found.values, wanted, atol=2e-6 * np.abs(wanted).max())
    assert "in full" in checks
