"""What exporters write in many operators and torch has in one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from cfi_translate.onnx_torch.editing import Operations, constant, operation
from cfi_translate.onnx_torch.layout import to_channels_first
from cfi_translate.program import Operation, Program, Value

Pattern = Callable[[Operation, Operations], bool]
_SPATIAL = {1: (2,), 2: (2, 3), 3: (2, 3, 4)}


def simplify(program: Program) -> tuple[tuple[int, ...] | None, ...]:
    """Changes the program; returns the order of axes in which each input comes now (None: as before)."""
    _apply(program, _IN_ANY_LAYOUT)
    axes = to_channels_first(program)
    _apply(program, _CHANNELS_FIRST)
    return axes


def _apply(program: Program, patterns: Sequence[Pattern]) -> None:
    everything = Operations(program.operations, program.outputs)
    for pattern in patterns:
        for one in list(everything.operations):
            if everything.has(one) and one.outputs[0] is not None:
                pattern(one, everything)
    program.operations = tuple(everything.operations)


# Numbers and products


def _number(value: Value | None) -> float | None:
    """The one number that a value is."""
    if value is None or not value.known or (number := value.uniform) is None:
        return None
    return float(number) if number.dtype.kind in "fiu" else None


def _is(number: float | None, wanted: float) -> bool:
    return number is not None and math.isclose(number, wanted, rel_tol=1e-6, abs_tol=1e-12)


def _split(op: Operation) -> tuple[Value, float] | None:
    """The data and the number of an operation on both, the number second unless it may stand first."""
    one, other = op.input(0), op.input(1)
    if one is not None and (number := _number(other)) is not None:
        return one, number
    if other is not None and op.kind in ("Add", "Mul") and (number := _number(one)) is not None:
        return other, number
    return None


def _factors(value: Value | None, everything: Operations, is_root: bool = False) -> tuple[float, list[Value]]:
    """A value as a product of a number and others."""
    if value is None:
        return 1.0, []
    number = _number(value)
    if number is not None:
        return number, []
    # What several operations take is what the product is about.
    op = everything.maker(value, "Mul", "Div", "Pow") if is_root or everything.users(value) == 1 else None
    if op is None:
        return 1.0, [value]
    if op.kind == "Mul":
        first, second = (_factors(one, everything) for one in op.inputs)
        return first[0] * second[0], first[1] + second[1]
    number = _number(op.input(1))
    if op.kind == "Div" and number:
        inner = _factors(op.input(0), everything)
        return inner[0] / number, inner[1]
    if op.kind == "Pow" and number in (2, 3):
        inner = _factors(op.input(0), everything)
        return inner[0] ** int(number), inner[1] * int(number)
    return 1.0, [value]


def _plus(value: Value, number: float, everything: Operations) -> Value | None:
    """`x` where the value is `x + number`."""
    op = everything.maker(value, "Add")
    parts = None if op is None else _split(op)
    return parts[0] if parts is not None and _is(parts[1], number) else None


def _product_with(op: Operation, everything: Operations, number: float) -> Sequence[tuple[Value, Value]]:
    """`(x, y)` and `(y, x)` where the operation is `number · x · y`."""
    if op.kind not in ("Mul", "Div"):
        return ()
    found, values = _factors(op.output, everything, is_root=True)
    if not _is(found, number) or len(values) != 2 or values[0].shape != op.output.shape:
        return ()
    return ((values[0], values[1]), (values[1], values[0]))


# Activations


def _gelu(op: Operation, everything: Operations) -> bool:
    for data, gate in _product_with(op, everything, 0.5):
        inner = _plus(gate, 1.0, everything)
        if inner is None:
            continue
        for kind, approximate, test in (("Erf", "none", _is_erf_input), ("Tanh", "tanh", _is_tanh_input)):
            made = everything.maker(inner, kind)
            if made is not None and test(made.input(0), data, everything):
                new = operation(op, "Gelu", [data], op.outputs, {"approximate": approximate})
                everything.replace(op, new)
                return True
    return False


def _is_erf_input(value: Value | None, data: Value, everything: Operations) -> bool:
    number, values = _factors(value, everything)
    return _is(number, math.sqrt(0.5)) and values == [data]


def _is_tanh_input(value: Value | None, data: Value, everything: Operations) -> bool:
    number, values = _factors(value, everything)
    if not _is(number, math.sqrt(2 / math.pi)):
        return False
    if len(values) == 2 and data in values:
        # x · (1 + 0.044715 x²)
        rest = _plus(values[1] if values[0] is data else values[0], 1.0, everything)
        scale, powers = _factors(rest, everything)
        return rest is not None and _is(scale, 0.044715) and powers == [data] * 2
    total = everything.maker(values[0], "Add") if len(values) == 1 else None
    if total is None or data not in total.inputs:
        return False
    scale, powers = _factors(next(one for one in total.inputs if one is not data), everything)
    return _is(scale, 0.044715) and powers == [data] * 3


def _gated(op: Operation, everything: Operations) -> bool:
    """`x · sigmoid(x)` and its kin."""
    for data, gate in _product_with(op, everything, 1.0):
        made = everything.maker(gate, "Sigmoid", "HardSigmoid", "Tanh")
        if made is None:
            continue
        soft = everything.maker(made.input(0), "Softplus") if made.kind == "Tanh" else None
        if soft is not None and soft.input(0) is data:
            everything.replace(op, operation(op, "Mish", [data], op.outputs))
            return True
        if made.input(0) is not data or made.kind == "Tanh":
            continue
        if made.kind == "Sigmoid":
            everything.replace(op, operation(op, "Swish", [data], op.outputs, {"alpha": 1.0}))
            return True
        if _is(made.attributes["alpha"], 1 / 6) and made.attributes["beta"] == 0.5:
            everything.replace(op, operation(op, "HardSwish", [data], op.outputs))
            return True
    for data, gate in _product_with(op, everything, 1 / 6):
        if _six(gate, everything) is data:
            everything.replace(op, operation(op, "HardSwish", [data], op.outputs))
            return True
    return False


def _six(value: Value, everything: Operations) -> Value | None:
    """`x` where the value is `relu6(x + 3)`."""
    clip = everything.maker(value, "Clip")
    if clip is None or _limits(clip) != (0.0, 6.0):
        return None
    source = clip.input(0)
    return None if source is None else _plus(source, 3.0, everything)


def _limits(clip: Operation) -> tuple[float | None, float | None]:
    if clip.version < 11:
        return clip.attributes.get("min"), clip.attributes.get("max")
    return _number(clip.input(1)), _number(clip.input(2))


def _hard_sigmoid(op: Operation, everything: Operations) -> bool:
    if op.kind not in ("Mul", "Div"):
        return False
    number, values = _factors(op.output, everything, is_root=True)
    if len(values) != 1 or not _is(number, 1 / 6):
        return False
    data = _six(values[0], everything)
    if data is None or data.shape != op.output.shape:
        return False
    everything.replace(op, operation(op, "HardSigmoid", [data], op.outputs, {"alpha": 1 / 6, "beta": 0.5}))
    return True


def _relu6(op: Operation, everything: Operations) -> bool:
    """`min(relu(x), 6)`."""
    if op.kind != "Min" or len(op.inputs) != 2:
        return False
    for one, other in (op.inputs, op.inputs[::-1]):
        made = everything.maker(one, "Relu")
        if made is not None and other is not None and _is(_number(other), 6.0) and other.rank in (0, 1):
            bounds = [
                constant(f"{op.name}.{name}", np.array(n, op.output.dtype)) for name, n in (("low", 0), ("high", 6))
            ]
            everything.replace(op, operation(op, "Clip", [made.input(0), *bounds], op.outputs))
            return True
    return False


# Normalisations


def _layer_normalization(op: Operation, everything: Operations) -> bool:
    """`(x - mean) / sqrt(variance + epsilon)`, with a scale and a shift behind it where there are any."""
    found = _standardised(op, everything)
    if found is None:
        return False
    data, axes, epsilon = found
    if (
        data.shape is None
        or data.dtype != np.float32
        or axes != list(range(len(data.shape) - len(axes), len(data.shape)))
    ):
        return False
    sizes = data.shape[axes[0] :]
    if None in sizes:
        return False
    shape = tuple(size for size in sizes if size is not None)
    last, scale, shift = op, None, None
    follower = everything.only_user(op.output, "Mul")
    if follower is not None and (given := _beside(follower, last.output, shape)) is not None:
        last, scale = follower, given
        follower = everything.only_user(last.output, "Add")
        if follower is not None and (given := _beside(follower, last.output, shape)) is not None:
            last, shift = follower, given
    weights = scale if scale is not None else np.ones(shape, np.float32)
    inputs: list[Value | None] = [data, constant(f"{last.name}.scale", weights)]
    if shift is not None:
        inputs.append(constant(f"{last.name}.shift", shift))
    attributes = {"axis": axes[0], "epsilon": epsilon, "stash_type": 1}
    everything.replace(last, operation(last, "LayerNormalization", inputs, last.outputs, attributes))
    return True


def _standardised(op: Operation, everything: Operations) -> tuple[Value, list[int], float] | None:
    """The data, the axes and epsilon."""
    if op.kind != "Div":
        return None
    centred = everything.maker(op.input(0), "Sub")
    root = everything.maker(op.input(1), "Sqrt")
    if centred is None or root is None:
        return None
    mean = everything.maker(centred.input(1), "ReduceMean")
    total = everything.maker(root.input(0), "Add")
    parts = None if total is None else _split(total)
    data = centred.input(0)
    if mean is None or parts is None or data is None or mean.input(0) is not data:
        return None
    variance = everything.maker(parts[0], "ReduceMean")
    axes = _reduced(mean)
    if variance is None or axes is None or _reduced(variance) != axes:
        return None
    square = everything.maker(variance.input(0), "Mul", "Pow")
    if square is None or _factors(square.output, everything, is_root=True) != (1.0, [centred.output] * 2):
        return None
    if not mean.attributes["keepdims"] or not variance.attributes["keepdims"]:
        return None
    return data, axes, parts[1]


def _reduced(op: Operation) -> list[int] | None:
    axes = op.attributes.get("axes")
    if axes is None:
        given = op.input(1)
        axes = None if given is None else given.constant
    rank = None if op.inputs[0] is None else op.inputs[0].rank
    if axes is None or rank is None or not len(axes):
        return None
    return sorted(int(axis) % rank for axis in axes)


def _beside(op: Operation, value: Value, shape: tuple[int, ...]) -> np.ndarray | None:
    """The constant of that shape that an operation takes beside a value."""
    for one, other in (op.inputs, op.inputs[::-1]):
        known = other.constant if one is value and other is not None else None
        if known is not None and known.dtype == np.float32 and known.size == math.prod(shape):
            full = (1,) * max(len(shape) - known.ndim, 0) + known.shape
            if full[-len(shape) :] == shape:
                return known.reshape(shape)
    return None


def _batch_normalization(op: Operation, everything: Operations) -> bool:
    """A scale for each channel, with a shift behind it where there is one, or before."""
    scale = _per_channel(op, "Mul", "Div")
    if scale is None:
        first = _per_channel(op, "Add", "Sub")
        follower = everything.only_user(op.output, "Mul", "Div")
        behind = None if follower is None else _per_channel(follower, "Mul", "Div")
        if first is None or follower is None or behind is None or behind[0] is not op.output:
            return False
        data, shift = first[0], first[1] * behind[1]
        return _as_normalization(follower, data, behind[1], shift, everything)
    shift, last = np.zeros_like(scale[1]), op
    follower = everything.only_user(op.output, "Add", "Sub")
    behind = None if follower is None else _per_channel(follower, "Add", "Sub")
    if follower is not None and behind is not None and behind[0] is op.output:
        last, shift = follower, behind[1]
    return _as_normalization(last, scale[0], scale[1], shift, everything)


def _as_normalization(
    last: Operation, data: Value, scale: np.ndarray, shift: np.ndarray, everything: Operations
) -> bool:
    zero, one = np.zeros_like(scale), np.ones_like(scale)
    names = ("scale", "shift", "mean", "variance")
    parts = zip(names, (scale, shift, zero, one), strict=True)
    inputs = [data, *(constant(f"{last.name}.{name}", array) for name, array in parts)]
    everything.replace(last, operation(last, "BatchNormalization", inputs, last.outputs, {"epsilon": 0.0}))
    return True


def _per_channel(op: Operation, *kinds: str) -> tuple[Value, np.ndarray] | None:
    """The data and, as a factor or summand, the constant of an operation that has one number for each channel."""
    if op.kind not in kinds or op.version < 7 or op.output.dtype != np.float32:
        return None
    pairs = (op.inputs, op.inputs[::-1]) if op.kind in ("Add", "Mul") else (op.inputs,)
    for data, other in pairs:
        known = None if other is None else other.constant
        if known is None or data is None or data.is_constant or data.shape is None or data.shape != op.output.shape:
            continue
        full = (1,) * (len(data.shape) - known.ndim) + known.shape
        channels = data.shape[1] if len(data.shape) in (2, 3, 4, 5) else None
        if channels is None or channels < 2 or known.size != channels or full[1] != channels:
            continue
        numbers = known.reshape(-1)
        if op.kind == "Div" and np.any(numbers == 0):
            continue
        return data, {"Div": 1 / numbers if op.kind == "Div" else numbers, "Sub": -numbers}.get(op.kind, numbers)
    return None


# Weights


def _matmul_bias(op: Operation, everything: Operations) -> bool:
    if op.kind != "MatMul":
        return False
    weight = op.input(1)
    follower = everything.only_user(op.output, "Add")
    if weight is None or not weight.is_constant or weight.rank != 2 or follower is None or weight.dtype != np.float32:
        return False
    features = fixed_size(weight, 1)
    if op.output.rank is None or op.output.rank != follower.output.rank or features is None:
        return False
    bias = _beside(follower, op.output, (features,))
    if bias is None:
        return False
    inputs = [op.input(0), weight, constant(f"{follower.name}.bias", bias)]
    everything.replace(follower, operation(op, "MatMul", inputs, follower.outputs, name=follower.name))
    return True


def fixed_size(value: Value, axis: int) -> int | None:
    """Size of one axis."""
    return None if value.shape is None else value.shape[axis]


def _convolution_bias(op: Operation, everything: Operations) -> bool:
    if (
        op.kind not in ("Conv", "ConvTranspose")
        or op.input(2) is not None
        or not (op.inputs[1] or op.output).is_constant
    ):
        return False
    follower = everything.only_user(op.output, "Add", "Sub")
    found = None if follower is None else _per_channel(follower, "Add", "Sub")
    if follower is None or found is None or found[0] is not op.output:
        return False
    inputs = [op.inputs[0], op.inputs[1], constant(f"{follower.name}.bias", found[1])]
    everything.replace(follower, operation(op, op.kind, inputs, follower.outputs, name=follower.name))
    return True


def _padding(op: Operation, everything: Operations) -> bool:
    """Zeros around what only a convolution takes."""
    if op.kind != "Pad" or op.attributes.get("mode", "constant") != "constant" or op.version < 11:
        return False
    follower = everything.only_user(op.output, "Conv")
    pads, number = op.input(1), op.input(2)
    known = None if pads is None else pads.constant
    if follower is None or follower.inputs[0] is not op.output or known is None or op.input(3) is not None:
        return False
    half = len(known) // 2
    begin, end = known[:half].tolist(), known[half:].tolist()
    if (number is not None and _number(number) != 0) or min(begin + end) < 0 or any(begin[:2] + end[:2]):
        return False
    if follower.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    own = follower.attributes.get("pads") or (0,) * 2 * (half - 2)
    own = own if follower.attributes.get("auto_pad", "NOTSET") == "NOTSET" else (0,) * len(own)
    joined = tuple(int(a) + int(b) for a, b in zip(begin[2:] + end[2:], own, strict=True))
    inputs = [op.inputs[0], *follower.inputs[1:]]
    attributes = {"pads": joined, "auto_pad": "NOTSET"}
    everything.replace(follower, operation(follower, "Conv", inputs, follower.outputs, attributes))
    return True


def _mean_over_space(op: Operation, everything: Operations) -> bool:
    """A mean or maximum over all of space is global pooling."""
    kind = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}.get(op.kind)
    axes = None if kind is None else _reduced(op)
    value = op.inputs[0] if op.inputs else None
    if kind is None or axes is None or value is None or value.shape is None or value.dtype != np.float32:
        return False
    rank = len(value.shape) - 2
    if tuple(axes) != _SPATIAL.get(rank) or value.shape[1] is None:
        return False
    if op.attributes["keepdims"]:
        everything.replace(op, operation(op, kind, [value], op.outputs))
        return True
    shape = (*value.shape[:2], *(1,) * rank)
    pooled = Value(f"{op.output.name}_pooled", value.dtype, shape, multiples=dict(op.output.multiples))
    everything.replace(
        op,
        operation(op, kind, [value], [pooled], name=f"{op.name}.pool"),
        operation(op, "Flatten", [pooled], op.outputs, {"axis": 1}),
    )
    return True


_IN_ANY_LAYOUT: tuple[Pattern, ...] = (
    _relu6,
    _hard_sigmoid,
    _gelu,
    _gated,
    _layer_normalization,
    _matmul_bias,
)
_CHANNELS_FIRST: tuple[Pattern, ...] = (
    _convolution_bias,
    _padding,
    _mean_over_space,
    _batch_normalization,
)
