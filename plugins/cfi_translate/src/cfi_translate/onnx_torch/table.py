"""The table of the functions that convert the operators of ONNX into torch.

`op` is the operation and `to` the torch graph (`TorchBuilder`), which takes values and nodes alike as arguments. The
operands are the operator's inputs as values; what a function gives are nodes.
"""

from __future__ import annotations

from cfi_translate.grammar import Operators
from cfi_translate.program import describe
from cfi_translate.translators import ONNX_TORCH

operator = Operators(ONNX_TORCH, describe)
