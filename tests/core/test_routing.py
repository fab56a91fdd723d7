"""Which method and which translators are taken, and what is said where none will do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import cfi_core as cfi
from cfi_core.hookspec import hookimpl
from cfi_core.records import Route
from cfi_core.registry import Registry
from cfi_core.routing import choose_conversion, find_routes
from cfi_core.specs import ANY, FrameworkSpec, Kind, MethodSpec, Need, ToolsetSpec, TranslatorSpec
from cfi_core.testing import fake, use_plugins

FORWARD = frozenset({Need.FORWARD})
GRADIENT = frozenset({Need.FORWARD, Need.INPUT_GRADIENT})


def translator(name: str, source: str, target: str, cost: float = 1, **facts: Any) -> TranslatorSpec:
    facts = {"preserves": frozenset(Need), "implementation": "planted:convert", **facts}
    return TranslatorSpec(name=name, source=source, target=target, cost=cost, **facts)


def framework(name: str, **facts: Any) -> FrameworkSpec:
    return FrameworkSpec(
        name=name, model_types=(), tensor_types=(), adapter=f"{fake.__name__}:NetworkAdapter", module="numpy", **facts
    )


class Map:
    """paint → print at a cost of 1 by the fake plugin, and ways around by clay and wax."""

    @staticmethod
    @hookimpl
    def cfi_frameworks() -> list[FrameworkSpec]:
        return [framework("clay", without_gradients="Clay has none; use a perturbation method."), framework("wax")]

    @staticmethod
    @hookimpl
    def cfi_translators() -> list[TranslatorSpec]:
        return [
            translator("paint2clay", "paint", "clay", 0.25),
            translator("clay2wax", "clay", "wax", 0.25, preserves=FORWARD),
            translator("wax2print", "wax", "print", 0.25),
            translator("wax2paint", "wax", "paint", 0.25),
            translator("run-wax", "wax", "print", 0.1, kind="bridge", preserves=FORWARD),
        ]


@pytest.fixture
def current() -> Iterator[Registry]:
    with use_plugins(fake, Map()) as registry:
        yield registry


def names(routes: tuple[Route, ...]) -> list[tuple[str, ...]]:
    return [route.names for route in routes]


# chains


def test_the_cheapest_chain_that_keeps_the_needs_comes_first(current):
    around = ("paint2clay", "clay2wax", "wax2print")
    assert names(find_routes(current, "paint", "print", FORWARD)) == [around, ("paint2print",)]
    assert names(find_routes(current, "paint", "print", GRADIENT)) == [("paint2print",)]


def test_a_bridge_comes_before_conversions_and_is_no_part_of_a_chain(current):
    assert names(find_routes(current, "wax", "print", FORWARD)) == [
        ("run-wax",),
        ("wax2print",),
        ("wax2paint", "paint2print"),
    ]
    routes = find_routes(current, "paint", "print", FORWARD)
    assert all("run-wax" not in route.names for route in routes)


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ("wax2print", [("wax2print",)]),
        ("wax2paint", [("wax2paint", "paint2print")]),
        (["wax2paint", "paint2print"], [("wax2paint", "paint2print")]),
        ("bridge", [("run-wax",)]),
        ("conversion", [("wax2print",), ("wax2paint", "paint2print")]),
    ],
)
def test_a_wish_names_a_part_or_the_whole_or_a_kind(current, wish, found):
    assert names(find_routes(current, "wax", "print", FORWARD, wish)) == found


@pytest.mark.parametrize("wish", [3, {"wax2print"}, b"wax2print"])
def test_a_wish_of_another_kind_is_refused(current, wish):
    with pytest.raises(cfi.RouteError, match="neither a name nor a list of names"):
        find_routes(current, "wax", "print", FORWARD, wish)


def test_a_kind_in_a_list_is_no_translator(current):
    with pytest.raises(cfi.RouteError, match="No translator 'bridge' is installed"):
        find_routes(current, "wax", "print", FORWARD, ["bridge"])


def test_a_native_model_has_no_place_for_a_translator(current):
    assert names(find_routes(current, "print", "print", GRADIENT, "conversion")) == [()]
    with pytest.raises(cfi.RouteError, match="already is a print model: translator='wax2print' has no place here"):
        find_routes(current, "print", "print", GRADIENT, "wax2print")


# refusals


def test_a_wish_that_leads_elsewhere_is_answered_with_what_there_is(current):
    with pytest.raises(cfi.RouteError, match=r"with translator='wax2print'. There are: clay → wax → paint \(clay2wax"):
        find_routes(current, "clay", "paint", FORWARD, "wax2print")
    with pytest.raises(cfi.RouteError, match=r"with translator='bridge'.*pip install cfi-bridge brings one"):
        find_routes(current, "clay", "print", FORWARD, "bridge")


def test_needs_that_no_route_keeps_are_named_with_the_frameworks_own_hint(current):
    with pytest.raises(cfi.RouteError, match=r"missing input_gradient .*Clay has none; use a perturbation") as caught:
        find_routes(current, "clay", "print", GRADIENT)
    assert caught.value.missing_needs == {Need.INPUT_GRADIENT}


def test_where_only_bridges_lead_a_conversion_might(current):
    class Bridged:
        @staticmethod
        @hookimpl
        def cfi_frameworks() -> list[FrameworkSpec]:
            return [framework("clay"), framework("torch")]

        @staticmethod
        @hookimpl
        def cfi_translators() -> list[TranslatorSpec]:
            return [translator("run-all", ANY, "print", kind="bridge", preserves=FORWARD)]

    with use_plugins(fake, Bridged()) as registry:
        with pytest.raises(cfi.RouteError, match=r"might: pip install cfi-translate\. Or choose another method\.$"):
            find_routes(registry, "torch", "print", GRADIENT)
        with pytest.raises(cfi.RouteError, match=r"\(run-all\)\)\. Choose another method\.$"):
            find_routes(registry, "clay", "print", GRADIENT)
        with pytest.raises(cfi.RouteError, match=r"There is paint → print \(paint2print\): leave translator= out"):
            find_routes(registry, "paint", "print", GRADIENT, "run-all")


def test_a_bridge_makes_no_model(current):
    with pytest.raises(
        cfi.RouteError, match=r"'run-wax' is a bridge: it runs the model where it lives.*no print model"
    ):
        choose_conversion(current, "wax", "print", "run-wax")
    assert names(choose_conversion(current, "wax", "print", None))[0] == ("wax2print",)


# the choice


class Second:
    """Another toolset with a method of the same key, in the framework of the model itself."""

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="easel", framework="paint")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        return [
            MethodSpec(
                key="press_gradient",
                toolset="easel",
                kind=Kind.ATTRIBUTION,
                needs=GRADIENT,
                implementation=f"{fake.__name__}:run",
                optional=("target",),
            )
        ]


def test_of_several_toolsets_the_native_one_is_taken_and_said(painting, images):
    with use_plugins(fake, Second()):
        with pytest.warns(
            cfi.ChoiceWarning, match=r"offered by easel, press; easel is taken \(native\). Pass toolset="
        ):
            plan = cfi.plan(painting, "press_gradient", inputs=images, target=0)
        assert plan.method.toolset == "easel" and plan.others == ("press",)
        assert "also offered by press" in str(plan) and "works on the model as it is" in str(plan)
        chosen = cfi.plan(painting, "press_gradient", "press", inputs=images, target=0)
        assert chosen.method.toolset == "press" and chosen.others == ()


def policy(answer: Any) -> Any:
    class Policy:
        @hookimpl
        def cfi_choose_route(self, candidates: tuple[Route, ...], method: MethodSpec | None) -> Any:
            return answer(candidates)

    return Policy()


def test_a_policy_puts_another_route_in_front(painting, images):
    with use_plugins(fake, fake.bridge_plugin, policy(lambda candidates: candidates[-1])):
        plan = cfi.plan(painting, "press_gradient", inputs=images, target=0)
    assert names(plan.routes) == [("paint2print",), ("bridge-to-print",)]
    assert plan.reason == "chosen by a cfi_choose_route hook"


@pytest.mark.parametrize(
    ("answer", "told"), [(lambda candidates: Route(), "chose native"), (lambda candidates: "cheap", "chose a str")]
)
def test_a_policy_that_invents_a_route_is_reported_and_passed_over(painting, images, answer, told):
    with use_plugins(fake, policy(answer)), pytest.warns(cfi.PluginWarning, match=f"{told}, which is none of"):
        plan = cfi.plan(painting, "press_gradient", inputs=images, target=0)
    assert plan.route.names == ("paint2print",)
