"""What stands above pictures: of which method, toolset, target and route they are, and what the model predicts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from cfi_core import Attribution
from cfi_core.errors import PlotError
from cfi_matplotlib.letters import cut, width_of

_CLASS, _LAYER = 60, 120
"""Most letters of a name: of a class or target, and of a layer."""

_LINES = 24
"""Most lines of one text: a picture has to be left below it."""


def heading_of(attribution: Attribution) -> str:
    """Method, toolset, target, layer, unit and route, in two lines."""
    facts = []
    targets = _targets(attribution, 1)
    if targets and _same_for_all(attribution):
        facts.append(f"target {targets[0]}")
    if isinstance(attribution.layer, str):
        facts.append(f"layer {cut(attribution.layer, _LAYER)}")
    if attribution.provenance.get("neuron") is not None:
        facts.append(f"unit {attribution.provenance['neuron']}")
    facts.append(f"route {' → '.join(attribution.route)}" if attribution.route else "native")
    return f"{attribution.method_key} · {attribution.toolset}\n{' · '.join(facts)}"


def label_of_sample(attribution: Attribution, sample: int, count: int) -> str:
    """Which of so many samples, its target, where each has its own, and what the model predicts for it."""
    facts = [f"sample {sample}"] if count > 1 else []
    targets, predicted = _targets(attribution, count), _prediction(attribution, sample, count)
    own = targets[sample] if not _same_for_all(attribution) and sample < len(targets) else ""
    if own and predicted is not None and predicted[0] == own:
        facts.append(f"target {own} (predicted, {predicted[1]})")
    else:
        facts += [f"target {own}"] if own else []
        facts += [f"predicted {predicted[0]} ({predicted[1]})"] if predicted is not None else []
    return " · ".join(facts)


def with_names(attribution: Attribution, names: Any) -> Attribution:
    """The attribution with these names of classes, for the target and for what is predicted.

    Args:
        attribution: With targets that are indices.
        names: By index: a list, an array or a dict; None leaves the names that the model knows.

    Raises:
        PlotError: They are none of these, or there are too few names.
    """
    if names is None:
        return attribution
    if isinstance(names, str) or not (isinstance(names, Mapping) or hasattr(names, "__getitem__")):
        raise PlotError(f"target_names={names!r} must be a list, an array or a dict of names by class index.")
    each = [_index(one) for one in _each_target(attribution)]
    provenance = dict(attribution.provenance)
    provenance["classes"] = tuple(_name(names, one) if one is not None else None for one in each)
    predicted = provenance.get("predicted") or ()
    provenance["predicted"] = tuple({**one, "name": _name(names, one["class"])} for one in predicted) or None
    return replace(attribution, provenance=provenance)


def name_of(attribution: Attribution) -> str:
    """What an error calls it."""
    return f"the {attribution.method_key} attribution of {attribution.toolset}"


def is_of_inputs(attribution: Attribution) -> bool:
    """Whether the values have the axes of the inputs, although the method may look at a layer (a neuron's inputs)."""
    return attribution.layer is None or attribution.provenance.get("kind") in ("attribution", "neuron")


def label_of_part(attribution: Attribution, part: int) -> str:
    """Which input or layer, where there are several."""
    if len(attribution.parts) < 2:
        return ""
    if isinstance(attribution.values, Mapping):
        return cut(str(list(attribution.values)[part]), _LAYER)
    layers = attribution.layer
    return cut(layers[part], _LAYER) if isinstance(layers, tuple) and part < len(layers) else f"input {part}"


def label_of_panel(stacked: tuple[str, ...], index: tuple[int, ...]) -> str:
    """Where it lies along the axes of which each position has a panel."""
    return ", ".join(f"{name} {position}" for name, position in zip(stacked, index, strict=True))


def wrap(text: str, width: float, *, points: float = 10) -> str:
    """The text broken into lines that fit into `width` inches, as wide as its letters are; a very long one is cut."""
    lines = list(islice((line for part in text.splitlines() for line in _break(part, width, points)), _LINES + 1))
    return "\n".join(lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "…"])


def _break(text: str, width: float, points: float) -> Iterator[str]:
    current = ""
    for word in text.split():
        longer = f"{current} {word}" if current else word
        if _fits(longer, width, points):
            current = longer
            continue
        if current:
            yield current
        while len(word) > 1 and not _fits(word, width, points):  # a word that is longer than a line
            count = _fitting(word, width, points)
            yield word[:count]
            word = word[count:]
        current = word
    yield current


def _fits(text: str, width: float, points: float) -> bool:
    return len(text) <= _most(width, points) and width_of(text, points) <= width


def _fitting(word: str, width: float, points: float) -> int:
    """How many letters fit, found by halves: with more letters a text is no narrower."""
    counts = range(1, min(len(word), _most(width, points) + 1))
    return max(bisect_right(counts, width, key=lambda count: width_of(word[:count], points)), 1)


def _most(width: float, points: float) -> int:
    """More letters than a line holds, so that a text without end is not measured to its end."""
    return int(8 * width * 72 / points) + 1


# Targets.


def _each_target(attribution: Attribution) -> list[Any]:
    """The target of all samples, alone, or that of each."""
    target = attribution.provenance.get("target")
    # The provenance has a function by where it lies in memory.
    target = attribution.target if target is None or callable(attribution.target) else target
    target = target.tolist() if hasattr(target, "tolist") else target
    if target is None:
        return []
    several = isinstance(target, list) or (isinstance(target, tuple) and target and isinstance(target[0], tuple))
    return list(target) if several else [target]


def _index(target: Any) -> int | None:
    """The class that a target is, where it is one."""
    last = target[-1] if isinstance(target, tuple) and target else target
    return int(last) if hasattr(last, "__index__") and not isinstance(last, bool) else None


def _name(names: Any, index: int) -> str | None:
    if isinstance(names, Mapping):
        found = names.get(index, names.get(str(index)))
        return None if found is None else str(found)
    if not -len(names) <= index < len(names):
        raise PlotError(f"target_names holds {len(names)} names, by class index, and class {index} is not among them.")
    return str(names[index])


def _same_for_all(attribution: Attribution) -> bool:
    return len(set(map(str, _each_target(attribution)))) == 1


def _targets(attribution: Attribution, count: int) -> list[str]:
    """The target of each sample (of one alone, where it is that of all), with the name of the class."""
    each = _each_target(attribution)
    words = [_in_words(one[0] if isinstance(one, tuple) and len(one) == 1 else one) for one in each]
    names: Sequence[str | None] = attribution.provenance.get("classes") or ()
    if len(names) == len(words):
        words = [_named(word, name) for word, name in zip(words, names, strict=True)]
    return words * count if len(words) == 1 and count > 1 else words


def _named(index: Any, name: str | None) -> str:
    return str(index) if name is None or name == str(index) else f"{index} {cut(name, _CLASS)!r}"


def _in_words(target: Any) -> str:
    text = getattr(target, "__name__", None) if callable(target) else None
    return cut(text or str(target), _CLASS)


def _prediction(attribution: Attribution, sample: int, count: int) -> tuple[str, str] | None:
    """The class that the model predicts, and the number that it gives it."""
    predicted = attribution.provenance.get("predicted") or ()
    if len(predicted) != count:
        return None
    known = predicted[sample]
    return _named(known["class"], known["name"]), f"{known['kind']} {known['value']:.3g}"
