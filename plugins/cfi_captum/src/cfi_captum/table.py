"""Captum's methods as data: what each needs, takes, explains and cites.

`init_args` and `exec_args` are the names of captum's own signatures; a test compares them with captum. Three names are
the plugin's own: `method` of the noise tunnel, `upsample` of Grad-CAM, and `workarounds` of the methods with rules that
captum gets wrong on some models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from cfi_core.specs import (
    Completeness,
    Defaults,
    Documentation,
    Guard,
    Head,
    Kind,
    MethodSpec,
    Need,
    Role,
    Samples,
    Total,
)


class Rule(StrEnum):
    """Which modules of the model a method attaches its own backward rules to."""

    NONE = "none"
    RECTIFIER = "rectifier"
    """`nn.ReLU` (guided backpropagation, deconvolution)."""
    DIFFERENCE = "difference"
    """The non-linear modules of DeepLIFT."""
    RELEVANCE = "relevance"
    """Every module (layer-wise relevance propagation)."""


@dataclass(frozen=True, kw_only=True)
class CaptumMethod:
    """One attribution class of captum.

    Attributes:
        key: The method's key.
        captum_class: Name of the class in `captum.attr`.
        kind: What it explains.
        needs: What it requires of the model.
        init_args: Parameters of the constructor after the model.
        exec_args: Parameters of `attribute`.
        own_init_args: What this plugin adds to the former.
        own_exec_args: What this plugin adds to the latter.
        defaults: Settings where the user gives none.
        head: Where the method's paper explains a softmax classifier.
        citation: The paper.
        rule: Modules it attaches rules to.
        baselines_required: Whether it cannot run without baselines.
        baseline_distribution: Whether `baselines` is a distribution of examples.
        several_layers: Whether it takes a list of layers.
        completeness: What its values promise to add up to.
    """

    key: str
    captum_class: str
    kind: Kind
    needs: frozenset[Need]
    init_args: tuple[str, ...] = ()
    exec_args: tuple[str, ...]
    own_init_args: tuple[str, ...] = ()
    own_exec_args: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    head: Head
    citation: str
    rule: Rule = Rule.NONE
    baselines_required: bool = False
    baseline_distribution: bool = False
    several_layers: bool = False
    completeness: Completeness | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Uniform arguments without which it cannot run."""
        names = ["inputs"]
        if "layer" in self.init_args:
            names.append("layer")
        if "neuron_selector" in self.exec_args:
            names.append("neuron")
        if self.baselines_required:
            names.append("baselines")
        return tuple(names)

    @property
    def optional(self) -> tuple[str, ...]:
        """Uniform arguments that it also understands."""
        return tuple(name for name in ("target", "baselines") if name in self.exec_args and name not in self.required)


_READ_INPUT = ("attribute_to_layer_input", "attribute_to_neuron_input")

ROLES = {
    "additional_forward_args": Role.HELD,
    "layer_mask": Role.LIKE_LAYER,
    "layer_baselines": Role.LIKE_LAYER,
    "inputs": Role.INPUTS,
    "target": Role.TARGET,
    "layer": Role.LAYER,
    "neuron_selector": Role.NEURON,
    "baselines": Role.BASELINES,
    "feature_mask": Role.LIKE_INPUTS,
    "sliding_window_shapes": Role.WINDOW,
    "strides": Role.WINDOW,
}

WINDOW = "sliding_window_shapes"
COMMON = {
    "n_steps": "steps",
    "n_samples": "samples",
    "nt_samples": "samples",
    "stdevs": "noise",
    "sliding_window_shapes": "window",
    "strides": "stride",
}
QUADRATURES = ("gausslegendre", "riemann_trapezoid", "riemann_left", "riemann_right", "riemann_middle")
UPSAMPLING = (None, "nearest", "bilinear")
CHOICES: Mapping[str, tuple[Any, ...]] = {
    "method": QUADRATURES,
    "upsample": UPSAMPLING,
    "nt_type": ("smoothgrad", "smoothgrad_sq", "vargrad"),
}

