"""What stands in a file that `torch.save` wrote, read off its pickle without running anything of it.

A pickle is a program for a small machine with a stack. Here that machine makes plain values, tensors are noted by their
sizes, and everything else that the pickle asks for is a name. Only the instructions that `torch.save` writes are known.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cfi_core.errors import ModelFileError, brief

MOST_PICKLE = 2**25
"""Bytes: a transformer of a hundred thousand weights has some fifteen million."""

_MOST_STEPS = 2_000_000
_BITS = {"Double": 64, "Float": 32, "Half": 16, "BFloat16": 16, "Long": 64, "Int": 32, "Short": 16, "Char": 8}
_BITS |= {"Byte": 8, "Bool": 8, "ComplexDouble": 128, "ComplexFloat": 64}
STORAGES = {f"torch {name}Storage": bits // 8 for name, bits in _BITS.items()}
_REBUILDS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter")
_PLAIN = frozenset(("collections OrderedDict", *_REBUILDS, *STORAGES))


def read_outline(data: bytes, storages: Mapping[str, int]) -> tuple[Any, tuple[str, ...]]:
    """What a pickle would make: dicts, lists, tuples, numbers and texts, with `Weight` and `Call` in them.

    Args:
        data: The pickle.
        storages: How many bytes each of the archive's storages has, by its key.

    Returns:
        What it is, and the classes and functions that are named in it and that no file of weights has.

    Raises:
        ModelFileError: It is no pickle, or one that `torch.save` does not write.
    """
    machine = _Outline(storages)
    try:
        return machine.run(data), tuple(dict.fromkeys(machine.foreign))
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelFileError(f"its pickle is broken ({brief(str(error))})") from error


@dataclass(frozen=True)
class Weight:
    """A tensor, as a file tells it."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """An object that reading would make by a call of something that is not on the list."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    itemsize: int


@dataclass(frozen=True)
class _Name:
    """Of a class or function."""

    name: str


@dataclass(eq=False)
class _Outline:
    """The machine.

    Attributes:
        foreign: Names of classes and functions that no file of weights has.
    """

    storages: Mapping[str, int]
    foreign: list[str] = field(default_factory=list)
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, data: bytes) -> Any:
        for number, (code, value, _) in enumerate(pickletools.genops(data)):
            if number > _MOST_STEPS:
                raise ModelFileError("it has millions of values")
            if code.name == "STOP":
                return self.stack.pop()
            step = _STEPS.get(code.name)
            if step is None:
                raise ModelFileError(f"it has the instruction {code.name}, which torch.save does not write")
            step(self, value)
        raise ModelFileError("it has no end")

    def since_mark(self) -> list[Any]:
        return list(self.take(len(self.stack) - self.marks.pop()))

    def take(self, number: int) -> tuple[Any, ...]:
        taken = tuple(self.stack[len(self.stack) - number :])
        del self.stack[len(self.stack) - number :]
        return taken

    def put_items(self, items: list[Any]) -> None:
        held = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise ModelFileError("it has a key that is neither a name nor a number")
            if isinstance(held, dict):
                held[key] = value

    def name(self, text: str) -> None:
        if text not in _PLAIN:
            self.foreign.append(text.replace(" ", "."))
        self.stack.append(_Name(text))

    def refer(self, _: Any) -> None:
        """Puts one of the archive's storages there."""
        reference = self.stack.pop()
        if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
            raise ModelFileError("it refers to something else than the weights in the archive")
        _, kind, key, _, number = reference
        itemsize = STORAGES.get(getattr(kind, "name", ""))
        held = self.storages.get(key) if isinstance(key, str) else None
        if itemsize is None or held is None or not isinstance(number, int) or number * itemsize > held:
            raise ModelFileError(f"the values of {brief(str(key))!r} are not in it")
        self.stack.append(_Storage(key, itemsize))

    def call(self, _: Any) -> None:
        function, given = self.take(2)
        name = getattr(function, "name", "something")
        if name == "collections OrderedDict" and given == ():
            self.stack.append({})
        elif name == _REBUILDS[0] and isinstance(given, tuple) and len(given) >= 4:
            self.stack.append(self._tensor(*given[:4]))
        elif name == _REBUILDS[1] and isinstance(given, tuple) and given and isinstance(given[0], Weight):
            self.stack.append(given[0])
        else:
            if name in _PLAIN:
                raise ModelFileError(f"it calls {name.replace(' ', '.')} in a way of its own")
            self.stack.append(Call(name.replace(" ", ".")))

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> Weight:
        whole = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= 64
        if not whole or not all(type(one) is int and one >= 0 for one in (offset, *shape, *strides)):
            raise ModelFileError("it has a tensor of no shape")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if not isinstance(storage, _Storage):
            raise ModelFileError("it has a tensor without values")
        if math.prod(shape) and (last + 1) * storage.itemsize > self.storages[storage.key]:
            raise ModelFileError(f"it has a tensor of shape {brief(str(shape))}, larger than its values in the file")
        return Weight(shape)


def _pushed(make: Callable[[Any], Any]) -> Callable[[_Outline, Any], None]:
    return lambda machine, value: machine.stack.append(make(value))


def _put(machine: _Outline, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _append(machine: _Outline, values: list[Any]) -> None:
    if isinstance(machine.stack[-1], list):
        machine.stack[-1].extend(values)


def _build(machine: _Outline, _: Any) -> None:
    machine.stack.pop()  # the state of an object: of plain values nothing that matters


_STEPS: dict[str, Callable[[_Outline, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, value: None),
    **dict.fromkeys(
        ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINSTRING"),
        _pushed(lambda value: value),
    ),
    "NONE": _pushed(lambda value: None),
    "NEWTRUE": _pushed(lambda value: True),
    "NEWFALSE": _pushed(lambda value: False),
    "EMPTY_TUPLE": _pushed(lambda value: ()),
    "EMPTY_LIST": _pushed(lambda value: []),
    "EMPTY_DICT": _pushed(lambda value: {}),
    "MARK": lambda machine, value: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, value: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, value: machine.stack.append(machine.take(1)),
    "TUPLE2": lambda machine, value: machine.stack.append(machine.take(2)),
    "TUPLE3": lambda machine, value: machine.stack.append(machine.take(3)),
    "LIST": lambda machine, value: machine.stack.append(machine.since_mark()),
    "APPEND": lambda machine, value: _append(machine, list(machine.take(1))),
    "APPENDS": lambda machine, value: _append(machine, machine.since_mark()),
    "SETITEM": lambda machine, value: machine.put_items(list(machine.take(2))),
    "SETITEMS": lambda machine, value: machine.put_items(machine.since_mark()),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "BINGET": lambda machine, value: machine.stack.append(machine.memo[value]),
    "LONG_BINGET": lambda machine, value: machine.stack.append(machine.memo[value]),
    "GLOBAL": lambda machine, value: machine.name(value),
    "BINPERSID": lambda machine, value: machine.refer(value),
    "REDUCE": lambda machine, value: machine.call(value),
    "NEWOBJ": lambda machine, value: machine.call(value),
    "BUILD": _build,
}
