"""The module that runs the steps of a recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cfi_torch.canonical.program import Constant, Path, Ref, Sized, Step, Weight, at, fill, inside


@dataclass(frozen=True, eq=False)
class Program:
    """Steps, and what they give in the end. It never changes, so copies of a model share it.

    Attributes:
        steps: In their order.
        output: A structure of references.
        form: Type of the output, if it is a mapping of a class of its own.
        first: Where among the arguments the tensor is whose first axis counts the samples.
        done: For each step, the steps whose results no later one takes.
    """

    steps: tuple[Step, ...]
    output: Any
    form: type | None
    first: tuple[int, Path]
    done: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, steps: Sequence[Step], output: Any, form: type | None, first: tuple[int, Path]) -> Program:
        """With what can be forgotten after each step."""
        last: dict[int, int] = {}
        for number, step in enumerate(steps):
            last |= {ref.step: number for ref in inside((step.args, step.kwargs)) if isinstance(ref, Ref)}
            last.setdefault(number, number)
        for ref in inside(output):
            if isinstance(ref, Ref):
                last.pop(ref.step, None)
        done: list[list[int]] = [[] for _ in steps]
        for number, at_step in last.items():
            if number >= 0:
                done[at_step].append(number)
        return cls(tuple(steps), output, form, first, tuple(map(tuple, done)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self


class CanonicalModel(nn.Module):
    """A model as the sequence of what it does; its layers have the names that they have in the model it is made of."""

    def __init__(self, program: Program, made_of: str) -> None:
        super().__init__()
        self._program = program  # names with an underscore, as the model's own layers may have any other
        self._made_of = made_of

    def forward(self, *args: Any) -> Any:
        """What the model gives for these arguments."""
        modules = dict(self.named_modules())
        weights = {**dict(self.named_parameters(remove_duplicate=False)), **dict(self.named_buffers())}
        place, path = self._program.first
        samples = len(at(args[place], path))
        values: dict[int, Any] = {-1 - number: value for number, value in enumerate(args)}

        def value_of(one: Any) -> Any:
            if isinstance(one, Ref):
                return at(values[one.step], one.path)
            if isinstance(one, Sized):
                return one.factor * samples + one.offset
            return weights[_key(one)].detach()

        for number, step in enumerate(self._program.steps):
            call = modules[step.module] if step.function is None else step.function
            values[number] = _call(call, fill(step.args, value_of), fill(step.kwargs, value_of), step)
            for done in self._program.done[number]:
                values.pop(done, None)
        output = fill(self._program.output, value_of)
        return output if self._program.form is None else self._program.form(**output)

    def extra_repr(self) -> str:
        """The class of the model that it is made of."""
        return f"of {self._made_of}"


def _call(call: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], step: Step) -> Any:
    if step.records or not torch.is_grad_enabled():
        return call(*args, **kwargs)
    with torch.no_grad():
        return call(*args, **kwargs)


def _key(one: Weight | Constant) -> str:
    return one.name if isinstance(one, Weight) else constant_name(one.number)


def constant_name(number: int) -> str:
    """Name of the buffer that holds a tensor without a name."""
    return f"_constant_{number}"


class Block(nn.Module):
    """Stands where the model had a module that called others: it holds them, and its output is the output there."""

    def forward(self, output: Any) -> Any:
        """The output, as it is."""
        return output
