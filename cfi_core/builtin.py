"""What core itself brings, through the same hooks as every plugin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from cfi_core.attribution import BUILTIN_WRITER, Attribution
from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, Need, PreparationSpec, WriterSpec


@hookimpl
def cfi_frameworks() -> list[FrameworkSpec]:
    """Plain functions of arrays."""
    numpy = FrameworkSpec(
        name="numpy",
        models="a function of numpy arrays, an estimator with predict_proba, decision_function or predict",
        model_types=(),
        tensor_types=(),
        adapter="cfi_core.arrays:ArrayAdapter",
        module="numpy",
        model_methods=("predict_proba", "decision_function", "predict"),
        takes_functions=True,
        offers=frozenset({Need.FORWARD}),
        without_gradients="A function of numpy arrays (an estimator, too) has outputs only: use a perturbation method "
        "such as feature_ablation, occlusion, lime, kernel_shap or shapley_value_sampling. A function of another "
        "framework's tensors is known by its inputs: pass tensors of that framework.",
    )
    return [numpy]


@hookimpl
def cfi_preparations() -> list[PreparationSpec]:
    """Texts, for functions and estimators: their features are words."""
    return [PreparationSpec(name="words", implementation="cfi_core.words:unpack_texts")]


@hookimpl
def cfi_writers() -> list[WriterSpec]:
    """NumPy archives."""
    return [BUILTIN_WRITER]


def write_npz(attribution: Attribution, path: Path) -> None:
    """Writes values, extras and provenance to a compressed `.npz` file that `numpy.load` reads without pickle.

    The arrays are `values` (or `values_0`, `values_1`, … where there are several, `values_<name>` where they have
    names) and `extra_<name>` for each numeric extra. `metadata` is a JSON text with everything else: `dims` in the
    order of the arrays, `method_key`, `toolset`, `route`, `certificate`, `target`, `layer`, `feature_names`,
    `extras` that are no numbers, and `provenance`. What JSON cannot hold stands there as its `repr`. An existing file
    is replaced.
    """
    if isinstance(attribution.values, Mapping):
        arrays = {f"values_{name}": values for name, values in attribution.values.items()}
    else:
        several = isinstance(attribution.values, tuple)
        arrays = {f"values_{i}" if several else "values": values for i, (values, _) in enumerate(attribution.parts)}
    words: dict[str, Any] = {}
    for name, value in attribution.extras.items():
        if name == "figure":  # what plot=True drew; a picture is no number
            continue
        if isinstance(value, (np.ndarray, np.generic, int, float)) and np.asarray(value).dtype.kind in "biufc":
            arrays[f"extra_{name}"] = np.asarray(value)
        else:
            words[name] = _plain(value)
    certificate = None if attribution.certificate is None else str(attribution.certificate)
    metadata = {"dims": _plain([dims for _, dims in attribution.parts]), "certificate": certificate, "extras": words}
    for name in ("method_key", "toolset", "route", "target", "layer", "feature_names", "provenance"):
        metadata[name] = _plain(getattr(attribution, name))
    text = np.array(json.dumps(metadata, ensure_ascii=False))
    # An open file, since numpy appends ".npz" to a path that ends otherwise (".NPZ").
    with Path(path).open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, metadata=text, **arrays)


def _plain(value: Any) -> Any:
    """The value in the types of JSON, numbers exactly; everything else as its `repr`."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    return str(value) if isinstance(value, Path) else repr(value)
