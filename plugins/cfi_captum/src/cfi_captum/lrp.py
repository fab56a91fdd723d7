"""Rules of layer-wise relevance propagation for modules that captum has none for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS
from captum.attr._utils.lrp_rules import EpsilonRule, IdentityRule, PropagationRule
from torch import Tensor, nn

from cfi_captum.graph import Graph
from cfi_core.errors import MethodError


class LinearRule(EpsilonRule):
    """The epsilon rule (Bach et al. 2015, equation 58) of any linear module, one that only moves values included.

    Captum's own wants every argument to have a gradient; here constants, such as the shape of a reshape
    or the weight of a matrix product, take no part.
    """

    def forward_hook(self, module: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
        """Puts captum's hooks on the differentiable inputs and on the output."""
        if not outputs.requires_grad:
            return outputs  # a constant, such as what is made of a mask: no relevance comes here
        values = inputs if isinstance(inputs, tuple) else (inputs,)
        differentiable = tuple(value for value in values if isinstance(value, Tensor) and value.requires_grad)
        if any(outputs is value for value in differentiable):
            # An identity returns its input itself, where the hooks of input and output would meet.
            outputs = outputs.clone()
        result: Tensor = super().forward_hook(module, differentiable, outputs)
        return result


def attach_rules(model: nn.Module, graph: Graph, method_key: str) -> None:
    """Gives every module that captum has no rule for one of ours; a rule of the user's is kept.

    Raises:
        MethodError: A module takes part for which there is no rule.
    """
    unknown = dict(without_rule(model, graph))
    for name, module in unknown.items():
        raise MethodError(explain_unruled(method_key, name, module))
    for name, module in model.named_modules():
        unruled = not _is_ruled(module) or (_makes_constants(graph, name) and not hasattr(module, "rule"))
        if unruled and next(module.children(), None) is None:
            module.rule = LinearRule()


def _makes_constants(graph: Graph, name: str) -> bool:
    """Whether a module is called, and nothing that it gives depends on what is explained."""
    return name in graph.spans and not any(ends for _, ends in graph.spans[name])


def without_rule(model: nn.Module, graph: Graph) -> Iterator[tuple[str, nn.Module]]:
    """Modules for which neither captum nor the user nor this plugin has a rule."""
    curved = {owner.name for node, owner in graph.owners.items() if not graph.is_affine(node)}
    for name, module in model.named_modules():
        # Modules that never run are linear in this sense, too; captum wants a rule of them as well.
        is_linear_here = name not in curved or getattr(module, "cfi_layout_only", False)
        if not is_linear_here and next(module.children(), None) is None and not _is_ruled(module):
            yield name, module


def explain_unruled(method_key: str, name: str, module: nn.Module) -> str:
    """What is wrong with such a module, and what to do."""
    return (
        f"'{method_key}' has no rule for module '{name}' of type {type(module).__name__}: it is not linear, nor a "
        "max pooling, nn.ReLU or nn.Tanh. Set its `rule` attribute to a captum PropagationRule, or use 'deep_lift'."
    )


def _is_ruled(module: nn.Module) -> bool:
    kinds = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS)
    return hasattr(module, "rule") or type(module) in kinds


class Absorption:
    """How much relevance the modules' rules keep back by design, while LRP runs.

    A rule hands the share `(z - c) / (z + e)` of the relevance of each output `z` of a module on to its inputs, where
    `c` is what the module gives without inputs (its bias) and `e` the rule's stabiliser: the rest is absorbed.
    """

    def __init__(self, samples: int) -> None:
        """For a batch of that many samples."""
        self._samples = samples
        self._absorbed: dict[nn.Module, Any] = {}  # in the order of the forward pass; None: not known

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Sees every module without children, before captum's hooks (those put on first are called first) change it."""
        leaves = [module for module in model.modules() if next(module.children(), None) is None]
        handles = [module.register_forward_hook(self._see, with_kwargs=True) for module in leaves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def of(self, layers: Sequence[nn.Module]) -> tuple[Any, ...] | None:
        """The share of the whole that was absorbed behind each layer, of each sample; without layers, altogether.

        None where a rule is of a kind that is not known.
        """
        order = list(self._absorbed)
        starts = [order.index(layer) + 1 for layer in layers] if layers else [0]
        behind = [[self._absorbed[module] for module in order[start:]] for start in starts]
        nothing = np.zeros(self._samples)
        if any(share is None for shares in behind for share in shares):
            return None
        return tuple(sum((share for share in shares if share is not None), nothing) for shares in behind)

    def _see(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Called in both of captum's passes; only the second, whose weights the rules have changed, goes back."""
        rule = getattr(module, "rule", None)
        self._absorbed[module] = np.zeros(self._samples) if _is_known(rule) else None
        if rule is None or isinstance(rule, IdentityRule) or not (_is_known(rule) and output.requires_grad):
            return
        with torch.no_grad():
            bias = module.forward(*(_without_value(arg) for arg in args), **kwargs).double()
        outputs = output.detach().double()
        kept = torch.where(outputs < 0, -1.0, 1.0) * rule.STABILITY_FACTOR
        share = ((bias + kept) / (outputs + kept)).to(output.dtype)  # kept until the way back, so in as few bytes

        def absorb(relevance: Tensor) -> None:
            self._absorbed[module] = (relevance * share).reshape(self._samples, -1).sum(1).cpu().numpy()

        output.register_hook(absorb)


def _is_known(rule: Any) -> bool:
    """Whether relevance is handed on as the class of all rules does it."""
    hooks = ("_create_backward_hook_input", "_create_backward_hook_output")
    same = all(getattr(type(rule), name, None) is getattr(PropagationRule, name) for name in hooks)
    return rule is None or type(rule) is IdentityRule or same


def _without_value(argument: Any) -> Any:
    differentiable = isinstance(argument, Tensor) and argument.requires_grad
    return torch.zeros_like(argument) if differentiable else argument
