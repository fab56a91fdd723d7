"""What this plugin offers. Importing it imports neither torch nor torchray.

`exec_args` are the names of TorchRay's own functions. The plugin's own are `workarounds` of every method that TorchRay
gets wrong somewhere, and `sigmoid`, `divide_by_p` and `all_classes` of `rise`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cfi_core.hookspec import hookimpl
from cfi_core.specs import Defaults, Documentation, Head, Kind, MethodSpec, Need, Role, Samples, ToolsetSpec

WORKAROUNDS = "workarounds"
"""Whether faults of TorchRay that change values are worked around; its own users have them."""

REDUCTION = "gradient_to_saliency"
CONTEXT = "context_builder"

SALIENCY_ARGS = (
    "input",
    "target",
    "saliency_layer",
    "resize",
    "resize_mode",
    "smooth",
    REDUCTION,
    "get_backward_gradient",
)
RISE_ARGS = ("input", "target", "seed", "num_masks", "num_cells", "filter_masks", "batch_size", "p", "resize")
PERTURBATION_ARGS = (
    "input",
    "target",
    "areas",
    "perturbation",
    "max_iter",
    "num_levels",
    "step",
    "sigma",
    "jitter",
    "variant",
    "reward_func",
    "resize",
    "smooth",
)
CONTRASTIVE_ARGS = (
    "input",
    "target",
    "saliency_layer",
    "contrast_layer",
    "classifier_layer",
    "resize",
    "resize_mode",
    REDUCTION,
)
_WITHOUT_LAYER = {"input": Role.INPUTS, "target": Role.TARGET}
ROLES = {**_WITHOUT_LAYER, "saliency_layer": Role.LAYER}

RECTIFIERS = ("torch.relu", "torch.relu_")
"""What the contexts of deconvolution and guided backpropagation exchange for the whole process."""
FUNCTIONS = ("torch.nn.functional",)
"""Where excitation backprop exchanges convolutions, linear maps, average pools and batch normalisation."""

_GRADIENT = frozenset({Need.FORWARD, Need.INPUT_GRADIENT})
_RULES = _GRADIENT | {Need.MODULES}
_LAYER_GRADIENT = frozenset({Need.FORWARD, Need.LAYER, Need.LAYER_GRADIENT})

_SIMONYAN = "Simonyan et al. 2013, Deep Inside Convolutional Networks"
_ZEILER = "Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks"
_SPRINGENBERG = "Springenberg et al. 2014, Striving for Simplicity: The All Convolutional Net"
_SELVARAJU = "Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks"
_ZHANG = "Zhang et al. 2016, Top-down Neural Attention by Excitation Backprop"
_LINEAR = "TorchRay; Olah et al. 2018, The Building Blocks of Interpretability"
_PETSIUK = "Petsiuk et al. 2018, RISE: Randomized Input Sampling for Explanation of Black-box Models"
_FONG = "Fong et al. 2019, Understanding Deep Networks via Extremal Perturbations and Smooth Masks"

_OF_TORCHRAY: dict[str, Any] = {"toolset": "torchray", "implementation": "cfi_torchray.run:run"}
_COMMON = "torchray.attribution.common:gradient_to_saliency"
_EXCITATION = "torchray.attribution.excitation_backprop:gradient_to"
_NOT_STRETCHED = {"resize": False, "resize_mode": "bilinear"}
_PLAIN = {**_NOT_STRETCHED, "smooth": 0.0}


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """TorchRay, for models of PyTorch."""
    return [
        ToolsetSpec(
            name="torchray",
            framework="torch",
            requirements=("torchray>=1.0.0.2,<2", "torch>=2.13", "torchvision>=0.28"),
            homepage="https://facebookresearch.github.io/TorchRay (non-commercial use only: CC BY-NC 4.0)",
            patches=(),  # those of single methods stand there
        )
    ]


@hookimpl
def cfi_methods() -> Iterable[MethodSpec]:
    """Every method of `torchray.attribution`."""
    return [
        _saliency("saliency", _SIMONYAN, _defaults_with_reduction(None, _COMMON), needs=_GRADIENT, own_rule=True),
        _saliency("deconvolution", _ZEILER, _defaults_with_reduction(None, _COMMON), needs=_RULES, patches=RECTIFIERS),
        _saliency(
            "guided_backprop", _SPRINGENBERG, _defaults_with_reduction(None, _COMMON), needs=_RULES, patches=RECTIFIERS
        ),
        _saliency(
            "linear_approx",
            _LINEAR,
            _defaults_with_reduction("linear", "torchray.attribution.linear_approx:gradient_to_linear_approx_saliency"),
            needs=_GRADIENT,
        ),
        _saliency(
            "grad_cam",
            _SELVARAJU,
            _defaults_with_reduction("weighted sum", "torchray.attribution.grad_cam:gradient_to_grad_cam_saliency"),
            needs=_LAYER_GRADIENT,
            at_layer=True,
        ),
        _saliency(
            "excitation_backprop",
            _ZHANG,
            _defaults_with_reduction(None, f"{_EXCITATION}_excitation_backprop_saliency"),
            needs=_RULES,
            patches=FUNCTIONS,
        ),
        MethodSpec(
            key="contrastive_excitation_backprop",
            kind=Kind.LAYER,
            needs=_LAYER_GRADIENT | {Need.MODULES},
            citation=_ZHANG,
            required=("inputs", "layer"),
            optional=("target",),
            init_args=(WORKAROUNDS,),
            exec_args=CONTRASTIVE_ARGS,
            head=Head.LOGIT,
            defaults=_defaults(
                {REDUCTION: None, **_NOT_STRETCHED},
                {REDUCTION: f"{_EXCITATION}_contrastive_excitation_backprop_saliency", **_NOT_STRETCHED},
            ),
            roles=ROLES | dict.fromkeys(("contrast_layer", "classifier_layer"), Role.OTHER_LAYER),
            patches=FUNCTIONS,
            own_required=("contrast_layer",),
            samples=Samples.APART,
            documentation=_documentation(
                "excitation_backprop:contrastive_excitation_backprop",
                (WORKAROUNDS, REDUCTION),
                contrast_layer="cfi.layers(model, inputs)[-2].name",
            ),
            **_OF_TORCHRAY,
        ),
        MethodSpec(
            key="rise",
            kind=Kind.ATTRIBUTION,
            needs=frozenset({Need.FORWARD}),
            citation=_PETSIUK,
            optional=("target",),
            exec_args=(*RISE_ARGS, "sigmoid", "divide_by_p", "all_classes"),
            head=Head.OUTPUT,
            defaults=Defaults(
                raw={"sigmoid": False, "divide_by_p": True, "all_classes": False, "resize": False},
                toolset={"seed": 0, "sigmoid": True, "divide_by_p": False, "all_classes": True, "resize": False},
            ),
            roles=_WITHOUT_LAYER,
            documentation=_documentation("rise:rise", ("target", "sigmoid", "divide_by_p", "all_classes")),
            **_OF_TORCHRAY,
        ),
        MethodSpec(
            key="extremal_perturbation",
            kind=Kind.ATTRIBUTION,
            needs=_GRADIENT,
            citation=_FONG,
            optional=("target",),
            exec_args=PERTURBATION_ARGS,
            head=Head.OUTPUT,
            init_args=(WORKAROUNDS,),
            defaults=_defaults({"resize": False, "smooth": 0.0}, {"resize": False, "smooth": 0.0}),
            roles=_WITHOUT_LAYER,
            documentation=_documentation("extremal_perturbation:extremal_perturbation", (WORKAROUNDS,)),
            **_OF_TORCHRAY,
        ),
    ]


_WORDS = {
    WORKAROUNDS: "Whether faults of TorchRay that are known to change values are worked around. Its own users have "
    "these faults.",
    REDUCTION: "What makes one map of the gradient: a function, 'weighted sum', 'linear', or None, which leaves every "
    "channel.",
    "target": "The class whose map is taken.",
    "sigmoid": "Whether the scores go through a sigmoid first, as TorchRay has it; the paper takes them as they are.",
    "divide_by_p": "Whether the mean over the masks is divided by how much of the image is seen, as in the paper.",
    "all_classes": "Whether the maps of all classes, which TorchRay returns, go into extras['all_classes'].",
}
"""The plugin's own arguments, and what TorchRay does not explain."""


