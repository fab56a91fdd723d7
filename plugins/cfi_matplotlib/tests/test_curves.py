"""Curves of checks."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import cfi_core as cfi
from cfi_core.attribution import Outlets
from cfi_core.checks import Check, Checks, Curve
from cfi_core.registry import registry

SHARES = (0.0, 0.5, 1.0)
FALLING = np.array([[4.0, 1.0, 0.0], [6.0, 3.0, 0.0]])
CHANCE = np.array([[4.0, 2.0, 0.0], [6.0, 3.0, 0.0]])


def checks(**changes):
    deletion = Check(
        name="deletion",
        scores=np.array([1.5, 3.0]),
        better="lower",
        means="area",
        reference=np.array([2.0, 3.0]),
        reference_is="random order",
        place="share of places",
        places=SHARES,
        curves=(Curve("order of the values", FALLING), Curve("random order", CHANCE, is_reference=True)),
    )
    names = tuple(f"a.module.with.a.long.name.{i}" for i in range(25))
    cascade = Check(
        name="parameter_randomisation",
        scores=np.array([0.1, np.nan]),
        better="lower",
        means="rank correlation",
        reference=np.zeros(1),
        reference_is="unrelated values",
        place="last layer randomised",
        places=names,
        curves=(Curve("values", np.vstack([np.linspace(0.9, 0.1, 25), np.full(25, np.nan)])),),
    )
    flat = Check(name="infidelity", scores=np.ones(2), better="lower", means="share")
    found = {one.name: one for one in (deletion, cascade, flat)}
    current = registry()
    outlets = Outlets(current.plotters, current.writers)
    made = cfi.Attribution(np.ones((2, 3)), ("sample", "feature"), "some_method", "a tool", outlets=outlets)
    return Checks(made, {**found, **changes}, {}, 0)


def lines(axis):
    return {line.get_label(): line.get_ydata() for line in axis.lines if not line.get_label().startswith("_")}


def test_each_check_with_curves_has_a_panel_with_its_mean_and_what_it_is_held_against():
    figure = checks().plot()
    assert isinstance(figure, Figure) and figure.get_suptitle() == "some_method by a tool"
    first, second = figure.axes
    np.testing.assert_allclose(lines(first)["order of the values"], [5, 2, 0])
    np.testing.assert_allclose(lines(first)["random order"], [5, 2.5, 0])
    assert first.get_title() == "deletion: 2.25, random order 2.5\nlower is better"
    assert first.get_xlabel() == "share of places"
    np.testing.assert_allclose(lines(second)["values"], np.linspace(0.9, 0.1, 25))
    assert set(lines(second)["unrelated values"]) == {0}


def test_of_many_layers_some_are_named_and_long_names_are_cut():
    axis = checks().plot().axes[1]
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert 5 <= len(labels) <= 10 and all(len(label) <= 20 for label in labels) and labels[0].startswith("…")


def test_samples_have_thin_lines_unless_they_are_not_wanted():
    assert len(checks().plot().axes[0].lines) == 4
    assert len(checks().plot(show_samples=False).axes[0].lines) == 2
    many = Check(
        name="insertion",
        scores=np.ones(50),
        better="higher",
        means="area",
        places=SHARES,
        curves=(Curve("order of the values", np.ones((50, 3))),),
    )
    assert len(checks(insertion=many).plot().axes[2].lines) == 1


def test_options_are_checked():
    assert checks().plot(title="mine", panel_size=2).get_suptitle() == "mine"
    with pytest.raises(cfi.PlotError, match="panel_size=0 must be above 0"):
        checks().plot(panel_size=0)
    with pytest.raises(cfi.PlotError, match="has no option 'color'"):
        checks().plot(color="red")
    with pytest.raises(cfi.PlotError, match="No plotter 'curves'"):
        checks().attribution.plot("curves")


def test_it_is_written_and_shown(tmp_path):
    for suffix in ("png", "svg", "pdf", "html"):
        assert checks().save(tmp_path / f"found.{suffix}").stat().st_size > 2000
    assert "data:image/png" in checks()._repr_html_()
