"""Plugins load on their own: one that fails is reported and left out."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.hookspec import hookimpl
from cfi_core.registry import PluginInfo, load
from cfi_core.requirements import unmet
from cfi_core.specs import Kind, MethodSpec, Need, ToolsetSpec
from cfi_core.testing import fake, use_plugins


class Raising:
    @hookimpl
    def cfi_toolsets(self):
        raise OSError("licence server is away")


class Misspelt:
    @hookimpl
    def cfi_toolset(self):
        return []


class WrongType:
    @hookimpl
    def cfi_toolsets(self):
        return ["captum"]


class WrongSignature:
    @hookimpl
    def cfi_toolsets(self, everything):
        return []


class HalfGood:
    @hookimpl
    def cfi_toolsets(self):
        return [ToolsetSpec(name="half", framework="print")]

    @hookimpl
    def cfi_methods(self):
        yield MethodSpec(
            key="half", toolset="half", kind=Kind.ATTRIBUTION, needs=frozenset({Need.FORWARD}), implementation="x:y"
        )
        raise ValueError("the second half is missing")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Raising, "licence server is away"),
        (Misspelt, "cfi_toolset"),
        (WrongType, "no ToolsetSpec"),
        (WrongSignature, "everything"),
        (HalfGood, "the second half is missing"),
    ],
)
def test_a_broken_plugin_is_reported_and_left_out(broken, reason, painting, images):
    context = use_plugins(broken(), fake)
    with pytest.warns(cfi.PluginWarning, match=f"{broken.__name__}.*left out"):
        registry = context.__enter__()
    try:
        assert "half" not in registry.toolsets
        (report,) = [plugin for plugin in cfi.plugins() if plugin.error]
        assert report.name == broken.__name__
        assert reason in report.error
        result = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
        assert np.isfinite(result.values).all()
        with pytest.raises(cfi.UnknownMethodError, match=f"dist-of-{broken.__name__}"):
            cfi.attribute(painting, "no_such_method", inputs=images)
    finally:
        context.__exit__(None, None, None)


def test_conflicts_name_both_distributions_in_any_order(painting, images):
    class Twin:
        @hookimpl
        def cfi_toolsets(self):
            return [ToolsetSpec(name="press", framework="print")]

    messages = set()
    for order in ((fake, Twin()), (Twin(), fake)):
        with use_plugins(*order):
            with pytest.raises(cfi.PluginConflictError) as caught:
                cfi.attribute(painting, "press_gradient", inputs=images, target=0)
            messages.add(str(caught.value))
            assert len(cfi.plugins()) == 3
    (message,) = messages
    assert "dist-of-Twin" in message and "dist-of-cfi_core.testing.fake" in message and "'press'" in message


def test_a_policy_plugin_chooses_the_route_and_a_bad_one_is_passed_over(painting, images):
    class Policy:
        answer = None

        @hookimpl
        def cfi_choose_route(self, candidates, method):
            return self.answer or candidates[-1]

    with use_plugins(fake, Policy()):
        assert cfi.plan(painting, "press_gradient", inputs=images).route.names == ("paint2print",)
        Policy.answer = "a route of my own"
        with pytest.warns(cfi.PluginWarning, match="none of the candidates"):
            cfi.plan(painting, "press_gradient", inputs=images)


def test_requirements_are_read_from_metadata():
    assert unmet(["numpy>=1", "pluggy"]) == ()
    assert unmet(["numpy>=1000", "no-such-distribution"]) == ("numpy>=1000", "no-such-distribution")
    assert unmet(["no-such-distribution; python_version < '3'"]) == ()


def test_a_toolset_whose_library_is_missing_says_what_to_install(painting, images):
    class Bare:
        @hookimpl
        def cfi_toolsets(self):
            return [ToolsetSpec(name="bare", framework="print", requirements=("no-such-library>=2",))]

        @hookimpl
        def cfi_methods(self):
            return [
                MethodSpec(key="bare", toolset="bare", kind=Kind.ATTRIBUTION, needs=frozenset(), implementation="x:y")
            ]

    with use_plugins(fake, Bare()):
        with pytest.raises(cfi.UnknownMethodError, match="no-such-library>=2"):
            cfi.attribute(painting, "bare", inputs=images)
        (listed,) = [toolset for toolset in cfi.toolsets() if toolset.name == "bare"]
        assert not listed.usable and listed.missing == ("no-such-library>=2",)


def test_an_entry_point_that_fails_to_import_is_reported(tmp_path):
    """With a real distribution on the path, in a process of its own."""
    (tmp_path / "broken_plugin.py").write_text("raise ImportError('compiled for another python')\n")
    (tmp_path / "good_plugin.py").write_text(
        "from cfi_core.hookspec import hookimpl\n"
        "from cfi_core.specs import ToolsetSpec\n"
        "@hookimpl\n"
        "def cfi_toolsets():\n"
        "    return [ToolsetSpec(name='good', framework='torch')]\n"
    )
    for name in ("broken", "good"):
        folder = tmp_path / f"cfi_{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cfi-{name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[cfi_core.plugins]\n{name} = {name}_plugin\n")
    script = textwrap.dedent(
        f"""
        import sys, warnings
        sys.path.insert(0, {str(tmp_path)!r})
        import cfi_core as cfi
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            names = [toolset.name for toolset in cfi.toolsets()]
        assert "good" in names, names
        broken = [plugin for plugin in cfi.plugins() if plugin.name == "broken"][0]
        assert "compiled for another python" in broken.error and broken.distribution == "cfi-broken"
        assert any("cfi-broken 1.0" in str(w.message) for w in caught)
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_nothing_depends_on_the_order_of_plugins():
    infos = [(PluginInfo("a", "dist-a", "1", "a"), fake), (PluginInfo("b", "dist-b", "1", "b"), Raising())]
    with pytest.warns(cfi.PluginWarning):
        one = load(infos)
    with pytest.warns(cfi.PluginWarning):
        other = load(infos[::-1])
    assert one.methods == other.methods and list(one.toolsets) == list(other.toolsets)
