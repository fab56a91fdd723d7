"""What the exit codes of `cfi` mean."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Exit codes; the README and `cfi --help` list the same."""

    DONE = 0
    """Done; of `verify`: the two models compute the same; of `doctor`: all is well."""
    NO = 1
    """The answer is no: the models differ, a check of `doctor` failed."""
    USAGE = 2
    """The command line itself is wrong: an unknown option, a missing argument."""
    REFUSED = 3
    """CFI refuses, or the machine does: no such method or layer, inputs that do not fit, a file that is not there."""
    FAULT = 4
    """A fault of CFI or of a library."""
    INTERRUPTED = 130
    """Ctrl-C."""
