"""Operations that exporters write as several, joined again: what has one layer in Keras shall be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from scipy import special

from cfi_translate.program import Operation, Program, Value

_MOST_JOINED = 12

_POINTS = np.concatenate([np.linspace(-12, 12, 961), [-100.0, -30.0, 30.0, 100.0]])


def fused(program: Program) -> Program:
    """The program with activations, layer normalisations and biases as single operations."""
    for rule in (_activation, _layer_normalization, _bias):
        program = _applied(program, rule)
    return program


class _Links:
    """Who makes and who takes each value."""

    def __init__(self, program: Program) -> None:
        self.makers = {one: op for op in program.operations for one in op.outputs if one is not None}
        self.users = program.users()
        self.ends = set(program.outputs)

    def maker(self, value: Value | None, *kinds: str) -> Operation | None:
        """The operation that makes a value, if it is of one of these kinds."""
        found = None if value is None else self.makers.get(value)
        return found if found is not None and found.kind in kinds else None

    def only_within(self, inner: Sequence[Operation], last: Operation) -> bool:
        """Whether nothing but the last needs what these operations make, and none of it is a module's output."""
        members = {id(one) for one in (*inner, last)}
        return not any(one.ends_module for one in inner if one is not last) and all(
            made not in self.ends and all(id(user) in members for user in self.users.get(made, ()))
            for one in inner
            for made in one.outputs
            if made is not None
        )


_Rule = Callable[[Operation, _Links], tuple[Operation, Sequence[Operation]] | None]


def _applied(program: Program, rule: _Rule) -> Program:
    """Replaces what a rule finds: the last operation of a group by the joined one, the others by nothing."""
    links = _Links(program)
    gone: set[int] = set()
    kept: list[Operation] = []
    for operation in reversed(program.operations):
        if id(operation) in gone:
            continue
        found = rule(operation, links)
        if found is not None and not gone.intersection(id(one) for one in found[1]):
            operation, inner = found
            gone.update(id(one) for one in inner)
        kept.append(operation)
    return replace(program, operations=tuple(kept[::-1]))


def _other(operation: Operation, value: Value | None) -> Value | None:
    """The second operand beside one of two."""
    if len(operation.inputs) != 2:
        return None
    first, second = operation.inputs
    return second if first is value else first if second is value else None


# Activations: whatever maps one tensor element by element, and whose curve is that of a known activation.

_Curve = Callable[..., Any]


def _hard_sigmoid(x: Any, attributes: Mapping[str, Any]) -> Any:
    return np.clip(attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0, 1)


def _clip(attributes: Mapping[str, Any], x: Any, low: Any = None, high: Any = None) -> Any:
    low = attributes.get("min", -np.inf) if low is None else low
    high = attributes.get("max", np.inf) if high is None else high
    return np.minimum(np.maximum(x, low), high)


_POINTWISE: Mapping[str, _Curve] = {
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
    "HardSigmoid": lambda attributes, x: _hard_sigmoid(x, attributes),
    "Identity": lambda _, x: x,
    "Neg": lambda _, x: -x,
    "Reciprocal": lambda _, x: 1 / x,
    "Relu": lambda _, x: np.maximum(x, 0),
    "Sigmoid": lambda _, x: special.expit(x),
    "Softplus": lambda _, x: np.logaddexp(x, 0),
    "Tanh": lambda _, x: np.tanh(x),
}

_HARD = _hard_sigmoid(_POINTS, {"alpha": 1 / 6})
_KNOWN: Sequence[tuple[str, Mapping[str, Any], np.ndarray]] = (
    ("Gelu", {"approximate": "none"}, _POINTS * special.ndtr(_POINTS)),
    (
        "Gelu",
        {"approximate": "tanh"},
        0.5 * _POINTS * (1 + np.tanh(np.sqrt(2 / np.pi) * (_POINTS + 0.044715 * _POINTS**3))),
    ),
    ("Swish", {"alpha": 1.0}, _POINTS * special.expit(_POINTS)),
    ("HardSwish", {}, _POINTS * _HARD),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, _HARD),
    ("Mish", {}, _POINTS * np.tanh(np.logaddexp(_POINTS, 0))),
)


def _activation(last: Operation, links: _Links) -> tuple[Operation, Sequence[Operation]] | None:
    if last.kind not in ("Mul", "Div", "Clip", "Min", "Max") or last.output.dtype is None:
        return None
    if last.output.dtype.kind != "f":
        return None
    joined = [last]
    best = None
    while len(joined) <= _MOST_JOINED:
        # The values that the operations joined so far take from outside.
        inner = {id(one.output) for one in joined}
        outside = list(
            dict.fromkeys(
                value for one in joined for value in one.inputs if _varies(value) and id(value) not in inner and value
            )
        )
        if len(outside) == 1 and len(joined) > 1 and links.only_within(joined[1:], last):
            match = _recognised(joined, outside[0])
            if match is not None:
                kind, attributes = match
                operation = replace(last, kind=kind, version=0, inputs=(outside[0],), attributes=attributes)
                best = operation, tuple(joined[1:])
        makers = [links.maker(value, *_POINTWISE) for value in outside]
        found = next((one for one in makers if one is not None and links.only_within([one, *joined[1:]], last)), None)
        if found is None:
            break
        joined.append(found)
    return best


def _varies(value: Value | None) -> bool:
    return value is not None and value.uniform is None


