"""`cfi layers` and `cfi plan`: what there is in a model, and what would be done with it."""

from __future__ import annotations

from typing import Annotated

import typer

import cfi_core as cfi
from cfi_cli.commands.lists import Json
from cfi_cli.models import ModelOptions
from cfi_cli.options import command
from cfi_cli.questions import QuestionOptions, split_method
from cfi_cli.samples import DataOptions
from cfi_cli.terminal import answer, answer_json, answer_table, aside
from cfi_core.guide import MethodGuide


@command(
    """
    Examples:
      cfi layers resnet.onnx
      cfi layers models:resnet cat.png --preprocess imagenet
    """
)
def layers(model: ModelOptions, data: DataOptions, json: Json = False) -> None:
    """Layers of a model, under the names that --layer takes; with an input, their shapes are known of every model."""
    with aside():
        loaded = model.load()
        samples = data.read(loaded)
        found = cfi.layers(loaded.model, None if samples is None else samples.values)
    if json:
        answer_json([{"name": one.name, "kind": one.kind, "output_shape": one.output_shape} for one in found])
        return
    shapes = ["" if one.output_shape is None else " × ".join(map(_size, one.output_shape)) for one in found]
    answer_table(
        ("layer", "kind", "output of a sample"),
        [(one.name, one.kind, shape) for one, shape in zip(found, shapes, strict=True)],
    )


def _size(length: int | None) -> str:
    return "any" if length is None else str(length)


@command(
    """
    Examples:
      cfi plan resnet.onnx grad_cam
      cfi plan models:resnet saliency --toolset tf-keras-vis --json
    """
)
def plan(
    model: ModelOptions,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="cfi methods lists them; METHOD@TOOLSET names both.")],
    data: DataOptions,
    question: QuestionOptions,
    toolset: Annotated[str | None, typer.Option(help="cfi toolsets lists them.")] = None,
    json: Json = False,
) -> None:
    """What a method would do with a model: toolset, route, settings; nothing is run.

    Without an input: all toolsets that have the method, how the model gets to each, and what they need.
    """
    with aside():
        loaded = model.load()
        samples = data.read(loaded)
        key, named = split_method(method, toolset)
        ways = (
            [_way(one, loaded.framework) for one in cfi.methods(key, toolset=named).guides] if samples is None else []
        )
    if ways:
        if json:
            answer_json(ways)
        else:
            answer_table(_WAY, [tuple(one[name] for name in _WAY) for one in ways])
        return
    with aside():
        made = cfi.plan(loaded.model, key, named, **question.arguments(samples))
    if not json:
        answer(made)
        return
    spec = made.method
    routes = [
        {"translators": route.names, "kind": "native" if route.native else "bridge" if route.bridge else "conversion"}
        for route in made.routes
    ]
    answer_json(
        {
            "method": spec.key,
            "kind": spec.kind,
            "toolset": spec.toolset,
            "others": made.others,
            "framework": made.framework,
            "toolset_framework": made.toolset_framework,
            "routes": routes,
            "reason": made.reason,
            "needs": spec.needs,
            "head": made.head,
            "layers": made.layers,
            "needs_layer": made.needs_layer,
            "defaults": spec.defaults.choose(made.arguments.defaults),
            "citation": spec.citation,
        }
    )


_WAY = ("toolset", "route", "needs")


def _way(guide: MethodGuide, framework: str) -> dict[str, str]:
    """How a model of a framework gets to one toolset, and what the method must be given."""
    (route,) = (one for one in guide.routes if one.framework == framework)
    own = (one.name for one in guide.arguments if one.required and not one.uniform)
    told = ", ".join(filter(None, (route.route or "none", route.install)))
    return dict(zip(_WAY, (guide.toolset, told, ", ".join([*guide.required, *own])), strict=True))
