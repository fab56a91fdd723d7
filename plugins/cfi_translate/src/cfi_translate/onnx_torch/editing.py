"""Making and changing operations of a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cfi_translate.program import Operation, Value

_VERSION = 21


def constant(name: str, array: np.ndarray) -> Value:
    """A value that is known."""
    return Value(name, array.dtype, tuple(array.shape), source=np.ascontiguousarray(array).reshape(array.shape))


def operation(
    like: Operation,
    kind: str,
    inputs: Sequence[Value | None],
    outputs: Sequence[Value | None],
    attributes: dict[str, Any] | None = None,
    name: str | None = None,
) -> Operation:
    """An operation in place of another one, whose name it has unless it gets its own."""
    same = kind == like.kind
    made = dict(like.attributes) if same else {}
    made.update(attributes or {})
    version = like.version if same else _VERSION
    return Operation(kind, name or like.name, version, tuple(inputs), tuple(outputs), made, like.node)


def is_leaf(value: Value) -> bool:
    """Whether no operation has to make it: it is the same for each sample."""
    return value.is_constant or value.per_sample is not None


def needed(operations: Sequence[Operation], outputs: Iterable[Value]) -> list[Operation]:
    """The operations that the outputs depend on."""
    wanted = {value for value in outputs if not is_leaf(value)}
    kept = []
    for one in reversed(operations):
        if wanted.intersection(value for value in one.outputs if value is not None):
            kept.append(one)
            wanted.update(value for value in one.inputs if value is not None and not is_leaf(value))
    return kept[::-1]


class Operations:
    """The operations of a program, to be looked through and replaced by better ones."""

    def __init__(self, operations: Sequence[Operation], outputs: Sequence[Value]) -> None:
        """Takes the index, which `replace` keeps up to date."""
        self.outputs = outputs
        self.operations = list(operations)
        self._index()

    def _index(self) -> None:
        self.operations = needed(self.operations, self.outputs)
        self._makers = {value: one for one in self.operations for value in one.outputs if value is not None}
        self._present = set(self.operations)
        self._users: dict[Value, list[Operation]] = {}
        for one in self.operations:
            for value in dict.fromkeys(value for value in one.inputs if value is not None):
                self._users.setdefault(value, []).append(one)

    def has(self, one: Operation) -> bool:
        """Whether an operation is still there."""
        return one in self._present

    def maker(self, value: Value | None, *kinds: str) -> Operation | None:
        """What makes a value as its first output, if it is of one of the kinds."""
        made = None if value is None else self._makers.get(value)
        return made if made is not None and made.kind in kinds and made.outputs[0] is value else None

    def users(self, value: Value) -> int:
        """How many operations take a value; an output is taken once more."""
        return len(self._users.get(value, ())) + (value in self.outputs)

    def only_user(self, value: Value, *kinds: str) -> Operation | None:
        """The one operation that takes a value, if it is of one of the kinds and the value is no output."""
        users = self._users.get(value, [])
        if len(users) != 1 or value in self.outputs or users[0].kind not in kinds:
            return None
        return users[0]

    def replace(self, old: Operation, *new: Operation) -> None:
        """Puts operations in the place of one; those that nothing needs any more go."""
        position = next(i for i, one in enumerate(self.operations) if one is old)
        self.operations[position : position + 1] = new
        self._index()
