"""A method that is looked up is shown in full: its toolset's own words, routes and a call that runs."""

from __future__ import annotations

import enum
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.guide.signatures import clean, read_parameters, show
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Defaults, Documentation, Kind, MethodSpec, Need, Role, ToolsetSpec
from cfi_core.testing import fake, use_plugins

FORWARD = frozenset({Need.FORWARD})


class Google:
    """What it does.

    Args:
        shared: Of the class.
    """

    def __init__(self, model, size, shared=3) -> None:
        """
        Args:

            model (:class:`some.Model`): a model.
            size (int or tuple[int, ...], optional): How large, in
                        a sentence that goes on
                        below: with a colon.

                        And a second paragraph.
                        Default: ``4``
        """

    def run(self, inputs, *, keep=lambda x: x, **others) -> None:
        """Runs it.

        Arguments:
            inputs: What goes in.
            keep (function): One of:

                - a function, or
                - None.
            hidden: Behind the others.

        Returns:
            Nothing.
        """


def numpy_style(first, second=None) -> None:
    """What it does.

    Parameters
    ----------
    first : int or tuple of ints
        The first one.
    second: list[:py:class:`some.Thing`], optional
        The second one. Defaults to None.
    """


def sphinx_style(first, second=0.5) -> None:
    """What it does.

    :param first: the first one
    :param float second: the second one
    """


def test_google_style_is_read_with_blank_lines_and_roles() -> None:
    found = read_parameters(f"{__name__}:Google")
    assert list(found) == ["model", "size", "shared"]
    assert (found["model"].type, found["model"].meaning, found["model"].default) == ("some.Model", "a model.", "")
    assert found["size"].type == "int or tuple[int, ...]"
    assert found["size"].meaning == (
        "How large, in a sentence that goes on below: with a colon.\n\nAnd a second paragraph."
    )
    assert (found["shared"].meaning, found["shared"].default) == ("Of the class.", "3")


def test_what_stands_in_the_docstring_alone_comes_last() -> None:
    found = read_parameters(f"{__name__}:Google.run")
    assert list(found) == ["inputs", "keep", "hidden"]
    assert found["keep"].default == "a function"
    assert found["keep"].meaning == "One of:\n\n- a function, or\n\n- None."
    assert found["hidden"].place == f"{__name__}:Google.run"


@pytest.mark.parametrize(("function", "types"), [("numpy_style", "int or tuple of ints"), ("sphinx_style", "")])
def test_other_styles_are_read(function: str, types: str) -> None:
    found = read_parameters(f"{__name__}:{function}")
    assert [one.meaning.rstrip(".").lower() for one in found.values()] == ["the first one", "the second one"]
    assert found["first"].type == types


class Colour(enum.Enum):
    RED = 1


class Plain: ...


def test_defaults_are_shown_without_addresses() -> None:
    assert [show(value) for value in (Colour.RED, Plain, len, Plain(), [Plain(), 1], (2,), "x")] == [
        *("Colour.RED", "Plain", "len", "Plain(…)", "[Plain(…), 1]", "(2,)", "'x'")
    ]
    assert len(show(list(range(100)))) < 80


def test_a_default_that_has_a_reason_stays() -> None:
    assert clean("Which. Defaults to None, in which case all.") == "Which. Defaults to None, in which case all."
    assert clean("Which. Default: ``None``.") == "Which."


