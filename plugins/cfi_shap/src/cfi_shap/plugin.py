"""What this plugin offers. Importing it imports neither torch nor the library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cfi_core.hookspec import hookimpl
from cfi_core.specs import (
    Completeness,
    Defaults,
    Documentation,
    FrameworkSpec,
    Head,
    Kind,
    MethodSpec,
    ModelFormat,
    Need,
    PlotterSpec,
    Samples,
    ToolsetSpec,
    Total,
)

_SHAP, _HOME = "shap>=0.51", "https://shap.readthedocs.io"
_LUNDBERG = "Lundberg and Lee 2017, A Unified Approach to Interpreting Model Predictions"
_TREES = "Lundberg et al. 2020, From Local Explanations to Global Understanding with Explainable AI for Trees"
_FORWARD, _GRADIENT = frozenset({Need.FORWARD}), frozenset({Need.FORWARD, Need.INPUT_GRADIENT})
_OWEN, _MEAN = Completeness(total=Total.DIFFERENCE), Completeness(total=Total.MEAN_DIFFERENCE)
_DRAWN = Completeness(total=Total.MEAN_DIFFERENCE, unmeasured="the sum holds in expectation only: points are drawn")
_ENSEMBLES = ("RandomForest", "ExtraTrees", "GradientBoosting", "HistGradientBoosting")
_OR_NAME = "and pass that, or name a function that gives it: 'package.module:factory'."
_BOOSTERS = (
    ModelFormat(
        name="a model of XGBoost",
        begins=("7b 22 6c 65 61 72 6e 65 72 22", "7b 4c 00 00 00 00 00 00 00 07 6c 65 61 72 6e 65 72"),  # {"learner"
        instead=f"model = xgboost.XGBClassifier() (or XGBRegressor), model.load_model(path), {_OR_NAME}",
    ),
    ModelFormat(
        name="a model of LightGBM",
        begins=(
            "74 72 65 65 0a 76 65 72 73 69 6f 6e 3d",
            "74 72 65 65 0d 0a 76 65 72 73 69 6f 6e 3d",
        ),  # tree, version=
        instead=f"model = lightgbm.Booster(model_file=path), {_OR_NAME}",
    ),
    ModelFormat(
        name="a model of CatBoost",
        begins=("43 42 4d 31",),  # CBM1
        instead=f"model = catboost.CatBoost(), model.load_model(path), {_OR_NAME}",
    ),
)
"""Files that these libraries write for themselves: of any name, often .json and .txt."""

_SKLEARN = [("tree", "DecisionTree"), ("tree", "ExtraTree"), *(("ensemble", name) for name in _ENSEMBLES)]


_CALLS = {
    "deep_lift_shap": ("shap:DeepExplainer.shap_values",),
    "gradient_shap": ("shap:GradientExplainer.shap_values",),
    "kernel_shap": ("shap:KernelExplainer.shap_values",),
    "partition_shap": ("shap:PartitionExplainer.__call__",),
}
_WORDS = {
    "gradient_shap": {"nsamples": "How many points between inputs and background are drawn for each sample."},
    "partition_shap": {"max_evals": "How many times the model may be asked about each sample."},
}
"""What SHAP does not explain."""


@hookimpl
def cfi_frameworks() -> Iterable[FrameworkSpec]:
    """Trees and their ensembles, which core would take for functions of arrays: TreeExplainer looks into them."""
    types = [(f"sklearn.{part}", name + kind) for part, name in _SKLEARN for kind in ("Classifier", "Regressor")]
    yield FrameworkSpec(
        name="trees",
        models="a tree or an ensemble of trees of scikit-learn, XGBoost or LightGBM",
        model_types=(*types, ("xgboost", "XGBModel"), ("lightgbm", "LGBMModel")),
        tensor_types=(),
        adapter="cfi_shap.trees:TreeAdapter",
        module="shap",
        formats=_BOOSTERS,
        offers=_FORWARD,
        without_gradients="Trees have outputs only: use 'tree_shap', or a perturbation method such as 'kernel_shap'.",
    )


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """SHAP on torch models, where it draws from numpy's generator, and on trees."""
    yield ToolsetSpec(name="shap", framework="torch", requirements=(_SHAP, "torch>=2.13"), homepage=_HOME)
    yield ToolsetSpec(name="shap-trees", framework="trees", requirements=(_SHAP,), homepage=_HOME, patches=())


@hookimpl
def cfi_methods() -> Iterable[MethodSpec]:
    """One for each explainer."""
    drawn, halves, kernel = {"nsamples": 200}, {"max_evals": 500}, {"nsamples": "auto", "l1_reg": False}
    optional: Any = {"required": ("inputs",), "optional": ("target", "baselines")}
    trees: Any = {"toolset": "shap-trees", "implementation": "cfi_shap.trees:tree_shap", "citation": _TREES}
    yield _method("deep_lift_shap", _MEAN, needs=_GRADIENT | {Need.MODULES}, head=Head.LOGIT)  # as DeepLIFT is
    yield _method("gradient_shap", _DRAWN, drawn, drawn, needs=_GRADIENT)
    yield _method("kernel_shap", _MEAN, kernel, kernel | {"l1_reg": "num_features(10)"})
    yield _method("partition_shap", _OWEN, halves, halves, zero_baseline=True, **optional)
    yield _method("tree_shap", _MEAN, **trees)


@hookimpl
def cfi_plotters() -> Iterable[PlotterSpec]:
    """SHAP's own plots."""
    features, pictures = ("sample", "feature"), ("sample", "height", "width")
    for name, accepts in {"bar": features, "beeswarm": features, "waterfall": features, "image": pictures}.items():
        draw = f"cfi_shap.plots:draw_{name}"
        yield PlotterSpec(name=f"shap-{name}", implementation=draw, accepts=accepts, requirements=(_SHAP, "matplotlib"))


def _method(
    key: str, promise: Completeness, raw: Mapping[str, Any] = {}, usual: Mapping[str, Any] = {}, **fields: Any
) -> MethodSpec:
    common: dict[str, Any] = {"toolset": "shap", "implementation": "cfi_shap.run:run", "citation": _LUNDBERG}
    common |= {"needs": _FORWARD, "required": ("inputs", "baselines"), "optional": ("target",), **fields}
    common |= {"exec_args": tuple(raw), "defaults": Defaults(raw=raw, toolset=usual)}
    words = {name: text for name, text in _WORDS.get(key, {}).items() if name in raw}
    common["documentation"] = Documentation(
        exec_args=_CALLS.get(key, ()), words=words, example={"max_evals": "100"} if "max_evals" in raw else {}
    )
    common |= {"common": {"nsamples": "samples"} if "nsamples" in raw else {}}
    drawn = key in ("gradient_shap", "kernel_shap")
    common |= {"samples": Samples.ALONE if drawn else Samples.APART}
    return MethodSpec(key=key, kind=Kind.ATTRIBUTION, completeness=promise, **common)