NOISE_TUNNEL = "noise_tunnel"
GRAD_CAM = "grad_cam"
DEFAULT_TUNNELLED = "saliency"

WORKAROUNDS = "workarounds"
"""Whether faults in captum's own backward rules are worked around; captum's users have them."""
FAULTY_RULES = frozenset({Rule.RECTIFIER, Rule.DIFFERENCE})

_SIMONYAN = "Simonyan et al. 2013, Deep Inside Convolutional Networks"
_SUNDARARAJAN = "Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks"
_SHRIKUMAR = "Shrikumar et al. 2017, Learning Important Features Through Propagating Activation Differences"
_SHAP = "Lundberg and Lee 2017, A Unified Approach to Interpreting Model Predictions"
_SPRINGENBERG = "Springenberg et al. 2014, Striving for Simplicity: The All Convolutional Net"
_ZEILER = "Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks"
_SELVARAJU = "Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks"
_CASTRO = "Castro et al. 2009, Polynomial Calculation of the Shapley Value Based on Sampling"
_SHAPLEY = "Shapley 1953, A Value for n-Person Games"
_LIME = "Ribeiro et al. 2016, Why Should I Trust You? Explaining the Predictions of Any Classifier"
_BACH = "Bach et al. 2015, On Pixel-Wise Explanations by Layer-Wise Relevance Propagation"
_CONDUCTANCE = "Dhamdhere et al. 2018, How Important Is a Neuron?"
_INFLUENCE = "Leino et al. 2018, Influence-Directed Explanations for Deep Convolutional Networks"
_PERMUTATION = "Breiman 2001, Random Forests; Molnar 2019, Interpretable Machine Learning"
_ABLATION = "Kokhlikyan et al. 2020, Captum: A Unified and Generic Model Interpretability Library"
_SMOOTHGRAD = "Smilkov et al. 2017, SmoothGrad: Removing Noise by Adding Noise"
_ANCONA = "Ancona et al. 2018, Towards Better Understanding of Gradient-Based Attribution Methods"

_FORWARD = frozenset({Need.FORWARD})
_GRADIENT = _FORWARD | {Need.INPUT_GRADIENT}
_RULES = _GRADIENT | {Need.MODULES}
_LAYER = _FORWARD | {Need.LAYER}
_LAYER_GRADIENT = _LAYER | {Need.LAYER_GRADIENT}
_NEURON = _LAYER | {Need.INPUT_GRADIENT}

_MULTIPLY = ("multiply_by_inputs",)
_AT_LAYER = ("layer", "device_ids")
_PATH = ("n_steps", "method", "internal_batch_size")
_DELTA = "return_convergence_delta"
_ARGS = "additional_forward_args"


_NOTHING: Mapping[str, Any] = MappingProxyType({})

_OF_LAYER_OUTPUT: Mapping[str, Any] = {"attribute_to_layer_input": False}
_CONTRIBUTIONS: Mapping[str, Any] = {"multiply_by_inputs": True}
_BY_RULES: Mapping[str, Any] = {**_CONTRIBUTIONS, "custom_attribution_func": None}
_OF_NEURON_OUTPUT: Mapping[str, Any] = {"attribute_to_neuron_input": False}

