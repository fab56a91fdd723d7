"""Plugins load on their own: one that fails, or a part of one, is reported and left out, and everything else works."""

import subprocess
import sys
import textwrap
from contextlib import ExitStack
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core import registry, testing
from cfi_core.coexistence import load_safely
from cfi_core.discovery import PluginInfo
from cfi_core.hookspec import CONTRACT, hookimpl
from cfi_core.registry import load
from cfi_core.requirements import unmet
from cfi_core.specs import (
    CommandSpec,
    FrameworkSpec,
    Kind,
    MethodSpec,
    MetricSpec,
    Need,
    ToolsetSpec,
    TranslatorSpec,
    WriterSpec,
)
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Print


def toolset(name: str = "half", framework: str = "print", **fields) -> ToolsetSpec:
    return ToolsetSpec(name=name, framework=framework, **fields)


def method(key: str = "half", toolset: str = "half") -> MethodSpec:
    return MethodSpec(
        key=key, toolset=toolset, kind=Kind.ATTRIBUTION, needs=frozenset({Need.FORWARD}), implementation="x:y"
    )


class Raising:
    @hookimpl
    def cfi_toolsets(self):
        raise OSError("licence server is away")


class Leaving:
    @hookimpl
    def cfi_toolsets(self):
        sys.exit("no licence")


class Mute:
    @hookimpl
    def cfi_toolsets(self):
        class Unprintable(Exception):
            def __str__(self):
                raise RuntimeError

        raise Unprintable


class Misspelt:
    @hookimpl
    def cfi_toolset(self):
        return []


class WrongType:
    @hookimpl
    def cfi_toolsets(self):
        return ["captum"]


class NoList:
    @hookimpl
    def cfi_toolsets(self):
        return toolset()


class WrongSignature:
    @hookimpl
    def cfi_toolsets(self, everything):
        return []


class WrongSpec:
    @hookimpl
    def cfi_toolsets(self):
        return [toolset(requirements="numpy>=1")]


class Wrapper:
    @hookimpl(wrapper=True)
    def cfi_choose_route(self, candidates, method):
        return (yield)


class Twice:
    @hookimpl
    def cfi_toolsets(self):
        return [toolset(), toolset()]


class Newer:
    CFI_CONTRACT = CONTRACT + 1

    @hookimpl
    def cfi_hook_of_the_future(self):
        return []


class Nonsense:
    CFI_CONTRACT = "1.0"


class Unmarked:
    def cfi_toolsets(self):
        return [toolset()]


class HalfGood:
    @hookimpl
    def cfi_toolsets(self):
        return [toolset()]

    @hookimpl
    def cfi_methods(self):
        yield method()
        raise ValueError("the second half is missing")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Raising, "OSError: licence server is away"),
        (Leaving, "SystemExit: no licence"),
        (Mute, "Unprintable: its message cannot be shown"),
        (Misspelt, "there is no hook"),
        (Unmarked, "its cfi_toolsets is not marked with @hookimpl"),
        (WrongType, "no ToolsetSpec"),
        (NoList, "cfi_toolsets returned a ToolsetSpec; it must return a list of ToolsetSpecs"),
        (WrongSignature, "everything"),
        (WrongSpec, "write ('numpy>=1',)"),
        (Wrapper, "cfi_choose_route is a wrapper"),
        (Twice, "cfi_toolsets returned the toolset 'half' twice"),
        (Newer, f"built for contract {CONTRACT + 1} between cfi-core and its plugins"),
        (Nonsense, "CFI_CONTRACT is '1.0'"),
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
        assert reason in report.error and report.error in repr(report)
        result = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
        assert np.isfinite(result.values).all()
        with pytest.raises(cfi.UnknownMethodError, match=f"dist-of-{broken.__name__}"):
            cfi.attribute(painting, "no_such_method", inputs=images)
    finally:
        context.__exit__(None, None, None)


def test_two_plugins_of_one_distribution_need_two_names(painting, images):
    info = PluginInfo("twin", "dist-of-twins", "1.0", "twins")

    class Watcher:
        seen: ClassVar[list[str]] = []

        @hookimpl
        def cfi_before_run(self, plan):
            self.seen.append(plan.method.key)

    with pytest.warns(cfi.PluginWarning, match="dist-of-twins announces two plugins of that name"):
        registry = load([(info, Watcher()), (info, Raising())])
    ((owner, implementation),) = registry.implementations("cfi_before_run")
    assert owner == info
    with use_plugins(fake):
        implementation(plan=cfi.plan(painting, "press_noise", inputs=images))
    assert Watcher.seen == ["press_noise"]


