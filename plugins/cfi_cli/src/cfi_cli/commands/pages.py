"""`cfi report`: several methods on some samples, on one page of HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import cfi_core as cfi
from cfi_cli.commands.differences import compare_answers
from cfi_cli.commands.explanation import explain, remarks
from cfi_cli.exits import Code
from cfi_cli.models import Loaded, ModelOptions
from cfi_cli.options import command
from cfi_cli.page import Chapter, Explanation, Sample
from cfi_cli.page import report as write
from cfi_cli.pictures import options_for
from cfi_cli.places import check_places, writing
from cfi_cli.predictions import predict
from cfi_cli.questions import QuestionOptions, specs_of, split_method
from cfi_cli.samples import DataOptions, Samples
from cfi_cli.terminal import answer, aside, in_options, say
from cfi_core.specs import Kind, MethodSpec


@command(
    """
    Layer methods without --layer take auto. --exec and --init go to the methods that know the argument. A method that
    is refused stands on the page with the reason, and the exit code is 3.
    \b
    Examples:
      cfi report models:resnet cat.png dog.png -m saliency@captum -m grad_cam@tf-keras-vis --target predicted \\
          --preprocess imagenet --classes imagenet.txt -o report.html
    """
)
def report(
    model: ModelOptions,
    data: DataOptions,
    method: Annotated[
        list[str], typer.Option("--method", "-m", metavar="METHOD[@TOOLSET]", help="Once for each method.")
    ],
    question: QuestionOptions,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page.")] = Path(
        "report.html"
    ),
    title: Annotated[str | None, typer.Option(help="Its heading.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare the toolsets of each method that is asked of several.")
    ] = False,
) -> None:
    """Explanations of a model on one page of HTML that holds all it needs."""
    with aside():
        check_places([output], (".html", ".htm"))
        loaded = model.load()
        samples = data.read(loaded)
        methods = [split_method(text) for text in method]
        chapter = _chapter(loaded, samples, methods, question)
        if compare:
            chapter = _with_comparisons(chapter, loaded, methods, question.arguments(samples))
        with writing(output):
            written = write(output, chapter, title=title or f"{loaded.name}, explained")
    answer(written)
    if chapter.refusals:
        raise typer.Exit(Code.REFUSED)


def _chapter(
    loaded: Loaded, samples: Samples | None, methods: list[tuple[str, str | None]], question: QuestionOptions
) -> Chapter:
    arguments = question.arguments(samples)
    _check_own(methods, arguments)
    explanations, refusals = [], {}
    for key, toolset in methods:
        try:
            with remarks() as told:
                made = explain(loaded, key, toolset, _fitting(specs_of(key, toolset), arguments))
        except cfi.CFIError as error:
            refusals[f"{key} by {toolset}" if toolset else key] = in_options(error)
            say(f"refused: {key}: {in_options(error)}")
            continue
        pictures = () if samples is None else samples.pictures
        explanations.append(Explanation(made, tuple(told), options_for(made, pictures, question.names())))
    said = () if samples is None else predict(loaded, samples.values, question.names())
    facts = {"model": loaded.name, "framework": loaded.framework}
    if samples is not None and samples.told:
        facts["inputs"] = samples.told
    return Chapter(loaded.name, explanations, facts, _samples(samples, said), refusals=refusals)


def _with_comparisons(
    chapter: Chapter, loaded: Loaded, methods: list[tuple[str, str | None]], arguments: Mapping[str, Any]
) -> Chapter:
    """With what `cfi.compare` finds of each method that several toolsets were asked for."""
    asked: dict[str, list[MethodSpec]] = {}
    for key, toolset in methods:
        asked.setdefault(key, []).extend(specs_of(key, toolset) if toolset else [])
    found, refusals = [], dict(chapter.refusals)
    for key, specs in asked.items():
        if len(specs) > 1:
            try:
                toolsets = [spec.toolset for spec in specs]
                found.append(compare_answers(loaded.model, key, toolsets, _fitting(specs, arguments)))
            except cfi.CFIError as error:
                refusals[f"comparison of {key}"] = str(error)
                say(f"refused: comparison of {key}: {error}")
    return replace(chapter, comparisons=found, refusals=refusals)


def _samples(samples: Samples | None, said: Any) -> list[Sample]:
    if samples is None:
        return []
    count = len(samples.names)
    pictures, rows = samples.pictures or (None,) * count, said or ((),) * count
    return [Sample(*one) for one in zip(samples.names, pictures, rows, strict=True)]


def _check_own(methods: list[tuple[str, str | None]], arguments: Mapping[str, Any]) -> None:
    """Every own argument goes to some method."""
    specs = [spec for key, toolset in methods for spec in specs_of(key, toolset)]
    for kind in ("init_args", "exec_args"):
        known = {name for spec in specs for name in getattr(spec, kind)}
        if unknown := sorted(set(arguments.get(kind, ())) - known):
            raise cfi.ArgumentError(
                f"No method of this report takes {', '.join(unknown)} in {kind}. They take {', '.join(sorted(known))}."
            )


def _fitting(specs: list[MethodSpec], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that one of several methods takes."""
    uniform = {name for spec in specs for name in (*spec.required, *spec.optional)}
    kept = {
        name: value
        for name, value in arguments.items()
        if name not in ("target", "layer", "neuron", "baselines") or name in uniform
    }
    for kind in ("init_args", "exec_args"):
        known = {name for spec in specs for name in getattr(spec, kind)}
        if kind in kept:
            kept[kind] = {name: value for name, value in kept[kind].items() if name in known}
    if specs and all("layer" in spec.required and spec.kind is Kind.LAYER for spec in specs):
        kept.setdefault("layer", "auto")
    return kept
