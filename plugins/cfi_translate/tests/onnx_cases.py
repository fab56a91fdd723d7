"""The operator cases that ship in the `onnx` package, with ONNX Runtime as the judge of our readers of ONNX models.

    python plugins/cfi_translate/tests/onnx_cases.py onnx-torch [part of a case's name] [--certified]
        [--list wrong|failed|refused|right]

A reader may refuse a case. What it accepts must come out as in ONNX Runtime, in values, shapes and types.

With `--certified` each case takes the way of a user: `cfi_core.translate` with this reader as translator, which also
measures a certificate. So do the readers of other libraries, which by themselves accept what they compute otherwise.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper

import cfi_core
from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_core.errors import CFIError, TranslationError
from cfi_core.records import Translation
from cfi_core.specs import resolve

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True, eq=False)
class Case:
    """A model, inputs for it and what ONNX Runtime gives for them."""

    name: str
    model: ModelProto
    inputs: tuple[np.ndarray, ...]
    expected: tuple[np.ndarray, ...]


def cases(part: str = "") -> Iterator[Case]:
    """All cases of tensors that ONNX Runtime runs and that have a name with this part in it.

    Where a case gives weights as inputs, as most do, there is a second one in which all but the first input are
    constants, as in models.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = [case for kind in KINDS for case in load_model_tests(kind=kind) if part in f"{case.name}_constant"]
    for case in found:
        try:
            model, inputs = _loaded(case)
        except (TypeError, ValueError):
            continue  # sequences and optional values
        variants = [(case.name, model, inputs)]
        if len(inputs) > 1:
            variants.append((f"{case.name}_constant", _with_constants(model, inputs[1:]), inputs[:1]))
        for name, variant, given in variants:
            expected = by_onnxruntime(variant, given)
            if expected is not None and part in name:
                yield Case(name, variant, given, expected)


def _loaded(case: Any) -> tuple[ModelProto, tuple[np.ndarray, ...]]:
    if case.model is not None:
        model, inputs = case.model, tuple(case.data_sets[0][0])
    else:
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        files = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
        inputs = tuple(numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files)
    initialised = {one.name for one in model.graph.initializer}
    if any(not one.type.HasField("tensor_type") for one in (*model.graph.input, *model.graph.output)):
        raise TypeError("no tensors")
    given = [one for one in model.graph.input if one.name not in initialised]
    if len(given) != len(inputs):
        raise ValueError("inputs that replace initialisers")
    arrays = tuple(np.asarray(one) for one in inputs)
    if any(one.dtype == object and not all(isinstance(text, str | bytes) for text in one.flat) for one in arrays):
        raise TypeError("no tensors")
    return model, arrays


def _with_constants(model: ModelProto, values: Sequence[np.ndarray]) -> ModelProto:
    frozen = deepcopy(model)
    initialised = {one.name for one in model.graph.initializer}
    names = [one.name for one in model.graph.input if one.name not in initialised]
    for name, value in zip(names[1:], values, strict=True):
        frozen.graph.initializer.append(numpy_helper.from_array(value, name))
    kept = [one for one in frozen.graph.input if one.name not in names[1:]]
    del frozen.graph.input[:]
    frozen.graph.input.extend(kept)
    return frozen


