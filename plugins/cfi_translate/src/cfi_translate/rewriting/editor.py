"""The operations of a program, to be looked through and replaced by others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx

from cfi_translate.program import Operation, Program, Value, default_attributes


class ProgramEditor:
    """Who makes and who takes each value, kept up to date while operations are replaced."""

    def __init__(self, program: Program) -> None:
        self._first = program.operations
        self._instead: dict[Operation, tuple[Operation, ...]] = {}
        self._outputs = set(program.outputs)
        self._makers: dict[Value, Operation] = {}
        self._users: dict[Value, dict[Operation, None]] = {}
        for operation in program.operations:
            self._add(operation)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations as they are now."""
        return tuple(self._current(self._first))

    def _current(self, operations: Sequence[Operation]) -> Iterator[Operation]:
        for one in operations:
            if one in self._instead:
                yield from self._current(self._instead[one])
            else:
                yield one

    def has(self, operation: Operation) -> bool:
        """Whether an operation is still there."""
        return operation not in self._instead

    def maker(self, value: Value | None, *kinds: str) -> Operation | None:
        """The operation that makes a value, if it is of one of these kinds."""
        found = None if value is None else self._makers.get(value)
        return found if found is not None and found.kind in kinds else None

    def only_user(self, value: Value, *kinds: str) -> Operation | None:
        """The one operation that takes a value, if it is of one of these kinds and nobody else wants the value."""
        users = self._users.get(value, {})
        user = next(iter(users), None)
        maker = self._makers.get(value)
        if user is None or user.kind not in kinds or (maker is not None and not self.only_within([maker], user)):
            return None
        return user if len(users) == 1 and value not in self._outputs else None

    def only_within(self, inner: Sequence[Operation], last: Operation) -> bool:
        """Whether nothing but the last needs what these operations make, and none of it is a module's output."""
        members = {*inner, last}
        return not any(one.ends_module for one in inner if one is not last) and all(
            made not in self._outputs and members.issuperset(self._users.get(made, ()))
            for one in inner
            for made in one.results
        )

    def replace(self, old: Operation, *new: Operation) -> None:
        """Puts operations in the place of one; those that nothing needs any more go."""
        self._remove(old, *new)
        self._prune(old)

    def _add(self, operation: Operation) -> None:
        for value in operation.operands:
            self._users.setdefault(value, {})[operation] = None
        self._makers.update(dict.fromkeys(operation.results, operation))

    def _remove(self, operation: Operation, *instead: Operation) -> None:
        self._instead[operation] = instead
        for value in operation.operands:
            self._users[value].pop(operation)
        for value in operation.results:
            self._makers.pop(value, None)
        for one in instead:
            self._add(one)

    def _prune(self, gone: Operation) -> None:
        for value in gone.operands:
            maker = self._makers.get(value)
            if maker is not None and not any(self._users.get(one) or one in self._outputs for one in maker.results):
                self._remove(maker)
                self._prune(maker)


def operation(
    kind: str,
    last: Operation,
    inputs: Sequence[Value | None],
    *,
    name: str | None = None,
    outputs: Sequence[Value] | None = None,
    **attributes: Any,
) -> Operation:
    """An operation of the newest definition in the place of a group, under the name of the group's last one.

    Args:
        kind: Operator.
        last: The one whose name, outputs and place it takes.
        inputs: Its own.
        name: Another name.
        outputs: Others.
        attributes: Its own; the others are as the definition says.
    """
    schema = onnx.defs.get_schema(kind)
    return Operation(
        kind,
        name or last.name,
        schema.since_version,
        tuple(inputs),
        last.outputs if outputs is None else tuple(outputs),
        {**default_attributes(schema), **attributes},
        last.ends_module and outputs is None,
    )