def test_a_module_is_loaded_once():
    first, second = PluginInfo("one", "dist-of-one", "1.0", "shared"), PluginInfo("two", "dist-of-two", "1.0", "shared")
    with pytest.warns(cfi.PluginWarning, match=r"'two' .*: shared is loaded already, as dist-of-one:one\. Update"):
        registry = load([(first, fake), (second, fake)])
    assert "press" in registry.toolsets


def test_an_installed_plugin_is_not_shown_twice(monkeypatch):
    info = PluginInfo("fake", "fake-dist", "2.0", fake.__name__)
    monkeypatch.setattr(testing, "announcements", lambda group: [(info, fake)])
    with pytest.raises(cfi.ArgumentError, match=r"fake is installed by fake-dist 2\.0, .* leave it out of use_plugins"):
        use_plugins(fake, with_installed=True).__enter__()
    with use_plugins(with_installed=True) as registry:
        assert "press" in registry.toolsets
    with use_plugins(fake) as registry:
        assert "press" in registry.toolsets


def test_a_reason_ends_in_one_full_stop():
    class Slip:
        @hookimpl
        def cfi_methods(self):
            return [MethodSpec(**vars(method()) | {"optional": "target"})]

    with pytest.warns(cfi.PluginWarning, match=r"write \('target',\)\. Update or uninstall dist-of-Slip"):
        load([(PluginInfo("slip", "dist-of-Slip", "1.0", "slip"), Slip())])


def test_the_user_can_interrupt_the_loading():
    class Slow:
        @hookimpl
        def cfi_toolsets(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), use_plugins(Slow()):
        pass


def test_the_contract_may_be_named():
    class Named:
        CFI_CONTRACT = CONTRACT
        cfi_toolsets = staticmethod(hookimpl(lambda: [toolset()]))

    with use_plugins(Named()) as registry:
        assert "half" in registry.toolsets


class Claims:
    """Claims what `fake` claims."""

    def __init__(self, **offers):
        self.offers = offers

    @hookimpl
    def cfi_frameworks(self):
        return self.offers.get("frameworks", [])

    @hookimpl
    def cfi_toolsets(self):
        return self.offers.get("toolsets", [])

    @hookimpl
    def cfi_methods(self):
        return self.offers.get("methods", [])

    @hookimpl
    def cfi_translators(self):
        return self.offers.get("translators", [])

    @hookimpl
    def cfi_writers(self):
        return self.offers.get("writers", [])

    @hookimpl
    def cfi_metrics(self):
        return self.offers.get("metrics", [])

    @hookimpl
    def cfi_commands(self):
        return self.offers.get("commands", [])


@pytest.fixture
def partly():
    """Lets the process see plugins, something of which is withdrawn, as the warning says."""
    with ExitStack() as stack:

        def enter(match, *plugins):
            with pytest.warns(cfi.PluginWarning, match=match):
                return stack.enter_context(use_plugins(*plugins))

        yield enter


@pytest.fixture(params=[1, -1], ids=["first", "last"])
def claiming(request, partly):
    """A plugin that claims names of the fake one, in front of it or behind."""
    return lambda **offers: partly("can be used", *(Claims(**offers), fake)[:: request.param])


BOTH = r"claimed by dist-of-Claims 1\.0 and by dist-of-cfi_core\.testing\.fake 1\.0; uninstall one of them"


def test_a_toolset_that_two_plugins_claim_is_refused_with_both_names(claiming, painting, images):
    registry = claiming(toolsets=[toolset("press"), toolset("other")], methods=[method("press_gradient", "other")])
    for arguments in ({"method_key": "press_map"}, {"method_key": "press_gradient", "toolset": "press"}):
        with pytest.raises(cfi.PluginConflictError, match=f"toolset 'press' is {BOTH}"):
            cfi.attribute(painting, **arguments, inputs=images)
    assert list(registry.toolsets) == ["other"] and list(registry.methods) == [("press_gradient", "other")]
    # The method of the other toolset is found without being asked for by name.
    assert cfi.plan(painting, "press_gradient", inputs=images).method.toolset == "other"
    assert [plugin.name for plugin in cfi.plugins() if plugin.withdrawn] == [
        plugin.name for plugin in cfi.plugins() if plugin.name != "core"
    ]


