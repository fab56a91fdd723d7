"""Rules of layer-wise relevance propagation for modules that captum has none for."""

from __future__ import annotations

from typing import Any

from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn

from cfi_captum.graph import Graph, is_linear
from cfi_core.errors import MethodError


class LinearRule(EpsilonRule):
    """The epsilon rule (Bach et al. 2015, equation 58) of any linear module, one that only moves values included.

    Captum's own wants every argument to have a gradient; here constants, such as the shape of a reshape
    or the weight of a matrix product, take no part.
    """

    def forward_hook(self, module: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
        """Puts captum's hooks on the differentiable inputs and on the output."""
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
    curved = {owner.name for node, owner in graph.owners.items() if not is_linear(node)}
    for name, module in model.named_modules():
        if next(module.children(), None) is not None or hasattr(module, "rule"):
            continue
        if type(module) in SUPPORTED_LAYERS_WITH_RULES or type(module) in SUPPORTED_NON_LINEAR_LAYERS:
            continue
        # Modules that never run are linear in this sense, too; captum wants a rule of them as well.
        if name not in curved or getattr(module, "cfi_layout_only", False):
            module.rule = LinearRule()
            continue
        raise MethodError(
            f"'{method_key}' has no rule for module '{name}' of type {type(module).__name__}: it is not linear, nor a "
            "max pooling, nn.ReLU or nn.Tanh. Set its `rule` attribute to a captum PropagationRule, or use 'deep_lift'."
        )
