"""`cfi attribute`: one method on some samples; feature visualization is the same command."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import cfi_core as cfi
from cfi_cli.commands.lists import Json
from cfi_cli.models import Loaded, ModelOptions
from cfi_cli.options import command
from cfi_cli.pictures import options_for
from cfi_cli.places import check_places, is_folder, make_folder, writing
from cfi_cli.predictions import predict
from cfi_cli.questions import QuestionOptions, specs_of, split_method
from cfi_cli.samples import DataOptions
from cfi_cli.terminal import answer, answer_json, answer_table, aside
from cfi_core.registry import registry
from cfi_core.specs import Kind

_SUFFIXES = (".png", ".npz")
_PICTURES = (".png", ".svg", ".pdf", ".html")


@command(
    """
    Examples:
      cfi attribute models:resnet cat.png --method grad_cam --layer auto --preprocess imagenet -o cam.png
      cfi attribute vgg.keras *.jpg --method saliency@tf-keras-vis --target 285 --preprocess caffe -o out/
      cfi attribute churn:model customers.csv --method kernel_shap --target 1 --exec n_samples=500 -o shap.npz --json
      cfi attribute models:resnet start.npy -m activation_maximization --target 3 --exec input_range=(-2,2) -o seen.png
    """
)
def attribute(
    model: ModelOptions,
    data: DataOptions,
    method: Annotated[str, typer.Option("--method", "-m", metavar="METHOD[@TOOLSET]", help="cfi methods lists them.")],
    question: QuestionOptions,
    toolset: Annotated[str | None, typer.Option(help="cfi toolsets lists them; else the nearest one is taken.")] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="OUT", help="A file (.png, .npz, …), several of them, or a folder."),
    ] = None,
    json: Json = False,
) -> None:
    """Explains a model on pictures, arrays or tables."""
    with aside():
        check_places(output or (), [*registry().writers], folders=True)
        key, named = split_method(method, toolset)
        loaded = model.load()
        samples = data.read(loaded)
        with remarks() as told:
            made = explain(loaded, key, named, question.arguments(samples))
        options = options_for(made, () if samples is None else samples.pictures, question.names())
        files = [written for place in output or () for written in save(made, place, options)]
        said = () if samples is None else predict(loaded, samples.values, question.names())
    names = () if samples is None else samples.names
    if json:
        answer_json({**describe(made), "samples": _describe_samples(names, said), "files": files, "warnings": told})
        return
    _print(made, names, said, files)


def explain(loaded: Loaded, key: str, toolset: str | None, arguments: dict[str, Any]) -> cfi.Attribution:
    """Runs a method, whether it attributes or visualises.

    Raises:
        LayerError: It needs a layer, and none is given; lists them.
        InputError: It needs samples, and there are none.
    """
    specs = specs_of(key, toolset)
    kinds = {spec.kind for spec in specs}
    if specs and "inputs" not in arguments and all("inputs" in spec.required for spec in specs):
        raise cfi.InputError(f"{key} explains samples: name files of pictures, .npy, .npz or .csv behind MODEL.")
    call = cfi.visualize_features if kinds == {Kind.FEATURE_VISUALIZATION} else cfi.attribute
    made = call(loaded.model, key, toolset, **arguments)
    if isinstance(made, cfi.PendingLayer):
        listed = ", ".join(one.name for one in made.layers)
        raise cfi.LayerError(f"{key} needs a layer: --layer auto (the last with axes of space), or one of {listed}.")
    return made


@contextmanager
def remarks() -> Iterator[list[str]]:
    """What is warned of meanwhile, as texts, which are shown as well."""
    found: list[str] = []
    show = warnings.showwarning

    def keep(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, cfi.CFIWarning):
            found.append(str(message))
        show(message, category, *rest, **more)

    warnings.showwarning = keep
    try:
        yield found
    finally:
        warnings.showwarning = show


def save(attribution: cfi.Attribution, place: Path, options: Mapping[str, Any]) -> list[Path]:
    """Writes to a file, or a picture and the values into a folder; the options are those of pictures.

    Raises:
        PlotError: No writer serves the suffix.
        ArgumentError: It cannot be written.
    """
    paths = [place]
    if is_folder(place):
        make_folder(place)
        paths = [place / f"{attribution.toolset}-{attribution.method_key}{suffix}" for suffix in _SUFFIXES]
    for path in paths:
        with writing(path):
            attribution.save(path, **(options if path.suffix.lower() in _PICTURES else {}))
    return paths


def describe(attribution: cfi.Attribution) -> dict[str, Any]:
    """An attribution without its values, for JSON."""
    parts = [
        {
            "shape": values.shape,
            "dims": dims,
            "min": values.min(),
            "max": values.max(),
            "sum": values.sum(dtype=np.float64),
        }
        for values, dims in attribution.parts
    ]
    certificate = attribution.certificate
    return {
        "method": attribution.method_key,
        "toolset": attribution.toolset,
        "route": attribution.route,
        "faithful": None if certificate is None else certificate.faithful,
        "certificate": None if certificate is None else str(certificate),
        "target": attribution.target,
        "layer": attribution.layer,
        "values": parts,
        "provenance": attribution.provenance,
    }


def _describe_samples(names: Sequence[str], said: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    rows = said or [()] * len(names)
    return [{"name": name, "predictions": row} for name, row in zip(names, rows, strict=True)]


def _print(made: cfi.Attribution, names: Sequence[str], said: Sequence[Sequence[Any]], files: Sequence[Path]) -> None:
    provenance, layer = made.provenance, made.layer
    facts = {
        "method": made.method_key + (f" at {layer if isinstance(layer, str) else ', '.join(layer)}" if layer else ""),
        "toolset": made.toolset,
        "route": " → ".join(made.route) or "native",
        "certificate": str(provenance["certificate"]),
        "explained": str(provenance["explained"]),
        "target": str(provenance.get("target_in_words") or made.target or "none"),
        "values": "; ".join(f"{' × '.join(map(str, values.shape))} ({', '.join(dims)})" for values, dims in made.parts),
        "seconds": f"{provenance['seconds']:.1f}",
    }
    for name, value in facts.items():
        answer(f"{name:<12}{value}")
    for path in files:
        answer(f"{'written':<12}{path}")
    if said:
        answer("")
        rows = [
            (name, row[0].label, f"{row[0].value:.4g}", f"{row[0].probability:.1%}")
            for name, row in zip(names, said, strict=True)
        ]
        answer_table(("sample", "largest output", "value", "share"), rows)
