"""Graphs of ONNX operators that grow step by step, from random numbers.

Each step takes any value that there is, so values are used several times, branches part and join again, and what
nothing uses is an output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

UNARY = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "Abs",
    "Neg",
    "Softplus",
    "HardSwish",
    "LeakyRelu",
    "Identity",
    "Erf",
    "Elu",
    "Gelu",
)
JOINING = ("Add", "Mul", "Sub", "Max", "Min", "Concat")
OPSETS = (20, 22)
SAMPLES = 2
MOST_VALUES = 4096  # of one sample

Shape = tuple[int, ...]


class Graph:
    """A graph that grows; shapes have no sample axis, which is always the first."""

    def __init__(self, inputs: Mapping[str, Shape]) -> None:
        self.inputs = list(inputs)
        self.shapes = dict(inputs)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def node(self, kind: str, *inputs: str, results: int = 1, **attributes: object) -> str:
        """Adds an operator; the name of its first result. One whose results are too large or empty is left out."""
        position = len(self.nodes)
        names = [f"v{position}" if i == 0 else f"v{position}_{i}" for i in range(results)]
        made = helper.make_node(kind, inputs, names, name=f"n{position}", **attributes)
        shapes = self._infer(made)
        if any(0 in shape or np.prod(shape) > MOST_VALUES for shape in shapes):
            return inputs[0]
        self.nodes.append(made)
        self.shapes.update(zip(names, shapes, strict=True))
        return names[0]

    def _infer(self, node: onnx.NodeProto) -> list[Shape]:
        given = [name for name in dict.fromkeys(node.input) if name in self.shapes]
        model = self._model([node], {name: (SAMPLES, *self.shapes[name]) for name in given}, node.output, OPSETS[-1])
        found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output
        return [tuple(size.dim_value for size in one.type.tensor_type.shape.dim)[1:] for one in found]

    def _model(
        self, nodes: Sequence[onnx.NodeProto], inputs: dict[str, Sequence[object]], outputs: Sequence[str], opset: int
    ) -> onnx.ModelProto:
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "random",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items() if name in used],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    def model(self, opset: int, extra: int) -> onnx.ModelProto:
        """The model; its outputs are what nothing uses, and one value more if `extra` is not 0."""
        used = {name for node in self.nodes for name in node.input}
        made = [name for node in self.nodes for name in node.output]
        outputs = [name for name in made if name not in used]
        inner = [name for name in made if name in used]
        if extra and inner:
            outputs.append(inner[extra % len(inner)])
        inputs = {name: ("N", *self.shapes[name]) for name in self.inputs if name in used}
        return self._model(self.nodes, inputs, outputs, opset)


class Step:
    """One step of growth: random choices, and the value that it begins with."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph = graph
        self.random = np.random.default_rng(seed)
        names = list(graph.shapes)
        # Newer values are taken more often, or graphs would be broad and flat.
        self.name = names[-1 - min(int(self.random.geometric(0.6)) - 1, len(names) - 1)]
        self.shape = graph.shapes[self.name]
        self.channels = self.shape[0] if self.shape else 0
        self.sizes = self.shape[1:]

    def pick(self, low: int, high: int) -> int:
        """A number from `low` up to, but without, `high`."""
        return int(self.random.integers(low, high))

    def chance(self) -> bool:
        return bool(self.random.random() < 0.5)

    def some(self, low: int, high: int) -> list[int]:
        """A number for each spatial axis."""
        return [self.pick(low, high) for _ in self.sizes]

    def weight(self, *shape: int, fan: int = 1) -> str:
        return self.graph.constant((self.random.normal(size=shape) / np.sqrt(fan)).astype(np.float32))

    def between(self, low: float, high: float, size: int) -> str:
        return self.graph.constant(self.random.uniform(low, high, size).astype(np.float32))

    def integers(self, *values: int) -> str:
        return self.graph.constant(np.array(values, np.int64))

    def node(self, kind: str, *inputs: str, results: int = 1, **attributes: object) -> str:
        return self.graph.node(kind, *inputs, results=results, **attributes)


