"""What this plugin registers; imports no framework."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from cfi_core.hookspec import hookimpl
from cfi_core.specs import RANDOM, Defaults, Documentation, Head, Kind, MethodSpec, Need, Role, Samples, ToolsetSpec

TOOLSET = "tf-keras-vis"
IMPLEMENTATION = "cfi_tfkerasvis.run:run"

INIT_ARGS = ("model_modifier", "clone")
SALIENCY_ARGS = (
    "score",
    "seed_input",
    "smooth_samples",
    "smooth_noise",
    "keepdims",
    "gradient_modifier",
    "training",
    "normalize_map",
    "unconnected_gradients",
)
GRADIENT_CAM_ARGS = (
    "score",
    "seed_input",
    "penultimate_layer",
    "seek_penultimate_conv_layer",
    "gradient_modifier",
    "activation_modifier",
    "training",
    "expand_cam",
    "normalize_cam",
    "unconnected_gradients",
)
SCORE_CAM_ARGS = (
    "score",
    "seed_input",
    "penultimate_layer",
    "seek_penultimate_conv_layer",
    "activation_modifier",
    "batch_size",
    "max_N",
    "training",
    "expand_cam",
    "normalize_cam",
)
MAXIMIZATION_ARGS = (
    "score",
    "seed_input",
    "input_range",
    "input_modifiers",
    "regularizers",
    "steps",
    "optimizer",
    "gradient_modifier",
    "callbacks",
    "training",
    "unconnected_gradients",
    "activation_modifiers",
)
ROLES = MappingProxyType({"score": Role.OWN_TARGET, "seed_input": Role.ONE_OR_SEVERAL})
LAYER_ROLES = MappingProxyType({**ROLES, "penultimate_layer": Role.LAYER})

# Model modifiers change Keras layers, and training mode is one of Keras layers too.
ARGUMENT_NEEDS = MappingProxyType({"model_modifier": Need.MODULES, "training": Need.MODULES})

WORKAROUNDS = "workarounds"
"""This plugin's own argument: whether faults that change values are worked around; users of tf-keras-vis have them."""
KEEP_STEPS = "keep_steps"
"""This plugin's own argument of activation maximization: how many images on the way are kept, none unless asked for."""
FITTED = "fitted to the inputs"
"""Of activation maximization: what tf-keras-vis has for images of 0…255, where and as far as it fits these inputs."""

RELU, ABSOLUTE = "tensorflow.keras.backend:relu", "tensorflow.keras.backend:abs"
SALIENCY = Defaults(
    raw={"keepdims": True, "gradient_modifier": None, "normalize_map": False},
    toolset={"keepdims": False, "gradient_modifier": ABSOLUTE, "normalize_map": True},
)
# tf-keras-vis has no class of its own for it; its documentation passes these numbers.
SMOOTHING = {"smooth_samples": 20, "smooth_noise": 0.20}
CAM = Defaults(
    raw={
        "seek_penultimate_conv_layer": False,
        "activation_modifier": None,
        "expand_cam": False,
        "normalize_cam": False,
    },
    toolset={
        "seek_penultimate_conv_layer": True,
        "activation_modifier": RELU,
        "expand_cam": True,
        "normalize_cam": True,
    },
)
# The ReLU of the gradients, and that of Grad-CAM++'s weights, belong to the methods as their papers define them.
LAYER_CAM = Defaults(raw={"gradient_modifier": RELU}, toolset={"gradient_modifier": RELU})
PLUS_PLUS = Defaults(raw={"activation_modifier": "cfi_tfkerasvis.workarounds:WeightsReLU"})
MENDED = Defaults(raw={WORKAROUNDS: True}, toolset={WORKAROUNDS: False})
MAXIMIZATION = Defaults(
    raw={"input_modifiers": FITTED, "regularizers": FITTED, "optimizer": FITTED},
    toolset={
        "input_range": (0, 255),
        "input_modifiers": "cfi_tfkerasvis.maximization:MODIFIERS",
        "regularizers": "cfi_tfkerasvis.maximization:REGULARIZERS",
        "optimizer": None,
    },
)

CLASSES = MappingProxyType(
    {
        "saliency": "tf_keras_vis.saliency:Saliency",
        "smooth_grad": "tf_keras_vis.saliency:Saliency",
        "grad_cam": "tf_keras_vis.gradcam:Gradcam",
        "grad_cam_plus_plus": "tf_keras_vis.gradcam_plus_plus:GradcamPlusPlus",
        "layer_cam": "tf_keras_vis.layercam:Layercam",
        "score_cam": "tf_keras_vis.scorecam:Scorecam",
        "activation_maximization": "tf_keras_vis.activation_maximization:ActivationMaximization",
    }
)
"""Where tf-keras-vis says what its arguments mean."""
OWN_WORDS = MappingProxyType(
    {
        WORKAROUNDS: "Whether faults of tf-keras-vis that are known to change values are worked around. Its own users "
        "have these faults.",
        KEEP_STEPS: "How many of the steps are kept in extras, evenly spaced, to see how the image came about; None "
        "keeps none.",
    }
)

INPUT_GRADIENT = frozenset({Need.FORWARD, Need.INPUT_GRADIENT})
LAYER_GRADIENT = frozenset({Need.FORWARD, Need.LAYER, Need.LAYER_GRADIENT})
LAYER = frozenset({Need.FORWARD, Need.LAYER})


