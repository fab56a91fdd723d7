"""What stands above pictures: of which method, toolset, target and route they are."""

from __future__ import annotations

import textwrap
from typing import Any

from cfi_core import Attribution


def heading_of(attribution: Attribution) -> str:
    """Method, toolset, target, layer and route, in two lines."""
    facts = []
    targets = _targets(attribution, 1)
    if targets and _same_for_all(attribution):
        facts.append(f"target {targets[0]}")
    if isinstance(attribution.layer, str):
        facts.append(f"layer {attribution.layer}")
    facts.append(f"route {' → '.join(attribution.route)}" if attribution.route else "native")
    return f"{attribution.method_key} · {attribution.toolset}\n{' · '.join(facts)}"


def label_of_sample(attribution: Attribution, sample: int, count: int) -> str:
    """Which of so many samples, and its target, where each has its own."""
    facts = [f"sample {sample}"] if count > 1 else []
    targets = _targets(attribution, count)
    if targets and not _same_for_all(attribution) and sample < len(targets):
        facts.append(f"target {targets[sample]}")
    return " · ".join(facts)


def _same_for_all(attribution: Attribution) -> bool:
    return len(set(_targets(attribution, 0))) == 1


def _targets(attribution: Attribution, count: int) -> list[str]:
    """The target of each sample (of one alone, where it is that of all), with the name of the class."""
    index = attribution.provenance.get("target", attribution.target)
    names = attribution.provenance.get("classes")
    if index is None:
        return []
    each = list(index) if isinstance(index, tuple | list) and index and isinstance(index[0], tuple) else [index]
    shown = [one[0] if isinstance(one, tuple) and len(one) == 1 else one for one in each]
    words = [str(one) for one in shown]
    if names:
        words = [f"{one} {name!r}" for one, name in zip(words, names, strict=False)]
    return words * count if len(words) == 1 and count > 1 else words


def wrap(text: str, width: float, *, points: int = 10) -> str:
    """The text broken into lines that fit into `width` inches (a letter is about 0.6 of its height wide)."""
    letters = max(int(width * 72 / (0.6 * points)), 20)
    return "\n".join("\n".join(textwrap.wrap(line, letters)) for line in text.splitlines())


# Of pictures.


def name_of(attribution: Attribution) -> str:
    """What an error calls it."""
    return f"the {attribution.method_key} attribution of {attribution.toolset}"


def is_of_inputs(attribution: Attribution) -> bool:
    """Whether the values have the axes of the inputs, although the method may look at a layer (a neuron's inputs)."""
    return attribution.layer is None or attribution.provenance.get("kind") in ("attribution", "neuron")


def heading_of_picture(attribution: Attribution) -> str:
    """Method, toolset, target, layer, unit and route, in two lines."""
    facts = []
    if attribution.target is not None and _each_target(attribution.target) is None:
        facts.append(f"target {_target_label(attribution.target)}")
    if isinstance(attribution.layer, str):
        facts.append(f"layer {attribution.layer}")
    if attribution.provenance.get("neuron") is not None:
        facts.append(f"unit {attribution.provenance['neuron']}")
    facts.append(f"route {' → '.join(attribution.route)}" if attribution.route else "native")
    return f"{attribution.method_key} · {attribution.toolset}\n{' · '.join(facts)}"


def _each_target(target: Any) -> list[Any] | None:
    """The targets of the single samples, where the user gave one for each; a tuple is one target of all."""
    values = target.tolist() if hasattr(target, "tolist") else target
    return values if isinstance(values, list) else None


def _target_label(target: Any) -> str:
    text = getattr(target, "__name__", type(target).__name__) if callable(target) else str(target)
    return textwrap.shorten(text, 40, placeholder="…")


def label_of_row(attribution: Attribution, part: int, sample: int, count: int) -> str:
    """Which sample and target, and which input or layer, where there are several."""
    facts = [f"sample {sample}"] if count > 1 else []
    targets = _each_target(attribution.target)
    if targets is not None and len(targets) == count:
        facts.append(f"target {_target_label(targets[sample])}")
    if len(attribution.parts) > 1:
        layers = attribution.layer
        facts.append(layers[part] if isinstance(layers, tuple) and part < len(layers) else f"input {part}")
    return " · ".join(facts)


def label_of_panel(stacked: tuple[str, ...], index: tuple[int, ...]) -> str:
    """Where it lies along the axes of which each position has a panel."""
    return ", ".join(f"{name} {position}" for name, position in zip(stacked, index, strict=True))
