"""Explanations of a model while it is trained: when, of what, and as which pictures.

A framework's plugin counts epochs and steps in its own way, and writes the pictures to its own log.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

import numpy as np

from cfi_core.api import attribute, visualize_features
from cfi_core.attribution import Attribution
from cfi_core.errors import ArgumentError, CFIError, MethodError, ModelWarning, PlotError, summary, warn
from cfi_core.listing import methods
from cfi_core.silence import without_warnings
from cfi_core.specs import Kind

PICTURE = "picture"
"""Name of the extra in which a toolset gives the picture that it draws itself."""

_KNOWN = frozenset(inspect.signature(attribute).parameters) - {"model", "plot"}
_EXPECTED = "The model is in training mode"  # begins what every call would warn of: a model that is trained is in it


Write = Callable[[str, np.ndarray, int], None]
"""Writes a picture (height, width, three colours, in bytes) to a log, under a tag and at a step."""


class TrainingLog:
    """Explains a model at the start of its training, then every so many epochs or steps, and measures what that takes.

    The first round raises what does not fit; later ones warn, so that a training is not lost.

    Attributes:
        seconds: What the explanations have taken so far.
        pictures: How many were written.
    """

    def __init__(
        self,
        inputs: Any,
        explanations: Mapping[str, Mapping[str, Any]],
        *,
        every_epochs: int | None,
        every_steps: int | None,
        plot: Mapping[str, Any] | None,
        write: Write,
    ) -> None:
        """Checks what can be checked without the model.

        Args:
            inputs: The samples to explain, as `cfi_core.attribute` takes them.
            explanations: For each tag of the log, the arguments of `cfi_core.attribute` (or `visualize_features`), but
                for the model. `method_key` is the tag and `inputs` those above, if left out; of a list of layers, each
                has a picture of its own.
            every_epochs: Explain after each so many epochs.
            every_steps: Explain after each so many steps instead; one of both must be given.
            plot: Options of `Attribution.plot`.
            write: Writes a picture.

        Raises:
            ArgumentError: An unknown argument, nothing to explain, or a schedule that is none.
        """
        given = [every for every in (every_epochs, every_steps) if every is not None]
        if len(given) != 1 or isinstance(given[0], bool) or not isinstance(given[0], int) or given[0] < 1:
            got = f"every_epochs={every_epochs!r}, every_steps={every_steps!r}"
            raise ArgumentError(
                f"Pass every_epochs= or every_steps=, one of them, as a number of 1 or more; got {got}."
            )
        self.seconds = 0.0
        self.pictures = 0
        self._inputs, self._explanations = inputs, _check(explanations)
        self._every_epochs, self._every_steps = every_epochs, every_steps
        self._plot, self._write = dict(plot or {}), write
        self._rounds = self._epochs = self._steps = 0
        self._began, self._trained = perf_counter(), 0.0

    def start(self, model: Any) -> None:
        """Begins to measure, and explains a model that is not trained yet (at step 0)."""
        self._began = perf_counter()
        if not self._rounds:
            self._explain(model, 0)

    def count_epoch(self, model: Any) -> None:
        """One epoch is over."""
        self._epochs += 1
        if self._every_epochs and self._epochs % self._every_epochs == 0:
            self._explain(model, self._epochs)

    def count_steps(self, model: Any, number: int = 1) -> None:
        """So many steps more have been taken."""
        before, self._steps = self._steps, self._steps + number
        if self._every_steps and self._steps // self._every_steps > before // self._every_steps:
            self._explain(model, self._steps)

    def finish(self) -> str:
        """Ends a training; what the explanations took of this one and those before, in a sentence."""
        self._trained += perf_counter() - self._began
        what = f"{self.pictures} pictures in {self._rounds} rounds took {self.seconds:.1f} s of {self._trained:.1f} s"
        return f"Explanations: {what} of training ({self.seconds / self._trained:.1%})."

    def _explain(self, model: Any, step: int) -> None:
        started = perf_counter()
        try:
            for tag, arguments in self._explanations.items():
                self._log(model, tag, arguments, step)
        finally:
            self._rounds += 1
            self.seconds += perf_counter() - started

    def _log(self, model: Any, tag: str, arguments: Mapping[str, Any], step: int) -> None:
        try:
            for name, attribution in _attributions(model, self._inputs, tag, arguments):
                self._write(name, picture_of(attribution, **self._plot), step)
                self.pictures += 1
        except CFIError as error:
            if not self._rounds:
                raise
            warn(f"No picture of {tag!r} at {step}: {summary(error)}. The training goes on.", ModelWarning, error)


def picture_of(attribution: Attribution, **plot: Any) -> np.ndarray:
    """An attribution as a picture of shape (height, width, 3) in bytes: the toolset's own, or a plotter's.

    Raises:
        PlotError: No plotter draws it, or one draws no figure of matplotlib.
    """
    picture = attribution.extras.get(PICTURE)
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and not plot:
        return np.ascontiguousarray(picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1))
    canvas: Any = getattr(attribution.plot(**{**plot, "show": False}), "canvas", None)
    if not hasattr(canvas, "buffer_rgba"):
        raise PlotError("The plotter gives no figure of matplotlib, of which a log needs the pixels. Pass plotter=.")
    canvas.draw()
    return np.array(np.asarray(canvas.buffer_rgba())[..., :3])


def _check(explanations: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    if not isinstance(explanations, Mapping) or not explanations:
        raise ArgumentError(
            f"Pass a dict of explanations, such as {{'saliency': {{'target': 3}}}}; got {explanations!r}."
        )
    found: dict[str, dict[str, Any]] = {}
    for tag, arguments in explanations.items():
        if unknown := sorted(set(arguments) - _KNOWN):
            raise ArgumentError(f"The explanation {tag!r} has unknown arguments {unknown}; known are {sorted(_KNOWN)}.")
        # One seed for all rounds: what changes between them is the model.
        # The training has a line of its own.
        found[tag] = {"method_key": tag, "seed": 0, "progress": False, **arguments}
    return found


def _attributions(model: Any, inputs: Any, tag: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Attribution]]:
    """The attribution of each layer, under the name of its picture."""
    of_inputs = {spec.kind for spec in methods(arguments["method_key"])} != {Kind.FEATURE_VISUALIZATION}
    explain: Callable[..., Any] = attribute if of_inputs else visualize_features
    own: Mapping[str, Any] = {"inputs": inputs, **arguments} if of_inputs else arguments
    layers = own.get("layer")
    several = layers if isinstance(layers, list | tuple) else [layers]
    for layer in several:
        with without_warnings(_EXPECTED):
            found = explain(model, **{**own, "layer": layer})
        if not isinstance(found, Attribution):
            names = ", ".join(one.name for one in found.layers)
            raise MethodError(f"{arguments['method_key']} needs a layer: pass layer=, one of {names}.")
        yield f"{tag}/{found.layer}" if len(several) > 1 else tag, found
