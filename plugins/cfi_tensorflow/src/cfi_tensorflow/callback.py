"""Explanations of a Keras model while it is trained, as pictures in TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cfi_core.adapters import is_importable
from cfi_core.training import TrainingLog


class ExplanationCallback(keras.callbacks.Callback):
    """Writes explanations of a model to a TensorBoard log every so many epochs or steps of its training.

        callback = ExplanationCallback("logs", images, {"saliency": {"target": 3}}, every_epochs=1)
        model.fit(..., callbacks=[callback])

    Before the first step it writes pictures of the untrained model (at 0), and at the end it prints what the
    explanations took of the time. The training is the same without it: weights, state and random numbers. What does
    not fit raises in the first round; later rounds warn, and the training goes on.

    Attributes:
        log: Counts, and measures (`log.seconds`, `log.pictures`).
    """

    def __init__(
        self,
        log_dir: str | PathLike[str],
        inputs: Any,
        explanations: Mapping[str, Mapping[str, Any]],
        *,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        plot: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the log.

        Args:
            log_dir: Folder of the event file.
            inputs: The samples to explain, as `cfi_core.attribute` takes them.
            explanations: For each tag of the log, the arguments of `cfi_core.attribute` (or `visualize_features`), but
                for the model: `{"cam": {"method_key": "grad_cam", "toolset": "captum", "layer": ["conv1", "conv2"]}}`.
                `method_key` is the tag and `inputs` those above, if left out; of a list of layers, each has a picture
                of its own (`cam/conv1`).
            every_epochs: Explain after each so many epochs.
            every_steps: Explain after each so many steps (batches) instead.
            plot: Options of `Attribution.plot`.

        Raises:
            ArgumentError: An unknown argument, nothing to explain, or a schedule that is none.
            ImportError: tensorboard is not installed.
        """
        super().__init__()
        self.log = TrainingLog(
            inputs, explanations, every_epochs=every_epochs, every_steps=every_steps, plot=plot, write=self._write
        )
        if not is_importable("tensorboard"):
            raise ImportError(
                "ExplanationCallback writes TensorBoard's files: pip install 'cfi-tensorflow[tensorboard]'"
            )
        self._writer = tf.summary.create_file_writer(str(log_dir))
        self._batches = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Explains the model as it is before the training."""
        self.log.start(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches are counted anew."""
        self._batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the batches since the last call, which are several with `steps_per_execution`."""
        taken, self._batches = batch + 1 - self._batches, batch + 1
        self.log.count_steps(self.model, taken)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Counts the epoch."""
        self.log.count_epoch(self.model)

    def on_train_end(self, logs: Any = None) -> None:
        """Flushes the event file and prints what the explanations took; another `fit` goes on writing to it."""
        self._writer.flush()
        print(self.log.finish())

    def _write(self, tag: str, picture: np.ndarray, step: int) -> None:
        with self._writer.as_default():
            tf.summary.image(tag, picture[None], step)