def _recognised(joined: Sequence[Operation], source: Value) -> tuple[str, Mapping[str, Any]] | None:
    """The activation whose curve these operations follow."""
    if joined[0].output.shape != source.shape:
        return None
    curves: dict[int, Any] = {id(source): _POINTS}
    pending = list(joined)
    with np.errstate(all="ignore"):
        while pending:
            ready = [one for one in pending if all(not _varies(value) or id(value) in curves for value in one.inputs)]
            if not ready:
                return None
            for one in ready:
                pending.remove(one)
                values = [
                    None if value is None else curves[id(value)] if _varies(value) else np.float64(value.uniform)
                    for value in one.inputs
                ]
                curves[id(one.output)] = _POINTWISE[one.kind](one.attributes, *values)
    made = curves[id(joined[0].output)]
    for kind, attributes, expected in _KNOWN:
        if np.shape(made) == expected.shape and np.allclose(made, expected, rtol=1e-6, atol=1e-6):
            return kind, attributes
    return None


# Layer normalisation, as operator sets before 17 write it.


def _layer_normalization(last: Operation, links: _Links) -> tuple[Operation, Sequence[Operation]] | None:
    if last.kind == "Add":
        parts = [
            (multiply, scale, bias)
            for one in last.inputs
            if (multiply := links.maker(one, "Mul")) is not None and (bias := _other(last, one)) is not None
            for factor in multiply.inputs
            if links.maker(factor, "Div") is not None and (scale := _other(multiply, factor)) is not None
        ]
        for multiply, scale, bias in parts:
            divided = next(one for one in multiply.inputs if one is not scale)
            found = _normalized(links.maker(divided, "Div"), links)
            if found is None or not _fits(scale, found) or not _fits(bias, found):
                continue
            source, axis, epsilon, inner = found
            if links.only_within([*inner, multiply], last):
                attributes = {"axis": axis, "epsilon": epsilon, "stash_type": 1}
                joined = replace(
                    last, kind="LayerNormalization", version=17, inputs=(source, scale, bias), attributes=attributes
                )
                return joined, [*inner, multiply]
    return None


_Normalized = tuple[Value, int, float, list[Operation]]


def _normalized(divide: Operation | None, links: _Links) -> _Normalized | None:
    """What is normalised, over which axis, with which epsilon, by which operations."""
    if divide is None:
        return None
    centred, root = links.maker(divide.input(0), "Sub"), links.maker(divide.input(1), "Sqrt")
    shifted = links.maker(root.input(0), "Add") if root else None
    if centred is None or root is None or shifted is None:
        return None
    source = centred.input(0)
    mean = links.maker(centred.input(1), "ReduceMean")
    variance = next((one for value in shifted.inputs if (one := links.maker(value, "ReduceMean"))), None)
    square = links.maker(variance.input(0), "Pow", "Mul") if variance else None
    if source is None or mean is None or variance is None or square is None or mean.input(0) is not source:
        return None
    epsilon = _other(shifted, variance.output)
    squared = square.input(0) is centred.output and (
        (square.kind == "Mul" and square.input(1) is centred.output)
        or (square.kind == "Pow" and square.inputs[1] is not None and square.inputs[1].uniform == 2)
    )
    axes = {_axes(mean), _axes(variance)}
    rank = source.rank
    if epsilon is None or epsilon.uniform is None or not squared or len(axes) != 1 or rank is None:
        return None
    axis = axes.pop()
    if axis is None or len(axis) != 1 or axis[0] % rank != rank - 1:
        return None
    return source, rank - 1, float(epsilon.uniform), [divide, centred, root, shifted, mean, variance, square]


def _axes(mean: Operation) -> tuple[int, ...] | None:
    given = mean.attributes.get("axes")
    if given is None and (value := mean.input(1)) is not None and value.constant is not None:
        given = tuple(int(one) for one in value.constant)
    return tuple(given) if given is not None and mean.attributes.get("keepdims", 1) else None


def _fits(weight: Value, found: _Normalized) -> bool:
    source = found[0]
    return weight.is_constant and source.shape is not None and weight.shape == (source.shape[-1],)


# Biases that stand behind the product or the convolution.


def _bias(last: Operation, links: _Links) -> tuple[Operation, Sequence[Operation]] | None:
    if last.kind != "Add":
        return None
    for value in last.inputs:
        maker = links.maker(value, "MatMul", "Conv", "ConvTranspose")
        bias = _other(last, value)
        if (
            maker is None
            or bias is None
            or value is None
            or bias.constant is None
            or not links.only_within([maker], last)
        ):
            continue
        weight = maker.input(1)
        if weight is None or not weight.is_constant or maker.input(2) is not None or weight.rank is None:
            continue
        if value.shape is None or last.output.shape != value.shape:
            continue
        channel = len(value.shape) - 1 if maker.kind == "MatMul" else 1
        count = value.shape[channel]
        wanted = (count,) if maker.kind == "MatMul" else (count, *(1 for _ in value.shape[2:]))
        shape = bias.constant.shape
        while len(shape) > len(wanted) and shape[0] == 1:
            shape = shape[1:]
        if shape != wanted or (maker.kind == "MatMul" and weight.rank != 2):
            continue
        flat = Value(bias.name, bias.dtype, (count,), bias.constant.reshape(-1))
        data = maker.inputs[:2]
        name = last.name if last.ends_module or maker.name.startswith(f"{last.name}.") else maker.name
        joined = replace(maker, name=name, inputs=(*data, flat), outputs=last.outputs, ends_module=last.ends_module)
        # It stands where the addition stood, so the product is what goes.
        return joined, [maker]
    return None
