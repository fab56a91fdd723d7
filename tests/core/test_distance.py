"""What two models are compared by."""

import numpy as np
import pytest

from cfi_core.distance import (
    Apart,
    Excerpt,
    Opened,
    Pair,
    Results,
    Side,
    Sizes,
    computes,
    cosine,
    move,
    random_like,
    take,
    to_double,
)
from cfi_core.testing.fake import NetworkAdapter, Print

LAST = (0, 2, 3, 1)


def opened(painting, layers, *, is_print=False):
    if not is_print:
        return Opened(NetworkAdapter(), painting, layers=layers, inputs=1)
    axes = (LAST,) * (1 + len(layers))
    return Opened(NetworkAdapter(), Print(painting.mix, painting.head), axes, (None,), layers=layers, inputs=1)


@pytest.mark.parametrize("is_print", [False, True])
def test_activations_take_the_place_of_layers(painting, images, is_print):
    side, replaced = opened(painting, ("relu",), is_print=is_print), np.random.default_rng(3).normal(size=(2, 4, 5, 7))
    assert side.first == 1 and Side(NetworkAdapter(), painting).first == 0
    (found,) = side.outputs([images, replaced])
    np.testing.assert_allclose(found, replaced.mean((2, 3)) @ painting.head.T)


@pytest.mark.parametrize("is_print", [False, True])
def test_gradients_are_those_at_the_layers(painting, images, is_print):
    cotangent = np.random.default_rng(4).normal(size=(2, 5))
    replaced = np.random.default_rng(3).normal(size=(2, 4, 5, 7))
    outputs, gradients = opened(painting, ("relu",), is_print=is_print).gradients([images, replaced], [cotangent])
    np.testing.assert_allclose(outputs[0], replaced.mean((2, 3)) @ painting.head.T)
    expected = np.broadcast_to((cotangent @ painting.head / 35)[:, :, None, None], replaced.shape)
    np.testing.assert_allclose(gradients[0], expected)


def test_a_layer_that_does_not_lead_to_the_outputs_has_gradients_of_zero(painting, images):
    """The later of two opened layers takes the place of what the earlier one leads to."""
    side, cotangent = opened(painting, ("mix", "relu")), np.ones((2, 5))
    first, second = np.random.default_rng(3).normal(size=(2, 2, 4, 5, 7))
    _, gradients = side.gradients([images, first, second], [cotangent])
    assert not gradients[0].any() and gradients[0].shape == first.shape
    np.testing.assert_allclose(gradients[1][:, :, 0, 0], cotangent @ painting.head / 35)
    _, without = side.gradients([images, first, second], [None])
    assert not without[1].any()


def test_sizes_of_columns():
    outputs, more = [np.array([[3.0, 0.0], [4.0, 2.0]])], [np.array([[6.0, 1.0], [8.0, 1.0]])]
    sizes, larger = (Sizes.measure([one], [one], [np.array([[1.0], [7.0]])]) for one in (outputs, more))
    np.testing.assert_allclose(sizes.outputs[0][0], [[np.sqrt(12.5), np.sqrt(2)]])
    np.testing.assert_allclose(sizes.inputs[0], [[5.0]])
    assert sizes.larger(None) is sizes
    np.testing.assert_allclose(sizes.larger(larger).outputs[0][0], [[np.sqrt(50), np.sqrt(2)]])
    other = Sizes.measure([[np.ones((2, 3))]], [[np.ones((2, 3))]], [])
    np.testing.assert_array_equal(sizes.larger(other).outputs[0][0], sizes.outputs[0][0])


def test_columns_of_one_axis_and_of_zeros():
    sizes = Sizes.measure([[np.array([3.0, 4.0])]], [[np.zeros((2, 3))]], [])
    np.testing.assert_allclose(sizes.outputs[0][0], [np.sqrt(12.5)])
    drawn = sizes.draw([np.zeros((2, 3))], np.random.default_rng(0))
    np.testing.assert_allclose(drawn[0], np.random.default_rng(0).standard_normal((2, 3)))


def test_rows_of_results():
    whole = Results([np.arange(10.0).reshape(5, 2)], None, [np.arange(5.0)])
    first, second = whole.split([2, 3])
    assert first.outputs[0].tolist() == [[0, 1], [2, 3]] and second.gradients[0].tolist() == [2, 3, 4]
    assert first.recorded is None
    changed = whole.put([1, 3], Results([np.full((2, 2), -1.0)], None, [np.full(2, -2.0)]))
    assert changed.outputs[0].tolist() == [[0, 1], [-1, -1], [4, 5], [-1, -1], [8, 9]]
    assert changed.gradients[0].tolist() == [0, -2, 2, -2, 4] and changed.recorded is None
    assert whole.outputs[0][1].tolist() == [2, 3], "a copy is changed"
    with pytest.raises(ValueError, match="not a row for each sample"):
        whole.split([2, 2])


