"""The plugin as core sees it, and the listing, which imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cfi_core as cfi
import cfi_quantus
from cfi_core.registry import registry
from cfi_core.testing.conformance import PluginConformance
from cfi_quantus import plugin
from cfi_quantus.specs import METRICS


class TestPlugin(PluginConformance):
    plugin = plugin
    distribution = "cfi-quantus"


def test_core_knows_every_metric():
    known = registry().metrics
    assert {name for name, library in known if library == "quantus"} == {metric.name for metric in METRICS}
    assert known["MPRT", "quantus"].explains and "modules" in known["MPRT", "quantus"].needs


def test_the_listing_says_what_each_needs():
    listed = cfi_quantus.metrics()
    assert len(listed) == 37
    lines = repr(listed).splitlines()
    assert any("Sparseness" in line and "higher is better, needs the values alone" in line for line in lines)
    assert any("MPRT" in line and "modules, explains again" in line for line in lines)
    assert [one.name for one in cfi_quantus.metrics("complexity")] == [
        "Sparseness",
        "Complexity",
        "Effective Complexity",
    ]
    with pytest.raises(cfi.ArgumentError, match="no category 'speed'; it has Faithfulness"):
        cfi_quantus.metrics("speed")


def test_the_listing_imports_neither_torch_nor_quantus():
    script = "import sys, cfi_quantus; cfi_quantus.metrics(); print({'torch', 'quantus', 'xarray'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_names_of_the_package():
    assert {"evaluate", "table", "summarize", "metrics"} == set(cfi_quantus.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        cfi_quantus.evaluat  # noqa: B018


def test_the_readme_lists_every_metric_as_it_is():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[:3] for row in rows] == [[metric.name, metric.category, metric.better] for metric in METRICS]
    for row, metric in zip(rows, METRICS, strict=True):
        assert ("yes" in row[4:5]) == metric.explains
        assert ("modules" in row[3]) == ("modules" in metric.needs) and (row[3] == "nothing") == (not metric.needs)
        assert ("images" in row[-1]) == metric.images and ("masks" in row[-1]) == metric.masks