def _documentation(function: str, own: tuple[str, ...], **example: str) -> Documentation:
    """Where the arguments of a method are explained."""
    return Documentation(
        exec_args=(f"torchray.attribution.{function}",),
        words={name: _WORDS[name] for name in own},
        example=example,
    )


def _saliency(
    key: str,
    citation: str,
    defaults: Defaults,
    *,
    needs: frozenset[Need],
    patches: tuple[str, ...] = (),
    at_layer: bool = False,
    own_rule: bool = False,
) -> MethodSpec:
    """A method that is one call of `torchray.attribution.common.saliency`."""
    return MethodSpec(
        key=key,
        kind=Kind.LAYER if at_layer else Kind.ATTRIBUTION,
        needs=needs,
        citation=citation,
        required=("inputs", "layer") if at_layer else ("inputs",),
        optional=("target",) if at_layer else ("target", "layer"),
        init_args=(WORKAROUNDS,),
        exec_args=(*SALIENCY_ARGS, CONTEXT) if own_rule else SALIENCY_ARGS,
        argument_needs={CONTEXT: Need.MODULES} if own_rule else {},
        head=Head.LOGIT,
        defaults=defaults,
        roles=ROLES,
        patches=patches,
        documentation=_documentation("common:saliency", (WORKAROUNDS,)),
        samples=Samples.APART,
        maps_layer=Need.MODULES not in needs,  # whose rules would not know what shows the map
        **_OF_TORCHRAY,
    )


def _defaults_with_reduction(raw: str | None, toolset: str) -> Defaults:
    return _defaults({REDUCTION: raw, **_PLAIN}, {REDUCTION: toolset, **_PLAIN})


def _defaults(raw: Mapping[str, Any], toolset: Mapping[str, Any]) -> Defaults:
    return Defaults(raw={**raw, WORKAROUNDS: True}, toolset={**toolset, WORKAROUNDS: False})
