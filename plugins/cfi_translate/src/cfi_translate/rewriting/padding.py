"""Padding in front of what can pad by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cfi_translate.program import Operation
from cfi_translate.rewriting.editor import ProgramEditor
from cfi_translate.rewriting.matching import number
from cfi_translate.semantics.values import static
from cfi_translate.semantics.windows import window_of

_FILLS = {"Conv": 0.0, "AveragePool": 0.0, "MaxPool": -np.inf}


def padding_into_window(pad: Operation, editor: ProgramEditor) -> None:
    """Zeros around what only a convolution or an average takes, and minus infinity around what a maximum takes."""
    follower = editor.only_user(pad.output, *_FILLS) if pad.kind == "Pad" and pad.version >= 11 else None
    around = None if follower is None else _spatial_pads(pad)
    if follower is None or around is None or follower.inputs[0] is not pad.output:
        return
    fill = 0.0 if pad.input(2) is None else number(pad.input(2))
    settings = dict(follower.attributes)
    automatic = settings.get("auto_pad", "NOTSET") or "NOTSET"
    own = settings.get("pads") or (0,) * len(around)
    own = own if automatic == "NOTSET" else (0,) * len(around)
    if fill != _FILLS[follower.kind] or automatic not in ("NOTSET", "VALID"):
        return
    pads = tuple(int(one) + two for one, two in zip(around, own, strict=True))
    if follower.kind != "Conv" and not _pools_alike(follower, pads, own):
        return
    settings.update(pads=pads, auto_pad="NOTSET")
    if follower.kind == "AveragePool":
        settings["count_include_pad"] = 1
    editor.replace(follower, replace(follower, inputs=(pad.inputs[0], *follower.inputs[1:]), attributes=settings))


def explicit_padding(window: Operation, editor: ProgramEditor) -> None:
    """Padding that follows the size of the data becomes numbers, where the size is known."""
    if window.kind not in _FILLS or (window.attributes.get("auto_pad") or "NOTSET") == "NOTSET":
        return
    data, weight = window.inputs[0], window.input(1)
    kernel = window.attributes.get("kernel_shape") or ((weight and weight.shape) or ())[2:]
    if data is None or data.shape is None or None in data.shape[2:] or not kernel or None in kernel:
        return
    area = window_of(window, static(kernel), data.shape[2:])
    settings = {**window.attributes, "auto_pad": "NOTSET", "pads": (*area.begin, *area.end)}
    editor.replace(window, replace(window, attributes=settings))


def _spatial_pads(pad: Operation) -> list[int] | None:
    """The padding of the axes behind the channels, if only these are padded and nothing is cut off."""
    pads = pad.input(1)
    known = None if pads is None else pads.constant
    if known is None or pad.input(3) is not None or pad.attributes["mode"] != "constant" or known.min(initial=0) < 0:
        return None
    begin, end = np.split(known, 2)
    return None if any(begin[:2]) or any(end[:2]) else [*begin[2:].tolist(), *end[2:].tolist()]


def _pools_alike(pool: Operation, pads: Sequence[int], own: Sequence[int]) -> bool:
    """Whether a pooling with this padding makes the same windows, and counts in each of them what it did."""
    kernel = (*pool.attributes["kernel_shape"],) * 2
    counted = pool.attributes.get("count_include_pad", 0) or not any(own)
    is_plain = len(pool.outputs) == 1 and not pool.attributes.get("ceil_mode")
    return is_plain and bool(counted) and all(one < size for one, size in zip(pads, kernel, strict=True))
