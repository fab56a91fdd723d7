"""The table of the functions that convert the operators of ONNX into Keras.

`op` is the operation and `to` the model under construction (`KerasBuilder`). The operands are the operator's inputs as
values; what a function gives are `Tensor`s, whose operations get the name of the ONNX node.
"""

from __future__ import annotations

from cfi_translate.grammar import Operators
from cfi_translate.program import describe
from cfi_translate.translators import ONNX_KERAS

operator = Operators(ONNX_KERAS, describe)
