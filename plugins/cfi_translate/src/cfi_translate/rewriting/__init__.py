"""What exporters write in several operators, joined again: each rewriting is a rule in a file of its own.

A model is rewritten in the same way whichever framework it goes to; readers only emit. A rule looks at one operation
and puts another one in the place of the group that it belongs to. It leaves alone what is used elsewhere too, what the
model returns, and what a module of the original computes (`Operation.ends_module`), as that would be a layer lost.

To add a rule: a function of an operation and the editor in a file here, an entry in one of the tuples below, and a test
that it computes the same, and does not apply where it would not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cfi_translate.program import Operation, Program
from cfi_translate.rewriting.activation import join_activation
from cfi_translate.rewriting.batch_normalization import scale_to_batch_normalization
from cfi_translate.rewriting.bias import bias_into_convolution, bias_into_product
from cfi_translate.rewriting.editor import ProgramEditor
from cfi_translate.rewriting.flatten import reshape_to_flatten
from cfi_translate.rewriting.gemm import product_to_gemm
from cfi_translate.rewriting.layer_normalization import join_layer_normalization
from cfi_translate.rewriting.padding import padding_into_window
from cfi_translate.rewriting.pooling import mean_to_pooling

Rule = Callable[[Operation, ProgramEditor], None]

IN_ANY_LAYOUT: tuple[Rule, ...] = (join_activation, join_layer_normalization, product_to_gemm, bias_into_product)
"""Rules that do not ask which axis has the channels."""

RULES: tuple[Rule, ...] = (
    *IN_ANY_LAYOUT,
    bias_into_convolution,
    padding_into_window,
    mean_to_pooling,
    scale_to_batch_normalization,
    reshape_to_flatten,
)


def rewrite(program: Program, rules: Sequence[Rule] = RULES) -> Program:
    """The program after each rule has been tried on each operation, from the last to the first."""
    editor = ProgramEditor(program)
    for rule in rules:
        for operation in reversed(editor.operations):
            if editor.has(operation):
                rule(operation, editor)
    return replace(program, operations=editor.operations)
