"""How records look: short in Python, small tables in notebooks; and what a notebook is shown, without one."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.attribution import Attribution, Outlets
from cfi_core.display import MOST_ROWS, brief_value, html_facts, html_table, outline
from cfi_core.layer_map import LayerMap, LayerMatch
from cfi_core.specs import PlotterSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting

EVIL = "<script>alert('x')</script>"


class Figure:
    """As matplotlib's, as far as notebooks go."""

    stale = True
    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def savefig(self, file: Any, **options: Any) -> None:
        file.write(b"picture")
        self.stale = True


def draw(attribution: Attribution, *, size: int = 1) -> Figure:
    return Figure()


def fail(attribution: Attribution) -> Figure:
    raise RuntimeError(EVIL)


def drawn_by(name: str) -> Attribution:
    plotter = PlotterSpec(name=name, implementation=f"{__name__}:{name}")
    return Attribution(np.zeros((1, 2)), ("sample", "feature"), EVIL, "kit", outlets=Outlets({name: plotter}))


class Notebook:
    """Stands for IPython: what it shows, cell by cell."""

    def __init__(self, *types: str) -> None:
        self.shown: list[dict[str, Any]] = []
        self.shell = SimpleNamespace(execution_count=1, display_formatter=SimpleNamespace(active_types=types))
        self.display = SimpleNamespace(display=lambda data, raw: self.shown.append(data))

    def get_ipython(self) -> Any:
        return self.shell

    def value(self, value: Any) -> list[str]:
        """Shows a cell's value as IPython does, and begins the next cell; what the cell has shown, in kinds."""
        value._ipython_display_()
        return self.end()

    def end(self) -> list[str]:
        kinds = [next(iter(data)) for data in self.shown]
        self.shown.clear()
        self.shell.execution_count += 1
        return kinds


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    made = Notebook("text/plain", "text/html", "image/png")
    monkeypatch.setitem(sys.modules, "IPython", made)
    return made


def test_a_call_shows_its_picture_and_the_value_of_the_cell_does_not_again(notebook: Notebook) -> None:
    found = drawn_by("draw")
    assert notebook.value(found) == ["image/png", "text/html"]
    figure = found.plot()
    assert notebook.value(found) == ["image/png", "text/html"], "by the call"
    assert notebook.value(figure) == ["image/png"], "another cell"
    figure = found.plot()
    assert notebook.value(figure) == ["image/png"], "by the call"
    figure = found.plot()
    figure.stale = True  # as whatever changes it does
    assert notebook.value(figure) == ["image/png", "image/png"]
    found.plot(show=False)
    assert notebook.end() == []


def test_the_figure_that_was_asked_for_is_not_drawn_twice(notebook: Notebook) -> None:
    found = drawn_by("draw")
    found.extras["figure"] = found.plot()  # type: ignore[index] # as plot=True does
    before = Figure.made
    assert notebook.value(found) == ["image/png", "text/html"]
    assert notebook.value(found) == ["image/png", "text/html"] and Figure.made == before


