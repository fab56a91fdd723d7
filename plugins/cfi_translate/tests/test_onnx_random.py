"""Random small graphs through our readers of ONNX models: right or refused, with ONNX Runtime as the judge.

The number of samples is free: a model is converted on two samples and also judged on three.

    CFI_RANDOM_GRAPHS=1000 pytest plugins/cfi_translate/tests/test_onnx_random.py

goes through that many graphs, other ones each time, instead of the few of a normal run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_cases
import pytest
from onnx_random_cases import KINDS, OPSETS, SAMPLES, Shape, Step, grown

from cfi_core.specs import resolve

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

READERS = {"onnx-torch": 60, "onnx-keras": 40}  # and how many graphs a normal run takes
EXPECTED_REFUSALS = ("begins in the padding behind", "does not normalise one value by itself")
# As exporters name them, and as Python and torch's own code name other things.
NAMES = (
    ("x", "y"),
    ("input", "input.1"),
    ("0", "1"),
    ("self", "torch"),
    ("images:0", "images/0"),
    ("class", "input_class"),
)
CHANNELS, SIZES = st.integers(1, 6), st.integers(3, 8)
INPUTS = st.one_of(
    *(st.tuples(CHANNELS, *[SIZES] * count) for count in (2, 2, 2, 1, 0)), st.tuples(CHANNELS, *[st.integers(2, 4)] * 3)
)
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2**32 - 1)), min_size=2, max_size=9)


def judged(reader: str, model: onnx.ModelProto) -> onnx_cases.Verdict:
    """Converts the model on some samples, and compares on these and on others."""
    made_by = onnx_cases.READERS[reader]
    random = np.random.default_rng(0)
    shapes = [[size.dim_value for size in one.type.tensor_type.shape.dim][1:] for one in model.graph.input]
    cases = []
    for samples in (SAMPLES, SAMPLES + 1):
        inputs = tuple(random.normal(size=(samples, *shape)).astype(np.float32) for shape in shapes)
        expected = onnx_cases.by_onnxruntime(model, inputs)
        assume(expected is not None)  # now and then ONNX Runtime does not run a graph, which then has no judge
        assert expected is not None
        cases.append(onnx_cases.Case(f"{samples} samples", model, inputs, expected))
    return onnx_cases.judge(cases[0], resolve(made_by.implementation), made_by.run, cases[1:])


@pytest.mark.parametrize("reader", READERS)
def test_a_random_graph_comes_out_right(reader: str) -> None:
    many = os.environ.get("CFI_RANDOM_GRAPHS", "")
    counts: Counter[str] = Counter()

    @settings(
        max_examples=int(many or READERS[reader]),
        deadline=None,
        derandomize=not many,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        names=st.sampled_from(NAMES),
        shapes=st.lists(INPUTS, min_size=1, max_size=2),
        steps=STEPS,
        opset=st.sampled_from(OPSETS),
        extra=st.integers(0, 3),
    )
    def check(
        names: tuple[str, str],
        shapes: Sequence[Shape],
        steps: Sequence[tuple[Callable[[Step], None], int]],
        opset: int,
        extra: int,
    ) -> None:
        graph = grown(dict(zip(names, shapes, strict=False)), steps)
        assume(graph.nodes)
        model = graph.model(opset, extra)
        note(onnx.printer.to_text(model))
        verdict = judged(reader, model)
        counts[verdict.kind] += 1
        refusal_is_expected = any(one in verdict.reason for one in EXPECTED_REFUSALS)
        assert verdict.kind == "right" or (verdict.kind == "refused" and refusal_is_expected), verdict.reason

    check()
    assert counts["right"] >= 0.95 * counts.total(), counts