# Sundararajan et al. 2017, section 5: the steps are enough if the sum fits to 5 %. Twice that is a reason to warn.
_PATH_INTEGRAL = Completeness(
    total=Total.DIFFERENCE,
    within=0.1,
    only_with=_CONTRIBUTIONS,
    steps="n_steps",
    suspect="the model jumps between the baselines and the inputs, or has a gradient that is not its own.",
)
_DIFFERENCES = Completeness(
    total=Total.DIFFERENCE,
    only_with=_BY_RULES,
    suspect="a rule may have attached to nothing (a function called where a module was wanted), or captum's own rules "
    "are at fault (init_args={'workarounds': True} mends what is known): compare with 'integrated_gradients'.",
)
_MEAN_DIFFERENCES = replace(_DIFFERENCES, total=Total.MEAN_DIFFERENCE)
_ORDERS = Completeness(
    total=Total.DIFFERENCE,
    groups="feature_mask",
    suspect="the model may be random or keep a state, or its samples influence each other.",
)
_DRAWN = Completeness(
    total=Total.MEAN_DIFFERENCE,
    unmeasured="the sum holds in expectation only: baselines, and points between them and the inputs, are drawn",
)
_RELEVANCE = Completeness(
    total=Total.RELEVANCE,
    suspect="relevance leaks where no rule attached, or where a value is used by several modules: compare with "
    "'input_x_gradient'.",
)


def _method(
    key: str,
    captum_class: str,
    needs: frozenset[Need],
    exec_args: tuple[str, ...],
    citation: str,
    *,
    head: Head = Head.OUTPUT,
    init_args: tuple[str, ...] = (),
    rule: Rule = Rule.NONE,
    baselines_required: bool = False,
    several_layers: bool = False,
    own_exec_args: tuple[str, ...] = (),
    raw: Mapping[str, Any] = _NOTHING,
    toolset: Mapping[str, Any] = _NOTHING,
    completeness: Completeness | None = None,
) -> CaptumMethod:
    if "neuron_selector" in exec_args:
        kind = Kind.NEURON
    elif "layer" in init_args and key != "guided_grad_cam":
        kind = Kind.LAYER
    else:
        kind = Kind.ATTRIBUTION
    faulty = rule in FAULTY_RULES
    return CaptumMethod(
        key=key,
        captum_class=captum_class,
        kind=kind,
        needs=needs,
        init_args=init_args,
        exec_args=exec_args,
        own_init_args=(WORKAROUNDS,) if faulty else (),
        own_exec_args=own_exec_args,
        defaults=Defaults(
            raw={**raw, WORKAROUNDS: True} if faulty else raw,
            toolset={**toolset, WORKAROUNDS: False} if faulty else toolset,
        ),
        head=head,
        citation=citation,
        rule=rule,
        baselines_required=baselines_required,
        # Captum gives exactly the methods that average over baselines no default for them.
        baseline_distribution=baselines_required,
        several_layers=several_layers,
        completeness=completeness,
    )


