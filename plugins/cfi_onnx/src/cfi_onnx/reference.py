"""ONNX's reference evaluator, made to end: in a thread that can be stopped, with a look at each node before it runs."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cfi_core.errors import InputError
from cfi_onnx.limits import MEMORY
from cfi_onnx.structure import element_bits
from cfi_onnx.watch import resident, watch_run

_MOST_KNOWN = 64
_PER_LETTER = 64
"""Bytes, measured at 27 alone and at 46 beside other work: texts of four bytes a letter are copied, joined, made
objects and texts again, and what was freed may be given back late."""
_UNENDING = frozenset({"RegexFullMatch"})
"""Python's regular expressions can take forever, and let no other thread run meanwhile."""

_budget: ContextVar[tuple[int, int] | None] = ContextVar("budget", default=None)
"""Bytes that a pass may allocate, and that the process held before."""


class BoundedEvaluator(ReferenceEvaluator):
    """Refuses a node whose result would be too large, in subgraphs and functions too."""

    def _init(self) -> None:
        for node in self.nodes_:
            if node.op_type in _UNENDING:
                raise InputError(
                    f"ONNX's reference evaluator computes operator {node.op_type} by code that nothing can end. "
                    f"Install ONNX Runtime: pip install 'cfi-onnx[onnxruntime]'."
                )
        super()._init()
        for node in self.rt_nodes_:
            self._guard(node)

    def _guard(self, node: Any) -> None:
        run, proto, opsets = node.run, node.onnx_node, dict(self.opsets_)

        def run_guarded(*inputs: Any, **options: Any) -> Any:
            if proto.op_type == "Loop" and len(inputs) > 1 and inputs[1] is None:
                # Left out it is true; the evaluator takes it for false, and would leave the loop out.
                inputs = (inputs[0], np.array(True), *inputs[2:])
            budget = _budget.get()
            if budget is not None:
                _check(proto, opsets, inputs, *budget)
            return run(*inputs, **options)

        node.run = run_guarded


def _check(node: NodeProto, opsets: dict[str, int], inputs: Sequence[Any], allowed: int, before: int) -> None:
    taken = max(resident() - before, 0)
    size = _result_bytes(node, opsets, inputs)
    if taken + size > allowed:
        raise MEMORY.error(
            f"Operator {node.op_type} (node {(node.name or node.output[0])[:80]!r}) makes {size:,} bytes, when "
            f"{taken:,} of {allowed:,} are taken",
            taken + size,
        )


def _result_bytes(node: NodeProto, opsets: dict[str, int], inputs: Sequence[Any]) -> int:
    """Bytes of what a node will make, 0 if that cannot be told."""
    arrays = {
        name: np.asarray(value)
        for name, value in zip(node.input, inputs, strict=False)
        if name and isinstance(value, np.ndarray | np.generic)
    }
    texts = [array for array in arrays.values() if array.dtype.kind in "OUST"]
    if texts:
        return _PER_LETTER * sum(map(_letters, texts)) if node.op_type == "StringConcat" else 0
    try:
        types = {
            name: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in arrays.items()
        }
        data = {name: numpy_helper.from_array(array) for name, array in arrays.items() if array.size <= _MOST_KNOWN}
        schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
        sets = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        found = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=sets, ir_version=10)
    except Exception:  # noqa: BLE001 - a call of a function, or inputs that do not fit: the node itself will tell
        return 0
    return sum(_type_bytes(one) for one in found.values())


def _letters(texts: np.ndarray) -> int:
    return texts.nbytes // 4 if texts.dtype.kind == "U" else sum(len(str(text)) for text in texts.ravel())


def _type_bytes(kind: onnx.TypeProto) -> int:
    dims = kind.tensor_type.shape.dim
    return math.prod(max(one.dim_value, 1) for one in dims) * element_bits(kind.tensor_type.elem_type) // 8


class _Ended(BaseException):
    """Raised inside of a thread that shall end."""


def within(compute: Callable[[], Any], seconds: float, memory: int) -> Any:
    """The result of a computation in Python, which is given up when it passes a limit.

    It runs in a thread of its own: an exception can be raised there from outside, and never in the caller's code.

    Raises:
        InputError: It took too long, or too much memory.
    """
    result: list[Any] = []
    failed: list[BaseException] = []
    context = copy_context()
    context.run(_budget.set, (memory, resident()))

    def work() -> None:
        try:
            result.append(context.run(compute))
        except _Ended:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            failed.append(error)

    # No daemon: a process that ended while numpy still multiplies would wait for its locks forever.
    thread = threading.Thread(target=work, name="cfi-onnx-reference")

    def stop() -> None:
        if thread.ident is not None and thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Ended))

    with watch_run(stop, seconds, memory) as run:
        thread.start()
        try:
            # A single call of numpy's cannot be ended, so it is not waited for.
            while thread.is_alive() and run.error is None:
                thread.join(0.05)
        except BaseException:
            stop()
            raise
    if failed:
        raise failed[0]
    return result[0]
