"""Bounds for what a model from a stranger may take, which the owner of a large one raises by the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

from cfi_core.errors import ArgumentError, CFIError, InputError

_Kind = TypeVar("_Kind", bound=CFIError)


@dataclass(frozen=True)
class Limit:
    """A bound, read when it is needed, so that it holds in child processes too.

    Attributes:
        variable: Environment variable that replaces the default.
        default: What holds otherwise.
        unit: In which both are counted.
    """

    variable: str
    default: int
    unit: str

    @property
    def value(self) -> int:
        """The bound that holds now.

        Raises:
            ArgumentError: The environment variable holds no number.
        """
        given = os.environ.get(self.variable)
        if given is None:
            return self.default
        try:
            return int(float(given))
        except (ValueError, OverflowError):
            raise ArgumentError(
                f"{self.variable} is {given!r}. Set it to a number of {self.unit}, or leave it out: {self.default:,}."
            ) from None

    def error(self, what: str, needed: int | None = None) -> InputError:
        """The error that says what was found, which limit it passes, and how to raise that.

        Args:
            what: What the model has or did, up to the point where the limit is named.
            needed: The value with which the model would pass, where that is known.
        """
        return self.error_of(InputError, what, needed)

    def error_of(self, kind: type[_Kind], what: str, needed: int | None = None) -> _Kind:
        """The same as an error of another kind."""
        to = f" to at least {needed}" if needed is not None and needed < 2**62 else ""
        return kind(
            f"{what}; the limit is {self.value:,} {self.unit}. If you trust the model, raise it{to} by the environment "
            f"variable {self.variable} (os.environ[{self.variable!r}] = '…')."
        )
