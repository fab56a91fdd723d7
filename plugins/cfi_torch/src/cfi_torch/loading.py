"""Models and weights of torch from files: nothing that stands in them is run unless the caller trusts them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from cfi_core.errors import ModelFileError, UntrustedFileError, brief
from cfi_core.file_contents import open_archive
from cfi_torch.outline import MOST_PICKLE, Call, Weight, read_outline

_MOST_HEADER, _MOST_LISTS = 2**24, 2**19
"""Of a safetensors file: bytes, and how many lists and objects; 100,000 weights have ten megabytes."""

_SHOWN = 5
_FACTORY = "Pass the function or class that makes the model as well: cfi.load_model('package.module:factory', weights="


def read_archive(path: Path, trust: bool) -> Any:
    """The module in a file of `torch.save`."""
    if not trust:
        raise _refusal(path)
    found = torch.load(path, map_location="cpu", weights_only=False)
    if isinstance(found, Mapping):
        raise ModelFileError(_no_model(path, "a state dict"))
    return found


def read_script(path: Path, trust: bool) -> Any:
    """A TorchScript module."""
    return torch.jit.load(str(path), map_location="cpu")


def read_program(path: Path, trust: bool) -> Any:
    """An exported program."""
    return torch.export.load(path)


def load_state(model: Any, path: Path) -> None:
    """Loads the state dict that a file of `torch.save` holds, alone or beside other things."""
    outline, foreign = _outline(path)
    if foreign:
        raise ModelFileError(
            f"{_shown(path)} holds objects of {_listed(foreign)}, which no file of weights needs. Write it anew with "
            f"torch.save(model.state_dict(), …)."
        )
    key = _state_key(outline, path)
    _check_fits(model, outline if key is None else outline[key], path)
    held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    _load(model, held if key is None else held[key], path)


def load_safetensors(model: Any, path: Path) -> None:
    """Loads the weights in a safetensors file."""
    _check_fits(model, _read_header(path), path)
    _load(model, safetensors.torch.load_file(path), path)


# what is in a file


def _refusal(path: Path) -> ModelFileError:
    """Why the archive is not read, by what it holds."""
    outline, foreign = _outline(path)
    if foreign or isinstance(outline, Call):
        return UntrustedFileError(
            f"{_shown(path)} holds objects of {_listed(foreign)}, and making them could run code. If you trust where "
            f"it came from, pass trust=True. What is safe: torch.save(model.state_dict(), …), and then "
            f"cfi.load_model('package.module:factory', weights=…)."
        )
    if isinstance(outline, Mapping):
        return ModelFileError(_no_model(path, "a state dict: weights and their names"))
    return ModelFileError(_no_model(path, f"a {type(outline).__name__.lower()}"))


def _no_model(path: Path, what: str) -> str:
    return f"{_shown(path)} holds {what}, which is no model yet. {_FACTORY}{str(path)!r})."


def _outline(path: Path) -> tuple[Any, tuple[str, ...]]:
    with open_archive(path) as archive:
        members = archive.infolist()
        # torch packs nothing; what is packed, or shares its place with others, can become any size.
        whole = sum(one.file_size for one in members) <= path.stat().st_size
        if not whole or any(one.compress_type != zipfile.ZIP_STORED for one in members):
            raise ModelFileError(f"{_shown(path)} has packed members, which torch.save does not write.")
        pickles = [one for one in members if one.filename.endswith("/data.pkl")]
        folder, _, _ = pickles[0].filename.rpartition("/")
        if len(pickles) > 1 or pickles[0].file_size > MOST_PICKLE:
            raise ModelFileError(f"{_shown(path)} has several pickles, or a very large one.")
        data = archive.read(pickles[0])
    start = f"{folder}/data/"
    try:
        return read_outline(
            data, {one.filename.removeprefix(start): one.file_size for one in members if one.filename.startswith(start)}
        )
    except ModelFileError as error:
        raise ModelFileError(f"{_shown(path)} is no file that torch.save wrote: {error}.") from error


def _state_key(outline: Any, path: Path) -> str | None:
    """Where the state dict is: None if it is the whole."""
    if _is_state(outline):
        return None
    keys = [key for key, value in outline.items() if _is_state(value)] if isinstance(outline, Mapping) else []
    if len(keys) == 1:
        return str(keys[0])
    found = f"several ({_listed(keys)}): write the one you mean into a file of its own" if keys else "none"
    raise ModelFileError(f"Of state dicts, {_shown(path)} holds {found}.")


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(one, Weight) for one in value.values())


def _read_header(path: Path) -> dict[str, Weight]:
    """What a safetensors file says of its weights; the library checks once more where they lie."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MOST_HEADER, path.stat().st_size - 8):
            raise ModelFileError(f"{_shown(path)} claims a header of {length:,} bytes. It is broken or truncated.")
        text = file.read(length)
    if text.count(b"[") + text.count(b"{") > _MOST_LISTS:
        raise ModelFileError(f"{_shown(path)} has a header of too many parts.")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        return {name: Weight(tuple(map(int, one["shape"]))) for name, one in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{_shown(path)} has a header that says no weights.") from error


# into the model


def _check_fits(model: Any, weights: Mapping[Any, Weight], path: Path) -> None:
    """Whether names and shapes are the model's, before anything large is read."""
    if not isinstance(model, nn.Module):
        raise ModelFileError(f"{_shown(path)} holds weights for a torch.nn.Module, and the model is {type(model)}.")
    own = model.state_dict()
    missing, others = [name for name in own if name not in weights], [name for name in weights if name not in own]
    shapes = [
        f"{name!r} is {tuple(own[name].shape)} in the model and {brief(str(weights[name].shape))} in the file"
        for name in own
        if name in weights and tuple(own[name].shape) != weights[name].shape
    ]
    _refuse_misfits(path, missing, others, shapes)


def _refuse_misfits(path: Path, missing: list[str], others: list[Any], shapes: list[str]) -> None:
    reasons = [f"the file lacks {_listed(missing)}"] * bool(missing)
    reasons += [f"the model has no {_listed(others)}"] * bool(others)
    reasons += ["; ".join(shapes[:_SHOWN]) + (f" and {len(shapes) - _SHOWN} more" if len(shapes) > _SHOWN else "")]
    if any(reasons):
        raise ModelFileError(
            f"The weights in {_shown(path)} are not those of the model: {'; '.join(filter(None, reasons))}."
            f"{_hint(missing, others)}"
        )


def _hint(missing: list[str], others: list[Any]) -> str:
    """Training tools put a word in front of all names."""
    first = str(others[0]).partition(".")[0] + "." if others else ""
    if first and missing and {f"{first}{name}" for name in missing} == set(others):
        return f" All names in the file begin with {brief(first)!r}: write them without it."
    return ""


def _load(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    own = model.state_dict()
    kinds = [
        f"{name!r} is {own[name].dtype} in the model and {weights[name].dtype} in the file"
        for name in own
        if (own[name].is_floating_point(), own[name].is_complex())
        != (weights[name].is_floating_point(), weights[name].is_complex())
    ]
    _refuse_misfits(path, [], [], kinds)
    # Weights on the meta device have no values that could be replaced.
    model.load_state_dict(weights, strict=True, assign=any(one.is_meta for one in own.values()))
    model.eval()


def _shown(path: Path) -> str:
    return repr(brief(str(path)))


def _listed(names: Any) -> str:
    shown = [repr(brief(str(name))) for name in list(names)[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
