"""Listings as tables in notebooks: what stands in the columns of each kind of entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cfi_core.discovery import PluginInfo
from cfi_core.display import html_table
from cfi_core.framework import Layer
from cfi_core.specs import ANY, FrameworkSpec, MethodSpec, ToolsetSpec, TranslatorSpec


def html_listing(entries: Sequence[Any]) -> str:
    """A table with one row for each entry, under the heads of the first one."""
    rows = [_row(entry) for entry in entries]
    head = list(rows[0]) if rows else []
    title = f"{len(rows)} {head[0]}{'s' * (len(rows) != 1)}" if rows else "Nothing is listed."
    return html_table(title, head, [list(row.values()) for row in rows])


def _row(entry: Any) -> Mapping[str, object]:
    spec, missing = getattr(entry, "spec", entry), getattr(entry, "missing", ())
    state = {"state": f"not installed: {', '.join(missing)}" if missing else "usable"}
    match spec:
        case MethodSpec():
            asks = ", ".join([*spec.required, *(f"[{name}]" for name in spec.optional)])
            return {"method": spec.key, "toolset": spec.toolset, "kind": spec.kind, "takes": asks}
        case FrameworkSpec():
            return {"framework": spec.name, "models": spec.models or spec.name, **state}
        case ToolsetSpec():
            return {"toolset": spec.name, "for models of": spec.framework, "homepage": spec.homepage, **state}
        case TranslatorSpec():
            source = "any framework" if spec.source == ANY else spec.source
            return {"translator": spec.name, "from": source, "to": spec.target, "kind": spec.kind, **state}
        case PluginInfo():
            return {"plugin": spec.name, "distribution": spec.label, "state": spec.state}
        case Layer():
            shape = "?" if spec.output_shape is None else spec.output_shape
            return {"layer": spec.name, "kind": spec.kind, "output": shape}
    return {"entry": repr(entry)}