def test_a_method_that_two_plugins_claim(claiming, painting, images):
    claiming(methods=[method("press_gradient", "press")])
    with pytest.raises(cfi.PluginConflictError, match=f"method 'press_gradient' of 'press' is {BOTH}"):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    assert cfi.attribute(painting, "press_noise", inputs=images).values.shape == images.shape


def test_a_translator_that_two_plugins_claim(claiming, painting, images):
    fields = {"preserves": frozenset(Need), "cost": 1, "implementation": "x:y"}
    claiming(translators=[TranslatorSpec(name="paint2print", source="print", target="paint", **fields)])
    with pytest.raises(cfi.PluginConflictError, match=f"translator 'paint2print' is {BOTH}"):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0, translator="paint2print")
    native = Print(painting.mix, painting.head)
    assert cfi.attribute(native, "press_noise", inputs=images.transpose(0, 2, 3, 1)).route == ()


def test_a_framework_that_two_plugins_claim(claiming, painting, images):
    registry = claiming(
        frameworks=[
            FrameworkSpec(
                name="print",
                model_types=(),
                tensor_types=(),
                adapter="x:Y",
                module="cfi_core.testing.fake",
                file_suffixes=(".print",),
            )
        ]
    )
    with pytest.raises(cfi.PluginConflictError, match=f"framework 'print' is {BOTH}"):
        registry.frameworks["print"]
    (listed,) = cfi.toolsets()
    assert not listed.usable and "the framework 'print'" in repr(listed)
    labels = r"dist-of-Claims 1\.0 and dist-of-cfi_core\.testing\.fake 1\.0"
    with pytest.raises(
        cfi.UnknownMethodError, match=rf"one plugin alone for the framework 'print' \(there are {labels}"
    ):
        cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    for model in (Print(painting.mix, painting.head), "sheet.print"):
        with pytest.raises(cfi.PluginConflictError, match=f"framework 'print' is {BOTH}"):
            cfi.layers(model)
    assert [layer.name for layer in cfi.layers(painting)] == ["mix", "relu", "pool", "head"]


def test_a_suffix_that_two_plugins_claim(partly, tmp_path, painting, images):
    writer = WriterSpec(name="mine", suffixes=(".npz", ".txt"), implementation="x:y")
    claim = r"file suffix '\.npz' is claimed by cfi-core .* and by dist-of-Claims"
    registry = partly(claim, Claims(writers=[writer]), fake)
    result = cfi.attribute(painting, "press_gradient", inputs=images, target=0)
    with pytest.raises(cfi.PluginConflictError, match="dist-of-Claims"):
        result.save(tmp_path / "values.npz")
    assert registry.origin_of(registry.writers[".txt"]).distribution == "dist-of-Claims"


def metric(name="Evenness", library="scales"):
    fields = {"category": "Complexity", "better": "lower", "needs": frozenset(), "implementation": "x:y"}
    return MetricSpec(name=name, library=library, **fields)


def others(registry):
    """Metrics of plugins; core has some of its own."""
    return {name: spec for name, spec in registry.metrics.items() if spec.library != "cfi"}


def test_metrics_are_known_by_name_and_library():
    with use_plugins(Claims(metrics=[metric(), metric(library="rulers")])) as registry:
        assert set(others(registry)) == {("Evenness", "rulers"), ("Evenness", "scales")}
        assert registry.origin_of(registry.metrics["Evenness", "rulers"]).distribution == "dist-of-Claims"


def test_a_metric_that_two_plugins_claim(partly):
    class Others(Claims):
        pass

    claim = r"metric 'Evenness' of 'scales' is claimed by dist-of-Claims 1\.0 and by dist-of-Others"
    registry = partly(claim, Claims(metrics=[metric(), metric("Weight")]), Others(metrics=[metric()]))
    with pytest.raises(cfi.PluginConflictError, match=claim):
        registry.metrics["Evenness", "scales"]
    assert list(others(registry)) == [("Weight", "scales")]


def test_metrics_of_another_kind_leave_the_plugin_out():
    refusal = "cfi_metrics returned the ToolsetSpec 'half', which is no MetricSpec"
    with pytest.warns(cfi.PluginWarning, match=refusal), use_plugins(Claims(metrics=[toolset()])) as registry:
        assert not others(registry)


def command(name):
    return CommandSpec(name=name, help="Weighs.", implementation="scales:weigh")


