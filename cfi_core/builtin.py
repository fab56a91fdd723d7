"""What core itself brings, through the same hooks as every plugin."""

from __future__ import annotations

from typing import Any

from cfi_core.hookspec import hookimpl
from cfi_core.options import BUILTIN_WRITER
from cfi_core.specs import FrameworkSpec, MetricSpec, ModelFormat, Need, PreparationSpec, WriterSpec

_UNPICKLED: Any = {
    "model": "cfi_core.model_files:read_pickle",
    "suffixes": (".pkl", ".pickle", ".joblib"),
    "runs_code": "unpickling runs whatever its writer put there",
    "instead": "Without that, 'package.module:factory' can name a function of yours that builds the model.",
}
_PACKED = ("78 01", "78 5e", "78 9c", "78 da", "1f 8b", "42 5a 68", "fd 37 7a 58 5a", "04 22 4d 18")
"""How joblib's packed files begin: those of zlib, gzip, bzip2, xz and lz4."""


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
        formats=(
            ModelFormat(name="a pickle", begins=("80 02", "80 03", "80 04", "80 05"), **_UNPICKLED),
            ModelFormat(name="a packed file, which may be a pickle", begins=_PACKED, **_UNPICKLED),
        ),
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


@hookimpl
def cfi_metrics() -> list[MetricSpec]:
    """The checks that `cfi.check` runs where none is named."""
    return [
        _metric("parameter_randomisation", "Randomisation", "lower", "randomisation:measure_randomisation", again=True),
        _metric("deletion", "Faithfulness", "lower", "removal:measure_removal"),
        _metric("insertion", "Faithfulness", "higher", "removal:measure_removal"),
        _metric("infidelity", "Faithfulness", "lower", "infidelity:measure_infidelity"),
        _metric("max_sensitivity", "Robustness", "lower", "sensitivity:measure_sensitivity", again=True),
        _metric("completeness", "Axiomatic", "lower", "sums:read_completeness", needs=()),
    ]


def _metric(
    name: str, category: str, better: str, where: str, *, again: bool = False, needs: tuple[Need, ...] = (Need.FORWARD,)
) -> MetricSpec:
    return MetricSpec(
        name=name,
        library="cfi",
        category=category,
        better=better,
        needs=frozenset(needs),
        explains=again,
        implementation=f"cfi_core.checks.{where}",
    )