@pytest.mark.parametrize("kind", ["terminal", "script", "half imported"])
def test_elsewhere_nothing_is_shown(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    python: Any = {"terminal": Notebook("text/plain"), "script": None, "half imported": SimpleNamespace()}[kind]
    monkeypatch.setitem(sys.modules, "IPython", python)
    found, before = drawn_by("draw"), Figure.made
    figure = found.plot()
    assert not hasattr(figure, "_ipython_display_") and figure.stale and Figure.made == before + 1
    with pytest.raises(NotImplementedError):  # which tells IPython to print it
        found._ipython_display_()
    assert Figure.made == before + 1 and not getattr(python, "shown", [])


def test_what_cannot_be_drawn_is_told_and_costs_nothing_else(notebook: Notebook) -> None:
    for found, reason in (
        (drawn_by("fail"), "RuntimeError"),
        (Attribution(np.zeros(1), ("x",), "m", "t"), "pip install"),
    ):
        found._ipython_display_()
        assert reason in notebook.shown[0]["text/html"] and "image/png" not in notebook.shown[0]
        assert reason in found._repr_html_() and "<img" not in found._repr_html_()
        notebook.end()


def test_one_piece_of_html_holds_picture_and_caption() -> None:
    page = drawn_by("draw")._repr_html_()
    assert page.count("<img") == 1 and "data:image/png;base64,cGljdHVyZQ==" in page
    assert EVIL not in page and "&lt;script&gt;" in page


# tables


def test_names_are_no_html_and_long_texts_are_cut() -> None:
    for page in (html_facts(EVIL, [(EVIL, EVIL)], EVIL), html_table(EVIL, [EVIL], [[EVIL]], EVIL)):
        assert "<script" not in page and page.count("&lt;script&gt;") == 4
    assert len(html_facts("t", [("name", "x" * 10**6)])) < 2_000
    assert "None" not in html_facts("t", [("name", None), ("other", "")])


def test_of_very_long_tables_the_first_rows_are_shown() -> None:
    page = html_table("t", ["n"], [[f"row {place}"] for place in range(1000)])
    assert page.count("<tr") == MOST_ROWS + 1 and f"… and {1000 - MOST_ROWS} more" in page


def test_layers_that_are_missing_are_told() -> None:
    found = LayerMap({"a": LayerMatch("b<i>", (0, 2, 1), 1e-7, None)}, ("a", "c"))
    assert repr(found) == "<LayerMap 1 of 2 layers found: 'a' is 'b<i>'>"
    page = found._repr_html_()
    assert "b&lt;i&gt;" in page and "not found" in page and "1.0e-07" in page
    assert "(0, 2, 1)" in found.matches["a"]._repr_html_()


def test_listings_have_a_column_for_what_is_asked() -> None:
    with use_plugins(fake):
        for listing, word in (
            (cfi.methods(), "press_gradient"),
            (cfi.toolsets(), "press"),
            (cfi.frameworks(), "usable"),
            (cfi.translators(), "paint2print"),
            (cfi.plugins(), "loaded"),
        ):
            page = listing._repr_html_()
            assert word in page and page.count("<tr") == len(listing) + 1
        assert "Nothing is listed." in cfi.methods(toolset="press", kind="feature visualization")._repr_html_()


def test_layers_are_listed_like_the_rest(painting: Painting, images: np.ndarray) -> None:
    listed = cfi.layers(painting, inputs=images)
    assert "mix" in listed._repr_html_() and repr(listed).count("\n") == len(listed) - 1


# in Python


@dataclass(frozen=True)
class Record:
    array: Any
    others: Any = ()
    hidden: Any = field(default=None, repr=False)

    __repr__ = outline


def test_a_record_shows_arrays_by_their_shape() -> None:
    array = np.zeros((4, 3), np.float32)
    assert repr(Record(array, (1, array), array)) == (
        "Record(array=<ndarray float32 (4, 3)>, others=(1, <ndarray float32 (4, 3)>))"
    )
    assert repr(Record("x" * 1000, list(range(1000)))).endswith("others=[0, 1, 2, 3, 4, 5, … 1000 in all])")
    assert brief_value({"a": array}) == "{'a': <ndarray float32 (4, 3)>}"
    assert brief_value(slice(1, 2)) == "slice(1, 2, None)"
    assert brief_value(len) == "<len>" and brief_value(np.float32) == "<float32>"
    assert len(repr(Record("x" * 1000))) < 100


def records_in(value: Any, seen: dict[int, Any]) -> None:
    """All records of the core that can be reached."""
    if id(value) in seen or not (is_dataclass(value) and type(value).__module__.startswith("cfi_core")):
        return
    seen[id(value)] = value
    for one in fields(value):
        inner = getattr(value, one.name)
        for entry in inner if isinstance(inner, tuple | list) else [inner]:
            records_in(entry, seen)


def test_no_record_dumps_arrays_or_models(painting: Painting) -> None:
    """Whatever can be reached from what a call returns."""
    images = np.random.default_rng(0).normal(size=(20, 3, 30, 40))
    seen: dict[int, Any] = {}
    made = cfi.attribute(painting, "press_gradient", inputs=images, target=[1] * 20)
    for result in (
        made,
        cfi.plan(painting, "press_gradient", inputs=images, target=[1] * 20),
        cfi.attribute(painting, "press_layer", inputs=images),
        cfi.translate(painting, "print", inputs=images),
    ):
        assert len(repr(result)) < 1_500
        records_in(result, seen)
    names = {type(one).__name__ for one in seen.values()}
    assert {"Arguments", "Call", "Inputs", "Certificate", "LayerMap", "Plan"} <= names
    for one in seen.values():
        assert "array(" not in repr(one) and len(repr(one)) < 2_500, type(one)


def test_a_plan_reads_as_it_prints(painting: Painting, images: np.ndarray) -> None:
    plan = cfi.plan(painting, "press_gradient", inputs=images, target=0)
    assert repr(plan) == str(plan) and "paint2print" in plan._repr_html_()
