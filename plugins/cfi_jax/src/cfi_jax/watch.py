"""Follows the calls of a model's layers, and may replace what they give."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from cfi_core.framework import LayerCalls, flatten, map_structure
from cfi_core.turns import Lock

_HIDDEN = "runs inside a JAX transformation of the model's own (jit, remat, scan, grad), which hides its values"
_classes = Lock()


class Watch(LayerCalls):
    """Calls a function on the one array that each layer gives; what it returns, if anything, goes on instead.

    Layers that run inside a JAX transformation of the model's own (jit, remat, scan) are passed by: their values belong
    to that transformation, and must neither leave it nor be exchanged from outside. Of layers inside `vmap` the whole
    batch is seen.

    Its `kinds` are those of the layers that were called, in the order in which their calls began.
    """

    def __init__(self, function: Callable[[str, jax.Array], Any | None]) -> None:
        super().__init__(jax.Array, {}, function)
        self._open: set[str] = set()
        self._trace: Any = None

    def begin(self) -> None:
        """Layers are watched in the transformation in which this is called, and in no inner one."""
        self._trace = _current_trace()

    def around(self, name: str, kind: str, call: Callable[[], Any]) -> Any:
        """Makes the call of a layer, and gives what goes on from there."""
        if name in self._open:  # super().__call__, which is part of the same call
            return call()
        if _current_trace() != self._trace:
            self.hidden.setdefault(name, _HIDDEN)
            output = call()
            leaves = flatten(output)
            if len(leaves) != 1 or not _is_in_batch(leaves[0]):
                return output
            seen = self._see_batch(name, kind, leaves[0])
            return map_structure(lambda _: seen, output)
        self.kinds.setdefault(name, kind)
        self._open.add(name)
        try:
            output = call()
        finally:
            self._open.discard(name)
        return self.see(name, output)

    def _see_batch(self, name: str, kind: str, sample: Any) -> Any:
        """What goes on from a layer inside `vmap`, whose rule for this step is given the samples of all."""

        def see(_size: int, _batched: Any, batch: Any) -> tuple[Any, bool]:
            if _is_in_batch(batch):  # one vmap inside another
                return self._see_batch(name, kind, batch), True
            if _current_trace() != self._trace:
                return batch, True
            self.hidden.pop(name, None)
            self.kinds.setdefault(name, kind)
            return self.see(name, batch), True

        tap = jax.custom_batching.custom_vmap(lambda value: value)
        tap.def_vmap(see)
        return tap(sample)


@contextmanager
def linen_calls(watch: Watch) -> Iterator[None]:
    """Inside, `watch` sees every Linen module but the outermost, under the path of its parameters."""
    watch.begin()
    linen = sys.modules.get("flax.linen")
    if linen is None:
        yield
        return

    def intercept(next_function: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        path = context.module.path
        if context.method_name != "__call__" or not path:
            return next_function(*arguments, **keywords)
        kind = type(context.module).__name__
        return watch.around(".".join(path), kind, lambda: next_function(*arguments, **keywords))

    with linen.intercept_methods(intercept):
        yield


@contextmanager
def module_calls(layers: Mapping[str, Any], watch: Watch) -> Iterator[None]:
    """Inside, `watch` sees the calls of these NNX or Equinox modules.

    Python looks `__call__` up in the class, so that is where it has to be caught; other instances are not concerned.
    """
    watch.begin()
    names = {id(module): name for name, module in layers.items()}
    with _classes:
        own: dict[type, Any] = {}
        try:
            for kind in {type(module) for module in layers.values()}:
                caught = _catch(kind.__call__, names, watch)
                own[kind] = vars(kind).get("__call__")
                kind.__call__ = caught
            yield
        finally:
            for kind, former in own.items():
                if former is None:
                    del kind.__call__
                else:
                    kind.__call__ = former


def _catch(call: Callable[..., Any], names: Mapping[int, str], watch: Watch) -> Callable[..., Any]:
    @wraps(call)
    def call_watched(module: Any, *arguments: Any, **keywords: Any) -> Any:
        name = names.get(id(module))
        if name is None:
            return call(module, *arguments, **keywords)
        return watch.around(name, type(module).__name__, lambda: call(module, *arguments, **keywords))

    return call_watched


def _is_in_batch(value: Any) -> bool:
    """Whether this is one sample inside `vmap`, which JAX shows by the class of what stands for it alone."""
    return isinstance(value, jax.core.Tracer) and type(value).__name__ == "BatchTracer"


def _current_trace() -> Any:
    return get_opaque_trace_state(convention="flax")
