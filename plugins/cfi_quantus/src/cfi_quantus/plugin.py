"""What this plugin offers. Importing it imports neither torch nor quantus."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import MetricSpec
from cfi_quantus.specs import METRICS


@hookimpl
def cfi_metrics() -> Iterable[MetricSpec]:
    """Every metric of `quantus.AVAILABLE_METRICS`."""
    return [metric.spec for metric in METRICS]
