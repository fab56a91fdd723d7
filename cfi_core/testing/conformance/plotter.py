"""What a plotter draws: a figure of its own, from attributions of every form that it accepts."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.attribution import Attribution, Outlets, plot_together
from cfi_core.registry import registry
from cfi_core.specs import PlotterSpec
from cfi_core.testing.conformance.samples import in_threads, raises
from cfi_core.testing.conformance.traces import differences, keep_process

DRAWN: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "images, channels first": ((2, 3, 4, 6), ("sample", "channel", "height", "width")),
    "images, channels last": ((2, 4, 6, 3), ("sample", "height", "width", "channel")),
    "maps": ((2, 4, 6), ("sample", "height", "width")),
    "features": ((2, 5), ("sample", "feature")),
}
"""Shapes and names of axes."""


def made_up(form: str, values: np.ndarray | None = None) -> Attribution:
    """An attribution of one of the forms in `DRAWN`, with inputs where they have the same axes."""
    shape, dims = DRAWN[form]
    drawn = np.random.default_rng(3).normal(size=(2, *shape))
    return Attribution(
        values=drawn[0] if values is None else values,
        dims=dims,
        method_key="made_up",
        toolset="kit",
        target=1,
        inputs=(drawn[1],),
        input_dims=(dims,),
        provenance={"kind": "attribution", "seed": 1},
    )


class PlotterConformance:
    """A plotter, on attributions that are made up.

    Attributes:
        plotter: Its name.
        options: What it is called with.
        forms: Which of `DRAWN` it draws; empty: those whose axes its spec accepts.
    """

    plotter: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    forms: ClassVar[tuple[str, ...]] = ()

    def attributions(self) -> Sequence[Attribution]:
        """What it is tested on: by default made-up ones of each form."""
        accepts = set(self._spec().accepts)
        forms = self.forms or tuple(form for form, (_, dims) in DRAWN.items() if accepts <= set(dims))
        return [made_up(form) for form in forms]

    def draw(self, attribution: Attribution) -> bytes:
        """The picture, as it would stand in a file."""
        figure, file = self._figure(attribution), io.BytesIO()
        figure.savefig(file, format="raw", dpi=50)
        return file.getvalue()

    def test_it_draws_all_that_it_accepts(self) -> None:
        """Something is seen, and a figure can be saved."""
        attributions = self.attributions()
        assert attributions, f"{self.plotter!r} accepts none of the forms {list(DRAWN)}: give attributions of your own"
        for attribution in attributions:
            assert len(set(self.draw(attribution))) > 1, f"{self.plotter} draws nothing for axes {attribution.dims}"

    def test_other_values_give_another_picture(self) -> None:
        """The picture is of the values."""
        for attribution in self.attributions():
            values = tuple(part[..., ::-1] ** 3 for part, _ in attribution.parts)
            other = deepcopy(attribution)
            object.__setattr__(other, "values", values if isinstance(attribution.values, tuple) else values[0])
            assert self.draw(other) != self.draw(attribution), f"{self.plotter} draws other values alike"

    def test_one_attribution_gives_one_picture(self) -> None:
        """A second time, and in several threads, to the last bit."""
        for attribution in self.attributions():
            pictures = {self.draw(attribution), *in_threads(partial(self._draw_in_thread, attribution))}
            assert len(pictures) == 1, f"{self.plotter} draws one attribution in {len(pictures)} ways"

    def test_zeros_and_one_sample_are_drawn(self) -> None:
        """What divides by the largest value, or counts on several samples, fails here."""
        for attribution in self.attributions():
            small = deepcopy(attribution)
            values = tuple(np.zeros_like(part[:1]) for part, _ in attribution.parts)
            object.__setattr__(small, "values", values if isinstance(attribution.values, tuple) else values[0])
            object.__setattr__(small, "inputs", tuple(array[:1] for array in attribution.inputs))
            self.draw(small)

    def test_it_leaves_everything_as_it_was(self) -> None:
        """The attribution, the process, matplotlib's settings and the user's own figures."""
        for attribution in self.attributions():
            self.draw(attribution)  # a first picture may import matplotlib, which changes the process
            values, inputs = deepcopy(attribution.parts), deepcopy(attribution.inputs)
            with _figure_of_the_user(), keep_process(self.plotter):
                state = _matplotlib_state()
                self.draw(attribution)
                left = differences(state, _matplotlib_state())
            assert not left, f"{self.plotter} changed {', '.join(left)}"
            for (found, _), (expected, _) in zip(attribution.parts, values, strict=True):
                np.testing.assert_array_equal(found, expected, err_msg=f"{self.plotter} changed the values")
            np.testing.assert_equal(attribution.inputs, inputs, err_msg=f"{self.plotter} changed the inputs")

    def test_other_axes_are_refused(self) -> None:
        """Those that its spec does not accept, with an error that says which plotters there are."""
        if not self._spec().accepts:
            return
        other = Attribution(np.zeros((2, 3)), ("sample", "nothing"), "made_up", "kit", outlets=self._outlets())
        with raises(cfi.PlotError, f"{self.plotter}, on other axes,"):
            other.plot(self.plotter)

    def _draw_in_thread(self, attribution: Attribution, thread: int) -> bytes:
        return self.draw(attribution)

    def _figure(self, attribution: Attribution) -> Any:
        object.__setattr__(attribution, "outlets", self._outlets())
        if self._spec().several:
            figure = plot_together([attribution, attribution], plotter=self.plotter, **self.options)
        else:
            figure = attribution.plot(self.plotter, **self.options)
        assert hasattr(figure, "savefig"), f"{self.plotter} returns a {type(figure).__name__}, which is no figure"
        return figure

    def _outlets(self) -> Outlets:
        return Outlets(registry().plotters, registry().writers)

    def _spec(self) -> PlotterSpec:
        known = registry().plotters
        assert self.plotter in known, f"no plugin offers the plotter {self.plotter!r}; there are {sorted(known)}"
        return known[self.plotter]


def _matplotlib_state() -> dict[str, Any]:
    """Settings, and what the user holds through pyplot; of what is imported alone."""
    matplotlib, pyplot = (sys.modules.get(name) for name in ("matplotlib", "matplotlib.pyplot"))
    # Past rcParams' own access, which imports pyplot to find a backend.
    settings = {} if matplotlib is None else {"matplotlib's settings": dict(dict.items(matplotlib.rcParams))}
    if pyplot is None:
        return settings
    figures = [(number, len(pyplot.figure(number).axes)) for number in pyplot.get_fignums()]
    return {**settings, "the figures of pyplot": figures, "interactive mode": pyplot.isinteractive()}


@contextmanager
def _figure_of_the_user() -> Iterator[None]:
    """One that is open and the current one, if pyplot is imported."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    figure = None if pyplot is None else pyplot.figure()
    yield
    if pyplot is not None:
        assert pyplot.gcf() is figure, "another figure is the current one"
        pyplot.close(figure)