def test_differences_and_what_is_allowed():
    found, allowed = Apart(1e-3, np.nan, 0.0), Apart(1e-2, 1.0, 0.0)
    assert found.beyond(allowed) == ["columns"], "no number is never allowed"
    assert allowed.times(2) == Apart(2e-2, 2.0, 0.0)
    assert Apart(1, 2, 3).larger(Apart(3, 2, 1)) == Apart(3, 2, 3)
    assert Apart(1, 2, 3).smaller(Apart(3, 2, 1)) == Apart(1, 2, 1)


def test_cosines_by_hand():
    assert cosine([np.array([1.0, 0.0])], [np.array([1.0, 1.0])]) == pytest.approx(np.sqrt(0.5))
    assert cosine([np.zeros(2)], [np.zeros(2)]) == 1 and cosine([np.zeros(2)], [np.ones(2)]) == 0


def test_whether_a_model_computes(painting, images):
    side = Side(NetworkAdapter(), painting)
    assert computes(side, [images])
    assert not computes(side, [images[:, :2]]), "it raises an error"
    assert not computes(side, [np.where(images == images.max(), np.nan, images)])


def test_outputs_for_the_same_arrays_are_run_once(painting, images):
    class Counting(NetworkAdapter):
        passes = 0

        def outputs(self, model, inputs):
            self.passes += 1
            return super().outputs(model, inputs)

    side = Side(Counting(), painting)
    pair = Pair((side, side), asked=(0,))
    np.testing.assert_array_equal(pair.run(0, images_ := [images]).outputs[0], painting(images))
    np.testing.assert_array_equal(pair.run(0, images_).outputs[0], painting(images))
    assert side.adapter.passes == 1
    with pytest.raises(TypeError, match="no other precision"):
        pair.in_double  # noqa: B018 - it is computed when it is read


def test_random_inputs_are_like_the_given_ones():
    generator = np.random.default_rng(0)
    whole, flat, real = np.array([[3], [7]]), np.full((2, 1), 2.0, np.float32), np.array([[-1.0], [1.0], [0.5]])
    drawn = random_like([whole, flat, real], 500, generator)
    assert set(drawn[0].ravel()) == {3, 7} and drawn[1].dtype == np.float32
    assert drawn[1].mean() == pytest.approx(2, abs=0.2) and drawn[1].std() == pytest.approx(1, abs=0.2)
    assert drawn[2].min() >= -1 and drawn[2].max() <= 1 and len(np.unique(drawn[2])) == 500


def test_inputs_are_moved_by_units_in_the_last_place():
    array = np.array([1.0, np.inf, 4.0], np.float32)
    moved, whole = move([array, np.arange(3)], 2, np.random.default_rng(0))
    np.testing.assert_array_equal(abs(moved[::2] - array[::2]), [2 * 2.0**-23, 8 * 2.0**-23])
    assert moved[1] == np.inf and moved.dtype == np.float32 and whole.tolist() == [0, 1, 2]
    assert take([None, array], [2])[0] is None and take([array], [2])[0].tolist() == [4]
    assert to_double([np.array([0.1])])[0][0] == np.float32(0.1)


def test_samples_of_an_excerpt(painting, images):
    side = Side(NetworkAdapter(), painting)
    outputs, tokens = painting(images), np.array([[4], [5]])
    excerpt = Excerpt(Pair((side, side)), [images, tokens], [outputs], [None, outputs], [images])
    more = excerpt.resize(5)
    np.testing.assert_array_equal(more.inputs[1].ravel(), [4, 5, 4, 5, 4])
    np.testing.assert_array_equal(more.outputs[0], outputs[[0, 1, 0, 1, 0]])
    assert more.cotangents[0] is None and len(more.gradients[0]) == 5
    one = more.take([3])
    np.testing.assert_array_equal(one.inputs[0], images[[1]])
    assert one.cotangents[0] is None and one.cotangents[1].shape == (1, 5)
    assert [each.shape for each in excerpt.sources()] == [images.shape]
    assert Excerpt(Pair((side, side), taken=(0,)), [images], [outputs]).sources()[0] is images
    bare = Excerpt(Pair((side, side)), [images], [outputs]).resize(3)
    assert bare.cotangents is None and bare.results.gradients is None and bare.take([0]).cotangents is None
    assert excerpt.results.gradients[0] is images
