"""A layer that is explained is called once: of one that is called several times libraries keep the last call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from cfi_core.errors import LayerError, MethodError

_ABSENT = (
    "The model does not call the layer in this forward pass, so there is nothing to explain. Choose a layer that takes "
    "part."
)


def check_calls(times: int) -> None:
    """Refuses a layer that one pass of the model calls so many times.

    Raises:
        LayerError: Unless it is once.
    """
    if times == 0:
        raise LayerError(_ABSENT)
    if times > 1:
        raise LayerError(
            f"The layer is called {times} times in one pass of the model, so it has no one output. Choose a layer that "
            "is called once."
        )


@contextmanager
def one_call_of_each(model: Callable[..., Any], layers: Sequence[Any]) -> Iterator[None]:
    """Counts the calls of layers while the model runs, and refuses one that a pass calls several times, or never.

    Raises:
        LayerError: On leaving; it stands for the error of a method that failed for want of the layer.
    """
    watched = [layer for layer in layers if isinstance(layer, nn.Module) and layer is not model]
    if not isinstance(model, nn.Module) or not watched:
        yield
        return
    calls, most, passes = dict.fromkeys(watched, 0), dict.fromkeys(watched, 0), 0

    def begin(module: nn.Module, args: Any) -> None:
        nonlocal passes
        passes += 1
        calls.update(dict.fromkeys(watched, 0))

    def count(module: nn.Module, args: Any) -> None:
        calls[module] += 1
        most[module] = max(most[module], calls[module])

    handles = [model.register_forward_pre_hook(begin)]
    handles += [layer.register_forward_pre_hook(count) for layer in watched]
    try:
        yield
    except MethodError as error:
        if passes and not all(most.values()):
            raise LayerError(_ABSENT) from error
        raise
    finally:
        for handle in handles:
            handle.remove()
    for times in most.values() if passes else ():
        check_calls(times)
