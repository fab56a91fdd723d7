"""Cross-Framework Introspection: explain a model of one framework with a toolset of another.

import cfi_core as cfi

attribution = cfi.attribute(torch_model, "grad_cam", "tf-keras-vis", inputs=images, target=3, layer="conv2")
attribution.plot()
"""

from importlib import import_module as _import
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from cfi_core.errors import (
    ArgumentError,
    BaselineWarning,
    CFIError,
    CFIWarning,
    ChoiceWarning,
    CompletenessWarning,
    InputError,
    LayerError,
    MethodError,
    ModelFileError,
    ModelWarning,
    NoGradientError,
    OutOfMemoryError,
    PlotError,
    PluginConflictError,
    PluginWarning,
    RouteError,
    SamplingWarning,
    TargetError,
    TranslationError,
    TranslationWarning,
    UnfaithfulTranslationError,
    UnknownFrameworkError,
    UnknownMethodError,
    UntrustedFileError,
)

if TYPE_CHECKING:
    from cfi_core import targets
    from cfi_core.api import attribute, finish_execution_with_layer, layers, plan, translate, visualize_features
    from cfi_core.archive import load
    from cfi_core.attribution import Attribution
    from cfi_core.certificate import Certificate
    from cfi_core.checks import Check, Checks, check
    from cfi_core.comparing import Comparison, compare
    from cfi_core.explainer import Explainer
    from cfi_core.framework.base import Layer
    from cfi_core.layer_map import LayerMap, LayerMatch
    from cfi_core.listing import frameworks, methods, plugins, toolsets, translators
    from cfi_core.model_files import load_model
    from cfi_core.records import PendingLayer, Plan, Translation
    from cfi_core.tokens import TokenBaseline
    from cfi_core.translation.store import forget_translations, keep_translations

__version__ = _version("cfi-core")

# By kind, as in docs/api.md.
__all__ = ["attribute", "visualize_features", "finish_execution_with_layer", "plan", "translate", "layers"]
_CALLS = tuple(__all__)
__all__ += ["Explainer"]
__all__ += ["load"]
__all__ += ["compare"]
__all__ += ["load_model"]
__all__ += ["check"]
__all__ += ["targets"]
__all__ += ["methods", "toolsets", "frameworks", "translators", "plugins"]
__all__ += ["TokenBaseline"]
__all__ += ["keep_translations", "forget_translations"]
__all__ += ["Attribution", "PendingLayer", "Plan", "Translation", "Certificate", "LayerMap", "LayerMatch", "Layer"]
__all__ += ["Comparison"]
__all__ += ["Checks", "Check"]
__all__ += ["CFIError", "ArgumentError", "InputError", "TargetError", "LayerError", "MethodError", "NoGradientError"]
__all__ += ["OutOfMemoryError"]
__all__ += ["PlotError", "PluginConflictError", "RouteError", "TranslationError", "UnfaithfulTranslationError"]
__all__ += ["UnknownFrameworkError", "UnknownMethodError", "ModelFileError", "UntrustedFileError"]
__all__ += ["CFIWarning", "ChoiceWarning", "CompletenessWarning", "ModelWarning", "PluginWarning", "TranslationWarning"]
__all__ += ["BaselineWarning", "SamplingWarning"]

# Loaded when they are first used, as the steps of a call are with them: listing what is installed needs none of these.
_PLACES = {
    **dict.fromkeys(_CALLS, "cfi_core.api"),
    "load": "cfi_core.archive",
    **dict.fromkeys(("compare", "Comparison"), "cfi_core.comparing"),
    "load_model": "cfi_core.model_files",
    "Explainer": "cfi_core.explainer",
    **dict.fromkeys(("check", "Checks", "Check"), "cfi_core.checks"),
    **dict.fromkeys(("methods", "toolsets", "frameworks", "translators", "plugins"), "cfi_core.listing"),
    **dict.fromkeys(("PendingLayer", "Plan", "Translation"), "cfi_core.records"),
    **dict.fromkeys(("LayerMap", "LayerMatch"), "cfi_core.layer_map"),
    "Attribution": "cfi_core.attribution",
    "Certificate": "cfi_core.certificate",
    "Layer": "cfi_core.framework.base",
    "TokenBaseline": "cfi_core.tokens",
    "keep_translations": "cfi_core.translation.store",
    "forget_translations": "cfi_core.translation.store",
}


def __getattr__(name: str) -> Any:
    """What is loaded when it is first used."""
    if name == "targets":
        return _import("cfi_core.targets")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(_import(_PLACES[name]), name)
    return found


def __dir__() -> list[str]:
    """The public names, those included that are not loaded yet, and nothing else."""
    return sorted(__all__)
