"""Which options a picture gets: the user's own pictures where they show what the model saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from cfi_cli.pictures import options_for
from cfi_core import Attribution
from cfi_core.attribution import Outlets
from cfi_core.specs import PlotterSpec


def over_pictures(attribution, *, images=None, target_names=None) -> Figure:
    """A plotter that takes both."""
    raise NotImplementedError


def of_another_kind(attribution, *, width=1) -> Figure:
    """One that takes neither."""
    raise NotImplementedError


def made(implementation=over_pictures, **changes) -> Attribution:
    spec = PlotterSpec(name="p", implementation=f"{__name__}:{implementation.__name__}")
    images = np.zeros((2, 3, 5, 7))
    dims = ("sample", "channel", "height", "width")
    attribution = Attribution(
        images, dims, "m", "t", inputs=(images,), input_dims=(dims,), outlets=Outlets({"p": spec})
    )
    return replace(attribution, **changes)


PICTURES = (np.zeros((5, 7, 3), np.uint8), np.ones((5, 7, 3), np.uint8))


def test_pictures_as_large_as_what_the_model_got_are_drawn_behind_its_maps():
    options = options_for(made(), PICTURES, ("ant", "bee"))
    assert [one is other for one, other in zip(options["images"], PICTURES, strict=True)] == [True, True]
    assert options["target_names"] == ["ant", "bee"]


@pytest.mark.parametrize(
    ("changes", "pictures"),
    [
        ({}, ()),
        ({}, PICTURES[:1]),
        ({}, (PICTURES[0], np.zeros((6, 7, 3), np.uint8))),
        ({"values": np.zeros((2, 4)), "dims": ("sample", "unit")}, PICTURES),
        ({"inputs": (), "input_dims": ()}, PICTURES),
        ({"provenance": {"kind": "feature visualization"}}, PICTURES),
    ],
    ids=["none", "too few", "of another size", "no maps", "no inputs", "seen by none"],
)
def test_others_are_not(changes, pictures):
    assert options_for(made(**changes), pictures) == {}


def test_a_plotter_gets_the_options_that_it_has():
    assert options_for(made(of_another_kind), PICTURES, ("ant",)) == {}
