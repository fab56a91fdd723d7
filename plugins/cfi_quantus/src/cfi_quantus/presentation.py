"""The model as Quantus sees it: one output column per class, of a torch module that hides the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cfi_core.errors import TargetError
from cfi_core.framework import Permutation, flatten
from cfi_core.subject import Subject
from cfi_quantus.layout import Layout

_SUM = 1e-3
"""How far the sum of probabilities may be from one, in half precision too."""


class Presented(nn.Module):
    """Runs the subject's model, in Quantus's axes, on as many samples at a time as the user wishes.

    Quantus looks for softmax modules to cut off or to add, by their type and their place in the list of modules. None
    is to be seen here: whether probabilities are given is known better from the model's outputs.

    Attributes:
        rows: Samples that were run.
        unchanged: Those of them that are among the given ones, so that a perturbation of them changed nothing.
    """

    def __init__(self, subject: Subject, layout: Layout, *, softmax: bool, batch_size: int) -> None:
        super().__init__()
        self._subject = (subject,)  # no module, and in a tuple, so that Quantus finds nothing to take apart
        self._axes = _to_model(layout, subject.input_axes[0])
        self._added, self._softmax, self._size = layout.added, softmax, batch_size
        self._known = {row.tobytes() for row in _single(layout.show(subject.arrays[0]))}
        self.rows = self.unchanged = 0
        self.eval()

    def forward(self, shown: Tensor) -> Tensor:
        """Logits or probabilities, samples times classes."""
        self.rows += len(shown)
        self.unchanged += sum(row.tobytes() in self._known for row in _single(shown.cpu().numpy()))
        return torch.cat([self._run(part) for part in shown.split(self._size)])

    def _run(self, shown: Tensor) -> Tensor:
        (subject,) = self._subject
        like = subject.tensors[0]
        inputs = (shown[:, 0] if self._added else shown).permute(self._axes).to(like.device, like.dtype)
        return columns(subject.model(inputs), subject.position, softmax=self._softmax)


class Randomisable(nn.Module):
    """A model that Quantus copies and changes, with the outputs that are measured."""

    def __init__(self, model: nn.Module, position: int, *, softmax: bool) -> None:
        super().__init__()
        self.model = model
        self._position, self._softmax = position, softmax
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of samples times classes."""
        like = next(self.model.parameters())
        return columns(self.model(inputs.to(like.device, like.dtype)), self._position, softmax=self._softmax)


def columns(outputs: object, position: int, *, softmax: bool) -> Tensor:
    """The measured output of several, one column per class, of a type that numpy knows."""
    output: Tensor = flatten(outputs)[position].detach()
    output = output[:, None] if output.dim() == 1 else output
    output = output if output.dtype == torch.float64 else output.float()
    return output.softmax(1) if softmax else output


def classes(subject: Subject) -> np.ndarray:
    """The class that is measured of each sample.

    Raises:
        TargetError: The target is none: a function, or an index into an output of more axes.
    """
    target, output = subject.target, subject.outputs[subject.position]
    if target.function is not None or output.ndim > 2:
        what = "a function" if target.function is not None else f"an index into an output of shape {output.shape}"
        raise TargetError(f"Quantus measures one class of each sample, and the target is {what}. Wrap the model.")
    return np.array([index[0] if index else 0 for index in _indices(subject)], dtype=int)


def _indices(subject: Subject) -> Sequence[tuple[int, ...]]:
    samples = len(subject.arrays[0])
    return [()] * samples if subject.target.index is None else subject.target.indices(samples)


def gives_probabilities(subject: Subject) -> bool:
    """Whether the model's output is one of probabilities already, with no softmax left out."""
    output = subject.outputs[subject.position]
    if subject.cut or output.ndim != 2 or output.shape[1] == 1:
        return False
    return bool(output.min() >= 0 and np.allclose(output.sum(1), 1, atol=_SUM))


def _to_model(layout: Layout, axes: Permutation) -> tuple[int, ...]:
    """From axes before Quantus (without an added one) to those of the model."""
    user = np.argsort(layout.order)
    return tuple(int(user[axis]) for axis in (axes if axes is not None else range(len(user))))


def _single(shown: np.ndarray) -> np.ndarray:
    """As Quantus hands samples to torch."""
    return np.ascontiguousarray(shown, dtype=np.float32)
