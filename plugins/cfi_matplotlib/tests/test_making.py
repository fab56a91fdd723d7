"""How a feature came about, as a strip and as an animation; videos that move."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from cfi_core.attribution import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.making import draw_making, write_gif

pytestmark = pytest.mark.filterwarnings("error")

NCHW, NHWC = ("sample", "channel", "height", "width"), ("sample", "height", "width", "channel")


def make(steps, dims, **extras) -> Attribution:
    extras = {"steps": steps, "step_numbers": np.array([0, 5, 9])} | extras
    provenance = {"kind": "feature visualization"}
    return Attribution(steps[-1], dims, "activation_maximization", "press", extras=extras, provenance=provenance)


def images(channels=3):
    return np.random.default_rng(0).uniform(size=(3, 2, 6, 8, channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dims", [NCHW, NHWC])
def test_each_kept_step_is_shown_with_its_number_and_score(dims, channels):
    steps = images(channels)
    turned = steps if dims == NHWC else steps.transpose(0, 1, 4, 2, 3)
    figure = draw_making(make(turned, dims, step_scores=np.arange(6.0).reshape(3, 2)))
    axes = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in axes] == [
        f"step {number}\nscore {score}"
        for sample in (0, 1)
        for number, score in ((0, sample), (5, 2 + sample), (9, 4 + sample))
    ]
    for axis, (sample, step) in zip(axes, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)], strict=True):
        low, high = steps[:, sample].min(), steps[:, sample].max()
        expected = np.broadcast_to((steps[step, sample] - low) / (high - low), (6, 8, 3))
        np.testing.assert_allclose(axis.images[0].get_array(), expected)


def test_an_animation_has_a_frame_for_each_step(tmp_path):
    path = tmp_path / "a.gif"
    write_gif(make(images(), NHWC), path, milliseconds=100)
    with Image.open(path) as film:
        assert (film.n_frames, film.info["loop"]) == (3, 0)
        frames, durations = [], []
        for place in range(3):
            film.seek(place)
            frames.append(np.asarray(film.convert("RGB")).copy())
            durations.append(film.info["duration"])
        assert json.loads(film.info["comment"])["method_key"] == "activation_maximization"
    assert durations == [100, 100, 600]
    assert all(not np.array_equal(*pair) for pair in ((frames[0], frames[1]), (frames[1], frames[2])))


def test_a_video_moves(tmp_path):
    dims = ("sample", "depth", "height", "width", "channel")
    values = np.random.default_rng(0).normal(size=(1, 4, 6, 8, 3))
    film = Attribution(values, dims, "saliency", "press", inputs=(values**2,), input_dims=(dims,))
    write_gif(film, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as written:
        assert written.n_frames == 4


def test_without_steps_it_is_told_how_to_keep_some(tmp_path):
    made = Attribution(
        images()[0], NHWC, "activation_maximization", "press", provenance={"kind": "feature visualization"}
    )
    for draw in (draw_making, lambda one: write_gif(one, tmp_path / "a.gif")):
        with pytest.raises(PlotError, match=r"init_args={'keep_steps': 20}"):
            draw(made)
        with pytest.raises(PlotError, match="Nothing moves"):
            draw(Attribution(images()[0], NHWC, "saliency", "press"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"max_steps": 0}, {"max_samples": 0}, {"panel_size": 0}, {"samples": [2]}])
def test_options_that_do_not_fit(options, tmp_path):
    with pytest.raises(PlotError, match=next(iter(options))):
        draw_making(make(images(), NHWC), **options)
    given = {"milliseconds": 5} if "max_steps" in options else options
    with pytest.raises(PlotError, match=next(iter(given))):
        write_gif(make(images(), NHWC), tmp_path / "a.gif", **given)
