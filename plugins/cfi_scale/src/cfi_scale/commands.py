"""`cfi explain-dataset` and `cfi status`."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import cfi_core as cfi
from cfi_core import ArgumentError, Explainer
from cfi_scale.dataset import BATCH, explain_dataset
from cfi_scale.images import open_path
from cfi_scale.state import as_json
from cfi_scale.state import status as find_status

INCOMPLETE = 1
"""Exit code of `cfi status`: the answer is no."""


_MODEL = typer.Argument(metavar="MODEL", help="A file, or package.module:factory.", show_default=False)
_DATA = typer.Argument(
    metavar="DATA",
    help=".npy, .zarr, FILE.h5:NAME, or a folder of images (with --preprocess).",
    show_default=False,
)
_STORE = typer.Argument(metavar="STORE", help="Folder to write, or to go on with.", show_default=False)
_METHOD = typer.Option("--method", "-m", metavar="METHOD[@TOOLSET]", help="cfi methods lists them.")


def explain(
    model: Annotated[str, _MODEL],
    data: Annotated[str, _DATA],
    store: Annotated[Path, _STORE],
    method: Annotated[str, _METHOD],
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights for the model of a factory.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Load model files that can run code: yours only.")] = False,
    target: Annotated[
        str, typer.Option(metavar="CLASS", help="A class by index or name, predicted, or FILE.npy with one for each.")
    ] = "predicted",
    layer: Annotated[str | None, typer.Option(metavar="NAME|auto", help="cfi layers lists them.")] = None,
    baselines: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Of methods that compare with some.")
    ] = None,
    init: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of the toolset's constructor.")
    ] = None,
    exec: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of the toolset's call.")
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Gets a PIL image, returns what the model takes of one sample; also package.module:function.",
        ),
    ] = None,
    executor: Annotated[str, typer.Option(help="serial, dask or ray.")] = "serial",
    workers: Annotated[int | None, typer.Option(help="Processes of dask or Ray; else one for each core.")] = None,
    batch_size: Annotated[int, typer.Option(help="Samples explained at a time.")] = BATCH,
    chunk_size: Annotated[int | None, typer.Option(help="Samples written at a time; else eight batches.")] = None,
    half: Annotated[bool, typer.Option("--float16", help="Attributions in half the space.")] = False,
    max_bad: Annotated[int, typer.Option(help="Samples that may fail.")] = 100,
    seed: Annotated[int, typer.Option(help="Seeds all that is random.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Explains a data set into a store; the same command goes on with one that is not complete."""
    key, _, toolset = method.partition("@")
    prepare = None if preprocess is None else find_function(preprocess)
    opened, targets = open_path(data, prepare), _target(target)
    explainer = Explainer(
        cfi.load_model(model, weights=weights, trust=trust),
        key,
        toolset or None,
        target=None if isinstance(targets, list) else targets,
        layer=layer,
        baselines=baselines,
        init_args=_pairs(init, "--init"),
        exec_args=_pairs(exec, "--exec"),
    )
    explain_dataset(
        explainer,
        opened,
        store,
        executor=executor,
        target=targets if isinstance(targets, list) else None,
        batch_size=batch_size,
        chunk_size=chunk_size,
        dtype="float16" if half else "float32",
        seed=seed,
        max_bad=max_bad,
        workers=workers,
        progress=not quiet,
    )
    print(find_status(store))


_EXAMPLES = """\b
Examples:
  cfi explain-dataset models:cnn digits.npy saliency.zarr -m saliency@captum --executor dask
  cfi explain-dataset resnet.onnx photos/ cams.zarr -m grad_cam --layer auto --preprocess prepare.py:prepare
  cfi status saliency.zarr
"""
explain.epilog = _EXAMPLES  # type: ignore[attr-defined]


def status(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store, also one that grows.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """How far a store is, and what failed. Exit code 1: it is not complete."""
    found = find_status(store)
    print(as_json(found) if json else found)
    if not found.complete:
        raise typer.Exit(INCOMPLETE)


def _target(text: str) -> Any:
    if text.endswith(".npy"):
        return np.asarray(open_path(text)).tolist()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _pairs(given: Sequence[str] | None, option: str) -> Mapping[str, Any] | None:
    """NAME=VALUE, the value as in Python, or else a text."""
    pairs = [one.partition("=") for one in given or ()]
    if wrong := [name for name, sign, _ in pairs if not sign or not name.isidentifier()]:
        raise ArgumentError(f"{option} {wrong[0]!r} is not of the form NAME=VALUE.")
    return {name: _target(value) for name, _, value in pairs} or None


def find_function(reference: str) -> Callable[..., Any]:
    """A function by `package.module:name` or `FILE.py:name`.

    Raises:
        ArgumentError: There is none.
    """
    place, _, name = reference.rpartition(":")
    try:
        module = _load(Path(place)) if place.endswith(".py") else import_module(place)
        return getattr(module, name)
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise ArgumentError(f"There is no function {reference!r} ({error}).") from error


def _load(file: Path) -> Any:
    """The module of a file, under its name, so that other processes find it the same way."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    sys.path.insert(0, str(file.resolve().parent))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[file.stem] = module
    return module
