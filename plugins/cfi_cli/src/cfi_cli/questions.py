"""What is asked of a model: options of `cfi attribute`, `plan`, `compare`, `report`, as `cfi.attribute` takes them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import cfi_core as cfi
from cfi_cli.samples import ARRAYS, TABLES, Samples, read_values
from cfi_core.specs import MethodSpec


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """Target, layer and settings of a method."""

    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="A class by index or name, predicted, or a place in the output (3,7,7); for all samples or for each.",
        ),
    ] = None
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the classes, one a line, where the model knows none.")
    ] = None
    layer: Annotated[
        str | None, typer.Option(metavar="NAME|auto", help="A layer of the model; cfi layers lists them.")
    ] = None
    neuron: Annotated[str | None, typer.Option(metavar="INDEX", help="A unit of the layer: 5 or 5,0,0.")] = None
    baselines: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|FILE", help="Reference inputs of methods that compare with some; .npy or .csv."),
    ] = None
    init: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An argument of the toolset's constructor; VALUE as in Python."),
    ] = None
    exec: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An argument of the toolset's call; VALUE as in Python."),
    ] = None
    translator: Annotated[
        str | None, typer.Option(metavar="NAME", help="A translator, bridge or conversion; several with commas.")
    ] = None
    head: Annotated[str | None, typer.Option(help="logit or output, where the model ends in a softmax.")] = None
    defaults: Annotated[str, typer.Option(help="raw, or toolset: as the toolset's own users get it.")] = "raw"
    seed: Annotated[int, typer.Option(help="Seeds all that is random.")] = 0

    def names(self) -> tuple[str, ...] | None:
        """Names of the classes, from the file."""
        if self.classes is None:
            return None
        try:
            return tuple(
                line.strip() for line in self.classes.read_text(encoding="utf-8-sig").splitlines() if line.strip()
            )
        except UnicodeDecodeError:
            raise cfi.InputError(f"{self.classes} is no text in UTF-8, with one class a line.") from None

    def arguments(self, samples: Samples | None) -> dict[str, Any]:
        """Arguments of `cfi.attribute` by name, those that are not given left out.

        Raises:
            ArgumentError: One of them cannot be read.
        """
        given = {
            "inputs": None if samples is None else samples.values,
            "feature_names": None if samples is None or isinstance(samples.values, Mapping) else _features(samples),
            "target": self._target(),
            "layer": self.layer,
            "neuron": None if self.neuron is None else _numbers(self.neuron, "--neuron"),
            "baselines": None if self.baselines is None else _baselines(self.baselines),
            "init_args": read_pairs(self.init, "--init"),
            "exec_args": read_pairs(self.exec, "--exec"),
            "translator": None if self.translator is None else _translator(self.translator),
            "head": self.head,
            "defaults": self.defaults,
            "seed": self.seed,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _target(self) -> Any:
        targets = [read_target(text, self.names()) for text in self.target or ()]
        return None if not targets else targets[0] if len(targets) == 1 else targets


def _features(samples: Samples) -> Any:
    return list(samples.features) if samples.features and isinstance(samples.values, np.ndarray) else None


def read_target(text: str, names: tuple[str, ...] | None) -> Any:
    """An index, a place in the output, or a name: of the file's classes, or as the model knows it."""
    parts = text.split(",")
    if all(part.strip().lstrip("-").isdigit() for part in parts):
        numbers = tuple(map(int, parts))
        return numbers[0] if len(numbers) == 1 else numbers
    if names is None or text == "predicted":
        return text
    if text not in names:
        near = [name for name in names if text.lower() in name.lower()][:5]
        raise cfi.TargetError(f"--classes names no {text!r}." + (f" It has {', '.join(near)}." if near else ""))
    return names.index(text)


def split_method(text: str, toolset: str | None = None) -> tuple[str, str | None]:
    """Key and toolset of `grad_cam@captum`."""
    key, at, own = text.partition("@")
    if at and toolset not in (None, own):
        raise cfi.ArgumentError(f"--method {text} and --toolset {toolset} name two toolsets.")
    return key, own or toolset


def specs_of(key: str, toolset: str | None) -> list[MethodSpec]:
    """The methods that go by a key, in one toolset or in all; none for a key that nothing goes by."""
    try:
        return list(cfi.methods(key, toolset=toolset))
    except cfi.UnknownMethodError:
        return []


def read_pairs(texts: Iterable[str] | None, option: str) -> dict[str, Any] | None:
    """Arguments by name; a value that is no Python literal is a word."""
    if not texts:
        return None
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise cfi.ArgumentError(f"{option} {text!r} is not of the form NAME=VALUE.")
        try:
            pairs[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pairs[name] = value
    return pairs


def _numbers(text: str, option: str) -> Any:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise cfi.ArgumentError(f"{option} {text!r} is no index, such as 5 or 5,0,0.") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _baselines(text: str) -> Any:
    if text.lower().endswith((*ARRAYS, *TABLES)):
        return read_values(Path(text))
    try:
        return float(text)
    except ValueError:
        return text  # of tokens, the name of one


def _translator(text: str) -> str | list[str]:
    return text.split(",") if "," in text else text
