"""The plotter and the writer pass the tests that all can inherit."""

from __future__ import annotations

from typing import ClassVar

from cfi_core.testing.conformance import PlotterConformance, WriterConformance


class TestPlotter(PlotterConformance):
    plotter = "matplotlib"


class TestEachChannel(PlotterConformance):
    plotter = "matplotlib"
    options: ClassVar = {"channels": "each"}
    forms = ("images, channels first", "images, channels last")


class TestPictures(WriterConformance):
    suffix = ".png"
