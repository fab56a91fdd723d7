"""Keras models that end elsewhere: in some of their outputs, or in what a function makes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import keras

from cfi_core.framework import Pick, Several
from cfi_core.turns import keep_random
from cfi_tensorflow.keras import inputs_structure, is_graph, structure_of, without_marks_of

End = Callable[[Any], Any]

_known: WeakKeyDictionary[keras.Model, dict[Pick, keras.Model]] = WeakKeyDictionary()
"""Models that end in one output: the same again for the same model, so that what is kept for it is found."""


def ended_by(model: keras.Model, end: End) -> keras.Model | None:
    """A graph of the same layers that ends there; the model in another class, where it is no graph.

    None for a model whose `call` was exchanged by hand, which another class would not reach.
    """
    if not is_graph(model) and "call" in vars(model):
        return None
    if isinstance(end, Pick) and end in (known := _known.setdefault(model, {})):
        return known[end]
    made = _graph(model, end) if is_graph(model) else _view(model, end)
    if isinstance(end, Pick):
        _known[model][end] = made
    return made


class Ending(keras.layers.Layer):
    """The last layer of a model: what a function makes of its outputs.

    Attributes:
        end: The function.
    """

    def __init__(self, end: End) -> None:
        super().__init__(name="cfi_end", autocast=False, trainable=False)
        self.end = end
        self.supports_jit, self.built = False, True

    def call(self, outputs: Any) -> Any:
        """Its value."""
        return self.end(outputs)

    def compute_output_spec(self, outputs: Any) -> Any:
        """One value for each sample."""
        tensors = keras.tree.flatten(outputs)
        like = next((one for one in tensors if "float" in one.dtype), tensors[0])
        return keras.KerasTensor(like.shape[:1], dtype=like.dtype)


def _graph(model: keras.Model, end: End) -> keras.Model:
    structure = structure_of(model)
    if isinstance(end, Pick | Several):
        picked = end(structure)
        return keras.Model(inputs_structure(model), picked, name=model.name)
    with keep_random(), without_marks_of(structure):
        values = Ending(end)(structure)
    return keras.Model(inputs_structure(model), values, name=model.name)


def _view(model: keras.Model, end: End) -> keras.Model:
    """The model as one of a class derived from its own: all that it holds is shared."""
    kind: Any = type(model)

    @functools.wraps(kind.call)
    def call(self: keras.Model, *inputs: Any, **settings: Any) -> Any:
        return end(kind.call(self, *inputs, **settings))

    names = {"__module__": kind.__module__, "__qualname__": f"{kind.__qualname__}(ended by {end})"}
    seen: keras.Model = object.__new__(type(kind.__name__, (kind,), {"call": call, **names}))
    object.__setattr__(seen, "__dict__", model.__dict__)
    return seen
