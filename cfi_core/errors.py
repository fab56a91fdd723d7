"""Every error and warning that CFI raises by itself.

Each message names the culprit, the alternatives and the next step.
"""

from __future__ import annotations

import sys
import warnings
from traceback import walk_stack

from cfi_core import progress

FOREIGN = (Exception, SystemExit)
"""What the code of plugins may raise and must not take the host down with; an interrupt by the user passes."""

_LONGEST_MESSAGE = 300


class CFIError(Exception):
    """Base class of all errors raised by CFI."""


class PluginConflictError(CFIError):
    """Two distributions claim the name that was asked for."""


class UnknownMethodError(CFIError):
    """No usable plugin offers the method key (or not with that toolset)."""


class UnknownFrameworkError(CFIError):
    """The model belongs to no framework that an installed plugin describes."""


class RouteError(CFIError):
    """No translator, or no chain of them, leads to the toolset and keeps what the method needs.

    Attributes:
        missing_needs: The needs of the method that no route preserves; empty if there is no route at all.
    """

    def __init__(self, message: str, missing_needs: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.missing_needs = missing_needs


class ArgumentError(CFIError):
    """An argument is missing, unknown, given twice or of the wrong form."""


class InputError(ArgumentError):
    """The inputs (or baselines) do not fit the model."""


class TargetError(ArgumentError):
    """The target does not name an output of the model."""


class LayerError(ArgumentError):
    """The layer is not part of the model, or cannot be read where the method runs."""


class ModelFileError(ArgumentError):
    """A path leads to no model that can be read, or to weights that do not fit."""


class UntrustedFileError(ModelFileError):
    """Reading the file could run code that stands in it, which is done only where the caller trusts it."""


class TranslationError(CFIError):
    """A translator failed on the model."""


class UnfaithfulTranslationError(TranslationError):
    """A translated model computes something else than the original.

    Attributes:
        certificate: The measurements (`cfi_core.certificate.Certificate`) that refused it.
    """

    def __init__(self, message: str, certificate: object = None) -> None:
        super().__init__(message)
        self.certificate = certificate


class MethodError(CFIError):
    """The toolset could not run the method; the toolset's own error is the cause."""


class OutOfMemoryError(MethodError):
    """One sample, one row at a time, does not fit into memory; or nobody said that samples may be divided."""


class NoGradientError(CFIError):
    """The framework cannot differentiate the model."""


class PlotError(CFIError):
    """No plotter or writer accepts the attribution."""


class CFIWarning(UserWarning):
    """Base class of all warnings issued by CFI."""


class PluginWarning(CFIWarning):
    """A plugin, or something that it brings, was left out, or one of its hooks failed."""


class ChoiceWarning(CFIWarning):
    """Several implementations would have served; names the one taken and the others."""


class TranslationWarning(CFIWarning):
    """A translator failed and the next route was taken."""


class ModelWarning(CFIWarning):
    """Something about the user's model changes what the attribution means."""


class CompletenessWarning(CFIWarning):
    """The values do not add up to what their method promises."""


class SamplingWarning(CFIWarning):
    """The values are made of so few random draws that they are off by more than a tenth."""


class BaselineWarning(CFIWarning):
    """The baseline is 0 because none was given; told once for each method."""


def brief(text: str) -> str:
    """A text of the user's as messages show it: cut where it is very long."""
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"


def kind_of(value: object) -> str:
    """Name of an object's class, as messages show it; of what CFI puts around a user's function, that of a function."""
    kind = type(value)
    return "function" if kind.__module__.partition(".")[0].startswith("cfi_") else kind.__name__


def summary(error: BaseException) -> str:
    """Kind and message of a foreign error, on one line and in short, without the full stop at its end."""
    try:
        text = " ".join(str(error).split()).removesuffix(".") or "no message"
    except FOREIGN:
        text = "its message cannot be shown"
    return f"{type(error).__name__}: {brief(text)}"


def warn(message: str, category: type[CFIWarning], cause: BaseException | None = None) -> None:
    """Warns at the line of the user's that led here: the first outside CFI's packages, seen from the public call.

    The error that caused it, if one did, is seen where warnings are errors.
    """
    callers = [frame.f_globals.get("__name__", "") for frame, _ in walk_stack(sys._getframe(1))]
    last = max((depth for depth, name in enumerate(callers) if name.startswith("cfi_")), default=-1)
    warning = category(message)
    warning.__cause__ = cause
    with progress.aside():
        warnings.warn(warning, stacklevel=last + 3)  # as it counts, 1 is this function, 2 what called it