def unary(step: Step) -> None:
    step.node(UNARY[step.pick(0, len(UNARY))], step.name)


def binary(step: Step) -> None:
    """With a constant that broadcasts, on either side."""
    sizes = [size if step.chance() else 1 for size in step.shape]
    operands = [step.name, step.weight(*sizes[step.pick(0, len(sizes) + 1) :])]
    step.node(("Add", "Sub", "Mul")[step.pick(0, 3)], *(operands if step.chance() else operands[::-1]))


def join(step: Step) -> None:
    """Two values (or one value with itself), of the same or of broadcasting shapes."""
    kind, shapes = JOINING[step.pick(0, len(JOINING))], step.graph.shapes
    axis = step.pick(0, len(step.shape)) if kind == "Concat" and step.shape else None
    if kind == "Concat" and axis is None:
        return
    partners = [name for name, shape in shapes.items() if _fit(step.shape, shape, axis)]
    operands = [step.name, partners[step.pick(0, len(partners))]]
    if step.chance():
        operands.reverse()
    step.node(kind, *operands, **({} if axis is None else {"axis": axis + 1}))


def _fit(one: Shape, other: Shape, axis: int | None) -> bool:
    if len(one) != len(other):
        return False
    sizes = enumerate(zip(one, other, strict=True))
    return all(a == b or (axis is None and 1 in (a, b)) or i == axis for i, (a, b) in sizes)


def gate(step: Step) -> None:
    """Squeeze and excitation: one number for each channel, from the value itself."""
    if not step.sizes:
        return
    pooled = step.node("GlobalAveragePool", step.name)
    step.node("Mul", step.name, step.node("Sigmoid", pooled))