def test_a_command_that_two_plugins_claim(partly):
    class Others(Claims):
        pass

    claim = r"command 'weigh' is claimed by dist-of-Claims 1\.0 and by dist-of-Others"
    registry = partly(claim, Claims(commands=[command("weigh"), command("sift")]), Others(commands=[command("weigh")]))
    with pytest.raises(cfi.PluginConflictError, match=claim):
        registry.commands["weigh"]
    assert repr(registry.commands["sift"]) == "sift           Weighs."


def test_a_method_of_a_toolset_that_nobody_describes_is_withdrawn(partly, painting, images):
    plugin = Claims(toolsets=[toolset()], methods=[method(), method("lost", "elsewhere")])
    partly(r"'Claims' of dist-of-Claims .* describes the toolset 'elsewhere'", plugin, fake)
    with pytest.raises(cfi.UnknownMethodError, match=r"'lost' cannot be used\. No installed plugin describes the tool"):
        cfi.attribute(painting, "lost", inputs=images)
    assert cfi.plan(painting, "half", inputs=images).method.toolset == "half"
    assert "'elsewhere'" in repr(cfi.plugins())


def test_what_needs_a_framework_that_nobody_describes_says_what_to_install(painting, images):
    fields = {"preserves": frozenset(Need), "cost": 1, "implementation": "x:y"}
    plugin = Claims(
        toolsets=[toolset("lamp", "jax")],
        methods=[method("glow", "lamp")],
        translators=[TranslatorSpec(name="far", source="paint", target="engraving", **fields)],
    )
    with use_plugins(plugin, fake):
        lamp = next(listed for listed in cfi.toolsets() if listed.name == "lamp")
        assert lamp.missing == ("cfi-jax",) and not lamp.usable
        with pytest.raises(cfi.UnknownMethodError, match="pip install 'cfi-jax'"):
            cfi.attribute(painting, "glow", inputs=images)
        far = next(listed for listed in cfi.translators() if listed.name == "far")
        assert far.missing == ("a plugin for the framework 'engraving'",)


def test_the_environment_switches_plugins_off(monkeypatch, painting, images):
    monkeypatch.setenv("CFI_DISABLE_PLUGINS", "Raising, dist_of.claims")
    with use_plugins(Raising(), Claims(toolsets=[toolset("press")]), fake) as registry:
        assert list(registry.toolsets) == ["press"]
        assert cfi.attribute(painting, "press_noise", inputs=images).values.shape == images.shape
        assert [plugin.name for plugin in cfi.plugins() if plugin.disabled] == ["Raising", "Claims"]
        assert repr(cfi.plugins()).count("switched off by CFI_DISABLE_PLUGINS") == 2
        with pytest.raises(
            cfi.UnknownMethodError, match=r"dist-of-Claims 1\.0 \(switched off by CFI_DISABLE_PLUGINS\)"
        ):
            cfi.attribute(painting, "no_such_method", inputs=images)


def test_an_unknown_name_among_those_to_switch_off_is_told(monkeypatch):
    info = PluginInfo("paint", "cfi-paint", "1.0", fake.__name__)
    monkeypatch.setattr(registry, "announcements", lambda group: [(info, fake)])
    former = registry.replace_registry(None)
    try:
        monkeypatch.setenv("CFI_DISABLE_PLUGINS", "Paint,cfi_piant, captum")
        message = r"names 'captum', 'cfi-piant', and .* installed are core \(cfi-core\), paint \(cfi-paint\)\.$"
        with pytest.warns(cfi.PluginWarning, match=message):
            assert [plugin.name for plugin in cfi.plugins() if plugin.disabled] == ["paint"]
        registry.replace_registry(None)
        monkeypatch.setenv("CFI_DISABLE_PLUGINS", "cfi-paint,")
        assert [plugin.name for plugin in cfi.plugins() if plugin.disabled] == ["paint"]
    finally:
        registry.replace_registry(former)


def test_an_adapter_that_does_not_load_stops_its_framework_only(monkeypatch, painting, images):
    class Sculpture:
        pass

    module = ModuleType("clay")
    module.Sculpture = Sculpture
    monkeypatch.setitem(sys.modules, "clay", module)
    spec = FrameworkSpec(
        name="clay", model_types=(("clay", "Sculpture"),), tensor_types=(), adapter="no_kiln:Adapter", module="clay"
    )
    with use_plugins(Claims(frameworks=[spec]), fake):
        assert cfi.attribute(painting, "press_gradient", inputs=images, target=0).route == ("paint2print",)
        with pytest.raises(
            cfi.UnknownFrameworkError, match=r"adapter of clay in dist-of-Claims 1\.0 .*no_kiln"
        ) as caught:
            cfi.layers(Sculpture())
        assert isinstance(caught.value.__cause__, ImportError)


