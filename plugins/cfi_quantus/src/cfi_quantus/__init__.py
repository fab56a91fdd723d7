"""Quantus's metrics of explanations for Cross-Framework Introspection.

import cfi_quantus

scores = cfi_quantus.table(model, {"ig": "integrated_gradients"}, ["Sparseness", "Max-Sensitivity"], inputs=x, target=3)
print(cfi_quantus.summarize(scores))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cfi_quantus.listing import metrics

if TYPE_CHECKING:
    from cfi_quantus.evaluation import evaluate, table
    from cfi_quantus.scores import summarize

__all__ = ["evaluate", "metrics", "summarize", "table"]

_HEAVY = {"evaluate": "evaluation", "table": "evaluation", "summarize": "scores"}


def __getattr__(name: str) -> Any:
    """What imports torch and quantus is imported when it is used; the listing imports neither."""
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HEAVY[name]}"), name)