_PRIMARY = (
    _method(
        "integrated_gradients",
        "IntegratedGradients",
        _GRADIENT,
        ("inputs", "baselines", "target", _ARGS, *_PATH, _DELTA),
        _SUNDARARAJAN,
        init_args=_MULTIPLY,
        completeness=_PATH_INTEGRAL,
    ),
    _method(
        "saliency",
        "Saliency",
        _GRADIENT,
        ("inputs", "target", "abs", _ARGS),
        _SIMONYAN,
        head=Head.LOGIT,
        raw={"abs": False},
        toolset={"abs": True},
    ),
    _method(
        "deep_lift",
        "DeepLift",
        _RULES,
        ("inputs", "baselines", "target", _ARGS, _DELTA, "custom_attribution_func"),
        _SHRIKUMAR,
        head=Head.LOGIT,
        init_args=("multiply_by_inputs", "eps"),
        rule=Rule.DIFFERENCE,
        completeness=_DIFFERENCES,
    ),
    _method(
        "deep_lift_shap",
        "DeepLiftShap",
        _RULES,
        ("inputs", "baselines", "target", _ARGS, _DELTA, "custom_attribution_func"),
        _SHAP,
        head=Head.LOGIT,
        init_args=_MULTIPLY,
        rule=Rule.DIFFERENCE,
        baselines_required=True,
        completeness=_MEAN_DIFFERENCES,
    ),
    _method(
        "gradient_shap",
        "GradientShap",
        _GRADIENT,
        ("inputs", "baselines", "n_samples", "stdevs", "target", _ARGS, _DELTA),
        _SHAP,
        init_args=_MULTIPLY,
        baselines_required=True,
        completeness=_DRAWN,
    ),
    _method("input_x_gradient", "InputXGradient", _GRADIENT, ("inputs", "target", _ARGS), _ANCONA, head=Head.LOGIT),
    _method(
        "guided_backprop",
        "GuidedBackprop",
        _RULES,
        ("inputs", "target", _ARGS),
        _SPRINGENBERG,
        head=Head.LOGIT,
        rule=Rule.RECTIFIER,
    ),
    _method(
        "guided_grad_cam",
        "GuidedGradCam",
        _RULES | _LAYER_GRADIENT,
        ("inputs", "target", _ARGS, "interpolate_mode", "attribute_to_layer_input"),
        _SELVARAJU,
        head=Head.LOGIT,
        init_args=_AT_LAYER,
        rule=Rule.RECTIFIER,
    ),
    _method(
        "deconvolution",
        "Deconvolution",
        _RULES,
        ("inputs", "target", _ARGS),
        _ZEILER,
        head=Head.LOGIT,
        rule=Rule.RECTIFIER,
    ),
    _method(
        "feature_ablation",
        "FeatureAblation",
        _FORWARD,
        ("inputs", "baselines", "target", _ARGS, "feature_mask", "perturbations_per_eval", "show_progress"),
        _ABLATION,
    ),
    _method(
        "occlusion",
        "Occlusion",
        _FORWARD,
        (
            "inputs",
            "sliding_window_shapes",
            "strides",
            "baselines",
            "target",
            _ARGS,
            "perturbations_per_eval",
            "show_progress",
        ),
        _ZEILER,
    ),
    _method(
        "feature_permutation",
        "FeaturePermutation",
        _FORWARD,
        ("inputs", "target", _ARGS, "feature_mask", "perturbations_per_eval", "show_progress"),
        _PERMUTATION,
        init_args=("perm_func",),
    ),
    _method(
        "shapley_value_sampling",
        "ShapleyValueSampling",
        _FORWARD,
        (
            "inputs",
            "baselines",
            "target",
            _ARGS,
            "feature_mask",
            "n_samples",
            "perturbations_per_eval",
            "show_progress",
        ),
        _CASTRO,
        completeness=_ORDERS,
    ),
    _method(
        "shapley_values",
        "ShapleyValues",
        _FORWARD,
        ("inputs", "baselines", "target", _ARGS, "feature_mask", "perturbations_per_eval", "show_progress"),
        _SHAPLEY,
        completeness=_ORDERS,
    ),
    _method(
        "lime",
        "Lime",
        _FORWARD,
        (
            "inputs",
            "baselines",
            "target",
            _ARGS,
            "feature_mask",
            "n_samples",
            "perturbations_per_eval",
            "return_input_shape",
            "show_progress",
        ),
        _LIME,
        init_args=("interpretable_model", "similarity_func", "perturb_func"),
    ),
    _method(
        "kernel_shap",
        "KernelShap",
        _FORWARD,
        (
            "inputs",
            "baselines",
            "target",
            _ARGS,
            "feature_mask",
            "n_samples",
            "perturbations_per_eval",
            "return_input_shape",
            "show_progress",
        ),
        _SHAP,
        completeness=_ORDERS,
    ),
    _method(
        "lrp",
        "LRP",
        _RULES,
        ("inputs", "target", _ARGS, _DELTA, "verbose"),
        _BACH,
        head=Head.LOGIT,
        rule=Rule.RELEVANCE,
        completeness=_RELEVANCE,
    ),
)

# Captum's Grad-CAM is raw by itself.
_GRAD_CAM = {"relu_attributions": False, "attr_dim_summation": True, "upsample": None}

