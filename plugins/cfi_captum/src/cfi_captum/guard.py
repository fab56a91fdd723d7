"""The guard of captum's methods with rules: where they would attach to nothing, or wrongly."""

from __future__ import annotations

from typing import Any

import torch

from cfi_captum.checks import find_misses, find_modules
from cfi_captum.forward import Explained
from cfi_captum.table import METHODS, NOISE_TUNNEL, TUNNELLED
from cfi_core.contract import GuardRequest, Miss


def check(request: GuardRequest) -> tuple[Miss, ...]:
    """Runs the model once and looks at what it computed.

    Raises:
        MethodError: The model has no modules, fails, or nothing of it leads to what is explained.
    """
    key = request.method.key
    method = TUNNELLED.get(str(request.init_args.get("method"))) if key == NOISE_TUNNEL else METHODS[key]
    if method is None:
        return ()  # the run tells what the tunnel can wrap
    with torch.inference_mode(False), torch.enable_grad():
        # What a function of the user's computes behind the model is looked at in the run.
        output = request.target.output if request.target is not None else None
        model = Explained(request.model, output) if output is not None or _is_layer(request.model) else request.model
        find_modules(method, model)
        _, misses = find_misses(method, model, request.inputs, request.held, request.layer)
    return misses


def _is_layer(model: Any) -> bool:
    """Whether the whole model is one module with weights of its own, which a rule can attach to."""
    is_module = isinstance(model, torch.nn.Module) and next(model.children(), None) is None
    return is_module and next(model.parameters(), None) is not None