def by_onnxruntime(model: ModelProto, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...] | None:
    """What ONNX Runtime gives; None if it does not run the model, or gives anything but tensors."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        results = session.run(None, dict(zip(names, inputs, strict=True)))
    except Exception:  # noqa: BLE001 - what ONNX Runtime does not run it cannot judge
        return None
    return tuple(results) if all(isinstance(one, np.ndarray) for one in results) else None


@dataclass(frozen=True)
class Verdict:
    """How a case went: `right`, `refused` (which is allowed), `wrong`, or `failed` with an error that is not ours."""

    case: str
    kind: str
    reason: str = ""


Run = Callable[[Any, Sequence[np.ndarray]], Sequence[np.ndarray]]


def judge(case: Case, convert: Callable[..., Converted], run: Run, others: Sequence[Case] = ()) -> Verdict:
    """Converts and runs a case, and compares.

    Args:
        case: The model, and the inputs that it is converted with.
        convert: A translator.
        run: Runs what it makes.
        others: The same model with other inputs; what was converted must be right for these too.
    """
    try:
        converted = convert(case.model, case.inputs)
    except TranslationError as error:
        return Verdict(case.name, "refused", str(error))
    except Exception as error:  # noqa: BLE001 - anything but a typed refusal is a fault of the reader
        return Verdict(case.name, "wrong", f"not typed: {type(error).__name__}: {error}")
    found = [judge_converted(one, converted, run) for one in (case, *others)]
    return next((one for one in found if one.kind == "wrong"), found[0])


def judge_converted(case: Case, converted: Converted | Translation, run: Run) -> Verdict:
    """Runs what was made of the model of a case, and compares."""
    turned = [
        array if axes is None else np.transpose(array, axes)
        for array, axes in zip(case.inputs, converted.input_axes or (None,) * len(case.inputs), strict=True)
    ]
    try:
        results = run(converted.model, turned)
    except Exception as error:  # noqa: BLE001 - an accepted model must run
        return Verdict(case.name, "wrong", f"does not run: {type(error).__name__}: {error}")
    axes = converted.output_axes or (None,) * len(results)
    if len(axes) != len(results):
        return Verdict(case.name, "wrong", f"{len(results)} outputs, and axes of {len(axes)}")
    back = [
        one if turn is None else np.transpose(one, np.argsort(turn)) for one, turn in zip(results, axes, strict=True)
    ]
    return _compared(case, back)


def _compared(case: Case, results: Sequence[np.ndarray]) -> Verdict:
    if len(results) != len(case.expected):
        return Verdict(case.name, "wrong", f"{len(results)} outputs instead of {len(case.expected)}")
    for result, expected in zip(results, case.expected, strict=True):
        if result.shape != expected.shape:
            return Verdict(case.name, "wrong", f"shape {result.shape} instead of {expected.shape}")
        if result.dtype != expected.dtype:
            return Verdict(case.name, "wrong", f"type {result.dtype} instead of {expected.dtype}")
        if expected.dtype.kind in "fc":
            half = expected.dtype.itemsize == 2
            close = np.allclose(
                result, expected, rtol=2e-2 if half else 1e-3, atol=1e-3 if half else 1e-5, equal_nan=True
            )
        else:
            close = np.array_equal(result, expected)
        if not close:
            return Verdict(case.name, "wrong", f"values differ: {result.ravel()[:4]} instead of {expected.ravel()[:4]}")
    return Verdict(case.name, "right")


def run_torch(model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    import torch

    with torch.no_grad():
        outputs = model(*(torch.from_numpy(np.array(one)) for one in inputs))
    return [np.asarray(one) for one in (outputs if isinstance(outputs, tuple | list) else [outputs])]


def run_keras(model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    import tensorflow as tf

    outputs = model([tf.constant(one) for one in inputs] if len(inputs) > 1 else tf.constant(inputs[0]), training=False)
    return [np.asarray(one) for one in (outputs if isinstance(outputs, tuple | list) else [outputs])]


@dataclass(frozen=True)
class Reader:
    """A translator of ONNX models: where it is, the framework of what it makes, and how that is run."""

    implementation: str
    framework: str
    run: Run


READERS = {
    "onnx-torch": Reader("cfi_translate.onnx_torch:convert", "torch", run_torch),
    "onnx-keras": Reader("cfi_translate.onnx_keras:convert", "tensorflow", run_keras),
    "onnx2torch": Reader("cfi_translate.onnx_to_torch:convert", "torch", run_torch),
    "onnx2keras": Reader("cfi_translate.onnx_to_keras:convert", "tensorflow", run_keras),
}


def verdicts(reader: str, part: str = "", *, certified: bool = False) -> list[Verdict]:
    """How each case goes with a reader, by itself or with a certificate."""
    load_safely()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if certified:
            return [judge_certified(case, reader) for case in cases(part)]
        convert = resolve(READERS[reader].implementation)
        return [judge(case, convert, READERS[reader].run) for case in cases(part)]


def judge_certified(case: Case, reader: str) -> Verdict:
    """Translates a case as a user does, with a certificate, and compares.

    Any error of ours is a refusal; another one gives no model, and so nothing wrong, but is a fault all the same.
    """
    try:
        found = cfi_core.translate(
            case.model, to=READERS[reader].framework, inputs=tuple(case.inputs), translator=reader
        )
    except CFIError as error:
        return Verdict(case.name, "refused", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - anything but a typed refusal is a fault
        return Verdict(case.name, "failed", f"not typed: {type(error).__name__}: {error}")
    return judge_converted(case, found, READERS[reader].run)


def main(arguments: list[str]) -> None:
    shown = arguments[arguments.index("--list") + 1] if "--list" in arguments else "wrong"
    words = [one for one in arguments if one not in ("--list", "--certified", shown)]
    found = verdicts(words[0], words[1] if len(words) > 1 else "", certified="--certified" in arguments)
    for verdict in found:
        if verdict.kind == shown:
            print(f"{verdict.case}: {verdict.reason[:160]}")
    print({kind: sum(one.kind == kind for one in found) for kind in ("right", "refused", "failed", "wrong")})


if __name__ == "__main__":
    main(sys.argv[1:])
