"""GELU, swish, hard swish, mish, hard sigmoid and ReLU6, in whatever operators they are written.

Operations that map one tensor element by element are an activation if their curve is that of the activation: it is
computed at many points, in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from scipy import special

from cfi_translate.program import Attributes, Operation, Value, constant
from cfi_translate.rewriting.editor import ProgramEditor, operation

_LAST = ("Mul", "Div", "Clip", "Min", "Max")
_MOST_JOINED = 12

_POINTS = np.concatenate([np.linspace(-12, 12, 961), [-100.0, -30.0, 30.0, 100.0]])


def _hard_sigmoid(attributes: Attributes, x: Any) -> Any:
    return np.clip(attributes["alpha"] * x + attributes["beta"], 0, 1)


def _clip(attributes: Attributes, x: Any, low: Any = None, high: Any = None) -> Any:
    low = attributes.get("min", -np.inf) if low is None else low
    high = attributes.get("max", np.inf) if high is None else high
    return np.minimum(np.maximum(x, low), high)


_POINTWISE: Mapping[str, Callable[..., Any]] = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a / b,
    "Pow": lambda _, a, b: np.power(a, b),
    "Max": lambda _, *all_: reduce(np.maximum, all_),
    "Min": lambda _, *all_: reduce(np.minimum, all_),
    "Clip": _clip,
    "Erf": lambda _, x: special.erf(x),
    "Exp": lambda _, x: np.exp(x),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda _, x: x,
    "Neg": lambda _, x: -x,
    "Reciprocal": lambda _, x: 1 / x,
    "Relu": lambda _, x: np.maximum(x, 0),
    "Sigmoid": lambda _, x: special.expit(x),
    "Softplus": lambda _, x: np.logaddexp(x, 0),
    "Tanh": lambda _, x: np.tanh(x),
}


@dataclass(frozen=True)
class _Activation:
    """An activation, its curve at the points, and numbers that it takes as further inputs."""

    kind: str
    curve: np.ndarray
    attributes: Attributes = field(default_factory=dict)
    numbers: tuple[float, ...] = ()


_HARD = {"alpha": 1 / 6, "beta": 0.5}
_TANH = np.tanh(np.sqrt(2 / np.pi) * (_POINTS + 0.044715 * _POINTS**3))
_ACTIVATIONS = (
    _Activation("Gelu", _POINTS * special.ndtr(_POINTS)),
    _Activation("Gelu", 0.5 * _POINTS * (1 + _TANH), {"approximate": "tanh"}),
    _Activation("Swish", _POINTS * special.expit(_POINTS)),
    _Activation("HardSwish", _POINTS * _hard_sigmoid(_HARD, _POINTS)),
    _Activation("HardSigmoid", _hard_sigmoid(_HARD, _POINTS), _HARD),
    _Activation("Mish", _POINTS * np.tanh(np.logaddexp(_POINTS, 0))),
    _Activation("Clip", np.clip(_POINTS, 0, 6), numbers=(0.0, 6.0)),
)


def join_activation(last: Operation, editor: ProgramEditor) -> None:
    """The largest group of operations before (and with) this one that is an activation becomes one operation."""
    if last.kind not in _LAST or not last.output.is_float:
        return
    joined, best = [last], None
    while len(joined) <= _MOST_JOINED:
        outside = _outside(joined)
        if len(outside) == 1 and len(joined) > 1 and editor.only_within(joined[1:], last):
            found = _recognise(joined, outside[0])
            best = best if found is None else (found, outside[0])
        makers = [editor.maker(value, *_POINTWISE) for value in outside]
        more = next((one for one in makers if one is not None and editor.only_within([one, *joined[1:]], last)), None)
        if more is None:
            break
        joined.append(more)
    if best is not None:
        activation, source = best
        numbers = [
            constant(f"{last.name}.bound{i}", np.array(one, last.output.dtype))
            for i, one in enumerate(activation.numbers)
        ]
        editor.replace(last, operation(activation.kind, last, [source, *numbers], **activation.attributes))


def _outside(joined: Sequence[Operation]) -> list[Value]:
    """What operations take from elsewhere, numbers apart."""
    inner = {one.output for one in joined}
    taken = dict.fromkeys(value for one in joined for value in one.operands)
    return [value for value in taken if value not in inner and value.uniform is None]


def _recognise(joined: Sequence[Operation], source: Value) -> _Activation | None:
    """The activation whose curve these operations follow."""
    if joined[0].output.shape != source.shape:
        return None
    curves: dict[Value, Any] = {source: _POINTS}
    pending = list(joined)
    with np.errstate(all="ignore"):
        while pending:
            ready = [one for one in pending if all(v in curves or v.uniform is not None for v in one.operands)]
            if not ready:
                return None
            for one in ready:
                pending.remove(one)
                values = [
                    None if v is None else curves[v] if v in curves else np.float64(v.uniform) for v in one.inputs
                ]
                curves[one.output] = _POINTWISE[one.kind](one.attributes, *values)
    made = curves[joined[0].output]
    for activation in _ACTIVATIONS:
        if np.shape(made) == _POINTS.shape and np.allclose(made, activation.curve, rtol=1e-6, atol=1e-6):
            return activation
    return None
