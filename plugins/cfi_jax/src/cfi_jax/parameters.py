"""What a Flax or Equinox module has learnt, by its modules. What a function refers to cannot be exchanged in a copy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfi_jax.programs import is_equinox, is_linen, is_nnx
from cfi_jax.runner import is_floating

Build = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Parameters:
    """The learnt arrays of a model.

    Attributes:
        tree: Holds them.
        build: Makes a model of such a tree; the one that it came from is left as it is.
        source: Has the names of modules in the order in which they were defined: nested mappings, or modules.
    """

    tree: Any
    build: Build
    source: Any

    def by_module(self) -> dict[str, list[int]]:
        """Positions among all leaves, by the path of the module."""
        found: dict[str, list[int]] = {}
        for place, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(self.tree)[0]):
            if hasattr(leaf, "dtype") and is_floating(leaf):
                *module, _ = filter(None, map(_word, path))
                found.setdefault(".".join(module) or "model", []).append(place)
        return {name: found[name] for name in sorted(found, key=self._place)}

    def _place(self, name: str) -> tuple[int, ...]:
        """Where a module stands in the model: JAX puts keys and attributes in alphabetical order."""
        place, level = [], self.source
        for step in name.split("."):
            names = [str(one) for one in (level if isinstance(level, Mapping) else getattr(level, "__dict__", {}))]
            place.append(names.index(step) if step in names else 0)
            level = level.get(step) if isinstance(level, Mapping) else getattr(level, step, None)
        return tuple(place)

    def read(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Arrays by module."""
        leaves = jax.tree.leaves(self.tree)
        return {name: tuple(np.asarray(leaves[one]) for one in places) for name, places in self.by_module().items()}

    def exchange(self, weights: Mapping[str, Sequence[np.ndarray]]) -> Any:
        """A model with other arrays."""
        leaves, structure = jax.tree.flatten(self.tree)
        places = self.by_module()
        for name, arrays in weights.items():
            for place, array in zip(places[name], arrays, strict=True):
                leaves[place] = jnp.asarray(array, leaves[place].dtype)
        return self.build(jax.tree.unflatten(structure, leaves))


def parameters_of(model: Any) -> Parameters | None:
    """Of a module; None of anything else."""
    if is_nnx(model):
        nnx = sys.modules["flax.nnx"]
        structure, learnt, rest = nnx.split(model, nnx.Param, ...)
        # Merged with a copy: what is not learnt would be the same object in both otherwise.
        return Parameters(learnt, lambda tree: nnx.clone(nnx.merge(structure, tree, rest)), model)
    if is_linen(model) and model.scope is not None:
        module, variables = model.unbind()
        learnt = variables.get("params", {})
        return Parameters(learnt, lambda tree: module.bind({**variables, "params": tree}), learnt)
    if is_equinox(model):
        return Parameters(model, lambda tree: tree, model)
    return None


def _word(key: Any) -> str:
    """A step of a path; NNX ends each in the value of its variable, which has no name."""
    name = next((getattr(key, one) for one in ("name", "key", "idx") if hasattr(key, one)), "")
    return "" if name == "value" else str(name)
