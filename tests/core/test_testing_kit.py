"""The kit for plugin authors, tried on the fake plugin; and the hooks are all documented."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from cfi_core import hookspec
from cfi_core.testing.conformance import ToolsetConformance, TranslatorConformance
from cfi_core.testing.fake import Painting, Print

pytestmark = pytest.mark.usefixtures("registry")
ROOT = Path(__file__).parents[2]


def weights() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    return generator.normal(size=(4, 3)), generator.normal(size=(5, 4))


class TestPress(ToolsetConformance):
    toolset = "press"
    arguments: ClassVar = {
        "press_gradient": {"target": 0},
        "press_probability": {"target": 0},
        "press_noise": {},
        "press_layer": {"layer": "relu"},
        "press_map": {"layer": "mix", "target": [0, 1]},
        "press_neuron": {"layer": "mix", "neuron": (1, 2, 3)},
    }

    def make_model(self):
        return Print(*weights())

    def make_inputs(self):
        return np.random.default_rng(2).normal(size=(2, 5, 7, 3))


class TestPaintToPrint(TranslatorConformance):
    target = "print"
    translator = "paint2print"

    def make_model(self):
        return Painting(*weights())

    def make_inputs(self):
        return np.random.default_rng(2).normal(size=(2, 3, 5, 7))


def test_the_kit_notices_an_unfaithful_translator():
    class Distorting(TestPaintToPrint):
        def make_model(self):
            return Painting(*weights(), distorts=True)

    with pytest.raises(Exception, match="computes something else"):
        Distorting().test_it_is_faithful()


def test_the_kit_notices_a_method_without_arguments():
    class Forgetful(TestPress):
        arguments: ClassVar = {"press_gradient": {"target": 0}}

    with pytest.raises(AssertionError):
        Forgetful().test_arguments_are_given_for_every_method()


def hooks() -> list[str]:
    return sorted(name for name in vars(hookspec) if name.startswith("cfi_"))


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_has_an_example_and_a_place_in_the_guide(hook):
    documentation = getattr(hookspec, hook).__doc__
    assert "@hookimpl" in documentation and f"def {hook}" in documentation
    assert hook in (ROOT / "docs" / "writing-a-plugin.md").read_text()


def test_the_example_plugin_of_the_guide_works():
    """The guide's code blocks are run as they stand."""
    text = (ROOT / "docs" / "writing-a-plugin.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) >= 3
    namespace: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "writing-a-plugin.md", "exec"), namespace)
