"""Models from the output of their embedding on: of the gather that looks vectors up for tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from cfi_core.errors import InputError
from cfi_core.framework import map_structure
from cfi_jax.logits import trace

Path = tuple[int, ...]
"""Positions of operations: of a compiled function, of one inside of it, …, and last of the gather."""


@dataclass(frozen=True, eq=False, repr=False)
class FromLookup:
    """A model that takes the vectors of its tokens in front of its inputs, and uses them in the place of its own.

    Attributes:
        model: The user's.
        layer: What looks them up.
    """

    model: Any
    layer: str

    def __call__(self, *inputs: Any) -> Any:
        """What the model gives.

        Raises:
            InputError: The model cannot be called so, as it is no plain function.
        """
        return from_lookup(self.model, inputs[0], inputs[1:])


def find_lookup(function: Callable[..., Any], inputs: Sequence[Any]) -> Any | None:
    """What the one gather by the first input gives; None if there is none, or several."""
    closed, _ = trace(function, tuple(inputs))
    paths = _paths(closed, inputs[0].shape)
    if len(paths) != 1:
        return None
    found: list[Any] = []
    _evaluate(closed, inputs, paths[0], found.append)
    return found[0]


def from_lookup(function: Callable[..., Any], vectors: Any, inputs: Sequence[Any]) -> Any:
    """What the function gives where the gather by the first of its inputs gives these vectors.

    Raises:
        InputError: There is no such gather for inputs of these shapes, or there are several.
    """
    closed, structure = trace(function, tuple(inputs))
    paths = _paths(closed, inputs[0].shape)
    if len(paths) != 1:
        raise InputError("The model does not look its tokens up in one table in this pass. Explain a layer instead.")
    values = iter(_evaluate(closed, inputs, paths[0], lambda _: vectors))
    return map_structure(lambda _: next(values), structure)


def _paths(closed: ClosedJaxpr, shape: tuple[int, ...]) -> list[Path]:
    """Where vectors are looked up by the tokens alone, in a table that no input decides on."""
    sources = [frozenset({position}) for position in range(len(closed.jaxpr.invars))]
    return [*_walk(closed.jaxpr, sources, shape, ())[1]]


def _walk(jaxpr: Any, given: Sequence[frozenset[int]], shape: tuple[int, ...], path: Path) -> Any:
    """The inputs that each result is made of, and the paths of lookups."""
    made: dict[Any, frozenset[int]] = dict(zip(jaxpr.invars, given, strict=True))
    found: list[Path] = []

    def of(var: Any) -> frozenset[int]:
        return frozenset() if isinstance(var, Literal) else made.get(var, frozenset())

    for place, equation in enumerate(jaxpr.eqns):
        sources = [of(var) for var in equation.invars]
        inner = _inner(equation)
        if inner is not None:
            results, deeper = _walk(inner.jaxpr, sources, shape, (*path, place))
            found += deeper
        else:
            results = [frozenset().union(*sources)] * len(equation.outvars)
            if equation.primitive.name == "gather" and sources[:2] == [frozenset(), frozenset({0})]:
                result = equation.outvars[0].aval
                is_vectors = result.shape[:-1] == shape and jax.numpy.issubdtype(result.dtype, jax.numpy.floating)
                found += [(*path, place)] if is_vectors else []
        made.update(zip(equation.outvars, results, strict=True))
    return [of(var) for var in jaxpr.outvars], found


def _evaluate(closed: ClosedJaxpr, inputs: Sequence[Any], path: Path, exchange: Callable[[Any], Any]) -> list[Any]:
    """The results, with what `exchange` makes of what the operation of that path gives; if that is None, its own."""
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Literal) else values[var]

    for place, equation in enumerate(jaxpr.eqns):
        given = [read(var) for var in equation.invars]
        if place == path[0] and len(path) > 1:
            inner = _inner(equation)
            assert inner is not None
            results = _evaluate(inner, given, path[1:], exchange)
        else:
            results = [*_bind(equation, given)]
            if place == path[0]:
                other = exchange(results[0])
                results = results if other is None else [other]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _bind(equation: Any, given: Sequence[Any]) -> Iterator[Any]:
    found = equation.primitive.get_bind_params(equation.params)
    functions, parameters = found if isinstance(found, tuple) else ((), found)  # by the version of JAX
    results = equation.primitive.bind(*functions, *given, **parameters)
    yield from results if equation.primitive.multiple_results else [results]


def _inner(equation: Any) -> ClosedJaxpr | None:
    """The operations of a compiled function."""
    inner = equation.params.get("jaxpr")
    return inner if equation.primitive.name in ("jit", "pjit") and isinstance(inner, ClosedJaxpr) else None
