"""A JAX model that is run many times, opened at some of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from cfi_core.errors import NoGradientError
from cfi_core.framework import Pullback, Runner, flatten
from cfi_jax.programs import Program, Sightings, observe, passed_through, program
from cfi_jax.watch import Watch

_Results = tuple[jax.Array, ...]
_SHAPES_KEPT = 8


class JaxRunner(Runner):
    """Each stage and its derivative are compiled, once for every number of samples.

    Of these, the ones used last are kept. A model whose Python code asks for values cannot be compiled, and runs
    operation by operation.
    """

    def __init__(self, model: Any, inputs: Sequence[Any], layers: Sequence[str]) -> None:
        seen = observe(model, inputs)
        self.layers = _in_order(seen, layers)
        self._wide = bool(jax.config.jax_enable_x64)
        make = _compile if seen.traceable else _leave_uncompiled
        run = partial(_results, model, self.layers, len(inputs))
        # By stage, so that a model opened at many layers does not push its own stages out.
        self._stages = [
            lru_cache(_SHAPES_KEPT)(partial(make, partial(run, stage))) for stage in range(len(self.layers) + 1)
        ]

    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        """The results of a stage."""
        with jax.enable_x64(self._wide):
            return _ready(self._stage(stage, values).run(tuple(values)))

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        """The results of a stage, and the function that carries cotangents back.

        Raises:
            NoGradientError: JAX cannot differentiate the model. Some operations only raise it in the function returned.
        """
        with jax.enable_x64(self._wide), tell_missing_gradients():
            made = self._stage(stage, values)
            results, back = _ready(made.linearize(tuple(values)))
        floating = [is_floating(value) for value in values]
        shapes = tuple(jax.ShapeDtypeStruct(result.shape, result.dtype) for result in results if is_floating(result))

        def pullback(cotangents: Sequence[Any | None], wanted: Sequence[bool]) -> tuple[Any | None, ...]:
            marks = tuple(wish for wish, able in zip(wanted, floating, strict=True) if able)
            given = tuple(c for c, result in zip(cotangents, results, strict=True) if is_floating(result))
            if not any(marks) or all(cotangent is None for cotangent in given):
                return (None,) * len(floating)
            with jax.enable_x64(self._wide), tell_missing_gradients():  # some operations are found out only here
                gradients = iter(_ready(made.pull(back, given, shapes, marks)))
            return tuple(
                next(gradients) if wish and able else None for wish, able in zip(wanted, floating, strict=True)
            )

        return results, pullback

    def _stage(self, stage: int, values: Sequence[Any]) -> _Passes:
        return self._stages[stage](*(jax.ShapeDtypeStruct(value.shape, value.dtype) for value in values))


def _results(model: Any, layers: Sequence[str], count: int, stage: int, *values: Any) -> _Results:
    """What a stage of a model with that many inputs gives."""
    inputs, given = values[:count], dict(zip(layers, values[count:], strict=False))
    if stage == len(layers):
        watch = Watch(lambda name, _: given.get(name))
        outputs = program(model)(inputs, watch if given else None)
        for name in given:
            watch.check(name)
        return arrays(outputs)

    def reach(whole: Program, inputs: Sequence[Any]) -> tuple[Any, ...]:
        reached: list[jax.Array] = []

        def replace(name: str, array: jax.Array) -> Any | None:
            if name == layers[stage]:
                reached.append(array)
                raise _LayerReached
            return given.get(name)

        watch = Watch(replace)
        with suppress(_LayerReached):
            whole(inputs, watch)
        watch.check(layers[stage])
        return tuple(reached)

    return tuple(passed_through(model, inputs, reach))


@dataclass(frozen=True, eq=False)
class _Passes:
    """A stage for arrays of certain shapes.

    Attributes:
        run: From the values to the results.
        linearize: The same, and the vector-Jacobian product as a pytree, which may leave a compiled function.
        pull: From that, cotangents (or None), the shapes of these and marks for the gradients wanted to the gradients.
    """

    run: Callable[[tuple[Any, ...]], _Results]
    linearize: Callable[[tuple[Any, ...]], tuple[_Results, Any]]
    pull: Callable[..., _Results]


def _leave_uncompiled(function: Callable[..., _Results], *_shapes: Any) -> _Passes:
    return _Passes(lambda values: function(*values), partial(differentiate, function), _pull)


def _compile(function: Callable[..., _Results], *shapes: Any) -> _Passes:
    traced = jax.make_jaxpr(function)(*shapes)
    held = traced.consts  # handed over in every call: XLA would otherwise copy the weights into its code

    def run(held: Sequence[Any], values: tuple[Any, ...]) -> _Results:
        return tuple(jax.core.eval_jaxpr(traced.jaxpr, held, *values))

    def linearize(held: Sequence[Any], values: tuple[Any, ...]) -> tuple[_Results, Any]:
        return differentiate(lambda *values: run(held, values), values)

    # JAX keeps what it has compiled for as long as the function lives, so the pullback is a function of its own.
    pull = jax.jit(partial(_pull), static_argnums=(2, 3))
    return _Passes(partial(jax.jit(run), held), partial(jax.jit(linearize), held), pull)


def arrays(outputs: Any) -> _Results:
    """All that a model returns."""
    return tuple(jnp.asarray(output) for output in flatten(outputs))


def differentiate(function: Callable[..., _Results], values: Sequence[Any]) -> tuple[_Results, Any]:
    """The results, and the function from cotangents of those of floating point to gradients at such values."""

    def of_floating(*floating: Any) -> tuple[_Results, _Results]:
        given = iter(floating)
        results = function(*(next(given) if is_floating(value) else value for value in values))
        return tuple(result for result in results if is_floating(result)), results

    _, back, results = jax.vjp(of_floating, *(value for value in values if is_floating(value)), has_aux=True)
    return results, back


def _pull(back: Any, cotangents: tuple[Any | None, ...], shapes: tuple[Any, ...], wanted: tuple[bool, ...]) -> _Results:
    full = tuple(
        jnp.zeros(shape.shape, shape.dtype) if cotangent is None else cotangent.astype(shape.dtype)
        for cotangent, shape in zip(cotangents, shapes, strict=True)
    )
    return tuple(gradient for gradient, wish in zip(back(full), wanted, strict=True) if wish)


def _ready(values: Any) -> Any:
    """Waits, because the memory of the inputs may belong to another framework, whose user goes on writing to it."""
    return jax.block_until_ready(values)


class _LayerReached(BaseException):
    """Ends a forward pass at a layer; not an `Exception`, so that no code of the model's takes it for one."""


@contextmanager
def tell_missing_gradients() -> Iterator[None]:
    """Tells operations without a derivative from other errors.

    Raises:
        NoGradientError: JAX has no reverse mode for an operation of the model.
    """
    try:
        yield
    except (NotImplementedError, ValueError, TypeError) as error:
        text = str(error)
        if any(sign in text for sign in ("everse-mode differentiation", "ifferentiation rule", "do not support JVP")):
            raise NoGradientError(
                f"JAX cannot differentiate the model: {text.splitlines()[0]} Give that operation a derivative "
                f"(jax.custom_vjp), or use a method that only runs the model, such as feature_ablation."
            ) from error
        raise


def is_floating(value: Any) -> bool:
    """Whether gradients exist for this array."""
    return bool(jnp.issubdtype(value.dtype, jnp.floating))


def _in_order(seen: Sightings, layers: Sequence[str]) -> tuple[str, ...]:
    """The layers in the order of the model.

    Raises:
        LayerError: One of them cannot be opened.
    """
    for name in layers:
        seen.watch.check(name)
    return tuple(name for name in seen.arrays if name in layers)