def test_listing_reads_nothing() -> None:
    script = (
        "import sys, cfi_core as cfi\n"
        "cfi.methods(); repr(cfi.methods()); cfi.methods(kind='layer')\n"
        "print('docstring_parser' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_method_is_shown_in_full(registry) -> None:
    (guide,) = cfi.methods("press_gradient").guides
    own = {one.name: one for one in guide.arguments}
    assert list(own) == ["images", "scale", "fail", "window", "engrave"]
    assert own["images"].uniform == "inputs"
    assert (own["scale"].default, own["scale"].type) == ("1.0", "float")
    assert own["scale"].meaning == "What the gradient is multiplied by."
    assert own["scale"].source == "cfi_core.testing.fake:press"
    assert own["engrave"].meaning == "Makes the method ask for modules."
    routes = {one.framework: one for one in guide.routes}
    assert routes["print"].route == "native"
    assert routes["paint"].route == "paint → print (paint2print)"
    text = repr(cfi.methods("press_gradient"))
    assert max(map(len, text.splitlines())) <= 100
    for word in (
        "the closed form in this module",
        "forward, input_gradient",
        "scale; float; default 1.0",
        guide.example,
    ):
        assert word in text or word in text.replace("\n  ", "\n")


def test_its_example_runs_as_it_is_written(painting, images) -> None:
    # Of the fake plugin's paintings, whose layers have no convolution.
    for spec in cfi.methods():
        (guide,) = cfi.methods(spec.key).guides
        made = eval(guide.example, {"cfi": cfi, "model": painting, "inputs": images})
        assert isinstance(made, cfi.Attribution), guide.example


def test_in_a_notebook_it_is_a_table_without_markup_of_others(registry) -> None:
    html = cfi.methods("press_gradient")._repr_html_()
    assert "<table>" in html
    assert "exec_args[&#x27;scale&#x27;]" in html
    assert "<class" not in html


class Tools:
    """A toolset with sets of defaults, an own argument that is required, and one that it sets itself."""

    def __init__(self, place: str = f"{__name__}:Google", requirements: tuple[str, ...] = ()) -> None:
        self.place, self.requirements = place, requirements

    @hookimpl
    def cfi_toolsets(self) -> list[ToolsetSpec]:
        return [ToolsetSpec(name="tools", framework="paint", requirements=self.requirements)]

    @hookimpl
    def cfi_methods(self) -> list[MethodSpec]:
        return [
            MethodSpec(
                key="measure",
                toolset="tools",
                kind=Kind.ATTRIBUTION,
                needs=FORWARD,
                implementation="no_such_module:run",
                optional=("target",),
                init_args=("size", "shared", "extra"),
                exec_args=("inputs", "keep"),
                roles={"inputs": Role.INPUTS},
                own_required=("size",),
                defaults=Defaults(raw={"shared": 5, "extra": True}, toolset={"extra": False}),
                documentation=Documentation(
                    init_args=(self.place,),
                    exec_args=(f"{self.place}.run",),
                    words={"extra": "The plugin's own."},
                    example={"size": "(3, 3)"},
                ),
            )
        ]


def test_both_sets_of_defaults_stand_beside_the_signature() -> None:
    with use_plugins(fake, Tools()):
        (guide,) = cfi.methods("measure").guides
        text = str(guide)
    own = {one.name: one for one in guide.arguments}
    assert (own["shared"].default, own["shared"].raw, own["shared"].toolset) == ("3", "5", "")
    assert (own["extra"].default, own["extra"].raw, own["extra"].toolset) == ("", "True", "False")
    assert own["size"].required
    assert guide.set_by_cfi == ("model",)
    assert "shared; default 3; here 5" in text
    assert "extra; here True; with defaults='toolset' False" in text
    assert "size; int or tuple[int, ...]; required" in text
    assert 'init_args={"size": (3, 3)}' in guide.example


def test_what_is_not_installed_is_told() -> None:
    with use_plugins(fake, Tools(requirements=("no-such-library>=2",))):
        (guide,) = cfi.methods("measure").guides
    assert guide.missing == "no-such-library>=2"
    assert {one.name: one.meaning for one in guide.arguments}["extra"] == "The plugin's own."
    assert "missing    no-such-library>=2" in str(guide)


def test_a_toolset_that_does_not_import_is_told(monkeypatch) -> None:
    broken = ModuleType("broken_library")
    monkeypatch.setitem(sys.modules, "broken_library", broken)
    with use_plugins(fake, Tools(place="broken_library:Occlusion")):
        (guide,) = cfi.methods("measure").guides
    assert "tools cannot be read (AttributeError" in guide.missing


@pytest.mark.parametrize("call", [cfi.attribute, cfi.plan])
def test_a_required_argument_of_the_toolset_is_missed_before_anything_runs(call, painting, images) -> None:
    message = r"measure of tools needs 'size': pass for example init_args=\{'size': \(3, 3\)\}"
    with use_plugins(fake, Tools()), pytest.raises(cfi.ArgumentError, match=message):
        call(painting, "measure", inputs=images, target=0)


def test_names_in_documentation_are_those_of_the_method() -> None:
    with pytest.raises(ValueError, match="documentation speaks of 'other'"):
        MethodSpec(
            key="measure",
            toolset="tools",
            kind=Kind.ATTRIBUTION,
            needs=FORWARD,
            implementation="module:run",
            documentation=Documentation(words={"other": "…"}),
        )


def test_places_are_checked() -> None:
    with pytest.raises(ValueError, match="is not of the form 'module:Class'"):
        Documentation(init_args=("captum.attr.Occlusion",))


def test_guides_are_plain_data(registry) -> None:
    (guide,) = cfi.methods("press_gradient").guides
    assert guide.arguments[1].__dict__ == {
        "name": "scale",
        "where": "exec_args",
        "meaning": "What the gradient is multiplied by.",
        "type": "float",
        "default": "1.0",
        "raw": "",
        "toolset": "",
        "required": False,
        "uniform": "",
        "source": "cfi_core.testing.fake:press",
    }
    assert np.array_equal(guide.needs, ("forward", "input_gradient"))
