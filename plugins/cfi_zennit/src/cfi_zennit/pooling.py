"""A rule for max pooling."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from zennit.rules import Norm


class SmoothMaxPool(Norm):
    """Shares relevance among all values of a pooling window, by their size, as if the window were averaged.

    The gradient, which max pooling has for a rule otherwise, gives all of it to the largest. For
    `init_args={"layer_map": [(torch.nn.MaxPool2d, SmoothMaxPool())]}`, of one to three dimensions.

    Args:
        stabilizer: As of Zennit's rules: a number that is added to denominators, or a function.
    """

    def backward(self, module: nn.Module, grad_input: Any, grad_output: Any) -> Any:
        """Zennit's `Norm` of the average pooling with the same windows."""
        averaging = _Average(module)
        averaging.training = module.training
        return super().backward(averaging, grad_input, grad_output)


class _Average(nn.Module):
    """Averages over the windows of a max pooling."""

    def __init__(self, pooling: Any) -> None:
        super().__init__()
        self._settings = (pooling.kernel_size, pooling.stride, pooling.padding, pooling.ceil_mode)
        if pooling.dilation not in (1, (1,), (1, 1), (1, 1, 1)):
            raise ValueError("dilated max pooling has no average of the same windows")

    def forward(self, values: Tensor) -> Tensor:
        """The averages; values beyond the edge count as zero."""
        functions: dict[int, Any] = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}
        pooled: Tensor = functions[values.dim()](values, *self._settings)
        return pooled
