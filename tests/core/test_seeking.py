"""Layers that are looked for, and tokens that come home as maps, in a framework of graphs whose gradients are known.

`slides` are graphs of numpy functions with their pullbacks, images channels first; `lantern` explains them, and maps of
prints, by the closed form of Grad-CAM.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, Converted, MethodRequest, MethodResult
from cfi_core.errors import NoGradientError
from cfi_core.framework import FrameworkAdapter, Layer, Layout, Runner
from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, Kind, MethodSpec, Need, ToolsetSpec, TranslatorSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting, Print

HERE = "planted_for_seeking"
HEIGHT, WIDTH, PATCH, FEATURES, CLASSES = 3, 4, 2, 5, 3
PLACES = HEIGHT * WIDTH
DRAWN = np.random.default_rng(0)
IMAGES = DRAWN.normal(size=(2, 3, HEIGHT * PATCH, WIDTH * PATCH))
PROJECTION = DRAWN.normal(size=(3 * PATCH * PATCH, FEATURES))
CLASS_TOKEN = DRAWN.normal(size=(1, 1, FEATURES))
MIXING = DRAWN.normal(size=(PLACES + 1, PLACES + 1)) * 0.01 + np.eye(PLACES + 1)
HEAD = DRAWN.normal(size=(CLASSES, FEATURES))
SQUARE = DRAWN.normal(size=(FEATURES, FEATURES))
COLOURS = DRAWN.normal(size=(3, FEATURES))
FLAT = DRAWN.normal(size=(IMAGES[0].size, CLASSES))
MIX, MIX_HEAD = DRAWN.normal(size=(4, 3)), DRAWN.normal(size=(5, 4))  # of paintings
SHUFFLED = np.random.default_rng(3).permutation(PLACES)


# the framework


@dataclass(frozen=True)
class Step:
    """A layer: what it makes of the values of others, and the gradients of these."""

    name: str
    sources: tuple[str, ...]
    forward: Callable[..., np.ndarray]
    pullback: Callable[..., tuple[np.ndarray, ...]]  # of the gradient, and the values of the sources
    kind: str = "Step"


@dataclass(frozen=True, eq=False)
class Slide:
    """A graph of steps, the last of which gives the outputs."""

    steps: tuple[Step, ...]
    differentiable: bool = True
    certain: bool = True  # where the channels of its layers are
    end: Any = None
    maps: Mapping[str, tuple[str, Layout]] | None = None
    number: int = field(default_factory=count().__next__, init=False)  # no two have the same

    def values(self, images: np.ndarray, given: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        found = {"input": images}
        for step in self.steps:
            made = (given or {}).get(step.name)
            found[step.name] = step.forward(*map(found.__getitem__, step.sources)) if made is None else made
        return found

    def __call__(self, images: np.ndarray) -> np.ndarray:
        output = self.values(images)[self.steps[-1].name]
        return output if self.end is None else self.end(output)

    def gradients(self, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        """Of `sum(output * cotangent)` at every step; an end is differentiated by differences, exact where linear."""
        if not self.differentiable:
            raise NoGradientError("Slides of this kind have no gradients. Use another method.")
        found, last = self.values(images), self.steps[-1].name
        gradients = {name: np.zeros_like(value) for name, value in found.items()}
        gradients[last] = cotangent if self.end is None else self._of_end(found[last])
        for step in reversed(self.steps):
            parts = step.pullback(gradients[step.name], *map(found.__getitem__, step.sources))
            for name, part in zip(step.sources, parts, strict=True):
                gradients[name] = gradients[name] + part
        return gradients

    def _of_end(self, outputs: np.ndarray) -> np.ndarray:
        gradient = np.zeros_like(outputs)
        for place in np.ndindex(outputs.shape[1:]):
            moved = np.zeros_like(outputs)
            moved[(slice(None), *place)] = 0.5
            gradient[(slice(None), *place)] = self.end(outputs + moved) - self.end(outputs - moved)
        return gradient


class SlideRunner(Runner):
    def __init__(self, model: Slide, layers: Sequence[str]) -> None:
        self._model = model
        self.layers = tuple(step.name for step in model.steps if step.name in layers)

    def run(self, stage: int, values: Sequence[Any]) -> tuple[np.ndarray, ...]:
        found = self._model.values(values[0], dict(zip(self.layers, values[1:], strict=False)))
        return (found[self.layers[stage] if stage < len(self.layers) else self._model.steps[-1].name],)


class SlideAdapter(FrameworkAdapter):
    name = "slides"
    map_channels = 1

    def fingerprint(self, model: Slide) -> str:
        return f"slide {model.number}"

    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        return {3: 2, 4: 1}.get(len(shape))

    def is_certain(self, model: Slide, shape: Sequence[int | None], layer: str) -> bool:
        return model.certain

    def outputs(self, model: Slide, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return model(inputs[0])

    def vjp(self, model: Slide, inputs: Any, cotangents: Any) -> Any:
        return [model(inputs[0])], [model.gradients(inputs[0], cotangents[0])["input"]]

    def ended_by(self, model: Slide, end: Any) -> Slide:
        return replace(model, end=end)

    def runner(self, model: Slide, inputs: Any, layers: Sequence[str] = ()) -> SlideRunner:
        return SlideRunner(model, layers)

    def layers(self, model: Slide, inputs: Any = None) -> tuple[Layer, ...]:
        return tuple(Layer(step.name, step.kind) for step in model.steps)

    def layer_name(self, model: Slide, reference: Any) -> str | None:
        return reference if any(step.name == reference for step in model.steps) else None

    def layer_object(self, model: Slide, name: str) -> str:
        return name

    def show_map(self, model: Slide, layer: str, layout: Layout) -> tuple[Slide, str]:
        shown = f"{layer} as a map"
        return replace(model, maps={shown: (layer, layout)}), shown

    def activations(self, model: Slide, inputs: Any, names: Any = None) -> dict[str, np.ndarray]:
        found = model.values(inputs[0])
        return {s.name: found[s.name] for s in model.steps if names is None or s.name in names}

    def layer_gradients(self, model: Slide, inputs: Any, cotangents: Any, names: Any = None) -> dict[str, np.ndarray]:
        found = model.gradients(inputs[0], cotangents[0])
        return {s.name: found[s.name] for s in model.steps if names is None or s.name in names}


# the toolset


def show(request: MethodRequest) -> MethodResult:
    """Grad-CAM, the activation, or activation times gradient, of a layer or of the map that it is shown as."""
    (layer,), model, images = request.layer, request.model, request.inputs[0]
    layout = None
    if isinstance(model, Slide):
        layer, layout = (model.maps or {}).get(layer, (layer, None))
        activation = model.values(images)[layer]
    else:
        activation = model.layers(images)[layer]

    def as_map(values: np.ndarray) -> np.ndarray:
        return values if layout is None else np.moveaxis(layout.in_space(values), -1, 1)

    if request.method.key == "lantern_layer":
        return MethodResult((as_map(activation),), Axes.LAYER)
    cotangent = np.zeros((len(images), len(HEAD) if isinstance(model, Slide) else len(model.head)))
    if request.target.function is None:
        for sample, index in enumerate(request.target.indices(len(images))):
            cotangent[(sample, *index)] = 1
    else:
        model = replace(model, end=request.target.function)
    gradient, activation = as_map(model.gradients(images, cotangent)[layer]), as_map(activation)
    if request.method.key == "lantern_product":
        return MethodResult((activation * gradient,), Axes.LAYER)
    (channel,) = request.layer_channel_axes
    space = tuple(axis for axis in range(1, activation.ndim) if axis != channel)
    return MethodResult(((activation * gradient.mean(space, keepdims=True)).sum(channel),), Axes.LAYER_MAP)


def blind(request: MethodRequest) -> MethodResult:
    """The activation summed over its channels, for models without gradients."""
    (layer,) = request.layer
    name, layout = (request.model.maps or {}).get(layer, (layer, None))
    activation = request.model.values(request.inputs[0])[name]
    sums = activation.sum(1) if layout is None else layout.in_space(activation).sum(-1)
    return MethodResult((sums,), Axes.LAYER_MAP)


def stretch(request: MethodRequest) -> MethodResult:
    """The activation summed over its channels, each value as often as the image is larger."""
    sums = request.model.values(request.inputs[0])[request.layer[0]].sum(1)
    repeats = [whole // size for whole, size in zip(request.inputs[0].shape[2:], sums.shape[1:], strict=True)]
    return MethodResult((np.kron(sums, np.ones((1, *repeats))),), Axes.INPUT_SIZED_MAP)


class Terse(Print):
    """A print that shows no relu."""

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value for name, value in super().layers(images).items() if name != "relu"}

    def gradients(self, images: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        found = Print(self.mix, self.head).gradients(images, cotangent)
        return {name: value for name, value in found.items() if name != "relu"}


def to_terse(model: Painting, inputs: tuple[np.ndarray, ...]) -> Converted:
    return Converted(Terse(model.mix, model.head), ((0, 2, 3, 1),), (None,))


def method(key: str, toolset: str, kind: Kind, implementation: str, **fields: Any) -> MethodSpec:
    return MethodSpec(
        key=key,
        toolset=toolset,
        kind=kind,
        implementation=f"{HERE}:{implementation}",
        required=("inputs", "layer"),
        **fields,
    )


class Plugin:
    @staticmethod
    @hookimpl
    def cfi_frameworks() -> list[FrameworkSpec]:
        models = ((HERE, "Slide"),)
        return [
            FrameworkSpec(
                name="slides", model_types=models, tensor_types=(), adapter=f"{HERE}:SlideAdapter", module="numpy"
            )
        ]

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="lantern", framework="slides"), ToolsetSpec(name="projector", framework="print")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        gradients = frozenset({Need.LAYER, Need.LAYER_GRADIENT})
        target: dict[str, Any] = {"optional": ("target",), "needs": gradients, "maps_layer": True}
        forward = frozenset({Need.FORWARD, Need.LAYER})
        return [
            method("lantern_map", "lantern", Kind.ATTRIBUTION, "show", **target),
            method("lantern_product", "lantern", Kind.LAYER, "show", **target),
            method("lantern_layer", "lantern", Kind.LAYER, "show", needs=forward),
            method("lantern_sums", "lantern", Kind.ATTRIBUTION, "blind", **target | {"needs": forward}),
            method("lantern_stretched", "lantern", Kind.ATTRIBUTION, "stretch", **target | {"needs": forward}),
            method("lantern_map", "projector", Kind.ATTRIBUTION, "show", **target),
        ]

    @staticmethod
    @hookimpl
    def cfi_translators() -> list[TranslatorSpec]:
        fields: dict[str, Any] = {"preserves": frozenset(Need), "cost": 9}
        made = f"{HERE}:to_terse"
        return [TranslatorSpec(name="terse", source="paint", target="print", implementation=made, **fields)]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    here = ModuleType(HERE)
    vars(here).update(
        SlideAdapter=SlideAdapter, show=show, blind=blind, stretch=stretch, to_terse=to_terse, Slide=Slide
    )
    monkeypatch.setitem(sys.modules, HERE, here)
    monkeypatch.setattr(Slide, "__module__", HERE)
    cfi.forget_translations()
    with use_plugins(fake, Plugin()) as current:
        yield current


# models


def linear(name: str, source: str, matrix: np.ndarray, kind: str = "Step") -> Step:
    """Along the last axis."""
    return Step(name, (source,), lambda x: x @ matrix, lambda gradient, _: (gradient @ matrix.T,), kind)


def cut(images: np.ndarray) -> np.ndarray:
    parts = images.reshape(len(images), 3, HEIGHT, PATCH, WIDTH, PATCH).transpose(0, 2, 4, 1, 3, 5)
    return parts.reshape(len(images), PLACES, -1)


def uncut(patches: np.ndarray) -> np.ndarray:
    parts = patches.reshape(len(patches), HEIGHT, WIDTH, 3, PATCH, PATCH).transpose(0, 3, 1, 4, 2, 5)
    return parts.reshape(len(patches), 3, HEIGHT * PATCH, WIDTH * PATCH)


def embed(order: np.ndarray) -> Step:
    """A class token, and the patches in that order."""
    back = np.argsort(order)

    def forward(images: np.ndarray) -> np.ndarray:
        first = np.repeat(CLASS_TOKEN, len(images), 0)
        return np.concatenate([first, (cut(images) @ PROJECTION)[:, order]], 1)

    return Step("embed", ("input",), forward, lambda g, _: (uncut(g[:, 1:][:, back] @ PROJECTION.T),))


def vit(reads: str = "mean", order: Any = None, *middle: Step, last: str = "mix", **fields: Any) -> Slide:
    """Patches as tokens, mixed once; the head reads the class token or the mean of all."""
    order = np.arange(PLACES) if order is None else order
    mix = Step("mix", ("embed",), lambda x: MIXING @ x, lambda gradient, _: (MIXING.T @ gradient,))
    number = PLACES + 1
    weights = np.eye(number)[0] if reads == "class" else np.full(number, 1 / number)
    read = Step(
        "read",
        (last,),
        lambda x: np.einsum("p,npf->nf", weights, x),
        lambda gradient, _: (weights[:, None] * gradient[:, None],),
    )
    return Slide((embed(order), mix, *middle, read, linear("head", "read", HEAD.T)), **fields)


def mean_of(name: str, source: str) -> Step:
    """Over the space of a map."""

    def pullback(gradient: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.broadcast_to(gradient[..., None, None], x.shape) / (x.shape[2] * x.shape[3]),)

    return Step(name, (source,), lambda x: x.mean((2, 3)), pullback)


def scales(**fields: Any) -> Slide:
    """Class 0 of a fine map, class 1 of a coarse one that is made of it and called last; 2 is of both."""
    weights = COLOURS

    def fine(x: np.ndarray) -> np.ndarray:
        return np.einsum("nchw,cf->nfhw", x, weights)

    def coarse(x: np.ndarray) -> np.ndarray:
        return x[:, :, ::2, ::2] ** 2

    def coarse_back(gradient: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        found = np.zeros_like(x)
        found[:, :, ::2, ::2] = gradient * 2 * x[:, :, ::2, ::2]
        return (found,)

    def scores(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.stack([a @ HEAD[0], b @ HEAD[1], (a + b) @ HEAD[2]], 1)

    def scores_back(gradient: np.ndarray, *_: np.ndarray) -> tuple[np.ndarray, ...]:
        first, second, both = (gradient[:, i, None] * HEAD[i] for i in range(3))
        return first + both, second + both

    return Slide(
        (
            Step("fine", ("input",), fine, lambda g, _: (np.einsum("nfhw,cf->nchw", g, weights),)),
            mean_of("of fine", "fine"),
            Step("coarse", ("fine",), coarse, coarse_back),
            mean_of("of coarse", "coarse"),
            Step("scores", ("of fine", "of coarse"), scores, scores_back),
        ),
        **fields,
    )


def explain(model: Any, key: str = "lantern_map", layer: Any = "auto", **arguments: Any) -> cfi.Attribution:
    found = cfi.attribute(model, key, **{"inputs": IMAGES, "layer": layer, **arguments})
    assert isinstance(found, cfi.Attribution)
    return found


# layer="auto"


@pytest.mark.parametrize("target", [0, 1])
def test_the_last_map_that_the_target_reaches_is_explained(target):
    model = scales()
    found = explain(model, target=target)
    name = ("fine", "coarse")[target]
    values = model.values(IMAGES)[name]
    places = values.shape[2] * values.shape[3]
    assert found.layer == name and found.dims == ("sample", "height", "width")
    np.testing.assert_allclose(found.values, np.einsum("f,nfhw->nhw", HEAD[target] / places, values), atol=1e-9)
    assert (
        found.provenance["layer"] == f"{name!r}, the last layer with axes of space that the target's gradient reaches"
    )
    assert explain(model, target=target, layer=name).provenance["layer"] == "as given"


@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize(
    ("target", "layer"),
    [
        (0, "fine"),
        (1, "coarse"),
        ([0, 0], "fine"),
        (lambda outputs: outputs[:, 0], "fine"),
        (lambda outputs: outputs[:, 2] - 2 * outputs[:, 1], "coarse"),
    ],
)
def test_models_without_gradients_are_changed_instead_and_tell_the_same(target, layer, differentiable):
    model = scales(differentiable=differentiable)
    found = explain(model, "lantern_sums", target=target)
    assert found.layer == layer
    np.testing.assert_allclose(found.values, model.values(IMAGES)[layer].sum(1))


@pytest.mark.parametrize("differentiable", [True, False])
@pytest.mark.parametrize(("reads", "layer"), [("mean", "mix"), ("class", "embed")])
def test_a_transformer_is_explained_where_the_target_reaches_its_patches(reads, layer, differentiable):
    """Behind the mixing a head that reads the class token depends on none of the others."""
    model = vit(reads, SHUFFLED, differentiable=differentiable)
    found = explain(model, "lantern_sums", target=1)
    assert found.layer == layer and found.dims == ("sample", "height", "width")
    tokens = model.values(IMAGES)[layer][:, 1:].sum(-1)[:, np.argsort(SHUFFLED)]
    np.testing.assert_allclose(found.values, tokens.reshape(2, HEIGHT, WIDTH))


def test_a_projection_of_tokens_is_a_step_inside_and_comes_after_all_others():
    projected = vit("mean", None, linear("query", "mix", SQUARE, "Linear"), last="query")
    assert explain(projected, target=0).layer == "mix"
    other = vit("mean", None, linear("query", "mix", SQUARE, "Block"), last="query")
    assert explain(other, target=0).layer == "query"


def heads_of(tokens: np.ndarray) -> np.ndarray:
    """Weights as of attention: as many axes as an image has, and none of them its space."""
    return tokens.mean(2)[:, None, None] * np.ones((1, 2, 6, 1))


def test_as_many_axes_as_an_image_has_are_no_map_where_a_model_has_tokens_and_the_image_does_not_move_them():
    def back(gradient: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.repeat(gradient.sum((1, 2))[..., None] / FEATURES, FEATURES, 2),)

    spread = Step("weights", ("mix",), heads_of, back)

    def join(weights: np.ndarray) -> np.ndarray:
        return weights.mean((1, 2))[..., None] * np.ones(FEATURES)

    def join_back(gradient: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.broadcast_to(gradient.sum(-1)[:, None, None] / 12, weights.shape),)

    model = vit("mean", None, spread, Step("join", ("weights",), join, join_back), last="join")
    found = explain(model, target=0)
    assert found.layer == "join"
    skipped = replace(
        model, steps=tuple(replace(one, kind="Linear") if one.name == "join" else one for one in model.steps)
    )
    assert explain(skipped, target=0).layer == "mix"  # and not the weights


def test_models_without_space_are_refused_with_a_way_out():
    flat = Step("flat", ("input",), lambda x: x.reshape(len(x), -1), lambda g, x: (g.reshape(x.shape),))
    model = Slide((flat, linear("head", "flat", FLAT)))
    with pytest.raises(cfi.LayerError, match=r"layer='auto' found no layer.*cfi\.layers.*reshape="):
        explain(model, target=0)


def test_what_was_looked_at_is_named_where_none_serves():
    """The one token that is read is no space, and nothing else reaches the output."""
    model = vit("class")
    only = Slide((*model.steps[:1], replace(model.steps[2], sources=("embed",)), model.steps[3]))
    with pytest.raises(cfi.LayerError, match=r"found no layer.*target reaches\. Pass a layer by name"):
        explain(only, target=0)
    with pytest.raises(cfi.LayerError, match=r"target reaches\. Looked at: embed\. Pass"):
        explain(replace(only, differentiable=False), "lantern_sums", target=0)


def test_a_layer_of_that_name_is_meant_by_it():
    model = scales()
    first, *rest = model.steps
    named = replace(
        model,
        steps=(
            replace(first, name="auto"),
            *(replace(step, sources=tuple("auto" if s == "fine" else s for s in step.sources)) for step in rest),
        ),
    )
    found = explain(named, target=1)
    assert found.layer == "auto" and found.provenance["layer"] == "as given"


def test_a_layer_that_the_translated_model_lacks_is_passed_over():
    painting = Painting(MIX, MIX_HEAD)
    whole = explain(painting, target=2, translator="paint2print")
    assert whole.layer == "relu" and whole.route == ("paint2print",)
    relu = painting.layers(IMAGES)["relu"]
    weights = painting.head[2] / (IMAGES.shape[2] * IMAGES.shape[3])
    np.testing.assert_allclose(whole.values, np.einsum("f,nfhw->nhw", weights, relu), atol=1e-9)
    terse = explain(painting, target=2, translator="terse")
    assert terse.layer == "mix" and "'mix', the last layer" in terse.provenance["layer"]
    mix = painting.layers(IMAGES)["mix"]
    passed = weights[:, None, None] * (mix > 0)
    expected = (passed.mean((2, 3), keepdims=True) * mix).sum(1)
    np.testing.assert_allclose(terse.values, expected, atol=1e-9)


# tokens on a grid


def grad_cam_of_tokens(model: Slide, layer: str, target: int, order: np.ndarray) -> np.ndarray:
    """With tokens brought to their places by hand."""
    tokens = model.values(IMAGES)[layer]
    gradient = model.gradients(IMAGES, np.eye(CLASSES)[[target, target]])[layer]
    places = 1 + np.argsort(order)
    weights = gradient[:, places].mean(1, keepdims=True)
    return (weights * tokens[:, places]).sum(-1).reshape(2, HEIGHT, WIDTH)


@pytest.mark.parametrize("order", [np.arange(PLACES), SHUFFLED])
@pytest.mark.parametrize("layer", ["embed", "mix"])
def test_a_map_of_tokens_lies_on_their_grid_with_the_share_of_the_class_token_beside_it(order, layer):
    model = vit("mean", order)
    found = explain(model, layer=layer, target=1)
    assert found.dims == ("sample", "height", "width")
    np.testing.assert_allclose(found.values, grad_cam_of_tokens(model, layer, 1, order), atol=1e-9)
    gradient = model.gradients(IMAGES, np.eye(CLASSES)[[1, 1]])[layer]
    share = (model.values(IMAGES)[layer] * gradient)[:, :1].sum(-1)
    np.testing.assert_allclose(found.extras["prefix_tokens"], share, atol=1e-9)
    told = found.provenance["grid"][layer]
    assert told["size"] == (HEIGHT, WIDTH) and told["found"].startswith("confirmed: ")
    assert told["prefix_tokens"] == "token 0: not part of the map; activation times gradient, summed over the channels"


def test_the_share_of_other_tokens_is_told_for_an_index_alone_and_where_it_can_be_measured():
    model = vit()
    function = explain(model, layer="mix", target=lambda outputs: outputs[:, 1])
    np.testing.assert_allclose(function.values, explain(model, layer="mix", target=1).values, atol=1e-9)
    assert "prefix_tokens" not in function.extras
    assert "for a class or an index of the output alone" in function.provenance["grid"]["mix"]["prefix_tokens"]
    blinded = explain(vit(differentiable=False), "lantern_sums", layer="mix", target=1)
    assert "prefix_tokens" not in blinded.extras
    assert "could not be measured" in blinded.provenance["grid"]["mix"]["prefix_tokens"]


@pytest.mark.parametrize("key", ["lantern_layer", "lantern_product"])
def test_values_by_channel_lie_on_the_grid_and_nothing_is_lost(key):
    model = vit("mean", SHUFFLED)
    arguments = {"target": 1} if key == "lantern_product" else {}
    found = explain(model, key, layer="mix", **arguments)
    values = model.values(IMAGES)["mix"]
    if arguments:
        values = values * model.gradients(IMAGES, np.eye(CLASSES)[[1, 1]])["mix"]
    assert found.dims == ("sample", "height", "width", "channel")
    places = 1 + np.argsort(SHUFFLED)
    np.testing.assert_allclose(found.values, values[:, places].reshape(2, HEIGHT, WIDTH, FEATURES), atol=1e-9)
    if key == "lantern_layer":
        np.testing.assert_array_equal(found.extras["prefix_tokens"], values[:, :1])
        assert found.provenance["grid"]["mix"]["prefix_tokens"] == "token 0: their values, by channel"


def test_a_map_of_channels_is_what_the_layer_gives():
    model = scales()
    found = explain(model, "lantern_layer", layer="fine")
    assert found.dims == ("sample", "channel", "height", "width") and found.provenance["grid"] == {}
    np.testing.assert_array_equal(found.values, model.values(IMAGES)["fine"])


@pytest.mark.parametrize(
    "reshape",
    [
        ("class", HEIGHT, WIDTH),
        lambda tokens: tokens[:, 1:].reshape(len(tokens), HEIGHT, WIDTH, -1).transpose(0, 3, 1, 2),
    ],
)
def test_a_described_grid_is_the_found_one(reshape):
    model = vit()
    found, said = explain(model, layer="mix", target=1), explain(model, layer="mix", target=1, reshape=reshape)
    np.testing.assert_array_equal(found.values, said.values)
    assert "reshape=" in said.provenance["grid"]["mix"]["found"]
    sought = explain(model, target=1, reshape=reshape)
    assert sought.layer == "mix"
    np.testing.assert_array_equal(sought.values, found.values)


def test_tokens_stay_tokens_where_the_user_or_the_toolset_says_so():
    model = vit()
    values = model.values(IMAGES)["mix"]
    for arguments in ({"reshape": False}, {"defaults": "toolset"}):
        plain = explain(model, "lantern_layer", layer="mix", **arguments)
        assert plain.dims == ("sample", "position", "channel") and "prefix_tokens" not in plain.extras
        np.testing.assert_array_equal(plain.values, values)


def test_where_no_grid_is_confirmed_tokens_stay_tokens_and_that_is_told():
    number = PLACES + 1
    scale = np.arange(1.0, number + 1)[:, None]
    same = Step(
        "same",
        ("mix",),
        lambda x: x.mean(1, keepdims=True) * scale,
        lambda g, x: (np.repeat((g * scale).sum(1, keepdims=True) / number, number, 1),),
    )
    model = vit("mean", None, same, last="same")
    with pytest.warns(cfi.ModelWarning, match=r"makes no map at layer 'same'.*layer='auto'.*reshape="):
        found = explain(model, layer="same", target=1)
    values = model.values(IMAGES)["same"]
    assert found.dims == ("sample", "position")
    np.testing.assert_allclose(found.values, values @ HEAD[1] / number, atol=1e-9)
    assert "could be confirmed" in found.provenance["grid"]["same"]["found"]


def test_maps_are_refused_where_a_layer_has_no_space_with_a_way_out():
    with pytest.raises(cfi.LayerError, match=r"'read' gives an output of shape \(2, 5\), which has none\. Pass layer="):
        explain(vit(), layer="read", target=1)


def test_a_neuron_is_a_unit_of_a_named_layer_and_reshape_describes_one():
    painting = Painting(MIX, MIX_HEAD)
    with pytest.raises(cfi.ArgumentError, match="name the layer"):
        explain(painting, "press_neuron", neuron=(0, 0, 0))
    with pytest.raises(cfi.ArgumentError, match="gives no values of one"):
        cfi.attribute(painting, "press_gradient", inputs=IMAGES, target=0, reshape=(3, 4))


# other models


def sample_mean(name: str, source: str) -> Step:
    """Less its mean over the samples, as a normalisation in training mode has it."""
    return Step(name, (source,), lambda x: x - x.mean(0), lambda g, _: (g - g.mean(0),))


@pytest.mark.filterwarnings("ignore::cfi_core.ModelWarning")
def test_where_samples_influence_each_other_maps_are_found_and_tokens_not_looked_for():
    model = scales()
    fine, *rest = model.steps
    first = Step("normed", ("input",), lambda x: x - x.mean(0), lambda g, _: (g - g.mean(0),))
    normed = replace(model, steps=(first, replace(fine, sources=("normed",)), *rest))
    found = explain(normed, "lantern_sums", target=0)
    assert found.layer == "fine" and found.dims == ("sample", "height", "width")
    np.testing.assert_allclose(found.values, normed.values(IMAGES)["fine"].sum(1))
    tokens = vit("mean", None, sample_mean("normed", "mix"), last="normed")
    read = explain(tokens, "lantern_layer", layer="mix")
    assert read.dims == ("sample", "position", "channel")
    assert "samples of the model influence each other" in read.provenance["grid"]["mix"]["found"]


def test_a_layer_of_tokens_without_a_grid_is_passed_over():
    number = PLACES + 1
    same = Step(
        "same",
        ("mix",),
        lambda x: np.repeat(x.mean(1, keepdims=True), number, 1),
        lambda g, x: (np.repeat(g.mean(1, keepdims=True), number, 1),),
    )
    assert explain(vit("mean", None, same, last="same"), target=0).layer == "mix"


@pytest.mark.parametrize("differentiable", [True, False])
def test_sequences_are_maps_of_positions(differentiable):
    rows = np.random.default_rng(5).normal(size=(2, 7, FEATURES))
    mean = Step("mean", ("square",), lambda x: x.mean(1), lambda g, x: (np.repeat(g[:, None], 7, 1) / 7,))
    model = Slide((linear("square", "input", SQUARE), mean, linear("head", "mean", HEAD.T)), differentiable)
    found = explain(model, "lantern_sums", inputs=rows, target=1)
    assert found.layer == "square" and found.dims == ("sample", "position")
    np.testing.assert_allclose(found.values, (rows @ SQUARE).sum(2))


@pytest.mark.parametrize("differentiable", [True, False])
def test_a_model_of_one_value_for_each_sample_needs_no_target(differentiable):
    model = scales()
    total = Step("total", ("scores",), lambda x: x[:, :1].sum(1), lambda g, x: (g[:, None] * [[1.0, 0, 0]],))
    assert explain(Slide((*model.steps, total), differentiable), "lantern_sums").layer == "fine"


def test_channels_that_the_framework_only_guesses_are_where_the_image_moves_the_map():
    """Channels last, in a framework that takes the axis behind the samples for them."""
    last = Step(
        "last", ("input",), lambda x: (2 * x).transpose(0, 2, 3, 1), lambda g, _: (2 * g.transpose(0, 3, 1, 2),)
    )
    mean = Step("mean", ("last",), lambda x: x.mean((1, 2)), lambda g, x: (np.zeros_like(x) + g[:, None, None] / 48,))
    model = Slide((last, mean, linear("head", "mean", COLOURS)), certain=False)
    found = explain(model, "lantern_layer", layer="last")
    assert found.dims == ("sample", "height", "width", "channel")
    np.testing.assert_array_equal(found.values, model.values(IMAGES)["last"])
    assert found.provenance["grid"]["last"]["found"] == "confirmed: the map moves with patches of the image"
    known = replace(model, certain=True)
    assert explain(known, "lantern_layer", layer="last").dims == ("sample", "channel", "height", "width")


def test_a_map_with_height_and_width_exchanged_is_not_stretched_over_the_image():
    model = scales()
    stretched = explain(model, "lantern_stretched", layer="coarse", target=1)
    assert stretched.dims == ("sample", "height", "width")
    sums = model.values(IMAGES)["coarse"].sum(1)
    np.testing.assert_array_equal(stretched.values[:, ::2, ::2], sums)
    square = IMAGES[..., :6]
    turn = Step("turn", ("fine",), lambda x: x.swapaxes(2, 3), lambda g, _: (g.swapaxes(2, 3),))
    turned = Slide((model.steps[0], turn, mean_of("mean", "turn"), linear("head", "mean", HEAD.T)))
    with pytest.raises(cfi.MethodError, match=r"'turn' holds the axes of your image in another order"):
        explain(turned, "lantern_stretched", layer="turn", inputs=square, target=1)
    assert explain(turned, "lantern_stretched", layer="fine", inputs=square, target=1).values.shape == (2, 6, 6)
