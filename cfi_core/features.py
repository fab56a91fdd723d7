"""Names of features: columns and tokens, as the user, a table, an estimator or a tokenizer has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cfi_core.contract import Axes
from cfi_core.coordinates import Names
from cfi_core.errors import ArgumentError, InputError
from cfi_core.records import Call, Features, Original

_TO_TOKEN = ("convert_ids_to_tokens", "id_to_token", "id_to_piece")
"""What tokenizers of several libraries call the function from a token's number to its text."""

TOKEN_AXES = ("sample", "token", "embedding")
"""Names of the axes of embedded tokens."""

_OF_TOKENS = ("input_ids", "token_ids", "tokens")
"""What models call an input of tokens."""


def find_tokenizer(given: Any) -> Any | None:
    """What knows tokens by their numbers: the object itself, or the tokenizer of a processor; None of any other."""
    for one in (given, getattr(given, "tokenizer", None)):
        if any(callable(getattr(one, name, None)) for name in _TO_TOKEN):
            return one
    return None


def name_features(original: Original, inputs: Any, given: Any, arrays: Sequence[np.ndarray]) -> tuple[Features, ...]:
    """What the elements along the last axis of each explained input are called.

    Args:
        original: The user's model.
        inputs: As the user gave them.
        given: What the user gave as `feature_names`.
        arrays: The explained inputs.

    Raises:
        ArgumentError: The names do not fit the inputs.
        InputError: The tokenizer does not know a token.
    """
    named = original.names.explained if original.names else ()
    asked = _for_each(given, named, arrays)
    own = [inputs[name] for name in named] if named else inputs if isinstance(inputs, tuple) else (inputs,)
    found = []
    for position, array in enumerate(arrays):
        what = f"feature_names[{named[position]!r}]" if len(named) > 1 else "feature_names"
        names = _read(asked[position], array, what)
        if names is None:
            names = _of_table(own[position] if position < len(own) else None, original, array)
        found.append(Features(names, _is_of_tokens(original, position, array, asked[position])))
    return tuple(found)


