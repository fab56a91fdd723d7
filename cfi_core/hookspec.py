"""The hooks that plugins implement.

A plugin is a module named by an entry point of the group `cfi_core.plugins`. It imports no framework, and marks its
hooks with `hookimpl`, as the examples show (`from cfi_core.hookspec import hookimpl`, `from cfi_core.specs import …`).
Those without arguments are called once, when the first call needs the registry; they return one spec for each thing
that the plugin brings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from cfi_core.attribution import Attribution
    from cfi_core.records import Plan, Route
    from cfi_core.specs import (
        CommandSpec,
        FrameworkSpec,
        MethodSpec,
        MetricSpec,
        PlotterSpec,
        PreparationSpec,
        ToolsetSpec,
        TranslatorSpec,
        WriterSpec,
    )

PROJECT = "cfi_core"
ENTRY_POINT_GROUP = "cfi_core.plugins"

CONTRACT = 1
"""Version of what core and its plugins agree on: hooks, specs, requests and results.

It counts up when a plugin that was written for the former one would no longer do right. A plugin says in its module
which one it was built for, `CFI_CONTRACT = 1`; one that says nothing was built for the first. One that was built for
another contract is reported and left out.
"""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def cfi_frameworks() -> Iterable[FrameworkSpec]:  # type: ignore[empty-body]
    """Frameworks that models live in, their types named by strings, so that a model is known without an import.

    @hookimpl
    def cfi_frameworks():
        return [FrameworkSpec(
            name="jax", module="jax", adapter="cfi_jax.adapter:JaxAdapter",
            model_types=(("flax.nnx", "Module"),), tensor_types=(("jax", "Array"),),
        )]
    """


@hookspec
def cfi_toolsets() -> Iterable[ToolsetSpec]:  # type: ignore[empty-body]
    """Libraries of introspection methods.

    @hookimpl
    def cfi_toolsets():
        return [ToolsetSpec(name="captum", framework="torch", requirements=("captum>=0.8",))]
    """


@hookspec
def cfi_methods() -> Iterable[MethodSpec]:  # type: ignore[empty-body]
    """Methods of the plugin's toolsets; several toolsets may offer the same key.

    @hookimpl
    def cfi_methods():
        return [MethodSpec(
            key="saliency", toolset="captum", kind=Kind.ATTRIBUTION, implementation="cfi_captum.run:run",
            needs=frozenset({Need.FORWARD, Need.INPUT_GRADIENT}),
            citation="Simonyan et al. 2013, Deep Inside Convolutional Networks",
        )]
    """


@hookspec
def cfi_translators() -> Iterable[TranslatorSpec]:  # type: ignore[empty-body]
    """Edges from one framework to another.

    @hookimpl
    def cfi_translators():
        return [TranslatorSpec(
            name="onnx2torch", source="onnx", target="torch", preserves=frozenset(Need),
            cost=10, implementation="cfi_translate.onnx_to_torch:convert",
        )]
    """


@hookspec
def cfi_preparations() -> Iterable[PreparationSpec]:  # type: ignore[empty-body]
    """Kinds of models that bring their own preparation, such as a pipeline that begins with a tokenizer.

    @hookimpl
    def cfi_preparations():
        return [PreparationSpec(
            name="transformers", model_types=(("transformers.pipelines.base", "Pipeline"),),
            implementation="cfi_transformers.pipelines:unpack",
        )]
    """


@hookspec
def cfi_plotters() -> Iterable[PlotterSpec]:  # type: ignore[empty-body]
    """Plotters; they see only an `Attribution`, or several (`several=True`), or a `Checks` (`draws="checks"`).

    @hookimpl
    def cfi_plotters():
        return [PlotterSpec(name="bars", implementation="my_plots:bars", accepts=("feature",))]
    """


@hookspec
def cfi_writers() -> Iterable[WriterSpec]:  # type: ignore[empty-body]
    """Writers of attribution files, one for each file format, called as `function(attribution, path, **options)`.

    @hookimpl
    def cfi_writers():
        return [WriterSpec(name="nifti", suffixes=(".nii",), implementation="my_files:write_nifti")]
    """


@hookspec
def cfi_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Measures of how good explanations are; several libraries may offer one of the same name.

    @hookimpl
    def cfi_metrics():
        return [MetricSpec(
            name="Sparseness", library="quantus", category="Complexity", better="higher",
            needs=frozenset(), implementation="cfi_quantus.evaluation:evaluate",
        )]
    """


@hookspec
def cfi_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Commands beside those that `cfi-cli` brings: `cfi NAME …`. What implements one is imported when it is called.

    @hookimpl
    def cfi_commands():
        return [CommandSpec(
            name="mosaic", help="Puts attributions together in one picture.", implementation="my_plots.command:mosaic",
        )]
    """


@hookspec(firstresult=True)
def cfi_choose_route(candidates: tuple[Route, ...], method: MethodSpec | None) -> Route | None:
    """Policy slot: choose one of the routes that would serve. Called in step 3 of a call.

        @hookimpl
        def cfi_choose_route(candidates, method):
            return next((route for route in candidates if "onnx2keras" in route.names), None)

    Args:
        candidates: Routes that preserve what the method needs, cheapest first; never empty.
        method: The method that is to run; None for `cfi.translate`.

    Returns:
        One of the candidates, or None to leave the choice to the next plugin. The first result that
        is not None counts; core's own choice (the cheapest) comes last. A policy that fails, or chooses none of the
        candidates, is reported as a `PluginWarning`, and the next one is asked.
    """


@hookspec
def cfi_before_run(plan: Plan) -> None:
    """Observer: called when a plan is about to be carried out.

        @hookimpl
        def cfi_before_run(plan):
            logging.getLogger("audit").info("%s", plan)

    An exception raised here is reported as a `PluginWarning` that names the distribution, and changes nothing.

    Args:
        plan: What is going to happen: a view for this observer alone, with copies in it (arrays cannot be written to).
            For the user's own objects (the model, tensors, functions) stands a `cfi_core.views.Description`. So
            nothing that an observer does reaches the call.
    """


@hookspec
def cfi_after_run(plan: Plan, attribution: Attribution) -> None:
    """Observer: called when an attribution is ready; exceptions are dealt with as those of `cfi_before_run`.

        @hookimpl
        def cfi_after_run(plan, attribution):
            logging.getLogger("audit").info("%s", dict(attribution.provenance))

    Args:
        plan: What was carried out; a view, as for `cfi_before_run`.
        attribution: The result, before the user gets it; a view in the same way. It can be printed, drawn and saved.
    """
