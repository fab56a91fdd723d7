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
    values = Values.of(function)

    def of_leaves(*leaves: Any) -> Any:
        given = iter(leaves)
        return values(map_structure(lambda _: next(given), outputs))

    own = original.adapter
    model = own.load(of_leaves)
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


def _permute(adapter: FrameworkAdapter, tensor: Any, axes: Permutation) -> Any:
    return tensor if axes is None else adapter.permute(tensor, axes)
