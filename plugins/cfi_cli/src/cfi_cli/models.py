"""MODEL on the command line: a file, or `package.module:factory`, a function that makes the model."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

import cfi_core as cfi
from cfi_core.detection import load_original
from cfi_core.errors import FOREIGN, summary
from cfi_core.framework import FrameworkAdapter
from cfi_core.registry import registry


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A file, or package.module:factory or FILE.py:factory, a function that makes the model.",
            show_default=False,
        ),
    ]
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights for the model that a factory makes: safetensors, or tensors alone."),
    ] = None
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Load files that can run code (.h5, pickles, TorchScript, .pt2, SavedModels): yours only."
        ),
    ] = False

    def load(self) -> Loaded:
        """The model.

        Raises:
            CFIError: There is no such file or factory, or it is not to be trusted.
        """
        return Loaded(self.model, load_model(self.model, self.weights, self.trust))


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model, and what its framework knows of it.

    Attributes:
        name: As it was asked for.
        model: What `cfi.attribute` takes.
    """

    name: str
    model: Any

    @cached_property
    def _original(self) -> Any:
        return load_original(registry(), self.model)

    @property
    def framework(self) -> str:
        """Name of its framework."""
        return str(self._original.framework)

    @property
    def adapter(self) -> FrameworkAdapter:
        """Of its framework."""
        adapter: FrameworkAdapter = self._original.adapter
        return adapter

    @property
    def native(self) -> Any:
        """The model as its framework runs it."""
        return self._original.model

    @property
    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """Those that the model declares, samples first."""
        return self.adapter.input_shapes(self.native)


def load_model(text: str, weights: Path | None = None, trust: bool = False) -> Any:
    """The model that MODEL names; see `ModelOptions`."""
    place, _, name = text.rpartition(":")
    if text.endswith(".py") and Path(text).is_file():
        raise cfi.ArgumentError(f"{text} is code: name the function in it that makes the model, {text}:FUNCTION.")
    if not place.endswith(".py") or Path(text).exists():
        _look_here()
        return _load(text, weights=weights, trust=trust)
    if weights is not None:
        raise cfi.ArgumentError("--weights goes with package.module:factory, not with FILE.py:factory.")
    factory = find_object(text)
    if not callable(factory):
        raise cfi.ArgumentError(f"{name!r} of {place} is a {type(factory).__name__}; MODEL names a function.")
    try:
        return factory()
    except FOREIGN as error:
        raise cfi.InputError(f"{text} failed when it was called without arguments ({summary(error)}).") from error


def _load(text: str, *, weights: Path | None, trust: bool) -> Any:
    """The same, with errors that speak of the command's options."""
    try:
        return cfi.load_model(text, weights=weights, trust=trust)
    except cfi.ModelFileError as error:
        told = str(error).replace("trust=True", "--trust").replace("weights=", "--weights ")
        raise type(error)(told) from error


def find_object(text: str) -> Any:
    """What `package.module:name` or `FILE.py:name` names.

    A module is also looked for in the folder in which `cfi` is called, behind all that is installed.

    Raises:
        ArgumentError: There is none; `InputError`: the module cannot be imported.
    """
    place, _, name = text.rpartition(":")
    try:
        module = _run_file(Path(place)) if place.endswith(".py") else _import(place)
    except FOREIGN as error:
        if isinstance(error, cfi.CFIError):
            raise
        raise cfi.InputError(f"{place} cannot be imported ({summary(error)}).") from error
    try:
        found = module
        for part in name.split("."):
            found = getattr(found, part)
        return found
    except AttributeError:
        public = ", ".join(one for one, value in vars(module).items() if callable(value) and not one.startswith("_"))
        where = getattr(module, "__file__", place)
        raise cfi.ArgumentError(f"{where} has no {name!r}. It has: {public or 'nothing'}.") from None


def _import(name: str) -> Any:
    _look_here()
    return import_module(name)


def _look_here(folder: Path | None = None) -> None:
    """Modules in the folder in which `cfi` is called, or in this one, are found, behind all that is installed."""
    here = str((folder or Path.cwd()).resolve())
    if here not in sys.path:
        sys.path.append(here)


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise cfi.InputError(f"There is no file {str(path)!r}.")
    _look_here(path.parent)  # as a script finds what lies beside it
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # of a file that ends in .py there always is one
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module