_AT_LAYERS = (
    _method(
        "layer_activation",
        "LayerActivation",
        frozenset({Need.LAYER}),
        ("inputs", _ARGS, "attribute_to_layer_input"),
        _ABLATION,
        init_args=_AT_LAYER,
        several_layers=True,
    ),
    _method(
        GRAD_CAM,
        "LayerGradCam",
        _LAYER_GRADIENT,
        (
            "inputs",
            "target",
            _ARGS,
            "attribute_to_layer_input",
            "relu_attributions",
            "attr_dim_summation",
            "grad_kwargs",
        ),
        _SELVARAJU,
        head=Head.LOGIT,
        init_args=_AT_LAYER,
        own_exec_args=("upsample",),
        raw=_GRAD_CAM,
        toolset=_GRAD_CAM,
    ),
    _method(
        "layer_gradient_x_activation",
        "LayerGradientXActivation",
        _LAYER_GRADIENT,
        ("inputs", "target", _ARGS, "attribute_to_layer_input", "grad_kwargs"),
        _ANCONA,
        head=Head.LOGIT,
        init_args=(*_AT_LAYER, "multiply_by_inputs", "memory_efficient"),
        several_layers=True,
    ),
    _method(
        "layer_conductance",
        "LayerConductance",
        _LAYER_GRADIENT,
        ("inputs", "baselines", "target", _ARGS, *_PATH, _DELTA, "attribute_to_layer_input", "grad_kwargs"),
        _CONDUCTANCE,
        init_args=_AT_LAYER,
        completeness=replace(_PATH_INTEGRAL, only_with=_OF_LAYER_OUTPUT),
    ),
    _method(
        "internal_influence",
        "InternalInfluence",
        _LAYER_GRADIENT,
        ("inputs", "baselines", "target", _ARGS, *_PATH, "attribute_to_layer_input", "grad_kwargs"),
        _INFLUENCE,
        init_args=_AT_LAYER,
    ),
    _method(
        "layer_integrated_gradients",
        "LayerIntegratedGradients",
        _LAYER_GRADIENT,
        ("inputs", "baselines", "target", _ARGS, *_PATH, _DELTA, "attribute_to_layer_input", "grad_kwargs"),
        _SUNDARARAJAN,
        init_args=(*_AT_LAYER, "multiply_by_inputs"),
        several_layers=True,
        completeness=replace(_PATH_INTEGRAL, only_with={**_CONTRIBUTIONS, **_OF_LAYER_OUTPUT}, inputs_at_layer=True),
    ),
    _method(
        "layer_deep_lift",
        "LayerDeepLift",
        _LAYER_GRADIENT | {Need.MODULES},
        (
            "inputs",
            "baselines",
            "target",
            _ARGS,
            _DELTA,
            "attribute_to_layer_input",
            "custom_attribution_func",
            "grad_kwargs",
        ),
        _SHRIKUMAR,
        head=Head.LOGIT,
        init_args=("layer", "multiply_by_inputs"),
        rule=Rule.DIFFERENCE,
        completeness=replace(_DIFFERENCES, only_with={**_BY_RULES, **_OF_LAYER_OUTPUT}),
    ),
    _method(
        "layer_deep_lift_shap",
        "LayerDeepLiftShap",
        _LAYER_GRADIENT | {Need.MODULES},
        ("inputs", "baselines", "target", _ARGS, _DELTA, "attribute_to_layer_input", "custom_attribution_func"),
        _SHAP,
        head=Head.LOGIT,
        init_args=("layer", "multiply_by_inputs"),
        rule=Rule.DIFFERENCE,
        baselines_required=True,
        completeness=replace(_MEAN_DIFFERENCES, only_with={**_BY_RULES, **_OF_LAYER_OUTPUT}),
    ),
    _method(
        "layer_gradient_shap",
        "LayerGradientShap",
        _LAYER_GRADIENT,
        ("inputs", "baselines", "n_samples", "stdevs", "target", _ARGS, _DELTA, "attribute_to_layer_input"),
        _SHAP,
        init_args=(*_AT_LAYER, "multiply_by_inputs"),
        baselines_required=True,
        completeness=_DRAWN,
    ),
    _method(
        "layer_feature_ablation",
        "LayerFeatureAblation",
        _LAYER,
        (
            "inputs",
            "layer_baselines",
            "target",
            _ARGS,
            "layer_mask",
            "attribute_to_layer_input",
            "perturbations_per_eval",
        ),
        _ABLATION,
        init_args=_AT_LAYER,
    ),
    _method(
        "layer_feature_permutation",
        "LayerFeaturePermutation",
        _LAYER,
        ("inputs", "target", _ARGS, "layer_mask", "perturbations_per_eval"),
        _PERMUTATION,
        init_args=_AT_LAYER,
    ),
    _method(
        "layer_lrp",
        "LayerLRP",
        _RULES | {Need.LAYER},
        ("inputs", "target", _ARGS, _DELTA, "attribute_to_layer_input", "verbose"),
        _BACH,
        head=Head.LOGIT,
        init_args=("layer",),
        rule=Rule.RELEVANCE,
        several_layers=True,
        completeness=replace(_RELEVANCE, only_with=_OF_LAYER_OUTPUT),
    ),
)

