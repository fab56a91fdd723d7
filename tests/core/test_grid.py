"""Where tokens lie in the image: shapes, measurement and what users say, on models of arrays whose order is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.framework import FrameworkAdapter, Layout
from cfi_core.grid import _CAPACITY, Ground, grids, holds, place_layer
from cfi_core.records import Inputs, Original

HEIGHT, WIDTH, PATCH, FEATURES = 3, 4, 2, 5
PLACES = HEIGHT * WIDTH


class Tokens:
    """Patches of an image as tokens in some order, with others among them, mixed from layer to layer."""

    def __init__(
        self, order: Any = None, front: int = 1, behind: int = 0, mixing: float = 0.1, late: Any = None
    ) -> None:
        generator = np.random.default_rng(0)
        self.order = np.arange(PLACES) if order is None else np.asarray(order)
        self.front, self.behind, self.late = front, behind, late
        self.project = generator.standard_normal((PATCH * PATCH * 3, FEATURES))
        self.extra = generator.standard_normal((front + behind, FEATURES))
        count = PLACES + front + behind
        self.mix = np.eye(count) + mixing * generator.standard_normal((count, count)) / count

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """From the first tokens to the last; the channels of `first` are in front."""
        cut = images.reshape(len(images), 3, HEIGHT, PATCH, WIDTH, PATCH).transpose(0, 2, 4, 1, 3, 5)
        patches = cut.reshape(len(images), PLACES, -1) @ self.project
        extra = np.repeat(self.extra[None], len(images), 0)
        tokens = np.concatenate([extra[:, : self.front], patches[:, self.order], extra[:, self.front :]], 1)
        deep = np.tanh(self.mix @ np.tanh(self.mix @ tokens))
        if self.late is not None:
            deep = deep[:, self.late]
        return {"first": tokens.transpose(0, 2, 1), "deep": deep, "pooled": deep.mean(1)}


class TokenAdapter(FrameworkAdapter):
    """Of such models."""

    name = "tokens"

    def channel_axis(self, model: Any, shape: Any, *, layer: str | None = None) -> int | None:
        return None if len(shape) < 3 else 1 if layer in (None, "first") else 2

    def outputs(self, model: Tokens, inputs: Any) -> np.ndarray:
        return model.layers(inputs[0])["pooled"]

    def activations(self, model: Tokens, inputs: Any, names: Any = None) -> dict[str, np.ndarray]:
        found = model.layers(inputs[0])
        return {name: found[name] for name in found if names is None or name in names}

    def runner(self, model: Any, inputs: Any, layers: Any = ()) -> Any:
        raise NotImplementedError


def ground_of(model: Tokens) -> Ground:
    images = np.random.default_rng(1).standard_normal((2, 3, HEIGHT * PATCH, WIDTH * PATCH))
    return Ground(Original("tokens", TokenAdapter(), model), Inputs((images,), (images,)))


def place(model: Tokens, layer: str, reshape: Any = None) -> Any:
    ground = ground_of(model)
    return place_layer(ground, layer, model.layers(ground.inputs.arrays[0])[layer].shape, reshape)


@pytest.mark.parametrize("layer", ["first", "deep"])
@pytest.mark.parametrize(("front", "behind"), [(0, 0), (1, 0), (2, 0), (0, 1), (1, 3)])
def test_tokens_are_found_with_others_in_front_and_behind(layer, front, behind):
    placed = place(Tokens(front=front, behind=behind), layer)
    assert placed.layout.space == (HEIGHT, WIDTH) and placed.axes == ("height", "width")
    assert placed.layout.order == tuple(range(front, front + PLACES))
    assert placed.layout.others == (*range(front), *range(front + PLACES, front + PLACES + behind))
    assert placed.found.startswith("confirmed: ")


@pytest.mark.parametrize("layer", ["first", "deep"])
@pytest.mark.parametrize("order", ["by columns", "shuffled", "two exchanged", "backwards"])
def test_an_order_that_is_not_row_by_row_is_read_from_the_model(layer, order):
    orders = {
        "by columns": np.arange(PLACES).reshape(HEIGHT, WIDTH).T.ravel(),
        "shuffled": np.random.default_rng(3).permutation(PLACES),
        "two exchanged": np.array([1, 0, *range(2, PLACES)]),
        "backwards": np.arange(PLACES)[::-1],
    }
    model = Tokens(orders[order])
    placed = place(model, layer)
    # The token of place p stands where the order holds p, behind the class token.
    assert placed.layout.order == tuple(int(at) + 1 for at in np.argsort(model.order))


def test_tokens_that_change_places_inside_the_model_are_followed_or_no_map_is_claimed():
    late = np.array([0, *(np.random.default_rng(4).permutation(PLACES) + 1)])
    placed = place(Tokens(late=late), "deep")
    assert placed.layout is not None and "each patch moves another token most" in placed.found
    assert [int(late[at]) for at in placed.layout.order] == list(range(1, PLACES + 1))
    mixed = Tokens(late=late)
    mixed.mix = np.full_like(mixed.mix, 1 / len(mixed.mix))
    lost = place(mixed, "deep")
    assert lost.layout is None and "could be confirmed" in lost.found


def test_what_has_no_tokens_is_no_map():
    assert place(Tokens(), "pooled").layout is None


def test_maps_have_the_values_at_their_places():
    model = Tokens(np.random.default_rng(3).permutation(PLACES))
    ground = ground_of(model)
    images = ground.inputs.arrays[0]
    first = model.layers(images)["first"]
    layout = place(model, "first").layout
    cut = images.reshape(2, 3, HEIGHT, PATCH, WIDTH, PATCH).transpose(0, 2, 4, 1, 3, 5)
    expected = (cut.reshape(2, PLACES, -1) @ model.project).reshape(2, HEIGHT, WIDTH, FEATURES)
    np.testing.assert_array_equal(layout.in_space(first), expected)
    np.testing.assert_array_equal(layout.elsewhere(first)[:, 0], np.repeat(model.extra[:1], 2, 0))


def test_a_layout_follows_its_axes():
    generator = np.random.default_rng(0)
    array = generator.standard_normal((2 * 3, 4, 7, 5))  # three windows of each sample, channels on axis 2
    layout = Layout((6, 2), tuple(generator.permutation(60)[:12]), 2, rows=3)
    layout = Layout(layout.space, layout.order, 2, 3, tuple(sorted(set(range(60)) - set(layout.order))))
    for axes in [(0, 2, 1, 3), (0, 3, 1, 2), (0, 3, 2, 1)]:
        turned = layout.turned(axes, array.shape)
        moved = array.transpose(axes)
        np.testing.assert_array_equal(turned.in_space(moved), layout.in_space(array))
        np.testing.assert_array_equal(turned.elsewhere(moved), layout.elsewhere(array))


def test_the_likeliest_grids_come_first():
    assert grids((224, 224), 197)[0] == (14, 14)
    assert grids((64, 96), 25)[0] == (4, 6)
    assert (8, 3) not in grids((64, 96), 24)
    assert grids((4, 32, 32), 33)[0] == (2, 4, 4)
    assert grids((16, 16), 10_000) == []


def test_an_order_holds_if_patches_move_their_own_tokens():
    answers = np.full((6, 6), 0.2) + np.eye(6)
    own = np.arange(6)
    assert holds(answers, own)
    assert not holds(answers[[1, 0, 2, 3, 4, 5]], own)  # two exchanged, clearly
    assert not holds(np.ones((6, 6)), own)
    assert not holds(answers * np.nan, own)


@pytest.mark.parametrize(
    ("front", "behind", "reshape"),
    [
        (1, 0, ("class", HEIGHT, WIDTH)),
        (0, 2, (HEIGHT, WIDTH, "class", "distillation")),
        (1, 0, (HEIGHT, WIDTH)),
        (1, 0, lambda tokens: tokens[:, 1:].reshape(2, HEIGHT, WIDTH, FEATURES).transpose(0, 3, 1, 2)),
        (0, 1, lambda tokens: tokens[:, :-1].reshape(2, HEIGHT, WIDTH, FEATURES)),
    ],
)
def test_users_say_where_tokens_lie(front, behind, reshape):
    placed = place(Tokens(front=front, behind=behind), "deep", reshape)
    assert placed.layout.space == (HEIGHT, WIDTH) and placed.layout.order == tuple(range(front, front + PLACES))
    assert len(placed.others) == front + behind
    if isinstance(reshape, tuple) and "class" in reshape:
        assert placed.others[0] == "class"


def test_tokens_stay_tokens_where_the_user_says_so():
    assert place(Tokens(), "deep", False).layout is None


@pytest.mark.parametrize(
    ("reshape", "told"),
    [
        ((5, 5), "gives 13 of each sample"),
        (("class", 5, 5), "makes 26 tokens"),
        ((4, "class", 3), "one by another"),
        ("class", "is neither sizes"),
        (3.5, "is neither sizes"),
        ((True, 4), "is neither sizes"),
        (lambda tokens: tokens.mean(1), "must do nothing but leave tokens out and move axes"),
        (lambda tokens: tokens[:, 1:].reshape(2, HEIGHT, FEATURES, WIDTH), "must do nothing but"),
        (lambda tokens: tokens[:1, 1:].reshape(1, HEIGHT, WIDTH, FEATURES), "must do nothing but"),
        (lambda tokens: tokens.nothing, "reshape= failed"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(reshape, told):
    with pytest.raises(cfi.ArgumentError, match=told):
        place(Tokens(), "deep", reshape)


def test_a_grid_other_than_the_models_own_is_told():
    """Height and width exchanged, and the class token looked for on the other side."""
    with pytest.warns(cfi.ModelWarning, match="elsewhere than patches of the image move them"):
        place(Tokens(front=1), "deep", ("class", WIDTH, HEIGHT))
    with pytest.warns(cfi.ModelWarning, match="beside other tokens"):
        place(Tokens(front=1), "deep", (HEIGHT, WIDTH, "class"))


# models of other kinds


class Given:
    """Layers as functions of the image."""

    def __init__(self, **functions: Callable[[np.ndarray], np.ndarray]) -> None:
        self.functions = functions
        self.passes = 0

    def layers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.passes += 1
        return {name: function(images) for name, function in self.functions.items()}


def look(model: Given, images: np.ndarray, layer: str = "late", reshape: Any = None, fingerprint: str = "") -> Any:
    ground = Ground(Original("tokens", TokenAdapter(), model), Inputs((images,), (images,)), fingerprint)
    return place_layer(ground, layer, model.functions[layer](images).shape, reshape)


def patches_of(images: np.ndarray, size: int = PATCH) -> np.ndarray:
    """Means of the channels in patches, as tokens row by row."""
    samples, channels, height, width = images.shape
    cut = images.reshape(samples, channels, height // size, size, width // size, size)
    return cut.mean((3, 5)).reshape(samples, channels, -1).transpose(0, 2, 1).astype(float)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(6).standard_normal(shape)


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool"])
def test_images_that_are_no_floating_point_numbers_are_moved_too(kind):
    images = (drawn(2, 3, HEIGHT * PATCH, WIDTH * PATCH) > 0).astype(kind)
    placed = look(Given(late=lambda x: patches_of(x)[:, ::-1]), images)
    assert placed.layout.space == (HEIGHT, WIDTH) and placed.layout.order == tuple(range(PLACES))[::-1]


def test_of_many_places_some_are_moved_where_tokens_have_mixed():
    mix = np.eye(80) + 0.001 * drawn(80, 80)
    placed = look(Given(late=lambda x: mix @ patches_of(x)), drawn(2, 3, 16, 20))
    assert placed.layout.space == (8, 10) and placed.layout.order == tuple(range(80))
    assert "stand row by row, and of all tokens its own answers most to 100%" in placed.found


def test_an_order_of_many_places_is_not_read_off_one_by_one():
    """Of tokens that change places inside the model, with no layer in front that has their order."""
    for size, is_found in ((16, True), (20, False)):
        count = size * size
        order = np.random.default_rng(3).permutation(count)
        mix = (np.eye(count) + 0.001 / size * drawn(count, count))[order]
        placed = look(Given(late=lambda x, mix=mix: mix @ patches_of(x)), drawn(1, 1, 2 * size, 2 * size))
        assert (placed.layout is not None) is is_found
        if is_found:
            assert placed.layout.order == tuple(int(at) for at in np.argsort(order))


def test_a_grid_of_three_places_is_found_where_each_moves_alone_and_not_where_they_mix():
    images = drawn(2, 3, 2, 6)
    assert look(Given(late=patches_of), images).layout.space == (1, 3)
    assert look(Given(late=lambda x: (np.ones((3, 3)) + np.eye(3)) @ patches_of(x)), images).layout is None


def test_a_model_of_a_fixed_number_of_samples_gets_so_many_at_a_time():
    def of_three(images: np.ndarray) -> np.ndarray:
        if len(images) != 3:
            raise ValueError("three samples")
        return patches_of(images)[:, ::-1]

    placed = look(Given(late=of_three), drawn(3, 3, HEIGHT * PATCH, WIDTH * PATCH))
    assert placed.layout.space == (HEIGHT, WIDTH) and placed.layout.order == tuple(range(PLACES))[::-1]


@pytest.mark.parametrize("samples", [1, 2])
def test_a_first_axis_that_holds_no_samples_makes_no_map(samples):
    table = drawn(samples, PLACES, FEATURES)
    placed = look(Given(late=lambda x: table + 0 * x.sum()), drawn(samples, 3, HEIGHT * PATCH, WIDTH * PATCH))
    assert placed.layout is None and "could" in placed.found
    if samples == 1:
        assert "no grid over the image of 6 x 8 could be confirmed" in placed.found


def test_a_model_that_fails_on_other_images_makes_no_map():
    images = drawn(2, 3, HEIGHT * PATCH, WIDTH * PATCH)

    def only_these(given: np.ndarray) -> np.ndarray:
        if any(not np.array_equal(one, images[0]) for one in given) and given is not images:
            raise ValueError("unknown image")
        return patches_of(given)

    placed = look(Given(late=only_these), images)
    assert placed.layout is None
    assert "could not be looked for" in placed.found and "unknown image" in placed.found


def test_places_are_kept_for_the_content_of_a_model_as_long_as_there_is_room():
    images = drawn(2, 3, HEIGHT * PATCH, WIDTH * PATCH)
    layers: dict[str, Any] = {f"flat {number}": lambda x: x.mean((2, 3)) for number in range(_CAPACITY)}
    model = Given(late=patches_of, **layers)
    found, looked = look(model, images, fingerprint="kept"), model.passes
    assert look(model, images, fingerprint="kept") is found and model.passes == looked
    assert look(model, images, fingerprint="other").layout == found.layout and model.passes > looked
    for name in layers:
        look(model, images, name, fingerprint="kept")
    again = look(model, images, fingerprint="kept")
    assert again is not found and again.layout == found.layout


@pytest.mark.parametrize(
    ("reshape", "axes"),
    [((12,), ("position",)), ((3, 4), ("height", "width")), ((3, 2, 2), ("depth", "height", "width"))],
)
def test_tokens_of_inputs_without_space_lie_where_the_user_says(reshape, axes):
    rows = drawn(2, 12, 7)
    model = Given(late=lambda x: 2 * x)
    assert look(model, rows).layout is None
    placed = look(model, rows, reshape=reshape)
    assert placed.axes == axes and placed.layout.space == reshape
    np.testing.assert_array_equal(placed.layout.in_space(rows), rows.reshape(2, *reshape, 7))


def test_descriptions_of_what_are_no_tokens_or_by_other_values_are_refused():
    images = drawn(2, 3, HEIGHT * PATCH, WIDTH * PATCH)
    model = Given(late=patches_of, three=lambda x: np.zeros((3, PLACES, FEATURES)))
    with pytest.raises(
        cfi.ArgumentError, match=r"describes tokens, and layer 'three' gives an output of shape \(3, 12"
    ):
        look(model, images, "three", (HEIGHT, WIDTH))
    for change in (lambda x: x * 0, lambda x: x + 100_000):
        with pytest.raises(cfi.ArgumentError, match="must do nothing but leave tokens out"):
            look(model, images, reshape=lambda x, change=change: change(x).reshape(2, HEIGHT, WIDTH, 3))