def _for_each(given: Any, named: Sequence[str], arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
    """What was given for each input."""
    if given is None:
        return (None,) * len(arrays)
    if find_tokenizer(given) is not None:
        whole = [array.dtype.kind in "iu" for array in arrays]
        if not any(whole):
            raise ArgumentError("feature_names is a tokenizer, and no input that is explained holds tokens.")
        return tuple(given if one else None for one in whole)
    if isinstance(given, Mapping):
        if unknown := [name for name in given if name not in named]:
            listed = ", ".join(named) or "none, as the inputs were not given by name"
            raise ArgumentError(f"feature_names holds {unknown[0]!r}. Inputs that are explained: {listed}.")
        return tuple(given.get(name) for name in named)
    if len(arrays) == 1:
        return (given,)
    if isinstance(given, tuple) and len(given) == len(arrays):
        return given
    raise ArgumentError(
        f"{len(arrays)} inputs are explained: pass feature_names as a tuple with an entry (or None) for each of them, "
        f"or as a dict by their names."
    )


def _read(given: Any, array: np.ndarray, what: str) -> Names | None:
    if given is None:
        return None
    if (tokenizer := find_tokenizer(given)) is not None:
        return _tokens(tokenizer, array)
    columns = getattr(given, "columns", given)
    if isinstance(columns, str) or not hasattr(columns, "__iter__"):
        raise ArgumentError(f"{what} is {given!r}: pass a list of names, one list per sample, or a tokenizer.")
    rows = [row.tolist() if isinstance(row, np.ndarray) else row for row in columns]
    if rows and all(isinstance(row, list | tuple) for row in rows) and columns is given:
        names = tuple(tuple(map(str, row)) for row in rows)
        if len(names) != len(array):
            raise ArgumentError(f"{what} has names for {len(names)} samples; there are {len(array)}.")
        for row in names:
            _check_count(row, array, what)
        return names
    plain = tuple(map(str, rows))
    _check_count(plain, array, what)
    return plain


def _check_count(names: Sequence[str], array: np.ndarray, what: str) -> None:
    if len(names) != array.shape[-1]:
        raise ArgumentError(
            f"{what} has {len(names)} names for {array.shape[-1]} features: the last axis of inputs of shape "
            f"{array.shape} is named."
        )


def _tokens(tokenizer: Any, array: np.ndarray) -> Names:
    if array.dtype.kind not in "iu" or array.ndim != 2:
        raise ArgumentError(
            f"feature_names is a tokenizer, but the input holds {array.dtype} of shape {array.shape}, and tokens are "
            f"whole numbers of shape (samples, tokens). Pass names instead."
        )
    return tuple(tuple(_token(tokenizer, int(number)) for number in row) for row in array)


def _token(tokenizer: Any, number: int) -> str:
    read: Callable[[int], Any] = next(getattr(tokenizer, name) for name in _TO_TOKEN if hasattr(tokenizer, name))
    try:
        token = read(number)
    except Exception:  # noqa: BLE001 - tokenizers of any library refuse in their own way
        token = None
    if token is None:
        raise InputError(f"The tokenizer given as feature_names has no token {number}: is it the one of this model?")
    return token.decode("utf-8", "replace") if isinstance(token, bytes) else str(token)


def _of_table(given: Any, original: Original, array: np.ndarray) -> Names | None:
    """The columns of a table that was given, or of the one that the model was fitted on, where they have names."""
    columns = original.table.names if original.table else getattr(given, "columns", None)
    names = tuple(map(str, columns)) if columns is not None and not callable(columns) else ()
    if not names or names == tuple(map(str, range(len(names)))):
        names = original.adapter.columns(original.model) or ()
    return names if len(names) == array.shape[-1] and array.ndim == 2 else None


def _is_of_tokens(original: Original, position: int, array: np.ndarray, given: Any) -> bool:
    if array.dtype.kind not in "iu" or array.ndim != 2:
        return False
    name = original.names.explained[position] if original.names else ""
    return find_tokenizer(given) is not None or name in _OF_TOKENS


def name_axes(call: Call, shape: Sequence[int], layer: str | None) -> tuple[str, ...]:
    """Names of the axes of an input or of a layer's output; of embedded tokens in their own words."""
    original, plan = call.original, call.plan
    is_embedded = bool(original.embedding) if layer is None else plan.embeddings and plan.layers == (layer,)
    if is_embedded and len(shape) == len(TOKEN_AXES):
        return TOKEN_AXES
    return original.adapter.dims(original.model, shape, layer=layer)


def name_tokens(
    call: Call, axes: Axes, layer: str | None, dims: tuple[str, ...], shape: Sequence[int]
) -> tuple[str, ...]:
    """These names of the axes of a result, in words of tokens where they are axes of tokens and their embedding."""
    tokens = call.original.embedding or (call.features and call.features[0].tokens)
    if len(call.features) != 1 or not tokens:
        return dims
    if axes is Axes.INPUT:
        return TOKEN_AXES[: len(dims)]
    length = call.inputs.arrays[0].shape[1]
    has_positions = axes is Axes.LAYER and len(dims) == 3 and "position" in dims
    if layer is None or not has_positions or shape[dims.index("position")] != length:
        return dims
    of_layer = "embedding" if _embeds(call, layer) else "channel"
    return tuple({"position": "token", "channel": of_layer}.get(name, name) for name in dims)


def names_along(call: Call, axes: Axes, position: int, dims: tuple[str, ...]) -> Names | None:
    """The names of the features that a result has an axis of: its tokens, or the last axis of that input."""
    if axes is Axes.FEATURE or not call.features:
        return None
    if "token" in dims:
        return call.features[0].names
    if axes not in (Axes.INPUT, Axes.INPUT_MAP, Axes.INPUT_SIZED_MAP) or position >= len(call.features):
        return None
    own = call.original.adapter.dims(call.original.model, call.inputs.arrays[position].shape)
    return call.features[position].names if dims[-1:] == own[-1:] else None


def _embeds(call: Call, layer: str) -> bool:
    adapter, model = call.original.adapter, call.original.model
    return any(one.name == layer and "Embedding" in one.kind for one in adapter.layers(model))
