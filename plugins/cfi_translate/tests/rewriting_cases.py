"""Small graphs for the rewritings, written as ONNX text, and what rules make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from cfi_translate.program import MODULE_END, Operation
from cfi_translate.reading import read
from cfi_translate.rewriting import Rule, rewrite
from cfi_translate.writing import needs_values, write


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def graph(
    text: str,
    x: np.ndarray,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    modules: Sequence[str] = (),
    opset: int = 24,
) -> ModelProto:
    """A model of these nodes, each of which has the name of its result.

    Args:
        text: A node a line, such as `y = Relu (x)`.
        x: Example of the input; its first axis is the samples.
        weights: Constants by name.
        outputs: Results that the model returns.
        modules: Results that a module of the original ends in.
        opset: Version of the operators.
    """
    ends = [helper.make_empty_tensor_value_info(name) for name in outputs]
    found = parser.parse_graph(f"g (float x) => (float y) {{ {text} }}")
    for node in found.node:
        node.name = node.output[0]
        if node.name in modules:
            node.metadata_props.add(key=MODULE_END, value=node.name)
    taken = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), ["n", *x.shape[1:]])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    made = helper.make_graph(found.node, "g", [taken], ends, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def rewritten(model: ModelProto, x: np.ndarray, *rules: Rule) -> list[Operation]:
    """The operations after the rules, which compute what the model does, for several numbers of samples."""
    program = rewrite(read(model, (x,), "test", needs=needs_values), rules)
    written = write(program)
    for samples in (1, len(x), len(x) + 1):
        given = {"x": np.resize(x, (samples, *x.shape[1:]))}
        both = (ReferenceEvaluator(one).run(None, given) for one in (model, written))
        for expected, found in zip(*both, strict=True):
            assert expected.dtype == found.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return list(program.operations)


def kinds(operations: Sequence[Operation]) -> list[str]:
    return [operation.kind for operation in operations]
