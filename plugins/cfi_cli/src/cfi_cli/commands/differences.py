"""`cfi compare`: several toolsets, methods or models on one question, and why their answers differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import cfi_core as cfi
from cfi_cli.commands.lists import Json
from cfi_cli.models import ModelOptions, load_model
from cfi_cli.options import command
from cfi_cli.places import check_places, writing
from cfi_cli.questions import QuestionOptions, split_method
from cfi_cli.samples import DataOptions
from cfi_cli.terminal import answer, answer_json, aside

_SUFFIXES = (".json", ".npz", ".html", ".png", ".svg", ".pdf")


@command(
    """
    One method without a toolset is asked of all that offer it. OUT ends in .json, .npz, .html, .png, .svg or .pdf.
    \b
    Examples:
      cfi compare models:resnet cat.png -m saliency --preprocess imagenet --target 285
      cfi compare models:resnet cat.png -m saliency@captum -m smooth_grad@zennit --preprocess imagenet -o both.png
      cfi compare models:resnet cat.png --with resnet.onnx -m occlusion@captum --preprocess imagenet --json
    """
)
def compare(
    model: ModelOptions,
    data: DataOptions,
    method: Annotated[
        list[str], typer.Option("--method", "-m", metavar="METHOD[@TOOLSET]", help="Once for each method.")
    ],
    question: QuestionOptions,
    toolset: Annotated[list[str] | None, typer.Option(help="Only these, of one method; once for each.")] = None,
    other: Annotated[
        list[str] | None, typer.Option("--with", metavar="MODEL", help="Compare with this model, too; once for each.")
    ] = None,
    reasons: Annotated[bool, typer.Option(help="Look for the reasons, which runs the methods again.")] = True,
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", metavar="OUT", help="A file; once for each.")
    ] = None,
    json: Json = False,
) -> None:
    """Several methods or toolsets on one question, and why they differ."""
    with aside():
        check_places(output or (), _SUFFIXES)
        loaded = model.load()
        samples = data.read(loaded)
        models = {loaded.name: loaded.model, **{text: load_model(text, None, model.trust) for text in other or ()}}
        methods, toolsets = read_methods(method, toolset)
        asked = models if len(models) > 1 else loaded.model
        made = compare_answers(asked, methods, toolsets, {**question.arguments(samples), "reasons": reasons})
        for path in output or ():
            with writing(path):
                made.save(path)
    if json:
        answer_json({**made.as_dict(), "files": output or []})
        return
    answer(made)
    for path in output or ():
        answer(f"written {path}")


def compare_answers(model: Any, methods: Any, toolsets: list[str] | None, arguments: Mapping[str, Any]) -> Any:
    """`cfi.compare`.

    Raises:
        CFIError: As there; or this cfi-core has none yet.
    """
    if not hasattr(cfi, "compare"):
        raise cfi.CFIError(f"cfi-core {cfi.__version__} cannot compare: pip install -U cfi-core.")
    return cfi.compare(model, methods, toolsets, **arguments)


def read_methods(texts: list[str], toolsets: list[str] | None) -> tuple[Any, list[str] | None]:
    """What `cfi.compare` takes for `--method` and `--toolset`.

    Raises:
        ArgumentError: Toolsets are named twice, in both options.
    """
    pairs = [split_method(text) for text in texts]
    if len(pairs) == 1:
        key, own = pairs[0]
        if own and toolsets:
            raise cfi.ArgumentError(f"--method {texts[0]} and --toolset both name toolsets.")
        return key, [own] if own else toolsets
    if toolsets:
        raise cfi.ArgumentError("--toolset goes with one --method; name it behind each: --method saliency@captum.")
    asked = zip(texts, pairs, strict=True)
    return {text: {"method_key": key, **({"toolset": own} if own else {})} for text, (key, own) in asked}, None
