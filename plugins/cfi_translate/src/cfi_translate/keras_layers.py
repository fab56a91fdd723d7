"""Keras layers that Keras itself lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("cfi_translate")
class LowestPadding2D(keras.layers.Layer):
    """Pads the spatial axes with the lowest number (minus infinity), so that max pooling never picks the padding.

    Args:
        padding: `((top, bottom), (left, right))`.
        data_format: `"channels_first"` or `"channels_last"`.
        name: Name of the layer.
        dtype: As for every Keras layer.
        trainable: As for every Keras layer.
    """

    def __init__(
        self,
        padding: Sequence[Sequence[int]],
        data_format: str = "channels_last",
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.padding = tuple((int(begin), int(end)) for begin, end in padding)
        self.data_format = data_format

    def call(self, inputs: Any) -> Any:
        """Pads a batch of images."""
        spatial = list(self.padding)
        around = [(0, 0), (0, 0), *spatial] if self.data_format == "channels_first" else [(0, 0), *spatial, (0, 0)]
        return keras.ops.pad(inputs, around, mode="constant", constant_values=float("-inf"))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Shape of the padded images."""
        first = 2 if self.data_format == "channels_first" else 1
        shape = list(input_shape)
        for axis, (begin, end) in enumerate(self.padding, first):
            size = shape[axis]
            shape[axis] = None if size is None else size + begin + end
        return tuple(shape)

    def get_config(self) -> Mapping[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "padding": self.padding, "data_format": self.data_format}
