"""The classes of tf-explain as data: what each needs, takes, gives and cites, and where it departs from its paper.

`init_args` and `exec_args` are the names of tf-explain's own signatures; a test compares them with tf-explain. The
plugin's own are `picture`, and `multiply_by_inputs` of integrated gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cfi_core.specs import Completeness, Defaults, Documentation, Head, Kind, MethodSpec, Need, Role, Samples, Total

TOOLSET = "tf-explain"

PICTURE = "picture"
"""Own argument: whether the values are those of the 8-bit picture that tf-explain's `explain` returns."""
MULTIPLY = "multiply_by_inputs"
"""Own argument, in captum's words: whether integrated gradients are multiplied by inputs less baselines."""
FITTED = "0.2 of each sample's range"
"""In place of a number: the noise of SmoothGrad, as tf-keras-vis's documentation chooses it."""

ROLES = MappingProxyType(
    {
        "validation_data": Role.INPUTS,
        "class_index": Role.TARGET,
        "layer_name": Role.LAYER,
        "layers_name": Role.LAYER,
    }
)

COMMON = MappingProxyType({"n_steps": "steps", "num_samples": "samples", "noise": "noise", "patch_size": "window"})


@dataclass(frozen=True, kw_only=True)
class ExplainMethod:
    """One class of tf-explain.

    Attributes:
        key: The method's key.
        tool: Name of the class.
        kind: What it explains.
        needs: What it requires of the model.
        init_args: Parameters of the constructor.
        exec_args: Parameters of `explain` after the model.
        drawing: Those among them that only the picture has.
        own_args: What this plugin adds to them.
        raw: Settings of `defaults="raw"`.
        toolset: Settings of `defaults="toolset"`; what they leave out is as in tf-explain's signature.
        optional: Uniform arguments that it understands besides the required ones.
        head: Where the method's paper explains a softmax classifier.
        citation: The paper.
        definition: What the raw values are.
        deviation: What tf-explain's picture shows in their place.
        completeness: What the raw values promise to add up to.
    """

    key: str
    tool: str
    kind: Kind = Kind.ATTRIBUTION
    needs: frozenset[Need]
    init_args: tuple[str, ...] = ()
    exec_args: tuple[str, ...]
    drawing: tuple[str, ...] = ()
    own_args: tuple[str, ...] = (PICTURE,)
    raw: Mapping[str, Any] = field(default_factory=dict)
    toolset: Mapping[str, Any] = field(default_factory=dict)
    optional: tuple[str, ...] = ("target",)
    head: Head
    citation: str
    definition: str
    deviation: str
    completeness: Completeness | None = None

    @property
    def spec(self) -> MethodSpec:
        """What the plugin registers."""
        return MethodSpec(
            key=self.key,
            toolset=TOOLSET,
            kind=self.kind,
            needs=self.needs,
            implementation="cfi_tfexplain.run:run",
            citation=self.citation,
            required=("inputs", "layer") if self.kind is Kind.LAYER else ("inputs",),
            zero_baseline="baselines" in self.optional,
            instead_of_baselines=(PICTURE,) if PICTURE in self.own_args and "baselines" in self.optional else (),
            optional=self.optional,
            init_args=self.init_args,
            exec_args=(*self.exec_args, *self.own_args),
            roles={name: role for name, role in ROLES.items() if name in self.exec_args},
            head=self.head,
            defaults=Defaults(raw={PICTURE: False, **self.raw}, toolset={PICTURE: True, **self.toolset}),
            completeness=self.completeness,
            takes_integers=Need.LAYER_GRADIENT not in self.needs,
            samples=Samples.ALONE if "num_samples" in self.exec_args else Samples.APART,
            alone_with=(PICTURE,) if PICTURE in self.own_args else (),  # one picture of all
            maps_layer=self.key == "grad_cam",
            own_required=("patch_size",) if "patch_size" in self.exec_args else (),
            documentation=Documentation(
                init_args=(f"{_MODULES[self.tool]}:{self.tool}",),
                exec_args=(f"{_MODULES[self.tool]}:{self.tool}.explain",),
                words={name: text for name, text in _WORDS.items() if name in (*self.init_args, *self.own_args)},
                example={"patch_size": "4"} if "patch_size" in self.exec_args else {},
            ),
            common={name: word for name, word in COMMON.items() if name in self.exec_args},
        )


_MODULES = {
    "VanillaGradients": "tf_explain.core.vanilla_gradients",
    "GradientsInputs": "tf_explain.core.gradients_inputs",
    "IntegratedGradients": "tf_explain.core.integrated_gradients",
    "SmoothGrad": "tf_explain.core.smoothgrad",
    "OcclusionSensitivity": "tf_explain.core.occlusion_sensitivity",
    "GradCAM": "tf_explain.core.grad_cam",
    "ExtractActivations": "tf_explain.core.activations",
}

_WORDS = {
    PICTURE: "Whether the values are those of the 8-bit picture that tf-explain's own users get, rather than those of "
    "the method's paper.",
    MULTIPLY: "Whether the mean gradient is multiplied by inputs less baselines, as in the paper; tf-explain leaves "
    "that factor out.",
    "batch_size": "How many samples go through the model at a time.",
}
"""The plugin's own arguments, and what tf-explain does not explain."""