_AT_NEURONS = (
    _method(
        "neuron_gradient",
        "NeuronGradient",
        _NEURON,
        ("inputs", "neuron_selector", _ARGS, "attribute_to_neuron_input"),
        _SIMONYAN,
        init_args=_AT_LAYER,
    ),
    _method(
        "neuron_conductance",
        "NeuronConductance",
        _NEURON | _LAYER_GRADIENT,
        (
            "inputs",
            "neuron_selector",
            "baselines",
            "target",
            _ARGS,
            *_PATH,
            "attribute_to_neuron_input",
            "grad_kwargs",
        ),
        _CONDUCTANCE,
        init_args=(*_AT_LAYER, "multiply_by_inputs"),
        completeness=replace(
            _PATH_INTEGRAL, only_with={}, unmeasured="the sum is what flows through the neuron, which no output tells"
        ),
    ),
    _method(
        "neuron_integrated_gradients",
        "NeuronIntegratedGradients",
        _NEURON,
        ("inputs", "neuron_selector", "baselines", _ARGS, *_PATH, "attribute_to_neuron_input"),
        _SUNDARARAJAN,
        init_args=(*_AT_LAYER, "multiply_by_inputs"),
        completeness=replace(_PATH_INTEGRAL, only_with={**_CONTRIBUTIONS, **_OF_NEURON_OUTPUT}),
    ),
    _method(
        "neuron_deep_lift",
        "NeuronDeepLift",
        _NEURON | {Need.MODULES},
        (
            "inputs",
            "neuron_selector",
            "baselines",
            _ARGS,
            "attribute_to_neuron_input",
            "custom_attribution_func",
        ),
        _SHRIKUMAR,
        init_args=("layer", "multiply_by_inputs"),
        rule=Rule.DIFFERENCE,
        completeness=replace(_DIFFERENCES, only_with={**_BY_RULES, **_OF_NEURON_OUTPUT}),
    ),
    _method(
        "neuron_deep_lift_shap",
        "NeuronDeepLiftShap",
        _NEURON | {Need.MODULES},
        (
            "inputs",
            "neuron_selector",
            "baselines",
            _ARGS,
            "attribute_to_neuron_input",
            "custom_attribution_func",
        ),
        _SHAP,
        init_args=("layer", "multiply_by_inputs"),
        rule=Rule.DIFFERENCE,
        baselines_required=True,
        completeness=replace(_MEAN_DIFFERENCES, only_with={**_BY_RULES, **_OF_NEURON_OUTPUT}),
    ),
    _method(
        "neuron_gradient_shap",
        "NeuronGradientShap",
        _NEURON,
        ("inputs", "neuron_selector", "baselines", "n_samples", "stdevs", _ARGS, "attribute_to_neuron_input"),
        _SHAP,
        init_args=(*_AT_LAYER, "multiply_by_inputs"),
        baselines_required=True,
        completeness=_DRAWN,
    ),
    _method(
        "neuron_deconvolution",
        "NeuronDeconvolution",
        _NEURON | {Need.MODULES},
        ("inputs", "neuron_selector", _ARGS, "attribute_to_neuron_input"),
        _ZEILER,
        init_args=_AT_LAYER,
        rule=Rule.RECTIFIER,
    ),
    _method(
        "neuron_guided_backprop",
        "NeuronGuidedBackprop",
        _NEURON | {Need.MODULES},
        ("inputs", "neuron_selector", _ARGS, "attribute_to_neuron_input"),
        _SPRINGENBERG,
        init_args=_AT_LAYER,
        rule=Rule.RECTIFIER,
    ),
    _method(
        "neuron_feature_ablation",
        "NeuronFeatureAblation",
        _LAYER,
        (
            "inputs",
            "neuron_selector",
            "baselines",
            _ARGS,
            "feature_mask",
            "attribute_to_neuron_input",
            "perturbations_per_eval",
        ),
        _ABLATION,
        init_args=_AT_LAYER,
    ),
)

