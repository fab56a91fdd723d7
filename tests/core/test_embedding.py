"""Calls on tokens that start at the output of the embedding, in a framework of numpy with gradients in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.arrays import ArrayRunner
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.errors import LayerError
from cfi_core.framework import Embedded, FrameworkAdapter, Layer
from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, Kind, MethodSpec, Need, Role, ToolsetSpec
from cfi_core.testing import use_plugins

DRAWN = np.random.default_rng(0)
VECTORS, HEAD = DRAWN.normal(size=(6, 4)), DRAWN.normal(size=(4, 3))
TOKENS = np.array([[1, 5, 2], [3, 0, 4]])
MASK = np.array([[1, 1, 0], [1, 0, 1]])


class Reader:
    """The squares of the vectors of all tokens that the mask leaves, summed, times the head.

    Attributes:
        table: A vector for each token.
        embeds: The layer that looks them up; empty where a function does.
        starts: It takes vectors in front of the tokens.
        adds: What each token adds to the scores, besides.
        opens: Whether the look-up can be opened as a layer.
    """

    def __init__(self, embeds: str = "words", adds: float = 0.0, opens: bool = True, starts: bool = False) -> None:
        self.table, self.embeds, self.adds, self.opens, self.starts = VECTORS, embeds, adds, opens, starts

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        vectors, mask, more = self.read(inputs)
        return np.einsum("ntd,nt,dc->nc", vectors**2, mask, HEAD) + more

    def read(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, Any]:
        """The vectors, the mask, and what comes besides."""
        if self.starts:
            vectors, tokens, *rest = inputs
            more: Any = 0.0
        elif inputs[0].dtype.kind == "f":
            return inputs[0][..., None] * np.ones(4), np.ones(inputs[0].shape), 0.0
        else:
            tokens, *rest = inputs
            vectors, more = self.table[tokens], self.adds * tokens.sum(1, keepdims=True)
        return vectors, rest[0] if rest else np.ones(tokens.shape), more

    def opened(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """What the layers give; the last one leaves out the last token."""
        vectors = self.table[tokens]
        return {self.embeds: vectors, "squares": vectors**2, "halves": vectors[:, :-1] / 2}

    def gradient(self, inputs: Sequence[np.ndarray], cotangent: np.ndarray) -> np.ndarray:
        vectors, mask, _ = self.read(inputs)
        return 2 * vectors * mask[..., None] * (cotangent @ HEAD.T)[:, None]


class Adapter(FrameworkAdapter):
    name = "shelf"

    def channel_axis(self, model: Reader, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        return 2 if len(shape) == 3 else None

    def outputs(self, model: Reader, inputs: Sequence[Any]) -> np.ndarray:
        return model(*inputs)

    def runner(self, model: Reader, inputs: Sequence[Any], layers: Sequence[str] = ()) -> ArrayRunner:
        return ArrayRunner(model)  # type: ignore[arg-type]

    def input_names(self, model: Reader) -> tuple[str, ...]:
        return ("ids", "mask")

    def fingerprint(self, model: Reader) -> str:
        return repr((vars(model).keys(), model.embeds, model.adds, model.starts))

    def vjp(self, model: Reader, inputs: Any, cotangents: Any) -> Any:
        others = [None] * (len(inputs) - 1)
        whole = inputs[0].dtype.kind in "iu"
        return [model(*inputs)], [None if whole else model.gradient(inputs, cotangents[0]), *others]

    def layers(self, model: Reader, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        others = (Layer("squares", "Square"), Layer("halves", "Half"))
        return (Layer(model.embeds, "Embedding"), *others) if model.embeds else ()

    def layer_name(self, model: Reader, reference: Any) -> str | None:
        return reference if reference in (model.embeds, "squares", "halves") else None

    def layer_object(self, model: Reader, name: str) -> str:
        return name

    def activations(self, model: Reader, inputs: Any, names: Any = None) -> Mapping[str, np.ndarray]:
        if not model.opens:
            raise LayerError("A function is no layer.")
        return model.opened(inputs[0])

    def layer_gradients(self, model: Reader, inputs: Any, cotangents: Any, names: Any = None) -> Any:
        return {model.embeds: model.gradient(inputs, cotangents[0])}

    def split_embedding(self, model: Reader, inputs: Any, layer: str | None = None) -> Embedded | None:
        if not model.embeds or (layer is not None and (inputs[0] == 0).all()):
            return None
        return Embedded(model.embeds, model.table[inputs[0]], Reader(model.embeds, starts=True))


def slope(request: MethodRequest) -> MethodResult:
    """The gradient; with baselines times the distance to them, at the middle of the way: exact for squares."""
    (given,), target, held = request.inputs, request.target, request.exec_args.get("behind") or ()
    assert target is not None
    cotangent = np.array([np.eye(3)[index] for (index,) in target.indices(len(given))])
    if request.baselines is None:
        return MethodResult((request.model.gradient((given, *held), cotangent),), Axes.INPUT)
    base = np.broadcast_to(request.baselines[0], given.shape)
    middle = request.model.gradient(((given + base) / 2, *held), cotangent)
    return MethodResult((middle * (given - base),), Axes.INPUT)


def look(request: MethodRequest) -> MethodResult:
    """What the layer gives."""
    return MethodResult((request.model.opened(request.inputs[0])[request.layer[0]],), Axes.LAYER)


class Shelf:
    """The framework and its toolset."""

    @staticmethod
    @hookimpl
    def cfi_frameworks() -> list[FrameworkSpec]:
        kinds = ((__name__, "Reader"),)
        return [
            FrameworkSpec(
                name="shelf", module=__name__, model_types=kinds, tensor_types=(), adapter=f"{__name__}:Adapter"
            )
        ]

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="ladder", framework="shelf")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        shared: dict[str, Any] = {"toolset": "ladder", "exec_args": ("behind",), "roles": {"behind": Role.HELD}}
        needs = frozenset({Need.FORWARD, Need.INPUT_GRADIENT})
        return [
            MethodSpec(
                key="slope",
                kind=Kind.ATTRIBUTION,
                needs=needs,
                optional=("target", "baselines"),
                implementation=f"{__name__}:slope",
                **shared,
            ),
            MethodSpec(
                key="look",
                kind=Kind.LAYER,
                needs=frozenset({Need.FORWARD}),
                required=("inputs", "layer"),
                implementation=f"{__name__}:look",
                **shared,
            ),
        ]


@pytest.fixture(autouse=True)
def shelf() -> Iterator[None]:
    with use_plugins(Shelf):
        yield


def explain(model: Reader | None = None, inputs: Any = TOKENS, **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(model or Reader(), "slope", inputs=inputs, target=[2, 0], **arguments)
    assert isinstance(found, cfi.Attribution)
    return found


WEIGHTS = HEAD.T[[2, 0]][:, None]


@pytest.mark.parametrize("layer", [None, "embeddings"])
def test_gradients_of_tokens_are_those_of_their_vectors(layer):
    found = explain(layer=layer)
    np.testing.assert_allclose(found.values, 2 * VECTORS[TOKENS] * WEIGHTS, atol=1e-12)
    assert found.dims == ("sample", "token", "embedding")


def test_the_mask_beside_the_tokens_is_held():
    found = explain(inputs={"ids": TOKENS, "mask": MASK})
    np.testing.assert_allclose(found.values["ids"], 2 * VECTORS[TOKENS] * MASK[..., None] * WEIGHTS, atol=1e-12)


@pytest.mark.parametrize(
    ("baselines", "base"),
    [
        (3, VECTORS[3]),
        (np.array([[3, 0, 1]]), VECTORS[[3, 0, 1]]),
        (np.array([[3, 0, 1], [2, 2, 2]]), VECTORS[[[3, 0, 1], [2, 2, 2]]]),
        (0.5, 0.5),
        (VECTORS[TOKENS] / 2, VECTORS[TOKENS] / 2),
    ],
    ids=["token", "row", "rows", "number", "vectors"],
)
def test_baselines_of_tokens_are_embedded(baselines, base):
    found = explain(baselines=baselines, inputs={"ids": TOKENS, "mask": MASK})
    expected = (VECTORS[TOKENS] ** 2 - base**2) * MASK[..., None] * WEIGHTS
    np.testing.assert_allclose(found.values["ids"], expected, atol=1e-12)


def test_baselines_are_embedded_with_what_is_held_beside_the_tokens(monkeypatch):
    split, seen = Adapter.split_embedding, []

    def look_on(adapter, model, inputs, layer=None):
        seen.append((layer, inputs))
        return split(adapter, model, inputs, layer)

    monkeypatch.setattr(Adapter, "split_embedding", look_on)
    explain(baselines=3, inputs={"ids": TOKENS, "mask": MASK})
    (layer, (ids, mask)) = seen[-1]
    assert layer == "words"
    np.testing.assert_array_equal(ids, np.full_like(TOKENS, 3))
    np.testing.assert_array_equal(mask, MASK)


def test_layer_methods_find_the_embedding():
    found = cfi.attribute(Reader(), "look", inputs=TOKENS, layer="embeddings")
    np.testing.assert_array_equal(found.values, VECTORS[TOKENS])
    pending = cfi.attribute(Reader(), "look", inputs=TOKENS)
    assert isinstance(pending, cfi.PendingLayer)
    same = cfi.finish_execution_with_layer(pending, "embeddings")
    np.testing.assert_array_equal(same.values, VECTORS[TOKENS])


@pytest.mark.parametrize(
    ("layer", "dims", "expected"),
    [
        ("words", ("sample", "token", "embedding"), VECTORS[TOKENS]),
        ("squares", ("sample", "token", "channel"), VECTORS[TOKENS] ** 2),
        ("halves", ("sample", "position", "channel"), VECTORS[TOKENS[:, :2]] / 2),
    ],
)
def test_axes_of_layers_of_tokens(layer, dims, expected):
    """An axis as long as the text is one of its tokens; what embeds gives embeddings."""
    tokenizer = SimpleNamespace(convert_ids_to_tokens="t{}".format)
    found = cfi.attribute(Reader(), "look", inputs=TOKENS, layer=layer, feature_names=tokenizer)
    np.testing.assert_array_equal(found.values, expected)
    assert found.dims == dims
    texts = (("t1", "t5", "t2"), ("t3", "t0", "t4"))
    assert found.feature_names == (texts if "token" in dims else None)
    assert cfi.attribute(Reader(), "look", inputs=TOKENS, layer=layer).feature_names is None


def test_a_layer_of_that_name_is_the_models_own():
    found = cfi.attribute(Reader("embeddings"), "look", inputs=TOKENS, layer="embeddings")
    np.testing.assert_array_equal(found.values, VECTORS[TOKENS])
    assert not isinstance(found, cfi.PendingLayer)
    assert not cfi.plan(Reader("embeddings"), "look", inputs=TOKENS, layer="embeddings").embeddings
    assert cfi.plan(Reader(), "look", inputs=TOKENS, layer="embeddings").embeddings


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"model": Reader("")}, cfi.InputError, "slope differentiates .*, int64 inputs have no gradient, .* not found"),
        ({"model": Reader(""), "layer": "embeddings"}, cfi.InputError, "layer='embeddings', and an embedding"),
        ({"inputs": np.ones((2, 3)), "layer": "embeddings"}, cfi.InputError, "layer='embeddings', and an embedding"),
        ({"model": Reader(adds=0.5)}, cfi.InputError, "from the output of 'words' on than from its tokens"),
        (
            {"inputs": (TOKENS, MASK.astype(float))},
            cfi.InputError,
            "of the 2 that are explained some are whole numbers",
        ),
        (
            {"inputs": {"ids": TOKENS, "mask": MASK}, "explain": ("ids", "mask")},
            cfi.InputError,
            r"of the 2 that are explained \(ids, mask\) some are whole numbers. Pass them by name, with explain=",
        ),
        ({"baselines": 0}, cfi.InputError, "does not give the baselines to 'words' as it does the tokens"),
    ],
)
def test_what_has_no_embedding_is_refused(given, error, said):
    with pytest.raises(error, match=said):
        explain(**given)


def test_embeddings_that_are_no_layer():
    with pytest.raises(cfi.LayerError, match="no embedding was found in the model"):
        cfi.attribute(Reader(""), "look", inputs=TOKENS, layer="embeddings")
    with pytest.raises(cfi.LayerError, match="is 'words' here, which cannot be opened as a layer"):
        cfi.attribute(Reader(opens=False), "look", inputs=TOKENS, layer="embeddings")


def test_floats_are_differentiated_as_they_are():
    inputs = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
    found = cfi.attribute(Floats(), "slope", inputs=inputs, target=[2, 0])
    expected = np.stack([2 * inputs[row, :] for row in range(2)])[..., None] * WEIGHTS
    np.testing.assert_allclose(found.values, expected.sum(-1), atol=1e-12)


class Floats(Reader):
    """One number for each token, spread over the axes of its vector."""

    def gradient(self, inputs: Sequence[np.ndarray], cotangent: np.ndarray) -> np.ndarray:
        return super().gradient(inputs, cotangent).sum(-1)