_FORWARD = frozenset({Need.FORWARD})
_GRADIENT = _FORWARD | {Need.INPUT_GRADIENT}
_LAYER = _FORWARD | {Need.LAYER}
_DATA = ("validation_data", "class_index")
_GREY = "the whole batch standardised together, in 8 bits that wrap around"

METHODS: Mapping[str, ExplainMethod] = MappingProxyType(
    {
        method.key: method
        for method in (
            ExplainMethod(
                key="saliency",
                tool="VanillaGradients",
                needs=_GRADIENT,
                exec_args=_DATA,
                head=Head.LOGIT,
                citation="Simonyan et al. 2013, https://arxiv.org/abs/1312.6034",
                definition="gradient of the score with respect to the inputs",
                deviation=f"absolute values summed over channels, {_GREY}; a last layer that is an activation of any "
                "kind is left out",
            ),
            ExplainMethod(
                key="input_x_gradient",
                tool="GradientsInputs",
                needs=_GRADIENT,
                exec_args=_DATA,
                head=Head.LOGIT,
                citation="Ancona et al. 2018, Towards Better Understanding of Gradient-Based Attribution Methods",
                definition="input times gradient of the score",
                deviation=f"absolute values summed over channels, {_GREY}; a last layer that is an activation of any "
                "kind is left out",
            ),
            ExplainMethod(
                key="integrated_gradients",
                tool="IntegratedGradients",
                needs=_GRADIENT,
                exec_args=(*_DATA, "n_steps"),
                own_args=(PICTURE, MULTIPLY),
                raw={MULTIPLY: True, "n_steps": 50},
                toolset={MULTIPLY: False, "n_steps": 10},
                optional=("target", "baselines"),
                head=Head.OUTPUT,
                citation="Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365",
                definition="integral of the gradient along the straight path, by the trapezoidal rule over n_steps "
                "points, times inputs less baselines",
                deviation="the mean gradient alone, without the factor (inputs - baselines), from a baseline of zeros, "
                "both ends of the path counted whole; "
                f"absolute values summed over channels, {_GREY}",
                completeness=Completeness(
                    total=Total.DIFFERENCE,
                    within=0.1,  # Sundararajan et al. 2017, section 5: 5 % are enough steps; twice that is a warning
                    only_with={MULTIPLY: True, PICTURE: False},
                    steps="n_steps",
                    suspect="the model jumps between the baselines and the inputs.",
                ),
            ),
            ExplainMethod(
                key="smooth_grad",
                tool="SmoothGrad",
                needs=_GRADIENT,
                exec_args=(*_DATA, "num_samples", "noise"),
                raw={"num_samples": 20, "noise": FITTED},
                toolset={"num_samples": 5, "noise": 1.0},
                head=Head.LOGIT,
                citation="Smilkov et al. 2017, https://arxiv.org/abs/1706.03825",
                definition="mean gradient of the score at inputs with normal noise added",
                deviation="the gradient of the cross-entropy of the outputs, taken as probabilities, not of the score; "
                f"absolute values summed over channels, {_GREY}",
            ),
            ExplainMethod(
                key="occlusion",
                tool="OcclusionSensitivity",
                needs=_FORWARD,
                init_args=("batch_size",),
                exec_args=(*_DATA, "patch_size", "colormap"),
                drawing=("colormap",),
                optional=("target", "baselines"),
                head=Head.OUTPUT,
                citation="Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks",
                definition="drop of the score where a square patch is covered with the baseline (0), given to each "
                "pixel of the patch",
                deviation="1 less the score with the patch at 127.5, interpolated, in colours over the image; on "
                "images that are not square, patches are placed and written along swapped axes",
            ),
            ExplainMethod(
                key="grad_cam",
                tool="GradCAM",
                kind=Kind.LAYER,
                needs=_LAYER | {Need.LAYER_GRADIENT},
                exec_args=(*_DATA, "layer_name", "use_guided_grads", "colormap", "image_weight"),
                drawing=("colormap", "image_weight"),
                raw={"use_guided_grads": False},
                toolset={"use_guided_grads": True},
                head=Head.LOGIT,
                citation="Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391",
                definition="sum over channels of activation times the gradient's mean over space, without the ReLU of "
                "the map, as the other toolsets' raw values",
                deviation="gradients only where they and the activation are positive (guided), no ReLU of the map; "
                "stretched to the image's size and from its own minimum to its maximum, in colours over the image",
            ),
            ExplainMethod(
                key="layer_activation",
                tool="ExtractActivations",
                kind=Kind.LAYER,
                needs=_LAYER,
                init_args=("batch_size",),
                exec_args=("validation_data", "layers_name"),
                optional=(),
                head=Head.OUTPUT,
                citation="Meudec 2019, tf-explain, https://github.com/sicara/tf-explain",
                definition="output of the layer",
                deviation="all activations of all samples together stretched to 8 bits",
            ),
        )
    }
)