@hookimpl
def cfi_toolsets() -> Iterable[ToolsetSpec]:
    """tf-keras-vis, on Keras 3 models that run in TensorFlow."""
    return [
        ToolsetSpec(
            name=TOOLSET,
            framework="tensorflow",
            requirements=("tf-keras-vis>=0.8.7,<0.9", "tensorflow>=2.20", "keras>=3.15", "scipy>=1.14,<2"),
            homepage="https://github.com/keisen/tf-keras-vis",
            patches=(),
        )
    ]


@hookimpl
def cfi_methods() -> Iterable[MethodSpec]:
    """The six classes of tf-keras-vis; smoothed saliency has a key of its own."""
    smooth_grad = Defaults(raw=SMOOTHING, toolset=SMOOTHING).around(SALIENCY)
    return [
        _saliency("saliency", "Simonyan et al. 2013, https://arxiv.org/abs/1312.6034", SALIENCY),
        _saliency("smooth_grad", "Smilkov et al. 2017, https://arxiv.org/abs/1706.03825", smooth_grad),
        _cam(
            "grad_cam",
            LAYER_GRADIENT,
            GRADIENT_CAM_ARGS,
            "Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391",
            CAM,
        ),
        _cam(
            "grad_cam_plus_plus",
            LAYER_GRADIENT,
            GRADIENT_CAM_ARGS,
            "Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063",
            MENDED.around(PLUS_PLUS.around(CAM)),
        ),
        _cam(
            "layer_cam",
            LAYER_GRADIENT,
            GRADIENT_CAM_ARGS,
            "Jiang et al. 2021, https://ieeexplore.ieee.org/document/9462463",
            LAYER_CAM.around(CAM),
        ),
        _cam(
            "score_cam",
            LAYER,
            SCORE_CAM_ARGS,
            "Wang et al. 2020, https://arxiv.org/abs/1910.01279",
            MENDED.around(CAM),
        ),
        MethodSpec(
            key="activation_maximization",
            toolset=TOOLSET,
            kind=Kind.FEATURE_VISUALIZATION,
            needs=INPUT_GRADIENT,
            implementation=IMPLEMENTATION,
            citation="Erhan et al. 2009; Simonyan et al. 2013, https://arxiv.org/abs/1312.6034",
            required=(),
            optional=("inputs", "target", "layer", "neuron"),
            init_args=(*INIT_ARGS, WORKAROUNDS, KEEP_STEPS),
            exec_args=MAXIMIZATION_ARGS,
            roles=ROLES,
            argument_needs=ARGUMENT_NEEDS,
            head=Head.LOGIT,
            defaults=MENDED.around(MAXIMIZATION),
            own_required=("input_range",),
            documentation=_documentation("activation_maximization", WORKAROUNDS, KEEP_STEPS, input_range="(0.0, 1.0)"),
            patches=(RANDOM,),  # its input modifiers draw from numpy's generator, its first noise from TensorFlow's
        ),
    ]


def _saliency(key: str, citation: str, defaults: Defaults) -> MethodSpec:
    return MethodSpec(
        key=key,
        toolset=TOOLSET,
        kind=Kind.ATTRIBUTION,
        needs=INPUT_GRADIENT,
        implementation=IMPLEMENTATION,
        citation=citation,
        optional=("target",),
        init_args=INIT_ARGS,
        exec_args=SALIENCY_ARGS,
        roles=ROLES,
        argument_needs=ARGUMENT_NEEDS,
        head=Head.LOGIT,
        defaults=defaults,
        documentation=_documentation(key),
        common={"smooth_samples": "samples", "smooth_noise": "noise share"},
        samples=Samples.APART if key == "saliency" else Samples.ALONE,
        alone_with=("smooth_samples", "training"),
        once=key == "saliency",
    )


def _cam(key: str, needs: frozenset[Need], exec_args: tuple[str, ...], citation: str, defaults: Defaults) -> MethodSpec:
    return MethodSpec(
        key=key,
        toolset=TOOLSET,
        kind=Kind.LAYER,
        needs=needs,
        implementation=IMPLEMENTATION,
        citation=citation,
        required=("inputs", "layer"),
        optional=("target",),
        init_args=(*INIT_ARGS, WORKAROUNDS) if WORKAROUNDS in defaults.raw else INIT_ARGS,
        exec_args=exec_args,
        roles=LAYER_ROLES,
        argument_needs=ARGUMENT_NEEDS,
        head=Head.LOGIT,
        defaults=defaults,
        takes_integers=Need.LAYER_GRADIENT not in needs,  # Score-CAM, which scales the inputs, is for no others at all
        maps_layer=True,
        samples=Samples.APART,
        # Samples of a batch choose each other's maps in tf-keras-vis, or share their statistics.
        alone_with=tuple(name for name in ("max_N", "training") if name in exec_args),
        documentation=_documentation(key, *(WORKAROUNDS,) * (WORKAROUNDS in defaults.raw)),
    )


def _documentation(key: str, *own: str, **example: str) -> Documentation:
    """Where the arguments of a method are explained; the plugin's own ones here."""
    place = CLASSES[key]
    return Documentation(
        init_args=(place,),
        exec_args=(f"{place}.__call__",),
        words={name: OWN_WORDS[name] for name in own},
        example=example,
    )
