"""Zennit's methods as data: attributors, composites, and what each takes, explains and cites.

`init_args` are the names of Zennit's own signatures (of the attributor's constructor and of the composite's); a test
compares them with Zennit. Four names are the plugin's own: `name_map` (rules by the names of modules), `canonize`
(whether the model is brought into the form that rules attach to), `start_from_output` (whether the way back starts with
what is explained, or with one) and `score_drop` of occlusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

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

COMPOSITE = "composite"
NAME_MAP = "name_map"
CANONIZE = "canonize"
START = "start_from_output"
SCORE_DROP = "score_drop"
ATTR_OUTPUT = "attr_output"

_OWN = (NAME_MAP, CANONIZE)
_MAPS = ("layer_map", "zero_params", "canonizers")

PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "epsilon_gamma_box": ("low", "high", "epsilon", "gamma", "stabilizer", "layer_map", "first_map", *_MAPS[1:]),
        "epsilon_plus": ("epsilon", "stabilizer", *_MAPS),
        "epsilon_alpha2_beta1": ("epsilon", "stabilizer", *_MAPS),
        "epsilon_plus_flat": ("epsilon", "stabilizer", "layer_map", "first_map", *_MAPS[1:]),
        "epsilon_alpha2_beta1_flat": ("epsilon", "stabilizer", "layer_map", "first_map", *_MAPS[1:]),
        "deconvnet": ("layer_map", "canonizers"),
        "guided_backprop": ("layer_map", "canonizers"),
        "excitation_backprop": ("stabilizer", *_MAPS),
        "beta_smooth": ("beta_smooth", *_MAPS),
    }
)
"""The composites that Zennit registers, and what their constructors take."""

ALL_PARAMETERS = tuple(dict.fromkeys(name for names in PARAMETERS.values() for name in names))


@dataclass(frozen=True, kw_only=True)
class ZennitMethod:
    """One attributor with one composite, or with the user's choice.

    Attributes:
        key: The method's key.
        attributor: Name of the class in `zennit.attribution`.
        composite: Name of the composite, where the key stands for it.
        times_inputs: Whether values are multiplied by the inputs.
        needs: What it requires of the model.
        optional: Uniform arguments that it understands besides inputs.
        init_args: Arguments of constructors.
        defaults: Settings where the user gives none.
        head: Where the method's paper explains a softmax classifier.
        citation: The paper.
        completeness: What its values promise to add up to.
    """

    key: str
    attributor: str = "Gradient"
    composite: str = ""
    times_inputs: bool = False
    needs: frozenset[Need]
    optional: tuple[str, ...] = ("target",)
    init_args: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    head: Head = Head.LOGIT
    citation: str
    completeness: Completeness | None = None


_GRADIENT = frozenset({Need.FORWARD, Need.INPUT_GRADIENT})
# Not the gradient by the inputs, which are whole numbers where relevance at an embedding is asked for.
_RULES = frozenset({Need.FORWARD, Need.MODULES})

_BACH = "Bach et al. 2015, On Pixel-Wise Explanations by Layer-Wise Relevance Propagation"
_MONTAVON = "Montavon et al. 2019, Layer-Wise Relevance Propagation: An Overview"
_LAPUSCHKIN = "Lapuschkin et al. 2019, Unmasking Clever Hans Predictors"
_ZEILER = "Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks"
_SPRINGENBERG = "Springenberg et al. 2014, Striving for Simplicity: The All Convolutional Net"
_ZHANG = "Zhang et al. 2016, Top-down Neural Attention by Excitation Backprop"
_DOMBROWSKI = "Dombrowski et al. 2019, Explanations Can Be Manipulated and Geometry Is to Blame"
_SIMONYAN = "Simonyan et al. 2013, Deep Inside Convolutional Networks"
_ANCONA = "Ancona et al. 2018, Towards Better Understanding of Gradient-Based Attribution Methods"
_SMILKOV = "Smilkov et al. 2017, SmoothGrad: Removing Noise by Adding Noise"
_SUNDARARAJAN = "Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks"

_RELEVANCE = Completeness(
    total=Total.RELEVANCE,
    only_with={START: True},
    suspect="relevance leaks at layers that no rule fits: extras['conservation'] tells which.",
)
_PATH_INTEGRAL = Completeness(
    total=Total.DIFFERENCE,
    within=0.1,
    only_with={COMPOSITE: None},
    steps="n_iter",
    suspect="the model jumps between the baselines and the inputs, or has a gradient that is not its own.",
)

_CANONIZED = {CANONIZE: True}
_AS_ZENNIT = {CANONIZE: False}
_LRP = Defaults(raw={**_CANONIZED, START: True}, toolset={**_AS_ZENNIT, START: False})
_NOTHING: Mapping[str, str] = MappingProxyType({})
_CHOSEN = "epsilon_plus_flat"
_ANY = Defaults(raw={COMPOSITE: None, **_CANONIZED}, toolset={COMPOSITE: None, **_AS_ZENNIT})


def _lrp(composite: str, citation: str) -> ZennitMethod:
    return ZennitMethod(
        key=f"lrp_{composite}",
        composite=composite,
        needs=_RULES,
        optional=("target", "layer"),
        init_args=(*PARAMETERS[composite], *_OWN, START),
        defaults=_LRP,
        citation=citation,
        completeness=_RELEVANCE,
    )


def _define_modified(key: str, composite: str, citation: str, raw: Mapping[str, str] = _NOTHING) -> ZennitMethod:
    return ZennitMethod(
        key=key,
        composite=composite,
        needs=_RULES,
        optional=("target", "layer"),
        init_args=(*PARAMETERS[composite], *_OWN),
        defaults=Defaults(raw={**_CANONIZED, **raw}, toolset={**_AS_ZENNIT, **dict.fromkeys(raw)}),
        citation=citation,
    )


_ALL = (
    ZennitMethod(
        key="zennit_lrp",
        needs=_RULES,
        optional=("target", "layer"),
        init_args=(COMPOSITE, *ALL_PARAMETERS, *_OWN, START),
        defaults=Defaults(
            raw={COMPOSITE: _CHOSEN, **_LRP.raw},
            toolset={COMPOSITE: _CHOSEN, **_LRP.toolset},
        ),
        citation=_BACH,
        completeness=_RELEVANCE,
    ),
    _lrp("epsilon_gamma_box", _MONTAVON),
    _lrp("epsilon_plus", _MONTAVON),
    _lrp("epsilon_alpha2_beta1", _BACH),
    _lrp("epsilon_plus_flat", _LAPUSCHKIN),
    _lrp("epsilon_alpha2_beta1_flat", _LAPUSCHKIN),
    # Zennit counts positive biases among the inputs; the paper has none.
    _define_modified("excitation_backprop", "excitation_backprop", _ZHANG, {"zero_params": "bias"}),
    _define_modified("deconvolution", "deconvnet", _ZEILER),
    _define_modified("guided_backprop", "guided_backprop", _SPRINGENBERG),
    _define_modified("beta_smooth", "beta_smooth", _DOMBROWSKI),
    ZennitMethod(key="saliency", needs=_GRADIENT, citation=_SIMONYAN),
    ZennitMethod(key="input_x_gradient", needs=_GRADIENT, times_inputs=True, citation=_ANCONA),
    ZennitMethod(
        key="smooth_grad",
        attributor="SmoothGrad",
        needs=_GRADIENT,
        init_args=("noise_level", "n_iter", COMPOSITE, *ALL_PARAMETERS, *_OWN),
        defaults=_ANY,
        citation=_SMILKOV,
    ),
    ZennitMethod(
        key="integrated_gradients",
        attributor="IntegratedGradients",
        needs=_GRADIENT,
        optional=("target", "baselines"),
        init_args=("baseline_fn", "n_iter", COMPOSITE, *ALL_PARAMETERS, *_OWN),
        defaults=_ANY,
        head=Head.OUTPUT,
        citation=_SUNDARARAJAN,
        completeness=_PATH_INTEGRAL,
    ),
    ZennitMethod(
        key="occlusion",
        attributor="Occlusion",
        needs=frozenset({Need.FORWARD}),
        optional=("target", "baselines"),
        init_args=("occlusion_fn", "window", "stride", SCORE_DROP),
        defaults=Defaults(raw={SCORE_DROP: True}, toolset={SCORE_DROP: False}),
        head=Head.OUTPUT,
        citation=_ZEILER,
    ),
)

METHODS: Mapping[str, ZennitMethod] = MappingProxyType({method.key: method for method in _ALL})

_RECTIFYING = frozenset({"deconvnet", "guided_backprop", "beta_smooth"})
_CHECK = "cfi_zennit.guard:check"
_GUARD_OF_RECTIFIERS = Guard(
    check=_CHECK,
    modules=dict.fromkeys(("relu6", "hardtanh"), "cfi_torchgraph.rectifiers:rectifier"),
    knows="cfi_torchgraph.rectifiers:knows_rectifier",
)
_GUARD_OF_RELEVANCE = Guard(check=_CHECK, knows="cfi_zennit.guard:knows_relevance")

_ROLES = {
    "low": Role.LIKE_INPUTS,
    "high": Role.LIKE_INPUTS,
    "window": Role.WINDOW,
    "stride": Role.WINDOW,
    ATTR_OUTPUT: Role.OWN_TARGET,
}

_COMMON: Mapping[str, Mapping[str, str]] = {
    "Gradient": {},
    "IntegratedGradients": {"n_iter": "steps"},
    "SmoothGrad": {"n_iter": "samples", "noise_level": "noise share"},
    "Occlusion": {"window": "window", "stride": "stride"},
}


def method_spec(method: ZennitMethod) -> MethodSpec:
    """The spec under which core knows a method."""
    own_target = () if method.attributor == "Occlusion" else (ATTR_OUTPUT,)
    names = (*method.init_args, *own_target)
    return MethodSpec(
        key=method.key,
        toolset="zennit",
        kind=Kind.ATTRIBUTION,
        needs=method.needs,
        implementation="cfi_zennit.run:run",
        citation=method.citation,
        optional=method.optional,
        init_args=method.init_args,
        exec_args=own_target,
        roles={name: role for name, role in _ROLES.items() if name in names},
        argument_needs={COMPOSITE: Need.MODULES} if method.needs == _GRADIENT and COMPOSITE in names else {},
        head=method.head,
        alters_model=Need.MODULES in method.needs,
        defaults=method.defaults,
        completeness=method.completeness,
        guard=_guard(method),
        zero_baseline="baselines" in method.optional,
        instead_of_baselines=tuple(name for name in ("baseline_fn", "occlusion_fn") if name in names),
        own_required=("low", "high") if method.composite == "epsilon_gamma_box" else (),
        documentation=_documentation(method, names),
        common={name: word for name, word in _COMMON[method.attributor].items() if name in names},
        samples=Samples.ALONE if method.attributor == "SmoothGrad" else Samples.APART,
    )


_CLASSES = {
    "epsilon_gamma_box": "EpsilonGammaBox",
    "epsilon_plus": "EpsilonPlus",
    "epsilon_alpha2_beta1": "EpsilonAlpha2Beta1",
    "epsilon_plus_flat": "EpsilonPlusFlat",
    "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
    "deconvnet": "DeconvNet",
    "guided_backprop": "GuidedBackprop",
    "excitation_backprop": "ExcitationBackprop",
    "beta_smooth": "BetaSmooth",
}

_WORDS = {
    NAME_MAP: "Rules by the names of modules: a list of pairs, names (one or a tuple of them) and a rule. They go "
    "before those of layer_map.",
    CANONIZE: "Whether a copy of the model is brought into the form that rules attach to: batch norms merged, sums and "
    "poolings as modules. Zennit's own users do that by canonizers.",
    START: "Whether the way back starts with what is explained, so that relevance adds up to it (True), or with one.",
    SCORE_DROP: "Whether the values are the drop of the score where a window is covered (True), or Zennit's own: the "
    "score with nothing but the window left.",
    "stabilizer": "What is added to denominators, so that none is zero: a number, or a function of the denominator.",
    COMPOSITE: "Rules for the modules of the model: the name of one of Zennit's composites, such as "
    "'epsilon_plus_flat', or a composite itself. None takes the plain gradient.",
}
"""The plugin's own arguments, and what Zennit takes otherwise."""


def _documentation(method: ZennitMethod, names: tuple[str, ...]) -> Documentation:
    """Where the arguments of a method are explained: its attributor and its composite, or all of these."""
    composites = [method.composite] if method.composite else [*_CLASSES] * (COMPOSITE in names)
    return Documentation(
        init_args=(
            f"zennit.attribution:{method.attributor}",
            *(f"zennit.composites:{_CLASSES[name]}" for name in composites),
        ),
        exec_args=("zennit.attribution:Attributor.__call__",),
        words={name: text for name, text in _WORDS.items() if name in names},
        example={"low": "-5.0", "high": "5.0"} if method.composite == "epsilon_gamma_box" else {},
    )


def _guard(method: ZennitMethod) -> Guard | None:
    if method.composite in _RECTIFYING:
        return _GUARD_OF_RECTIFIERS
    return _GUARD_OF_RELEVANCE if method.composite or COMPOSITE in method.init_args else None
