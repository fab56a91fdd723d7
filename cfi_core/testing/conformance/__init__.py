"""Tests that a plugin inherits: what core expects of a plugin, and of all that it offers.

    from cfi_core.testing.conformance import KnownAnswerConformance, PluginConformance, ToolsetConformance

    class TestMyPlugin(PluginConformance):
        plugin = my_plugin.plugin

    class TestMyToolset(ToolsetConformance):
        toolset = "my-toolset"
        arguments = {"my_method": {"target": 0}}   # for each method key, what cfi.attribute needs besides the inputs

        def make_model(self):
            return ...                      # native to the toolset's framework

        def make_inputs(self):
            return numpy_array              # sample axis first, two samples or more, no two axes of one size

    class TestItsAnswers(KnownAnswerConformance):
        toolset = "my-toolset"
        laws = {"my_method": Law.GRADIENT}  # not needed where the key or the spec says it

        def make_linear_model(self, weights, bias):
            return ...                      # scores = inputs @ weights.T + bias

Nothing here knows a framework. `docs/writing-a-plugin.md` says what each class tests.
"""

from cfi_core.testing.conformance.answers import KnownAnswerConformance, Law
from cfi_core.testing.conformance.draws import assert_spread_is_told
from cfi_core.testing.conformance.files import ModelFileConformance, assert_refused
from cfi_core.testing.conformance.framework import FrameworkConformance
from cfi_core.testing.conformance.invariance import InvarianceConformance
from cfi_core.testing.conformance.plotter import PlotterConformance
from cfi_core.testing.conformance.plugin import PluginConformance
from cfi_core.testing.conformance.toolset import ToolsetConformance
from cfi_core.testing.conformance.translator import BridgeConformance, TranslatorConformance
from cfi_core.testing.conformance.writer import WriterConformance

__all__ = [
    "BridgeConformance",
    "FrameworkConformance",
    "InvarianceConformance",
    "KnownAnswerConformance",
    "Law",
    "ModelFileConformance",
    "PlotterConformance",
    "PluginConformance",
    "ToolsetConformance",
    "TranslatorConformance",
    "WriterConformance",
    "assert_refused",
    "assert_spread_is_told",
]
