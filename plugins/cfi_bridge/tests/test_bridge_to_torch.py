"""Models of a framework that torch has never heard of, as torch modules: numbers against torch's own autograd."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerConductance, LayerGradientXActivation, NeuronGradient
from hand_made import TABLE, A, B, C, D, E, F, G, HandModel, Q, images, request, residual, tokens
from torch import Tensor

from cfi_bridge.torch_host import BridgedModel, bridge
from cfi_core.adapters import adapter_for
from cfi_core.errors import InputError, LayerError, NoGradientError
from cfi_core.registry import registry

TOLERANCE = {torch.float16: 3e-2, torch.float32: 2e-5, torch.float64: 1e-12}


def opened(layers: Sequence[str] = (), *, channel: int = -1, dtype: Any = np.float32) -> BridgedModel:
    return bridge(request(residual(channel, dtype), *images(channel, dtype=dtype), layers=layers)).model


def inputs(*, samples: int = 2, dtype: Any = np.float32, gradient: bool = True) -> tuple[Tensor, Tensor]:
    """Channels first."""
    x, z = (torch.tensor(array) for array in images(1, samples, dtype))
    return x.requires_grad_(gradient), z.requires_grad_(gradient)


def plain(x: Tensor, z: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> dict[str, Tensor]:
    """What `residual` computes, in torch and channels first; layers may be replaced."""
    a, b, c, d, e, f, g, q = (torch.tensor(weight, dtype=x.dtype) for weight in (A, B, C, D, E, F, G, Q))

    def mix(value: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("nchw,cd->ndhw", value, weight)

    first = torch.tanh(mix(x, a)) if first is None else first
    second = mix(first**2, b) + mix(x, c) if second is None else second
    scores = (mix(second, d) + mix(first, e) + mix(x, f)).mean(dim=(2, 3)) + z @ g
    return {"first": first, "second": second, "scores": scores, "mask": mix(second, q) + x}


def weighted(scores: Tensor, mask: Tensor) -> Tensor:
    """One number that depends on everything."""
    return (scores**2).sum() + (mask * torch.linspace(-1, 2, mask.numel(), dtype=mask.dtype).view_as(mask)).sum()


def close(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype is other.dtype
        tolerance = TOLERANCE[one.dtype]
        np.testing.assert_allclose(one.detach(), other.detach(), rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("channel", [-1, 1])
@pytest.mark.parametrize("layers", [(), ("first",), ("second",), ("second", "first")])
def test_outputs_and_input_gradients(channel: int, layers: tuple[str, ...]) -> None:
    model, given = opened(layers, channel=channel), inputs()
    expected = plain(*given)
    outputs = model(*given)
    close(outputs, [expected["scores"], expected["mask"]])
    close(
        torch.autograd.grad(weighted(*outputs), given),
        torch.autograd.grad(weighted(expected["scores"], expected["mask"]), given),
    )


@pytest.mark.parametrize("channel", [-1, 1])
def test_axes_are_named_in_the_result(channel: int) -> None:
    converted = bridge(request(residual(channel), *images(channel), layers=("second",)))
    turned = (0, 3, 1, 2) if channel == -1 else None
    assert converted.input_axes == (turned, None)
    assert converted.output_axes == (None, turned)
    assert {name: (layer.name, layer.axes) for name, layer in converted.layers.items()} == {
        "second": ("layers.0", turned)
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_types_stay_what_they_are(dtype: Any) -> None:
    model, given = opened(("first",), dtype=dtype), inputs(dtype=dtype)
    expected, outputs = plain(*given), model(*given)
    close(outputs, [expected["scores"], expected["mask"]])
    close(
        torch.autograd.grad(weighted(*outputs), given),
        torch.autograd.grad(weighted(expected["scores"], expected["mask"]), given),
    )
    assert model.like.dtype is given[0].dtype


def test_inputs_of_another_floating_type_are_cast_as_torch_would() -> None:
    x, z = inputs(dtype=np.float64)
    scores, _ = opened()(x, z)
    assert scores.dtype is torch.float32
    (gradient,) = torch.autograd.grad(scores.sum(), [x])
    assert gradient.dtype is torch.float64


@pytest.mark.parametrize("samples", [1, 5])
def test_the_number_of_samples_is_open(samples: int) -> None:
    given = inputs(samples=samples)
    close(opened(("first", "second"))(*given), [plain(*given)[name] for name in ("scores", "mask")])


def watched(model: BridgedModel, replace: dict[int, Tensor] | None = None) -> dict[str, Tensor]:
    """What forward hooks see at the taps; and what they put there."""
    seen: dict[str, Tensor] = {}
    for position, tap in enumerate(model.layers):

        def hook(module: Any, _: Any, output: Tensor, position: int = position) -> Tensor | None:
            given = output if replace is None or position not in replace else replace[position]
            seen[module.layer] = given
            return given

        tap.register_forward_hook(hook)
    return seen


def test_layer_gradients_hold_every_path() -> None:
    """Of two taps, the second depends on the first, and both have ways around them."""
    model, given = opened(("first", "second")), inputs()
    seen, expected = watched(model), plain(*given)
    outputs = model(*given)
    names = ("first", "second")
    close([seen[name] for name in names], [expected[name] for name in names])
    close(
        torch.autograd.grad(weighted(*outputs), [*(seen[name] for name in names), *given]),
        torch.autograd.grad(
            weighted(expected["scores"], expected["mask"]), [*(expected[name] for name in names), *given]
        ),
    )


@pytest.mark.parametrize("position", [0, 1])
def test_replaced_activations_go_on(position: int) -> None:
    given = inputs()
    names = ("first", "second")
    other = torch.randn_like(plain(*given)[names[position]]).requires_grad_()
    model = opened(names)
    watched(model, {position: other})
    outputs, expected = model(*given), plain(*given, **{names[position]: other})
    close(outputs, [expected["scores"], expected["mask"]])
    close(
        torch.autograd.grad(weighted(*outputs), [other, *given]),
        torch.autograd.grad(weighted(expected["scores"], expected["mask"]), [other, *given]),
    )


def test_gradient_of_a_unit() -> None:
    """What a neuron method asks for: a layer by the inputs, with other layers open before it."""
    model, given = opened(("first", "second")), inputs()
    seen, expected = watched(model), plain(*given)
    model(*given)
    close(
        torch.autograd.grad(seen["second"][:, 1, 2, 3].sum(), [given[0]]),
        torch.autograd.grad(expected["second"][:, 1, 2, 3].sum(), [given[0]]),
    )


def test_captum_reads_and_replaces_layers() -> None:
    class Scores(torch.nn.Module):
        def __init__(self, model: BridgedModel) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Tensor) -> Tensor:
            return self.model(*values)[0]

    model, given = Scores(opened(("first", "second"))), inputs(gradient=False)
    tap = model.get_submodule("model.layers.1")
    close([LayerActivation(model, tap).attribute(given)], [plain(*given)["second"]])
    x = given[0].clone().requires_grad_()
    expected = plain(x, given[1])
    (gradient,) = torch.autograd.grad(expected["scores"][:, 2].sum(), [expected["second"]])
    product = LayerGradientXActivation(model, tap).attribute(given, target=2)
    close([product], [gradient * expected["second"]])
    (expected_unit,) = torch.autograd.grad(plain(x, given[1])["second"][:, 1, 0, 0].sum(), [x])
    unit = NeuronGradient(model, tap).attribute(x, neuron_selector=(1, 0, 0), additional_forward_args=(given[1],))
    close([unit], [expected_unit])
    # From zero inputs to these, what flows through the layer adds up to the score's change, but for the ways around.
    conductance = LayerConductance(model, tap).attribute(given, target=2, n_steps=100)
    zeros = plain(torch.zeros_like(given[0]), torch.zeros_like(given[1]))
    change = torch.einsum("nchw,c->n", (expected["second"] - zeros["second"]) / 24, torch.tensor(D[:, 2]).float())
    np.testing.assert_allclose(conductance.sum(dim=(1, 2, 3)).detach(), change.detach(), rtol=1e-3, atol=1e-3)


def test_only_wanted_gradients_are_asked_for() -> None:
    hand = residual()
    model = bridge(request(hand, *images(-1), layers=("first",))).model
    x, z = inputs()
    hand.log.clear()
    scores, _ = model(x, z.detach())
    scores.sum().backward()
    assert hand.log == [
        ("linearize", 0),
        ("linearize", 1),
        ("pull", 1, (True, False, True)),
        ("pull", 0, (True, False)),
    ]


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "no gradient wanted"])
def test_nothing_is_recorded_without_gradients(mode: str) -> None:
    hand = residual()
    model = bridge(request(hand, *images(-1))).model
    hand.log.clear()
    given = inputs(gradient=mode != "no gradient wanted")
    if mode == "no gradient wanted":
        outputs = model(*given)
    else:
        with getattr(torch, mode)():
            outputs = model(*given)
    assert hand.log == [("run", 0)]
    assert not any(output.requires_grad for output in outputs)


def test_layers_of_whole_numbers_can_be_differentiated_by() -> None:
    ids = torch.tensor([[1, 2, 3], [0, 0, 5]])
    model = bridge(request(tokens(), ids.numpy(), layers=("embedding",))).model
    seen = watched(model)
    score, start = model(ids)
    assert start.dtype is torch.int64 and not start.requires_grad
    torch.testing.assert_close(start, ids[:, :1])
    (gradient,) = torch.autograd.grad(score.sum(), [seen["embedding"]])
    torch.testing.assert_close(gradient, 2 * torch.tensor(TABLE)[ids])
    with torch.no_grad():
        assert not model(ids)[0].requires_grad
    assert model.like.dtype is torch.float32


def test_one_output_comes_alone() -> None:
    hand = residual()
    model = bridge(request(HandModel(hand.inputs, hand.steps, ("scores",)), *images(-1))).model
    assert isinstance(model(*inputs()), Tensor)


def test_several_backward_passes_through_one_forward_pass() -> None:
    model, given = opened(("first",)), inputs()
    scores, _ = model(*given)
    once = torch.autograd.grad(scores.sum(), given, retain_graph=True)
    close(torch.autograd.grad(scores.sum(), given), once)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(scores.sum(), given)


def test_two_passes_do_not_mix() -> None:
    model, (x, z) = opened(("first",)), inputs()
    other = (x.detach() * -0.5).requires_grad_()
    early, late = model(x, z), model(other, z)
    close(
        torch.autograd.grad(weighted(*early) + weighted(*late), [x, other]),
        [torch.autograd.grad(weighted(*(plain(y, z)[k] for k in ("scores", "mask"))), [y])[0] for y in (x, other)],
    )


def test_second_derivatives_are_refused() -> None:
    given = inputs()
    scores, _ = opened()(*given)
    (gradient, *_) = torch.autograd.grad((scores**2).sum(), given, create_graph=True)
    with pytest.raises(NoGradientError, match="Second derivatives"):
        torch.autograd.grad(gradient.sum(), given)


@pytest.mark.parametrize("what", ["input", "activation", "output"])
def test_changes_in_place_are_noticed(what: str) -> None:
    model, (x, z) = opened(("first",)), inputs(gradient=False)
    moving, seen = x.clone().requires_grad_(), watched(model)
    given = moving * 1
    scores, mask = model(given, z)
    total = scores.sum() + mask.sum()
    with torch.no_grad():
        {"input": given, "activation": seen["first"], "output": scores}[what].mul_(2)
    with pytest.raises(RuntimeError, match=r"modified (by an inplace|inplace)"):
        total.backward()


def test_copies_share_the_original_and_have_hooks_of_their_own() -> None:
    hand = residual()
    model = bridge(request(hand, *images(-1), layers=("first",))).model
    twin = copy.deepcopy(model)
    seen = watched(twin)
    model(*inputs())
    assert not seen
    hand.log.clear()
    close(twin(*inputs()), model(*inputs()))
    assert seen and ("linearize", 0) in hand.log
    for copied in (twin.train(), twin.eval()):
        close(copied(*inputs()), model(*inputs()))


def test_the_adapter_of_torch_understands_it() -> None:
    torch_adapter: Any = adapter_for(registry(), "torch")
    model, (x, z) = opened(("first", "second")), inputs(gradient=False)
    twin = torch_adapter.twin(model)
    assert torch_adapter.fingerprint(model) == torch_adapter.fingerprint(model)
    assert torch_adapter.fingerprint(opened(("first", "second"))) != torch_adapter.fingerprint(model)
    expected = plain(x.clone().requires_grad_(), z)
    activations = torch_adapter.activations(twin, (x, z))
    close([torch.tensor(activations["layers.1"])], [expected["second"]])
    ones = [np.ones((2, 4), np.float32), np.ones((2, 3, 4, 6), np.float32)]
    gradients = torch_adapter.layer_gradients(twin, (x, z), ones)
    expected_gradients = torch.autograd.grad(
        expected["scores"].sum() + expected["mask"].sum(), [expected["first"], expected["second"]]
    )
    close([torch.tensor(gradients[f"layers.{i}"]) for i in range(2)], expected_gradients)
    assert torch_adapter.without_softmax(twin, (x, z)) is None
    assert [layer.name for layer in torch_adapter.layers(model, (x, z))] == ["layers", "layers.0", "layers.1"]
    assert torch_adapter.tensor(np.zeros(2), model).dtype is torch.float32
    assert not torch_adapter.in_training_mode(model)


def test_repr_tells_what_is_inside() -> None:
    assert repr(opened(("first",))) == "BridgedModel(a hand-made model with 2 inputs; layers: first)"


def test_saving_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="lives in this process"):
        pickle.dumps(opened())


def test_errors_of_the_model_come_through() -> None:
    with pytest.raises(LayerError, match="nowhere"):
        opened(("nowhere",))
    model, (x, z) = opened(), inputs()
    with pytest.raises(InputError, match="takes 2 inputs, got 1"):
        model(x)
    with pytest.raises(ValueError, match="matmul"):  # numpy's own
        model(x[:, :2], z)
    scores, _ = model(x, z)
    with pytest.raises(ValueError, match=r"matmul|shape"):
        model._span.linearize(0, (x, z), model)[1]([scores[:, :2], None], [True, True])


def test_results_share_memory() -> None:
    """What the model gives is not copied."""
    hand = residual(channel=1)
    kept: list[np.ndarray] = []
    step = hand.by_name["scores"]

    def compute(*values: np.ndarray) -> np.ndarray:
        kept.append(step.compute(*values))
        return kept[-1]

    steps = tuple(type(step)(one.name, one.of, compute if one is step else one.compute, one.pull) for one in hand.steps)
    model = bridge(request(HandModel(hand.inputs, steps, ("scores",), 1), *images(1))).model
    for gradient in (False, True):
        scores = model(*inputs(gradient=gradient))
        assert scores.data_ptr() == kept[-1].__array_interface__["data"][0]


def test_nothing_piles_up() -> None:
    model, given = opened(("first", "second")), inputs()

    def tensors_after(passes: int) -> int:
        for _ in range(passes):
            scores, mask = model(*given)
            torch.autograd.grad(weighted(scores, mask), given)
        del scores, mask
        gc.collect()
        return sum(type(thing) in (Tensor, np.ndarray) for thing in gc.get_objects())

    before = tensors_after(5)
    assert tensors_after(200) <= before


def test_threads_do_not_disturb_each_other() -> None:
    model = opened(("first",))
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            x, z = (value.detach() * number for value in inputs())
            x.requires_grad_()
            for _ in range(10):
                expected = plain(x, z)
                (ours,) = torch.autograd.grad(weighted(*model(x, z)), [x])
                close([ours], torch.autograd.grad(weighted(expected["scores"], expected["mask"]), [x]))
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
