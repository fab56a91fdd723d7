"""A target function of a converted model's outputs, run in the framework that it was written for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cfi_core.boundary import build_bridge
from cfi_core.contract import BridgeRequest
from cfi_core.errors import TargetError, TranslationError
from cfi_core.framework import FrameworkAdapter, flatten, map_structure
from cfi_core.framework.axes import Permutation, permutation_at
from cfi_core.records import Original
from cfi_core.registry import Registry
from cfi_core.routes import all_routes
from cfi_core.targets import Values

_LINES, _STRAIGHT = 8, 1e-4
"""Lines through the outputs along which a function is looked at, and how far (relatively) rounding bends it."""


def bridge_function(
    registry: Registry,
    original: Original,
    framework: str,
    adapter: FrameworkAdapter,
    function: Callable[[Any], Any],
    outputs: Any,
) -> Callable[[Any], Any]:
    """The user's function of the outputs of the user's model, for tensors of another framework, with its gradients.

    Args:
        registry: What is installed.
        original: The user's model.
        framework: The framework of the tensors.
        adapter: Its adapter.
        function: Takes outputs as the user's model gives them.
        outputs: What the model gives, as arrays.

    Raises:
        TargetError: No bridge leads to that framework, or it cannot run the function.
    """
    bridges = [route.translators[0] for route in all_routes(registry, original.framework, framework) if route.bridge]
    if not bridges:
        raise TargetError(
            f"The target function takes {original.framework} tensors, and the method runs in {framework}: it needs a "
            f"bridge between the two. Install cfi-bridge, or pass an index or one of cfi.targets."
        )
    own = original.adapter
    model = _of_leaves(original, function, outputs)
    examples = tuple(own.tensor(np.array(leaf), original.model) for leaf in flatten(outputs))
    try:
        made = build_bridge(bridges[0], BridgeRequest(own, model, examples), registry.origin_of(bridges[0]).label)
    except TranslationError as error:
        raise TargetError(
            f"The target function cannot be run beside the converted model ({error}). It receives the outputs as your "
            f"model gives them; pass an index, one of cfi.targets, or translator='bridge'."
        ) from error

    def apply(structure: Any) -> Any:
        turned = [
            _permute(adapter, leaf, permutation_at(made.input_axes, i)) for i, leaf in enumerate(flatten(structure))
        ]
        return adapter.call(made.model, turned)

    return apply


def check_linear(original: Original, who: str, function: Callable[[Any], Any], outputs: Any) -> None:
    """Refuses a function that bends: a rectifier in it is none of those that a method's rules know.

    Args:
        original: The user's model.
        who: The method, which has rules of its own for the modules of a model.
        function: Takes outputs as the user's model gives them.
        outputs: What the model gives, as arrays.

    Raises:
        TargetError: Its values do not lie on a straight line where the outputs do.
    """
    own, model = original.adapter, _of_leaves(original, function, outputs)
    leaves, generator = [np.asarray(leaf) for leaf in flatten(outputs)], np.random.default_rng(0)
    for _ in range(_LINES):
        steps = [2 * np.abs(leaf).max() * generator.normal(size=leaf.shape) for leaf in leaves]
        pairs = list(zip(leaves, steps, strict=True))
        rows = [[(leaf + place * step).astype(leaf.dtype) for leaf, step in pairs] for place in (-1, 0, 1)]
        given = [[own.tensor(one, original.model) for one in row] for row in rows]
        before, at, behind = (np.asarray(own.outputs(model, tensors), np.float64) for tensors in given)
        if not np.abs(before - 2 * at + behind).max() <= _STRAIGHT * np.abs([before, at, behind]).max():
            raise TargetError(
                f"'{who}' has rules for the modules of a model, and your target function, which runs in "
                f"{original.framework}, is not linear in the outputs: no rule attaches to what bends there. Let it be "
                f"linear, name an output by its index, or take a method of plain gradients, such as saliency."
            )


def _of_leaves(original: Original, function: Callable[[Any], Any], outputs: Any) -> Any:
    """The function as a model that takes each array of the outputs as an input."""
    values = Values.of(function)

    def of_leaves(*leaves: Any) -> Any:
        given = iter(leaves)
        return values(map_structure(lambda _: next(given), outputs))

    return original.adapter.load(of_leaves)


def _permute(adapter: FrameworkAdapter, tensor: Any, axes: Permutation) -> Any:
    return tensor if axes is None else adapter.permute(tensor, axes)