TUNNELLED = {method.key: method for method in (*_PRIMARY, *_AT_LAYERS, *_AT_NEURONS)}
"""Methods that the noise tunnel can wrap: all others."""

_TUNNEL = CaptumMethod(
    key=NOISE_TUNNEL,
    captum_class="NoiseTunnel",
    kind=Kind.ATTRIBUTION,
    # The needs of the method it wraps unless told otherwise; what another one needs is checked when it runs.
    needs=TUNNELLED[DEFAULT_TUNNELLED].needs,
    exec_args=("inputs", "nt_type", "nt_samples", "nt_samples_batch_size", "stdevs", "draw_baseline_from_distrib"),
    own_init_args=("method",),
    defaults=Defaults(raw={"method": DEFAULT_TUNNELLED}, toolset={"method": DEFAULT_TUNNELLED}),
    head=TUNNELLED[DEFAULT_TUNNELLED].head,
    citation=_SMOOTHGRAD,
)

METHODS = {**TUNNELLED, NOISE_TUNNEL: _TUNNEL}


_PASSING = (
    *("relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu"),
    *("gelu", "silu", "mish", "hardswish", "softsign"),
)
_GUARDS = {
    Rule.RECTIFIER: Guard(
        check="cfi_captum.guard:check",
        modules=dict.fromkeys(("relu6", "hardtanh"), "cfi_torchgraph.rectifiers:rectifier"),
        knows="cfi_torchgraph.rectifiers:knows_rectifier",
    ),
    Rule.DIFFERENCE: Guard(
        check="cfi_captum.guard:check",
        modules={"elementwise": "cfi_captum.modules:Elementwise"},
        knows="cfi_captum.modules:knows_difference",
    ),
    Rule.RELEVANCE: Guard(
        check="cfi_captum.guard:check",
        modules={name: f"cfi_captum.modules:{name}" for name in _PASSING}
        | {
            "add": "cfi_captum.modules:addition",
            "function": "cfi_captum.modules:Function",
            "copy": "cfi_captum.modules:Copy",
        },
        knows="cfi_captum.modules:knows_relevance",
    ),
}


