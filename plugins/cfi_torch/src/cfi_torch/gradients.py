"""Where a model loses the gradient: at a quantised module, at what runs without recording, outside of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cfi_core.framework import flatten
from cfi_torch.watch import LayerWatch


def missing_gradient(model: nn.Module, inputs: Sequence[Tensor], layers: Sequence[str]) -> str:
    """Why none leads from the outputs to the inputs (or to the outputs of these layers); empty if one does.

    Args:
        model: A twin.
        inputs: Those of a forward pass.
        layers: Names of modules.
    """
    opened: dict[str, Tensor] = {}
    lost: list[str] = []

    def open_layer(name: str, output: Tensor) -> Tensor | None:
        if not output.is_floating_point():
            return None
        opened[name] = output.clone() if output.requires_grad else output.detach().clone().requires_grad_()
        return opened[name].clone()

    leaves = [tensor.detach().clone() for tensor in inputs]
    aims = [leaf.requires_grad_() for leaf in leaves if leaf.is_floating_point()]
    given = [leaf * 1 if leaf.requires_grad else leaf for leaf in leaves]
    plain = [one for one in model.named_modules() if one[0] and not isinstance(one[1], torch.jit.ScriptModule)]
    # Of modules inside each other the inner one is told first.
    handles = [module.register_forward_hook(_note_loss(name, lost)) for name, module in plain]
    try:
        with torch.inference_mode(False), torch.enable_grad(), LayerWatch(model, layers, open_layer):
            outputs = [one for one in flatten(model(*given)) if isinstance(one, Tensor)]
    finally:
        for handle in handles:
            handle.remove()
    if any(_leads(output, aim) for aim in (list(opened.values()) if layers else aims) for output in outputs):
        return ""
    return f"it is lost at {lost[0]}" if lost else "the model's own code runs without recording it"


def _note_loss(name: str, lost: list[str]) -> Any:
    def note(module: nn.Module, given: Any, output: Any) -> None:
        first = given[0] if given else None
        if not isinstance(first, Tensor) or not isinstance(output, Tensor) or not first.requires_grad:
            return
        if not _leads(output, first):
            lost.append(f"{name!r} ({type(module).__module__}.{type(module).__qualname__})")

    return note


def _leads(output: Tensor, aim: Tensor) -> bool:
    if not output.requires_grad:
        return False
    return torch.autograd.grad(output.sum(), aim, allow_unused=True, retain_graph=True)[0] is not None
