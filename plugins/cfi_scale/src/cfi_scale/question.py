"""What a store answers, in words that tell it from any other question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from types import CellType, CodeType, FunctionType
from typing import Any

import cloudpickle
import numpy as np

from cfi_core import Explainer
from cfi_core.adapters import adapter_for
from cfi_core.detection import load_original
from cfi_core.registry import registry

_ASKED = (
    "method_key", "toolset", "explain", "feature_names", "target", "layer", "reshape", "neuron", "baselines",
    "init_args", "exec_args", "translator", "head", "defaults", "seed", "batch_size",
)  # fmt: skip
_LONGEST = 64


def describe_explainer(explainer: Explainer) -> dict[str, Any]:
    """All that was asked, with a hash of the model, in the types of JSON."""
    asked = explainer.asked
    found = {name: describe(getattr(asked, name)) for name in _ASKED if name != "layer"}
    return {"model": hash_of_model(explainer), **found, "layer": _describe_layer(explainer, asked.layer)}


def hash_of_model(explainer: Explainer) -> str:
    """A hash of the model's content, whatever the framework tells of that."""
    told = explainer.fingerprint
    return told if isinstance(told, str) and len(told) <= _LONGEST else _hash(repr(told).encode())


def _describe_layer(explainer: Explainer, layer: Any) -> Any:
    """Layers by their names in the model."""
    if layer is None or isinstance(layer, str):
        return layer
    if isinstance(layer, list | tuple):
        return [_describe_layer(explainer, one) for one in layer]
    original = load_original(registry(), explainer.asked.model)
    return adapter_for(registry(), original.framework).layer_name(original.model, layer)


def describe(value: Any) -> Any:
    """A value in the types of JSON, the same in every process: arrays and functions as hashes of their contents."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(one) for key, one in value.items()}
    if isinstance(value, list | tuple | range):
        return [describe(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__} {_hash(_contents(value))}"
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__qualname__} | {
            one.name: describe(getattr(value, one.name)) for one in fields(value)
        }
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return f"{array.dtype}{array.shape} {_hash(np.ascontiguousarray(array).tobytes())}"
    return f"{type(value).__module__}.{type(value).__qualname__} {_hash(cloudpickle.dumps(value))}"


def differences(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """Where two questions differ, in words."""
    names = [name for name in {**stored, **asked} if asked.get(name) != stored.get(name)]
    return [f"{name} was {_brief(stored.get(name))}, and is {_brief(asked.get(name))}" for name in names]


def _contents(function: FunctionType, seen: tuple[FunctionType, ...] = ()) -> bytes:
    """Of a function: what it does, wherever it stands, and the values that it has from outside."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    known = (function, *seen)
    used = {name: function.__globals__.get(name) for name in sorted(_names_in(function.__code__))}
    outside = {
        name: _contents(value, known).hex() if isinstance(value, FunctionType) else describe(value)
        for name, value in {**used, **{f"cell {place}": cell for place, cell in enumerate(cells)}}.items()
        if (isinstance(value, FunctionType) and value not in known) or _is_plain(value)
    }
    given = [one for one in (function.__defaults__, function.__kwdefaults__) if _is_plain(one)]
    return _code(function.__code__) + json.dumps([outside, describe(given)]).encode()


def _is_plain(value: Any) -> bool:
    """Whether it is described by its contents, and not by how it is pickled."""
    if isinstance(value, list | tuple | Mapping):
        return all(map(_is_plain, value.values() if isinstance(value, Mapping) else value))
    return value is None or isinstance(value, bool | int | float | str | range) or hasattr(value, "__array__")


def _names_in(code: CodeType) -> set[str]:
    """Names that it, or a function in it, looks up outside."""
    inner = [_names_in(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


def _code(code: CodeType) -> bytes:
    inner = [_code(one) if isinstance(one, CodeType) else repr(one).encode() for one in code.co_consts]
    return b"|".join([code.co_code, *inner, repr(code.co_names).encode()])


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:80] + "…"
