"""Cross-Framework Introspection: explain a model of one framework with a toolset of another.

import cfi_core as cfi

attribution = cfi.attribute(torch_model, "grad_cam", "tf-keras-vis", inputs=images, target=3, layer="conv2")
attribution.plot()
"""

from importlib.metadata import version as _version

from cfi_core.api import attribute, finish_execution_with_layer, layers, plan, translate, visualize_features
from cfi_core.attribution import Attribution
from cfi_core.certificate import Certificate
from cfi_core.errors import (
    ArgumentError,
    CFIError,
    CFIWarning,
    ChoiceWarning,
    InputError,
    LayerError,
    MethodError,
    ModelWarning,
    NoGradientError,
    PlotError,
    PluginConflictError,
    PluginWarning,
    RouteError,
    TargetError,
    TranslationError,
    TranslationWarning,
    UnfaithfulTranslationError,
    UnknownFrameworkError,
    UnknownMethodError,
)
from cfi_core.framework.base import Layer
from cfi_core.layer_map import LayerMap, LayerMatch
from cfi_core.listing import frameworks, methods, plugins, toolsets, translators
from cfi_core.records import PendingLayer, Plan, Translation
from cfi_core.translation.cache import forget_translations
from cfi_core.translation.store import keep_translations

__version__ = _version("cfi-core")

__all__ = [
    "ArgumentError",
    "Attribution",
    "CFIError",
    "CFIWarning",
    "Certificate",
    "ChoiceWarning",
    "InputError",
    "Layer",
    "LayerError",
    "LayerMap",
    "LayerMatch",
    "MethodError",
    "ModelWarning",
    "NoGradientError",
    "PendingLayer",
    "Plan",
    "PlotError",
    "PluginConflictError",
    "PluginWarning",
    "RouteError",
    "TargetError",
    "Translation",
    "TranslationError",
    "TranslationWarning",
    "UnfaithfulTranslationError",
    "UnknownFrameworkError",
    "UnknownMethodError",
    "attribute",
    "finish_execution_with_layer",
    "forget_translations",
    "frameworks",
    "keep_translations",
    "layers",
    "methods",
    "plan",
    "plugins",
    "toolsets",
    "translate",
    "translators",
    "visualize_features",
]
