"""What core itself brings, through the same hooks as every plugin."""

from __future__ import annotations

from cfi_core.attribution import BUILTIN_WRITER
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
