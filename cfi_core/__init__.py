"""Cross-Framework Introspection: explain a model of one framework with a toolset of another.

import cfi_core as cfi

attribution = cfi.attribute(torch_model, "grad_cam", "tf-keras-vis", inputs=images, target=3, layer="conv2")
attribution.plot()
"""

from importlib.metadata import version as _version

from cfi_core import targets
from cfi_core.api import attribute, finish_execution_with_layer, layers, plan, translate, visualize_features
from cfi_core.attribution import Attribution
from cfi_core.certificate import Certificate
from cfi_core.errors import (
    ArgumentError,
    CFIError,
    CFIWarning,
    ChoiceWarning,
    CompletenessWarning,
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
from cfi_core.tokens import TokenBaseline
from cfi_core.translation.store import forget_translations, keep_translations

__version__ = _version("cfi-core")

# By kind, as in docs/api.md.
__all__ = ["attribute", "visualize_features", "finish_execution_with_layer", "plan", "translate", "layers"]
__all__ += ["targets"]
__all__ += ["methods", "toolsets", "frameworks", "translators", "plugins"]
__all__ += ["TokenBaseline"]
__all__ += ["keep_translations", "forget_translations"]
__all__ += ["Attribution", "PendingLayer", "Plan", "Translation", "Certificate", "LayerMap", "LayerMatch", "Layer"]
__all__ += ["CFIError", "ArgumentError", "InputError", "TargetError", "LayerError", "MethodError", "NoGradientError"]
__all__ += ["PlotError", "PluginConflictError", "RouteError", "TranslationError", "UnfaithfulTranslationError"]
__all__ += ["UnknownFrameworkError", "UnknownMethodError"]
__all__ += ["CFIWarning", "ChoiceWarning", "CompletenessWarning", "ModelWarning", "PluginWarning", "TranslationWarning"]
