"""Finds a softmax at the end of a model, and leaves it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from cfi_core.errors import InputError
from cfi_core.framework import flatten, map_structure


@dataclass(frozen=True, eq=False, repr=False)
class Logits:
    """A model without the softmax at its end: each output that a softmax makes is replaced by what goes into it."""

    model: Any


def ends_in_softmax(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether an output of the function is what `jax.nn.softmax` or `jax.nn.log_softmax` makes."""
    return _without_softmax(trace(function, arguments)[0]) is not None


def cut(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns for these arguments, without the softmax.

    Raises:
        InputError: There is none.
    """
    traced, structure = trace(function, arguments)
    shortened = _without_softmax(traced)
    if shortened is None:
        raise InputError(
            "The softmax at the model's end was to be left out, and is not there: it depends on the shape of the "
            "inputs, or is itself the layer that is explained. Choose a layer before it, or pass head='output'."
        )
    values = iter(jaxpr_as_fun(shortened)(*jax.tree.leaves(arguments)))
    return map_structure(lambda _: next(values), structure)


def trace(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[ClosedJaxpr, Any]:
    """The function as a list of operations, and the structure that it returns."""
    structure: list[Any] = []

    def flat(*arguments: Any) -> tuple[Any, ...]:
        outputs = function(*arguments)
        structure.append(map_structure(lambda _: 0, outputs))
        return tuple(flatten(outputs))

    return jax.make_jaxpr(flat)(*arguments), structure[-1]


def _without_softmax(closed: ClosedJaxpr, positions: frozenset[int] | None = None) -> ClosedJaxpr | None:
    """The operations with logits at those of the positions where a softmax made the result; None if there is none."""
    jaxpr = closed.jaxpr
    made = _producers(jaxpr)
    used = {id(var) for equation in jaxpr.eqns for var in equation.invars}
    results = list(jaxpr.outvars)
    inner: dict[int, set[int]] = {}
    for position, var in enumerate(jaxpr.outvars):
        if (positions is not None and position not in positions) or isinstance(var, Literal) or var not in made:
            continue
        logits = _softmax_input(made, var)
        if logits is not None:
            results[position] = logits
        elif _is_jit(made[var]) and id(var) not in used:
            inner.setdefault(jaxpr.eqns.index(made[var]), set()).add(made[var].outvars.index(var))
    equations = list(jaxpr.eqns)
    for index, places in inner.items():
        shortened = _without_softmax(equations[index].params["jaxpr"], frozenset(places))
        if shortened is not None:
            parameters = {**equations[index].params, "jaxpr": shortened}
            equations[index] = equations[index].replace(params=parameters)
    if all(a is b for a, b in zip([*results, *equations], [*jaxpr.outvars, *jaxpr.eqns], strict=True)):
        return None
    return ClosedJaxpr(jaxpr.replace(outvars=results, eqns=equations), closed.consts)


def _softmax_input(made: dict[Any, Any], var: Any) -> Any | None:
    """What goes into the softmax that makes `var`; None if no softmax makes it.

    The operations before it are compared, one by one, with those that JAX's own functions consist of.
    """
    for reference in _softmaxes(var.aval.shape, var.aval.dtype):
        logits: list[Any] = []
        if _same(reference, reference.outvars[0], made, var, logits):
            return logits[0]
    return None


def _same(reference: Any, theirs: Any, made: dict[Any, Any], ours: Any, logits: list[Any]) -> bool:
    if theirs is reference.invars[0]:
        logits.append(ours)
        return ours is logits[0] and not isinstance(ours, Literal) and _type(ours) == _type(theirs)
    if isinstance(theirs, Literal):
        return isinstance(ours, Literal) and bool(theirs.val == ours.val) and _type(ours) == _type(theirs)
    if isinstance(ours, Literal) or ours not in made:
        return False
    a, b = _producers(reference)[theirs], made[ours]
    return (
        a.primitive is b.primitive
        and a.outvars.index(theirs) == b.outvars.index(ours)
        and str(a.params) == str(b.params)
        and len(a.invars) == len(b.invars)
        and all(_same(reference, x, made, y, logits) for x, y in zip(a.invars, b.invars, strict=True))
    )


@lru_cache(maxsize=64)
def _softmaxes(shape: tuple[int, ...], dtype: Any) -> tuple[Any, ...]:
    """What JAX's functions consist of, along every axis."""
    return tuple(_operations(shape, dtype))


def _operations(shape: tuple[int, ...], dtype: Any) -> Iterator[Any]:
    if not jax.numpy.issubdtype(dtype, jax.numpy.floating):
        return
    for function in (jax.nn.softmax, jax.nn.log_softmax):
        for axis in range(len(shape)):
            yield jax.make_jaxpr(partial(function, axis=axis))(jax.ShapeDtypeStruct(shape, dtype)).jaxpr


def _producers(jaxpr: Any) -> dict[Any, Any]:
    return {var: equation for equation in jaxpr.eqns for var in equation.outvars}


def _is_jit(equation: Any) -> bool:
    return equation.primitive.name in ("jit", "pjit") and isinstance(equation.params.get("jaxpr"), ClosedJaxpr)


def _type(value: Any) -> tuple[Any, Any]:
    return value.aval.shape, value.aval.dtype
