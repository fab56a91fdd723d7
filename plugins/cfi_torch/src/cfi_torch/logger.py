"""Explanations of a torch model while it is trained, as pictures in TensorBoard's event files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from typing import Any

import numpy as np

from cfi_core.errors import ArgumentError
from cfi_core.training import TrainingLog

_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


class ExplanationLogger:
    """Writes explanations of a model to a TensorBoard log every so many epochs or steps of its training.

    In a loop of your own:

        with ExplanationLogger(model, "logs", images, {"saliency": {"target": 3}}, every_epochs=1) as logger:
            for epoch in range(epochs):
                for batch in batches:
                    ...
                    logger.step()
                logger.epoch()

    With Lightning: `Trainer(callbacks=[logger.as_lightning_callback()])`.

    Entering the `with` block writes pictures of the model before the training (at 0), and leaving it prints what the
    explanations took of the time. The training is the same without it: weights, modes, gradients and random numbers.
    What does not fit raises in the first round; later rounds warn, and the training goes on.

    Attributes:
        log: Counts, and measures (`log.seconds`, `log.pictures`).
    """

    def __init__(
        self,
        model: Any,
        log_dir: Any,
        inputs: Any,
        explanations: Mapping[str, Mapping[str, Any]],
        *,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        plot: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the log.

        Args:
            model: The model that is trained (or a part of it that is to be explained).
            log_dir: Folder of the event file, or a `SummaryWriter` of yours, which is left open.
            inputs: The samples to explain, as `cfi_core.attribute` takes them.
            explanations: For each tag of the log, the arguments of `cfi_core.attribute` (or `visualize_features`), but
                for the model: `{"cam": {"method_key": "grad_cam", "toolset": "captum", "layer": ["conv1", "conv2"]}}`.
                `method_key` is the tag and `inputs` those above, if left out; of a list of layers, each has a picture
                of its own (`cam/conv1`).
            every_epochs: Explain after each so many epochs.
            every_steps: Explain after each so many steps instead.
            plot: Options of `Attribution.plot`.

        Raises:
            ArgumentError: An unknown argument, nothing to explain, or a schedule that is none.
            ImportError: tensorboard is not installed.
        """
        self.model = model
        self.log = TrainingLog(
            inputs, explanations, every_epochs=every_epochs, every_steps=every_steps, plot=plot, write=self._write
        )
        self._is_own = isinstance(log_dir, str | PathLike)
        self._writer = _writer(log_dir) if self._is_own else log_dir
        if not hasattr(self._writer, "add_image"):
            raise ArgumentError(f"log_dir must be a folder or a SummaryWriter, got {log_dir!r}.")
        self._closed = False

    def start(self) -> None:
        """Explains the model as it is before the training; time is measured from here."""
        self._closed = False
        self.log.start(self.model)

    def step(self) -> None:
        """One step of the optimizer has been taken."""
        self.log.count_steps(self.model)

    def epoch(self) -> None:
        """One epoch is over."""
        self.log.count_epoch(self.model)

    def close(self) -> None:
        """Closes the event file and prints what the explanations took; once for each training."""
        if self._closed:
            return
        self._closed = True
        self._writer.flush()
        if self._is_own:
            self._writer.close()
        print(self.log.finish())

    def __enter__(self) -> ExplanationLogger:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def as_lightning_callback(self) -> Any:
        """A callback for Lightning's Trainer that calls the others of these methods; a batch is a step.

        Raises:
            ImportError: Neither lightning nor pytorch_lightning is installed.
        """
        return _lightning_callback(self)

    def _write(self, tag: str, picture: np.ndarray, step: int) -> None:
        self._writer.add_image(tag, picture, step, dataformats="HWC")


def _writer(folder: str | PathLike[str]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "ExplanationLogger writes TensorBoard's files: pip install 'cfi-torch[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))


def _lightning_callback(logger: ExplanationLogger) -> Any:
    """Of the class Callback of each Lightning that is imported: it has two names, and a trainer knows its own."""
    names = [name for name in _LIGHTNING if name in sys.modules] or [_installed_lightning()]
    bases = tuple(dict.fromkeys(import_module(name).Callback for name in names))

    def on_train_start(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            logger.start()

    def on_train_batch_end(self: Any, trainer: Any, *_: Any, **__: Any) -> None:
        if trainer.is_global_zero:
            logger.step()

    def on_train_epoch_end(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            logger.epoch()

    def on_train_end(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            logger.close()

    hooks = (on_train_start, on_train_batch_end, on_train_epoch_end, on_train_end)
    return type("ExplanationCallback", bases, {hook.__name__: hook for hook in hooks})()


def _installed_lightning() -> str:
    for name in _LIGHTNING:
        try:
            import_module(name)
        except ImportError:
            continue
        return name
    raise ImportError("as_lightning_callback needs Lightning: pip install lightning")