def conv(step: Step) -> None:
    if not 1 <= len(step.sizes) <= 3:
        return
    groups = (1, 1, step.channels, *(one for one in (2, 3) if step.channels % one == 0))
    group = groups[step.pick(0, len(groups))]
    kernel, dilations = step.some(1, 4), [1 if step.chance() else one for one in step.some(1, 3)]
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    filters = group * step.pick(1, 4)
    weight = step.weight(filters, step.channels // group, *kernel, fan=step.channels // group * int(np.prod(kernel)))
    inputs = [step.name, weight, *([step.weight(filters)] if step.chance() else [])]
    if step.pick(0, 4) == 0:
        step.node("Conv", *inputs, group=group, strides=step.some(1, 3), auto_pad=_same(step), kernel_shape=kernel)
        return
    pads = (
        [step.pick(0, 3) for _ in range(2 * len(kernel))] if step.chance() else [extent // 2 for extent in extents] * 2
    )
    if _covers(step, extents, pads):
        step.node("Conv", *inputs, group=group, strides=step.some(1, 3), pads=pads, dilations=dilations)


def _same(step: Step) -> str:
    return ("SAME_UPPER", "SAME_LOWER")[step.pick(0, 2)]


def _covers(step: Step, extents: Sequence[int], pads: Sequence[int]) -> bool:
    count = len(extents)
    return all(step.sizes[i] + pads[i] + pads[i + count] >= extents[i] for i in range(count))


def conv_transpose(step: Step) -> None:
    if not 1 <= len(step.sizes) <= 2:
        return
    groups = (1, 1, *(one for one in (2, step.channels) if step.channels % one == 0))
    group = groups[step.pick(0, len(groups))]
    kernel, strides = step.some(1, 4), step.some(1, 4)
    dilations = [1] * len(kernel) if step.chance() else step.some(1, 3)
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = [step.pick(0, extent) for extent in extents * 2] if step.chance() else [0] * 2 * len(kernel)
    more = [step.pick(0, stride) for stride in strides]
    filters = step.pick(1, 4)
    for i, size in enumerate(step.sizes):
        if (size - 1) * strides[i] + extents[i] + more[i] - pads[i] - pads[i + len(kernel)] < 1:
            return
    inputs = [
        step.name,
        step.weight(step.channels, filters, *kernel, fan=step.channels // group * int(np.prod(kernel))),
    ]
    inputs += [step.weight(filters * group)] if step.chance() else []
    extra = {"output_padding": more} if step.chance() else {}
    step.node("ConvTranspose", *inputs, group=group, strides=strides, pads=pads, dilations=dilations, **extra)


def pool(step: Step) -> None:
    if not 1 <= len(step.sizes) <= 3:
        return
    kind, kernel, strides = ("MaxPool", "AveragePool")[step.pick(0, 2)], step.some(1, 4), step.some(1, 3)
    extra: dict[str, object] = {"count_include_pad": step.pick(0, 2)} if kind == "AveragePool" else {}
    if step.pick(0, 4) == 0:
        extra["auto_pad"], strides = _same(step), [step.pick(1, size + 1) for size in kernel]
    else:
        pads = [step.pick(0, (size + 1) // 2) for size in kernel * 2]
        if not _covers(step, kernel, pads):
            return
        extra |= {"pads": pads, "ceil_mode": step.pick(0, 2)}
    step.node(kind, step.name, kernel_shape=kernel, strides=strides, **extra)


def global_pool(step: Step) -> None:
    if step.sizes:
        step.node(("GlobalAveragePool", "GlobalMaxPool")[step.pick(0, 2)], step.name)


def batch_norm(step: Step) -> None:
    if not step.shape:
        return
    count, epsilon = step.channels, (1e-5, 1e-3, 0.1)[step.pick(0, 3)]
    scale, bias = step.between(0.5, 1.5, count), step.weight(count)
    mean, variance = step.weight(count), step.between(0.2, 2.0, count)
    step.node("BatchNormalization", step.name, scale, bias, mean, variance, epsilon=epsilon)


def instance_norm(step: Step) -> None:
    if step.sizes:
        scale, bias = step.between(0.5, 1.5, step.channels), step.weight(step.channels)
        step.node("InstanceNormalization", step.name, scale, bias, epsilon=0.05)


def layer_norm(step: Step) -> None:
    if not step.shape:
        return
    axis = step.pick(0, len(step.shape))
    sizes = step.shape[axis:]
    scale = step.graph.constant(step.random.uniform(0.5, 1.5, sizes).astype(np.float32))
    extra = [step.weight(*sizes)] if step.chance() else []
    position = axis + 1 if step.chance() else axis - len(step.shape)
    step.node("LayerNormalization", step.name, scale, *extra, axis=position, epsilon=(0.01, 0.1)[step.pick(0, 2)])


def gemm(step: Step) -> None:
    flat = step.name if len(step.shape) == 1 else step.node("Flatten", step.name)
    wide, units, turned = step.graph.shapes[flat][0], step.pick(1, 6), step.pick(0, 2)
    weight = step.weight(*((units, wide) if turned else (wide, units)), fan=wide)
    bias = ([], [step.weight(units)], [step.weight(1)])[step.pick(0, 3)]
    extra = {"alpha": 0.5, "beta": 2.0} if step.pick(0, 4) == 0 else {}
    step.node("Gemm", flat, weight, *bias, transB=turned, **extra)


def matmul(step: Step) -> None:
    if step.shape:
        step.node("MatMul", step.name, step.weight(step.shape[-1], step.pick(1, 6), fan=step.shape[-1]))


def pad(step: Step) -> None:
    mode = ("constant", "reflect", "edge")[step.pick(0, 3)]
    most = [min(size - 1, 2) if mode == "reflect" else 2 for size in step.shape]
    pads = [0 if step.chance() else step.pick(0, one + 1) for one in most * 2]
    half = len(step.shape)
    value = [step.weight()] if mode == "constant" and step.chance() else []
    step.node("Pad", step.name, step.integers(0, *pads[:half], 0, *pads[half:]), *value, mode=mode)


def cut(step: Step) -> None:
    """A slice, perhaps backwards or counted from the end."""
    if not step.shape:
        return
    axis = step.pick(0, len(step.shape))
    size = step.shape[axis]
    start = step.pick(0, size)
    stride = (1, 1, 2, -1)[step.pick(0, 4)]
    end = (
        (-(2**31) if step.chance() else -size - 1)
        if stride < 0
        else (2**31, size, max(start + 1, size - 1))[step.pick(0, 3)]
    )
    named = start - size if step.chance() else start
    step.node("Slice", step.name, *(step.integers(one) for one in (named, end, axis + 1, stride)))


def clip(step: Step) -> None:
    low, high = sorted(step.random.normal(size=2).astype(np.float32))
    limits = (
        [step.graph.constant(low), step.graph.constant(high)],
        [step.graph.constant(low)],
        ["", step.graph.constant(high)],
    )
    step.node("Clip", step.name, *limits[step.pick(0, 3)])


def prelu(step: Step) -> None:
    if step.shape:
        step.node("PRelu", step.name, step.weight(step.channels, *([1] * len(step.sizes))))


def squeeze(step: Step) -> None:
    axes = [axis + 1 for axis, size in enumerate(step.shape) if size == 1]
    if axes:
        step.node("Squeeze", step.name, step.integers(*(axes if step.chance() else axes[:1])))


def unsqueeze(step: Step) -> None:
    if len(step.shape) < 4:
        step.node("Unsqueeze", step.name, step.integers(step.pick(1, len(step.shape) + 2)))


def split(step: Step) -> None:
    """Into two parts; the first is the newest value no longer than the second is."""
    axes = [axis for axis, size in enumerate(step.shape) if size > 1]
    if axes:
        axis = axes[step.pick(0, len(axes))]
        first = step.pick(1, step.shape[axis])
        step.node("Split", step.name, step.integers(first, step.shape[axis] - first), results=2, axis=axis + 1)


def transpose(step: Step) -> None:
    step.node("Transpose", step.name, perm=[0, *(int(one) + 1 for one in step.random.permutation(len(step.shape)))])


def reshape(step: Step) -> None:
    """Flat, in the reverse order of sizes, or with an axis taken apart."""
    even = [axis for axis, size in enumerate(step.shape) if size % 2 == 0]
    sizes = [-1] if step.chance() else list(step.shape[::-1])
    if even and len(step.shape) < 4 and step.chance():
        axis = even[step.pick(0, len(even))]
        sizes = [*step.shape[:axis], 2, step.shape[axis] // 2, *step.shape[axis + 1 :]]
    step.node("Reshape", step.name, step.integers(0, *sizes))


def reduce(step: Step) -> None:
    axes = [axis + 1 for axis in range(len(step.shape)) if step.chance()]
    if axes:
        kind = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")[step.pick(0, 4)]
        step.node(kind, step.name, step.integers(*axes), keepdims=step.pick(0, 2))


def softmax(step: Step) -> None:
    if step.shape:
        step.node(("Softmax", "LogSoftmax")[step.pick(0, 2)], step.name, axis=step.pick(1, len(step.shape) + 1))


def gather(step: Step) -> None:
    """One place of an axis, which goes, or several."""
    if step.shape:
        axis = step.pick(0, len(step.shape))
        places = [step.pick(-step.shape[axis], step.shape[axis]) for _ in range(step.pick(1, 4))]
        array = np.array(places[0] if step.chance() else places, np.int64)
        step.node("Gather", step.name, step.graph.constant(array), axis=axis + 1)


def depth_to_space(step: Step) -> None:
    if len(step.sizes) == 2 and step.channels % 4 == 0:
        step.node("DepthToSpace", step.name, blocksize=2, mode=("DCR", "CRD")[step.pick(0, 2)])


KINDS: tuple[Callable[[Step], None], ...] = (
    *(unary, binary, join, join, gate, conv, conv, conv_transpose, pool, global_pool, batch_norm, instance_norm),
    *(layer_norm, gemm, matmul, pad, cut, clip, prelu, squeeze, unsqueeze, split, transpose, reshape, reduce, softmax),
    *(gather, depth_to_space),
)


def grown(inputs: Mapping[str, Shape], steps: Sequence[tuple[Callable[[Step], None], int]]) -> Graph:
    """A graph after some steps, each with a seed of its own."""
    graph = Graph(inputs)
    for kind, seed in steps:
        kind(Step(graph, seed))
    return graph