def method_spec(method: CaptumMethod) -> MethodSpec:
    """The spec under which core knows a method."""
    classes = [method.captum_class]
    init_args = (*method.own_init_args, *method.init_args)
    exec_args = (*method.exec_args, *method.own_exec_args)
    optional = method.optional
    if method.key == NOISE_TUNNEL:
        # The tunnel hands on the arguments of the method inside it.
        wrapped = [method_spec(inner) for inner in TUNNELLED.values()]
        init_args = _union(init_args, *(inner.init_args for inner in wrapped))
        exec_args = _union(exec_args, *(inner.exec_args for inner in wrapped))
        classes += [inner.captum_class for inner in TUNNELLED.values()]
        optional = ("target", "layer", "neuron", "baselines")
    return MethodSpec(
        key=method.key,
        toolset="captum",
        kind=method.kind,
        needs=method.needs,
        implementation="cfi_captum.run:run",
        citation=method.citation,
        required=method.required,
        optional=optional,
        init_args=init_args,
        exec_args=exec_args,
        roles={name: role for name, role in ROLES.items() if name in init_args or name in exec_args},
        native_only=tuple(name for name in _READ_INPUT if name in exec_args),
        wraps="method" if method.key == NOISE_TUNNEL else "",
        defaults=method.defaults,
        head=method.head,
        alters_model=method.rule is Rule.RELEVANCE,
        completeness=method.completeness,
        guard=_GUARDS.get(method.rule),
        maps_layer=method.key in (GRAD_CAM, "guided_grad_cam"),
        own_required=(WINDOW,) if WINDOW in method.exec_args else (),
        documentation=Documentation(
            init_args=tuple(f"captum.attr:{name}" for name in classes),
            exec_args=tuple(f"captum.attr:{name}.attribute" for name in classes),
            words={name: text for name, text in _WORDS.items() if name in (*init_args, *exec_args)},
            example=_EXAMPLES.get(method.key, {}),
        ),
        common={name: word for name, word in COMMON.items() if name in method.exec_args},
        choices={
            name: values for name, values in CHOICES.items() if name in (*method.exec_args, *method.own_exec_args)
        },
        zero_baseline=method.key != NOISE_TUNNEL and "baselines" in optional,
        samples=_samples(method.key),
        # DeepLIFT runs inputs and baselines in one pass; conductance takes differences of steps that follow each other.
        rows_together=2 if method.rule is Rule.DIFFERENCE or method.key == "layer_conductance" else 1,
        for_each_baseline=method.rule is Rule.DIFFERENCE and method.baseline_distribution,
        alone_with=tuple(name for name in (WORKAROUNDS,) if name in init_args),  # captum's rules mix samples
        instead_of_baselines=tuple(name for name in ("perturb_func",) if name in init_args),
        once=method.key in ("saliency", "input_x_gradient"),
    )


DRAWING = frozenset(
    {
        *("noise_tunnel", "gradient_shap", "layer_gradient_shap", "neuron_gradient_shap", "shapley_value_sampling"),
        *("lime", "kernel_shap", "feature_permutation", "layer_feature_permutation"),
    }
)
"""Keys of the methods that draw."""


def _samples(key: str) -> Samples:
    """Values are exchanged between the samples; or drawn in their order; or each is by itself."""
    if key in ("feature_permutation", "layer_feature_permutation"):
        return Samples.TOGETHER
    return Samples.ALONE if key in DRAWING else Samples.APART


_EXAMPLES = {
    # As wide along every axis, so that it fits a model of either axis order.
    "occlusion": {WINDOW: "(3, 3, 3)"},
    # All coalitions of four features; of every element there would be too many.
    "shapley_values": {"feature_mask": "np.indices(inputs.shape[1:]).sum(0)[None] % 4"},
}
_WORDS = {
    WORKAROUNDS: "Whether faults of captum's own backward rules, which are known to change values, are worked around. "
    "captum's own users have these faults.",
    "upsample": "Stretches the map over the input, as captum's LayerAttribution.interpolate does: 'nearest' or "
    "'bilinear'. None leaves it at the size of the layer.",
    "method": "Key of the method that is run on noisy inputs, such as 'integrated_gradients'; its own arguments are "
    "given beside it.",
}
"""The plugin's own arguments."""


def _union(*names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in names for name in group))
