"""What an adapter need not say: three methods make a framework whose models are explained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.framework import FrameworkAdapter, Pullback, Runner, hand_over
from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec
from cfi_core.testing import fake, use_plugins


class Filter:
    """Weighs and sums channels-first images, one class for each row of weights."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.einsum("nchw,kc->nk", images, self.weights)


class FilterRunner(Runner):
    def __init__(self, model: Filter) -> None:
        self.model = model

    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        return (self.model(values[0]),)

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        def pullback(cotangents: Sequence[Any], wanted: Sequence[bool]) -> tuple[Any, ...]:
            ones = np.ones(values[0].shape[2:])
            return (np.einsum("nk,kc,hw->nchw", cotangents[0], self.model.weights, ones),)

        return self.run(stage, values), pullback


class FilterAdapter(FrameworkAdapter):
    name = "filter"

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        return 1 if len(shape) == 4 else None

    def outputs(self, model: Any, inputs: Sequence[Any]) -> Any:
        return model(*inputs)

    def vjp(
        self, model: Any, inputs: Sequence[Any], cotangents: Sequence[np.ndarray | None]
    ) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray | None]]:
        results, pull = self.runner(model, inputs).linearize(0, inputs)
        return results, pull(cotangents, [True])

    def runner(self, model: Any, inputs: Sequence[Any], layers: Sequence[str] = ()) -> Runner:
        return FilterRunner(model)


class Plain(FilterAdapter):
    vjp = FrameworkAdapter.vjp


ADAPTER = Plain()
MODEL = Filter(np.arange(6.0).reshape(2, 3))


class Plugin:
    @hookimpl
    def cfi_frameworks(self) -> list[FrameworkSpec]:
        return [
            FrameworkSpec(
                name="filter",
                model_types=(("filter_plugin", "Filter"),),
                tensor_types=(),
                adapter="filter_plugin:FilterAdapter",
                module="filter_plugin",
            )
        ]


def test_models_of_a_new_framework_are_explained_over_a_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("filter_plugin")
    module.Filter, module.FilterAdapter = Filter, FilterAdapter
    monkeypatch.setitem(sys.modules, "filter_plugin", module)
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    with use_plugins(fake, fake.bridge_plugin, Plugin()):
        result = cfi.attribute(MODEL, "press_gradient", inputs=images, target=1)
        assert cfi.layers(MODEL) == []
    assert result.route == ("bridge-to-print",) and result.dims == ("sample", "channel", "height", "width")
    np.testing.assert_allclose(result.values, np.broadcast_to(MODEL.weights[1][:, None, None], images.shape))


def test_what_cannot_be_had_is_refused() -> None:
    x = np.ones((2, 3, 1, 1))
    with pytest.raises(cfi.InputError, match="changes weights while it runs, and a Filter cannot be copied"):
        ADAPTER.twin(MODEL, share_weights=False)
    with pytest.raises(cfi.LayerError, match="A filter model has no layers, so none named 'first'"):
        ADAPTER.layer_object(MODEL, "first")
    for refused in (ADAPTER.vjp, ADAPTER.layer_gradients):
        with pytest.raises(cfi.NoGradientError, match="perturbation method"):
            refused(MODEL, [x], [x])
    with pytest.raises(NotImplementedError):
        ADAPTER.restore({})
    with pytest.raises(TypeError, match="abstract"):
        type("Silent", (FrameworkAdapter,), {"name": "silent"})()


def test_what_there_is_nothing_to_say_of() -> None:
    assert ADAPTER.load(MODEL) is MODEL and ADAPTER.twin(MODEL) is MODEL
    assert ADAPTER.fingerprint(MODEL) != ADAPTER.fingerprint(MODEL), "nothing is known of its contents"
    assert not ADAPTER.in_training_mode(MODEL) and ADAPTER.save(MODEL) is None and ADAPTER.content(MODEL) is None
    assert ADAPTER.input_shapes(MODEL) is None and ADAPTER.declares_integer(MODEL, 0) is None
    assert ADAPTER.in_double(MODEL) is None and ADAPTER.without_softmax(MODEL, []) is None
    assert (
        ADAPTER.layers(MODEL) == () and ADAPTER.layer_name(MODEL, "a") is None and ADAPTER.activations(MODEL, []) == {}
    )
    assert ADAPTER.dims(MODEL, (2, 3, 4, 5)) == ("sample", "channel", "height", "width")
    with ADAPTER.keep_settings():
        ADAPTER.seed(1)
    assert ADAPTER.random_state() is None and ADAPTER.restore_random_state(None) is None
    assert ADAPTER.shared_parts(MODEL) == (MODEL,), "its twins are the model itself"


