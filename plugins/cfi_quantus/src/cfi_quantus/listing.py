"""Lists the metrics. Nothing here imports torch or quantus."""

from __future__ import annotations

from cfi_core.errors import ArgumentError
from cfi_core.specs import MetricSpec
from cfi_quantus.specs import METRICS


class Listing(list[MetricSpec]):
    """A list that prints one metric per line."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))


def metrics(category: str | None = None) -> Listing:
    """Quantus's metrics: name, category, which scores are better, what each needs.

    Args:
        category: Only those of that category, such as `"Faithfulness"`.

    Raises:
        ArgumentError: There is no such category.
    """
    known = dict.fromkeys(metric.category for metric in METRICS)
    if category is not None and category.capitalize() not in known:
        raise ArgumentError(f"Quantus has no category {category!r}; it has {', '.join(known)}.")
    return Listing(metric.spec for metric in METRICS if category is None or metric.category == category.capitalize())
