"""Looks through the bytes of an ONNX file before they are parsed: protobuf's format, without a copy of any content.

Parsing a file can need a hundred times its size, and cannot be ended. Weights are skipped here, and of a small rest
nothing more is looked at, so that an ordinary file costs a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx

from cfi_onnx.limits import DEPTH, MIB, NODES, PARTS, STRUCTURE, UNKNOWN

_SMALL = 2 * MIB
"""Whatever stands in that many bytes, parsing it needs less than half a gigabyte."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_CONTENTS = frozenset(("raw_data", "float_data", "double_data"))
"""Fields of a tensor that need no more memory than their bytes."""

_COPIED = 64 * MIB
"""Up to that size the bytes are copied out of a mapped file, which makes looking at each faster."""


class WireError(ValueError):
    """The bytes are no protobuf message."""


@dataclass(frozen=True)
class Found:
    """What the file holds.

    Attributes:
        structure: Bytes that are no weights.
        unknown: Bytes in fields that ONNX does not know.
        parts: Fields that were looked at.
        nodes: Of the outermost graph.
    """

    structure: int
    unknown: int
    parts: int
    nodes: int

    def check(self) -> None:
        """Refuses what passes a limit."""
        if self.unknown > UNKNOWN.value:
            raise UNKNOWN.error(f"The file has {self.unknown:,} bytes or more in fields that ONNX does not know")
        if self.nodes > NODES.value:
            raise NODES.error(f"The model has {self.nodes:,} nodes or more")
        if self.parts > PARTS.value:
            raise PARTS.error(f"The file has {self.parts:,} parts (nodes, names, attributes, sizes) or more")


def look_through(data: Any, size: int) -> None:
    """Refuses a file whose parsing would take too much.

    Args:
        data: The bytes, which can be indexed and sliced.
        size: How many.

    Raises:
        WireError: They are no protobuf message.
        InputError: They pass a limit.
    """
    try:
        found = _walk(data, size, _outline())
        found.check()
        if found.structure > _SMALL:
            # Every node is entered: weights in attributes are no structure, and parts are counted.
            found = _walk(data[:size] if size <= _COPIED else data, size, _entire(onnx.ModelProto.DESCRIPTOR))
            found.check()
    except IndexError:
        raise WireError("it ends too early") from None
    if found.structure > STRUCTURE.value:
        raise STRUCTURE.error(
            f"The file has {found.structure:,} bytes of nodes, names and texts besides its weights", found.structure
        )


class _Kind:
    """A kind of message.

    Attributes:
        skipped: Tags of its fields that are known and passed by.
        entered: Kinds of the messages in its fields that are looked at, by their tags.
        contents: Tags of fields that hold numbers, which need no more memory than their bytes.
        node: The tag of nodes of a graph; -1 elsewhere.
    """

    def __init__(self) -> None:
        self.skipped: set[int] = set()
        self.entered: dict[int, _Kind] = {}
        self.contents: set[int] = set()
        self.node = -1


@cache
def _entire(message: Any) -> _Kind:
    """A kind of message with all that is in it."""
    made: dict[str, _Kind] = {}
    return _kind(message, made, lambda inside: True)


@cache
def _outline() -> _Kind:
    """Models, their graph and its weights: what is passed by counts as structure."""
    return _kind(onnx.ModelProto.DESCRIPTOR, {}, lambda inside: inside in ("GraphProto", "TensorProto"))


def _kind(message: Any, made: dict[str, _Kind], enters: Callable[[str], bool]) -> _Kind:
    if message.name in made:
        return made[message.name]
    kind = made[message.name] = _Kind()
    for one in message.fields:
        number = one.number << 3
        kind.skipped.update((number | _VARINT, number | _FIXED_64, number | _BYTES, number | _FIXED_32))
        content = one.message_type
        if message.name == "TensorProto" and one.name in _CONTENTS:
            kind.contents.add(number | _BYTES)
        elif content is not None and enters(content.name):
            kind.entered[number | _BYTES] = _kind(content, made, enters)
        if message.name == "GraphProto" and one.name == "node":
            kind.node = number | _BYTES
    return kind


def _walk(data: Any, size: int, whole: _Kind) -> Found:
    """Goes through all fields, those of messages inside of others too, until a limit is passed.

    Raises:
        WireError: The bytes are no protobuf message.
        IndexError: They end too early.
    """
    most_parts, most_depth, most_unknown, most_nodes = PARTS.value, 4 * DEPTH.value, UNKNOWN.value, NODES.value
    structure, unknown, parts, nodes = size, 0, 0, 0
    waiting = [(0, size, whole, 0)]
    while waiting:
        at, end, kind, depth = waiting.pop()
        skipped, entered, contents, node = kind.skipped, kind.entered, kind.contents, kind.node if depth == 1 else -1
        if depth > most_depth:
            raise DEPTH.error(f"The file has messages inside of each other to more than {most_depth} levels")
        while at < end:
            start = at
            parts += 1
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = _varint(data, start)
            wire = tag & 7
            if wire == _BYTES:
                length = data[at]
                at += 1
                if length > 127:
                    length, at = _varint(data, at - 1)
                inside = at
                at += length
                if tag in contents:
                    structure -= length
                elif tag in entered:
                    waiting.append((inside, at, entered[tag], depth + 1))
                    nodes += tag == node
                elif tag == node:
                    nodes += 1
            elif wire == _VARINT:
                while data[at] > 127:
                    at += 1
                at += 1
            elif wire == _FIXED_32:
                at += 4
            elif wire == _FIXED_64:
                at += 8
            else:
                raise WireError("it holds groups, which ONNX does not have")
            if tag not in skipped:
                unknown += at - start
            if parts > most_parts or nodes > most_nodes or unknown > most_unknown:
                return Found(structure, unknown, parts, nodes)
        if at > end:
            raise WireError("it ends too early")
    return Found(structure, unknown, parts, nodes)


def _varint(data: Any, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise WireError("it holds a number without an end")