def test_tensors_are_arrays() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert ADAPTER.is_tensor(x) and ADAPTER.to_numpy(x) is x and ADAPTER.share(x) is x
    assert ADAPTER.share(x.T).flags.c_contiguous and ADAPTER.permute(x, (1, 0)).shape == (3, 2)
    fresh = ADAPTER.tensor(x, MODEL)
    assert not np.shares_memory(fresh, x)
    np.testing.assert_array_equal(fresh, x)


class Exporting:
    """Speaks DLPack, like a tensor of another framework."""

    def __init__(self, array: np.ndarray, *, refuses: bool = False) -> None:
        self.array, self.refuses = array, refuses

    def __dlpack__(self, **options: Any) -> Any:
        if self.refuses:
            raise BufferError("lies on another device")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Elsewhere(Plain):
    """Its tensors are `Exporting`."""

    def share(self, tensor: Any) -> Any:
        return tensor

    def to_numpy(self, tensor: Any) -> np.ndarray:
        return tensor.array.copy()


def test_tensors_go_over_on_the_same_memory_or_as_a_copy() -> None:
    x = np.arange(3.0)
    assert np.shares_memory(hand_over(Exporting(x), Elsewhere(), ADAPTER, MODEL), x)
    copied = hand_over(Exporting(x, refuses=True), Elsewhere(), ADAPTER, MODEL)
    assert not np.shares_memory(copied, x)
    np.testing.assert_array_equal(copied, x)


def test_what_a_framework_says_itself_or_refuses() -> None:
    x = np.ones((2, 3, 1, 1))
    with pytest.raises(cfi.InputError, match="Strings cannot be held while a filter model is differentiated"):
        ADAPTER.with_strings(MODEL, [np.array(["a", "b"])])
    with pytest.raises(cfi.InputError, match="A Filter cannot be given its whole numbers as floating point ones"):
        ADAPTER.with_real_inputs(MODEL, ())
    with pytest.raises(cfi.LayerError, match="A layer of a filter model cannot be shown as a map"):
        ADAPTER.show_map(MODEL, "first", None)
    with pytest.raises(cfi.MethodError, match="models of filter cannot be rewritten"):
        ADAPTER.canonical(MODEL, [x], {})
    with pytest.raises(cfi.NoGradientError, match="This model has no gradients"):
        Runner.linearize(FilterRunner(MODEL), 0, [x])
    assert ADAPTER.on_frames(MODEL, ["a"]) is None and not ADAPTER.takes_one_table(MODEL)
    assert ADAPTER.split_embedding(MODEL, [x]) is None and ADAPTER.ended_by(MODEL, np.sum) is None
    assert ADAPTER.in_single(MODEL) is None and ADAPTER.vocabulary(MODEL) is None
    assert ADAPTER.compiled(MODEL, [x]) is None and ADAPTER.missing_gradient(MODEL, [x]) == ""
    assert ADAPTER.is_certain(MODEL, x.shape, "first") and ADAPTER.precision(MODEL) == {"float32"}


def test_special_tokens_are_those_of_a_configuration() -> None:
    model = Filter(MODEL.weights)
    assert ADAPTER.special_tokens(model) == {}
    model.config = SimpleNamespace(pad_token_id=0, mask_token_id=103, cls_token_id=None, eos_token_id=[1, 2])
    assert ADAPTER.special_tokens(model) == {"pad": 0, "mask": 103}


def test_inputs_by_name_are_taken_in_the_models_order() -> None:
    class Named(Plain):
        def input_names(self, model: Any) -> tuple[str, ...]:
            return ("images", "weights")

    with pytest.raises(cfi.InputError, match="The inputs of this filter model have no names"):
        ADAPTER.by_name(MODEL, ["images"], {})
    assert Named().by_name(MODEL, ["images", "weights"], {}) is MODEL
    with pytest.raises(cfi.InputError, match="in this order: images, weights"):
        Named().by_name(MODEL, ["weights", "images"], {})
    with pytest.raises(cfi.InputError, match="pictures"):
        Named().by_name(MODEL, ["pictures", "weights"], {})


def test_a_copy_that_is_refused_too_is_the_error() -> None:
    class Refusing(Plain):
        def adopt(self, shared: Any, model: Any) -> Any:
            raise BufferError("another device")

    with pytest.raises(BufferError, match="another device"):
        hand_over(np.ones(2), ADAPTER, Refusing(), MODEL)