def test_a_precaution_that_fails_is_reported_and_stops_nobody(painting, images):
    fields = {"model_types": (), "tensor_types": (), "adapter": "x:Y", "module": "no_clay"}
    spec = FrameworkSpec(name="clay", before_use="no_kiln:cool", **fields)
    with use_plugins(Claims(frameworks=[spec]), fake) as registry:
        with pytest.warns(cfi.PluginWarning, match=r"precaution for clay of dist-of-Claims 1\.0 failed .*no_kiln"):
            load_safely(registry)
        assert cfi.attribute(painting, "press_noise", inputs=images).values.shape == images.shape


def test_the_origin_of_a_spec_is_known(registry):
    from dataclasses import replace

    spec = registry.methods["press_gradient", "press"]
    assert registry.origin_of(replace(spec, needs=frozenset(Need))).label == "dist-of-cfi_core.testing.fake 1.0"
    assert registry.origin_of(registry.writers[".npz"]).distribution == "cfi-core"
    assert "not registered" in registry.origin_of(method("never", "seen")).label


def test_a_policy_plugin_chooses_the_route_and_a_bad_one_is_passed_over(painting, images):
    class Policy:
        answer = None

        @hookimpl
        def cfi_choose_route(self, candidates, method):
            return candidates[-1] if self.answer is None else self.answer

    with use_plugins(fake, Policy()):
        assert cfi.plan(painting, "press_gradient", inputs=images, target=0).route.names == ("paint2print",)
        Policy.answer = "a route of my own"
        with pytest.warns(cfi.PluginWarning, match="dist-of-Policy.* none of the candidates"):
            cfi.plan(painting, "press_gradient", inputs=images, target=0)
        Policy.answer = np.zeros(3)
        with pytest.warns(cfi.PluginWarning, match="chose a ndarray, which is none of the candidates"):
            assert cfi.plan(painting, "press_gradient", inputs=images, target=0).route.names == ("paint2print",)
        Policy.answer = property(lambda self: sys.exit())
        with pytest.warns(cfi.PluginWarning, match="dist-of-Policy.*SystemExit"):
            assert cfi.plan(painting, "press_gradient", inputs=images, target=0).route.names == ("paint2print",)


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


def test_one_bad_distribution_never_stops_the_rest(tmp_path):
    """With real distributions on the path, in a process of its own."""
    toolset = (
        "from cfi_core.hookspec import hookimpl\n"
        "from cfi_core.specs import ToolsetSpec\n"
        "@hookimpl\n"
        "def cfi_toolsets():\n"
        "    return [ToolsetSpec(name='good', framework='torch')]\n"
    )
    modules = {
        "broken": "raise ImportError('compiled for another python')\n",
        "leaving": "import sys; sys.exit('not on this machine')\n",
        "curious": "import cfi_core; cfi_core.methods()\n",
        "unreadable": "raise AssertionError('nobody imports this')\n",
        "good": toolset,
    }
    for name, text in modules.items():
        (tmp_path / f"{name}_plugin.py").write_text(text)
        folder = tmp_path / f"cfi_{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cfi-{name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[cfi_core.plugins]\n{name} = {name}_plugin\n")
    (tmp_path / "cfi_unreadable-1.0.dist-info" / "entry_points.txt").write_bytes(b"[cfi_core.plugins]\nx = \xff\n")
    script = textwrap.dedent(
        f"""
        import sys, warnings
        sys.path.insert(0, {str(tmp_path)!r})
        import cfi_core as cfi
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            names = [toolset.name for toolset in cfi.toolsets()]
        assert "good" in names, names
        found = {{plugin.distribution: plugin.error for plugin in cfi.plugins()}}
        assert found["cfi-good"] == ""
        assert "compiled for another python" in found["cfi-broken"]
        assert "SystemExit: not on this machine" in found["cfi-leaving"]
        assert "cannot ask what is installed while plugins are being loaded" in found["cfi-curious"]
        assert "entry_points.txt cannot be read (UnicodeDecodeError" in found["cfi-unreadable"]
        text = " ".join(str(warning.message) for warning in caught)
        assert all(f"of cfi-{{name}} 1.0 was left out" in text for name in ("broken", "leaving", "unreadable")), text
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
