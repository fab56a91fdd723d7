"""One cause, told once: what stopped one of the routes, and in one line what else was tried."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cfi_core.errors import TranslationError, UnfaithfulTranslationError
from cfi_core.records import Route

Failures = Mapping[Route, TranslationError]
"""In the order in which the routes were tried, the best one first."""

_ADVICE = re.compile(r" (Try another translator\b|Pass translator='conversion').*$")  # they were tried
_OF_ANOTHER_KIND = re.compile(r" takes [^.]* models, and this is ")  # says nothing of this model
_LONGEST_CLAUSE = 120


def cause_of(failures: Failures) -> TranslationError:
    """The failure to tell: that of a model which is known to be wrong, as only that has a certificate; or the first.

    The first that looked at the model, if any did: a translator of other models is no cause.
    """
    told = [one for one in failures.values() if isinstance(one, UnfaithfulTranslationError)]
    looked = [one for one in failures.values() if not _OF_ANOTHER_KIND.search(str(one))]
    return [*told, *looked, *failures.values()][0]


def tell(failures: Failures) -> str:
    """The cause, and what else was tried: for the same reason, or for which one."""
    cause = cause_of(failures)
    (lead,) = (route for route, one in failures.items() if one is cause)
    others: dict[str, tuple[str, list[str]]] = {}
    for route, failure in failures.items():
        if failure is not cause:
            clause = _clause(failure, is_same=_core(route, failure) == _core(lead, cause))
            others.setdefault(_core(route, failure), (clause, []))[1].append(" + ".join(route.names))
    also = "; ".join(f"{', '.join(names)} ({clause})" for clause, names in others.values())
    return f"{_sentence(cause)} Also tried: {also}." if also else _sentence(cause)


def without_advice(failure: TranslationError) -> TranslationError:
    """The same failure, without what to do next where nobody could."""
    text = _sentence(failure)
    if isinstance(failure, UnfaithfulTranslationError):
        return UnfaithfulTranslationError(text, failure.certificate)
    return TranslationError(text)


def _sentence(failure: TranslationError) -> str:
    text = _shorten(failure)
    return text if text.endswith("?") else f"{text}."


def _shorten(failure: TranslationError) -> str:
    """On one line, without what to do next and the full stop."""
    return _ADVICE.sub("", " ".join(str(failure).split())).rstrip(".")


def _core(route: Route, failure: TranslationError) -> str:
    """What failures of several translators for one reason have in common."""
    if isinstance(failure, UnfaithfulTranslationError):
        return "unfaithful"
    return re.sub("|".join(map(re.escape, sorted(route.names, key=len, reverse=True))), "", _shorten(failure))


def _clause(failure: TranslationError, *, is_same: bool) -> str:
    if isinstance(failure, UnfaithfulTranslationError):
        return "unfaithful as well"
    said = _shorten(failure)
    if is_same:
        return "the same reason"
    if len(said) <= _LONGEST_CLAUSE:
        return said
    cut = said[:_LONGEST_CLAUSE].rpartition(" ")[0]
    return f"{cut} …{')' * (cut.count('(') - cut.count(')'))}"
