"""Tasks of KerasHub, which bring their own preprocessor: the texts that a user gives become tokens as in `predict`."""

from __future__ import annotations

from typing import Any

import keras

from cfi_core.contract import Unpacked
from cfi_core.errors import InputError


def unpack_task(task: Any, inputs: Any) -> Unpacked | None:
    """The task as a Keras model, and what its preprocessor makes of texts; None where no texts are given.

    Raises:
        InputError: It has no preprocessor.
    """
    texts = _texts(inputs)
    if texts is None:
        return None
    preprocessor = getattr(task, "preprocessor", None)
    if preprocessor is None:
        raise InputError(
            f"The {type(task).__name__} has no preprocessor for texts: give it one, or pass tokens, by the names of "
            f"its inputs ({', '.join(one.name for one in task.inputs)})."
        )
    given, *_ = keras.utils.unpack_x_y_sample_weight(preprocessor(texts))
    tokenizer = getattr(preprocessor, "tokenizer", None)
    return Unpacked(
        model=task,
        inputs={name: keras.ops.convert_to_numpy(value) for name, value in given.items()},
        did=f"{type(preprocessor).__name__} made tokens of the texts",
        feature_names=None if tokenizer is None else {"token_ids": tokenizer},
        stays="values are on the tokens",
    )


def _texts(inputs: Any) -> Any:
    """Texts as a preprocessor takes them: a list, or of pairs one list for each side; None of anything else."""
    listed = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(listed, list | tuple) or not listed:
        return None
    if all(isinstance(one, str) for one in listed):
        return list(map(str, listed))
    pairs = all(isinstance(one, list | tuple) and len(one) == 2 for one in listed)
    if pairs and all(isinstance(side, str) for one in listed for side in one):
        return tuple(list(side) for side in zip(*listed, strict=True))
    return None
