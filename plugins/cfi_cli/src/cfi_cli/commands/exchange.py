"""`cfi translate` and `cfi verify`: another model that computes the same, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import cfi_core as cfi
from cfi_cli.commands.lists import Json
from cfi_cli.exits import Code
from cfi_cli.models import Loaded, ModelOptions, load_model
from cfi_cli.options import command
from cfi_cli.samples import DataOptions, Samples, draw_samples
from cfi_cli.saving import check_path, save_model
from cfi_cli.terminal import answer, answer_json, answer_table, aside
from cfi_cli.twins import Verdict, compare_models


@dataclass(frozen=True, kw_only=True)
class DrawnOptions:
    """Samples where no files are named."""

    samples: Annotated[int, typer.Option(min=1, max=4096, help="How many are drawn where no INPUT is named.")] = 4
    shape: Annotated[
        str | None, typer.Option(metavar="3,224,224", help="Their shape, where the model declares none.")
    ] = None

    def read(self, data: DataOptions, loaded: Loaded) -> Samples:
        """The samples of the files, or drawn ones."""
        return data.read(loaded) or draw_samples(loaded, self.samples, self.shape)


@command(
    """
    tensorflow is written to .keras, torch to .pt2 (which needs --trust to be loaded), onnx to .onnx. What is written is
    loaded again and compared first.
    \b
    Examples:
      cfi translate model.onnx --to tensorflow -o model.keras
      cfi translate models:resnet photos.npy --to tensorflow -o resnet.keras
      cfi translate vgg.keras --to onnx -o vgg.onnx --json
    """
)
def translate(
    model: ModelOptions,
    data: DataOptions,
    drawn: DrawnOptions,
    to: Annotated[str, typer.Option(metavar="FRAMEWORK", help="tensorflow, torch or onnx.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")] = None,
    translator: Annotated[
        str | None, typer.Option(metavar="NAME", help="A conversion; several with commas; else the cheapest.")
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Measure far more: larger batches, beyond the data, all gradients.")
    ] = False,
    json: Json = False,
) -> None:
    """Converts a model to another framework, with the evidence that it computes the same."""
    with aside():
        if output is not None:
            check_path(to, output)
        loaded = model.load()
        samples = drawn.read(data, loaded)
        route = translator.split(",") if translator and "," in translator else translator
        made = cfi.translate(loaded.model, to, inputs=samples.values, translator=route, thorough=thorough)
        told = "" if output is None else save_model(made.model, to, output, _turned(made, samples.values))
    names = {name: match.name for name, match in made.layer_map.matches.items()}
    if json:
        answer_json(
            {
                "route": made.route.names,
                "faithful": made.certificate.faithful,
                "certificate": made.certificate,
                "layers": names,
                "input_axes": made.input_axes,
                "output_axes": made.output_axes,
                "file": output,
                "note": told,
            }
        )
        return
    answer(f"route  {made.route}\n\n{made.certificate.report()}")
    if any(made.input_axes):
        answer(f"\naxes of its inputs, by those of yours: {made.input_axes}")
    if output is not None:
        answer(f"\nwritten {output}" + (f"; {told}" if told else ""))


def _turned(made: cfi.Translation, values: Any) -> list[np.ndarray]:
    """The samples in the axes of the translated model."""
    if made.input_names:
        given = [np.asarray(values[name]) for name in made.input_names]
    else:
        given = list(values) if isinstance(values, tuple) else [np.asarray(values)]
    axes = (*made.input_axes, *(None,) * (len(given) - len(made.input_axes)))
    return [array if order is None else np.transpose(array, order) for array, order in zip(given, axes, strict=True)]


@command(
    """
    Exit code: 0 the same, 1 they differ, 2 the command line is wrong, 3 one of them cannot be run.
    \b
    Examples:
      cfi verify model.onnx model.keras
      cfi verify models:resnet resnet.onnx cat.png --preprocess imagenet --json
      cfi verify old:model new:model --shape 3,64,64 || echo "they differ"
    """
)
def verify(
    model: ModelOptions,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The model to compare it with, as MODEL.")],
    data: DataOptions,
    drawn: DrawnOptions,
    other_weights: Annotated[Path | None, typer.Option(metavar="FILE", help="As --weights, of OTHER.")] = None,
    json: Json = False,
) -> None:
    """Whether two models, of whatever frameworks, compute the same: outputs, gradients, layer by layer."""
    with aside():
        first = model.load()
        second = Loaded(other, load_model(other, other_weights, model.trust))
        as_first = data.inputs or drawn.shape or first.input_shapes is not None or second.input_shapes is None
        samples = drawn.read(data, first if as_first else second)
        verdict = compare_models(first, second, samples.values, as_second=not as_first)
    if json:
        answer_json(verdict)
    else:
        _tell(verdict, samples)
    if not verdict.same:
        raise typer.Exit(Code.NO)


def _tell(verdict: Verdict, samples: Samples) -> None:
    answer("the same" if verdict.same else f"DIFFERENT: {'; '.join(verdict.faults)}")
    answer(f"on {len(samples.names)} samples" + (f", {samples.told}" if samples.told else ""))
    for hint in verdict.hints:
        answer(hint)
    if verdict.certificate is not None:
        answer(f"\n{verdict.certificate.report()}")
    if verdict.layers:
        answer("")
        rows = [
            (one.layer, one.other or "–", "" if one.difference is None else f"{one.difference:.1e}")
            for one in verdict.layers
        ]
        answer_table(("layer", "of the other", "differs by"), rows)
