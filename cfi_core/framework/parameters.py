"""What a function calls the inputs that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from cfi_core.errors import InputError


@dataclass(frozen=True)
class Parameters:
    """The parameters of a function that can be passed by name.

    Attributes:
        names: Their names, in order.
        required: Those that have no default.
        is_open: Whether any other name is taken too (`**kwargs`).
    """

    names: tuple[str, ...]
    required: frozenset[str]
    is_open: bool = False

    @classmethod
    def of(cls, function: Callable[..., Any], leave_out: Collection[str] = ()) -> Parameters:
        """Read from the signature; one that cannot be read takes any name.

        Args:
            function: A function or a bound method.
            leave_out: Parameters that are no inputs, such as the mode.
        """
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # written in C
            return cls((), frozenset(), is_open=True)
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        named = [one for one in parameters if one.kind in kinds and one.name not in leave_out]
        required = frozenset(one.name for one in named if one.default is one.empty)
        is_open = any(one.kind is one.VAR_KEYWORD for one in parameters)
        return cls(tuple(one.name for one in named), required, is_open)

    def check(self, names: Sequence[str], constants: Collection[str], who: str) -> None:
        """Refuses names that are not taken, and required ones that are missing.

        An input that `**kwargs` alone takes is refused where others have names: as a rule it would be ignored.

        Args:
            names: Of what is given as arrays.
            constants: Of what is given besides.
            who: What messages call the model.

        Raises:
            InputError: Lists the model's own names.
        """
        unknown = [name for name in names if name not in self.names and (self.names or not self.is_open)]
        unknown += [name for name in constants if name not in self.names and not self.is_open]
        missing = [name for name in self.names if name in self.required - {*names, *constants}]
        wrong = [f"it takes none named {', '.join(map(repr, unknown))}"] if unknown else []
        wrong += [f"{', '.join(map(repr, missing))} is missing"] if missing else []
        if wrong:
            known = ", ".join(self.names) or "none by name"
            raise InputError(f"The inputs do not fit {who}: {'; '.join(wrong)}. Its inputs are {known}.")
