"""The plotter and the writer pass the tests that all can inherit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.testing.conformance import PlotterConformance, WriterConformance
from cfi_core.testing.conformance.plotter import made_up


class TestPlotter(PlotterConformance):
    plotter = "matplotlib"


class TestEachChannel(PlotterConformance):
    plotter = "matplotlib"
    options: ClassVar = {"channels": "each"}
    forms = ("images, channels first", "images, channels last")


class TestText(PlotterConformance):
    plotter = "text"

    def attributions(self) -> Sequence[Attribution]:
        """With the same names for all samples, and with those of each."""
        drawn, names = np.random.default_rng(3).normal(size=(2, 5)), ("The", "cat", "##s", "sat", ".")
        shared = Attribution(drawn, ("sample", "token"), "made_up", "kit", feature_names=names)
        return [shared, replace(shared, feature_names=(names, names[::-1]))]


class TestTable(PlotterConformance):
    plotter = "table"

    def attributions(self) -> Sequence[Attribution]:
        """With the names of the columns."""
        return [replace(made_up("features"), feature_names=("age", "job", "income", "text", "since"))]


class TestWaterfall(PlotterConformance):
    plotter = "waterfall"

    def attributions(self) -> Sequence[Attribution]:
        """With both outputs known."""
        ends = {"completeness": {"gap": 0.0, "at_inputs": (1.0, 2.0), "at_baselines": (0.5, 0.25)}}
        return [replace(made_up("features"), provenance=ends)]


class TestBeeswarm(PlotterConformance):
    plotter = "beeswarm"


class TestSeries(PlotterConformance):
    plotter = "series"

    def attributions(self) -> Sequence[Attribution]:
        """Of an input, and of a layer with fewer steps."""
        drawn, dims = np.random.default_rng(3).normal(size=(2, 2, 9, 2)), ("sample", "position", "channel")
        given = {"inputs": (drawn[1],), "input_dims": (dims,)}
        layer = Attribution(drawn[0, :, :4, 0], dims[:2], "made_up", "kit", layer="conv", **given)
        return [Attribution(drawn[0], dims, "made_up", "kit", **given), layer]


class TestVolume(PlotterConformance):
    plotter = "volume"

    def attributions(self) -> Sequence[Attribution]:
        """A volume, and a video."""
        dims = ("sample", "depth", "height", "width", "channel")
        drawn = np.random.default_rng(3).normal(size=(2, 2, 4, 5, 6, 3))
        video = Attribution(drawn[0], dims, "made_up", "kit", inputs=(drawn[1],), input_dims=(dims,))
        return [video, Attribution(drawn[0, ..., 0], dims[:4], "made_up", "kit")]


class TestSideBySide(PlotterConformance):
    plotter = "side-by-side"


class TestMaking(PlotterConformance):
    """Its values are those of the last step, and are drawn as that."""

    plotter = "making"

    def attributions(self) -> Sequence[Attribution]:
        """With the steps that were kept."""
        return [self._made(np.random.default_rng(3).uniform(size=(3, 2, 6, 8, 3)))]

    def test_other_values_give_another_picture(self) -> None:
        """The picture is of the steps."""
        steps = np.random.default_rng(3).uniform(size=(3, 2, 6, 8, 3))
        assert self.draw(self._made(steps)) != self.draw(self._made(steps[..., ::-1] ** 3))

    def test_zeros_and_one_sample_are_drawn(self) -> None:
        """Each step."""
        self.draw(self._made(np.zeros((3, 1, 6, 8, 3))))

    @staticmethod
    def _made(steps: np.ndarray) -> Attribution:
        return Attribution(
            steps[-1],
            ("sample", "height", "width", "channel"),
            "made_up",
            "kit",
            extras={"steps": steps, "step_numbers": np.arange(len(steps))},
            provenance={"kind": "feature visualization"},
        )


class TestPictures(WriterConformance):
    suffix = ".png"


class TestVectors(WriterConformance):
    suffix = ".svg"
    forms = ("images, channels last", "features")


class TestPrints(WriterConformance):
    suffix = ".pdf"
    forms = ("maps",)


class TestPages(WriterConformance):
    suffix = ".html"
    forms = ("images, channels first",)


class TestAnimations(WriterConformance):
    suffix = ".gif"

    def attributions(self) -> list[Attribution]:
        """A video, and a feature in three steps."""
        drawn = np.random.default_rng(3).normal(size=(3, 1, 4, 6, 3))
        video = Attribution(drawn[None, :, 0], ("sample", "depth", "height", "width", "channel"), "made_up", "kit")
        steps = {"steps": drawn, "step_numbers": np.arange(3)}
        made = Attribution(drawn[-1], ("sample", "height", "width", "channel"), "made_up", "kit", extras=steps)
        return [video, made]
