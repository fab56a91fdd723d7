"""Reads an ONNX model into a `Program`.

Sizes are found by going through the graph twice, with two and with five samples: shapes are inferred node by node, and
whatever depends on constants and sizes alone is computed. What comes out the same both times is constant; what differs
follows the number of samples. Nothing is run, and large weights stay where they are until a reader asks for them.

A model whose first axes are no sample axis (its outputs do not follow the number of samples, or its inputs cannot
change together) is read with the sizes of the examples, all of them fixed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx.inliner
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cfi_core.errors import TranslationError
from cfi_translate.failures import failure, refusal
from cfi_translate.grammar import NEXT_STEP
from cfi_translate.graph import (
    add_constant,
    attribute,
    graph_inputs,
    inferred_shapes,
    inline_constants,
    remove_identities,
    replace_nodes,
)
from cfi_translate.limits import FOLDED_SECONDS, RESULT, check_functions
from cfi_translate.names import claim
from cfi_translate.program import (
    LARGE,
    MODULE_END,
    SAMPLES,
    Lent,
    Needs,
    Operation,
    Program,
    Source,
    Value,
    default_attributes,
    describe,
    plain,
    prune,
    unpack,
)

_MOST_FOLDED = 2**27  # elements
_MOST_GROWTH = 8
"""How many times the bytes of its weights a model may have computed beforehand: one byte can become a double."""
_MOST_SLOW = 2**18
# What the reference evaluator computes without a loop in Python, in no time for each element.
_QUICK = frozenset(
    (
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos", "Div", "Equal", "Erf"),
        *("Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "Greater", "Identity", "Less", "Log", "Max"),
        *("Min", "Mul", "Neg", "Not", "OneHot", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean"),
        *("ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Sin", "Slice", "Split", "Sqrt"),
        *("Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor", "DequantizeLinear"),
        *("QuantizeLinear", "GreaterOrEqual", "LessOrEqual", "Sign", "CumSum", "Mod"),
    )
)
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_MOST_PRODUCT = 2**22
_GROWING = frozenset(
    ("CenterCropPad", "Col2Im", "ConstantOfShape", "Expand", "MaxUnpool", "OneHot", "Pad", "Range", "Resize", "Tile")
)
"""Operators that can make much of little, whose results are computed only where their sizes are known."""
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
SHAPED_LIKE_INPUT = ("GroupNormalization", "MeanVarianceNormalization")
"""Operators whose result is of the input's shape and type, for which ONNX has no shape inference."""
# Inputs that only say how large or where: known, they need not be computed by the converted model.
_SIZES: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}


def needs_values(operation: Operation, position: int, value: Value) -> bool:
    """Whether an operation needs an input to be computed: not if it is constant, nor if it is a known size."""
    if value.is_constant:
        return False
    return position not in _SIZES.get(operation.kind, ()) or value.sizes is None


def read(
    model: ModelProto,
    inputs: Sequence[np.ndarray],
    translator: str,
    known: Callable[[str], bool] = lambda kind: True,
    needs: Needs = needs_values,
    lent: Mapping[str, Lent] = MappingProxyType({}),
) -> Program:
    """Reads a model.

    Args:
        model: The model; it is not changed.
        inputs: One example per input, sample axis first.
        translator: Who asks, for messages.
        known: Whether the reader understands an operator of the default set. Those that it does not are replaced by
            their definition in other operators, where ONNX has one.
        needs: Which inputs have to be computed; what makes only others is left out.
        lent: Large weights that the model names and does not hold.

    Raises:
        TranslationError: The model has control flow, random operators or operators of another domain.
    """
    given = graph_inputs(model)
    if len(given) != len(inputs):
        raise failure(translator, f"was given {len(inputs)} inputs for a model with {len(given)}")
    check_functions(model, translator)
    weights: dict[str, TensorProto | Lent] = {
        one.name: one for one in model.graph.initializer if np.prod(one.dims, dtype=np.int64) > LARGE
    }
    weights |= lent
    model = _copy(model, weights)
    del model.graph.input[:]
    model.graph.input.extend(given)
    _refuse_disputed(model, translator)
    model = _expand(model, known)
    _inline_branches(model)
    inline_constants(model)
    _check(model, translator)
    remove_identities(model, translator)
    taken: set[str] = set()
    for node in model.graph.node:
        node.name = claim(node.name or node.op_type, taken)
    # Inputs of different lengths have no sample axis in common.
    if inputs and all(array.ndim for array in inputs) and len({len(array) for array in inputs}) == 1:
        freed = _copy(model, weights)
        free_batch_axis(freed, inputs)
        same: dict[str, np.ndarray] = {}
        try:
            both = [_SizeWalk(freed, weights, [(n, *one.shape[1:]) for one in inputs], inputs, same) for n in SAMPLES]
        except _MisfitSizes:
            pass
        else:
            program = _join(freed, both, needs)
            if all(output.shape is not None and output.shape[:1] == (None,) for output in program.outputs):
                return program
    try:
        walk = _SizeWalk(model, weights, [array.shape for array in inputs], inputs, {})
    except _MisfitSizes as error:
        raise TranslationError(f"{translator} cannot read the model: {error}. {NEXT_STEP}") from error
    return _join(model, [walk], needs)


def free_batch_axis(model: ModelProto, inputs: Sequence[np.ndarray]) -> None:
    """Makes the first axis of every input and output symbolic, and repairs reshapes with a baked batch size.

    What does not depend on the inputs' values, such as a range, is reshaped as it was.
    """
    constants = {one.name: one for one in model.graph.initializer}
    dependent, reshapes = {one.name for one in model.graph.input}, []
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[0] in dependent and node.input[1] in constants:
            reshapes.append(node)
        if node.op_type not in ("Shape", "Size") and dependent.intersection(node.input):
            dependent.update(node.output)
    shapes = inferred_shapes(model) if reshapes else {}
    baked = {
        one.type.tensor_type.shape.dim[0].dim_value
        for one in model.graph.input
        if len(one.type.tensor_type.shape.dim) > 0 and one.type.tensor_type.shape.dim[0].dim_value > 0
    } or {array.shape[0] for array in inputs if array.ndim}
    for node in reshapes:
        target, source = numpy_helper.to_array(constants[node.input[1]]), shapes.get(node.input[0])
        if target.size < 1 or not source or None in source[1:]:
            continue
        if source[0] not in (None, *baked):
            continue  # its first axis is not the samples: a 1 in the target is then just a 1
        same = np.prod(target[1:]) == np.prod([size or 0 for size in source[1:]])
        if int(target[0]) in baked and (same or -1 in target[1:]):
            free = target.copy()
            free[0] = 0 if -1 in target[1:] else -1
            node.input[1] = add_constant(model, f"{node.output[0]}_shape", free)
    for value in (*model.graph.input, *model.graph.output):
        shape = value.type.tensor_type.shape
        if len(shape.dim):
            shape.dim[0].Clear()
            shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]


def _copy(model: ModelProto, weights: Collection[str]) -> ModelProto:
    """A copy in which the weights have no content, of which copies would fill the memory."""
    copy = ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = model.graph.name
    for name in ("node", "input", "output"):
        getattr(copy.graph, name).extend(getattr(model.graph, name))
    for one in model.graph.initializer:
        if one.name in weights:
            hollow = copy.graph.initializer.add()
            hollow.name, hollow.data_type, hollow.data_location = one.name, one.data_type, TensorProto.EXTERNAL
            hollow.dims.extend(one.dims)
        else:
            copy.graph.initializer.append(one)
    return copy


def _expand(model: ModelProto, known: Callable[[str], bool]) -> ModelProto:
    """Calls of functions become what they call, also of operators that are defined by others."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opset = _opset(model)
    foreign = {
        (node.domain, node.op_type)
        for node in model.graph.node
        if node.domain in ("", "ai.onnx") and not known(node.op_type) and _has_definition(node.op_type, opset)
    }
    if foreign:
        # The inliner wants the types of all that a call takes, and does not look among the initialisers.
        model.graph.value_info.extend(
            helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in model.graph.initializer
        )
        for node in model.graph.node:
            if (node.domain, node.op_type) in foreign:
                _write_out_defaults(node, opset)
        model = onnx.shape_inference.infer_shapes(model)
        model = onnx.inliner.inline_selected_functions(
            model, [(domain, kind) for domain, kind in sorted(foreign)], inline_schema_functions=True
        )
    return model


def _write_out_defaults(node: NodeProto, opset: int) -> None:
    """Gives a node the default values of its attributes, which the inliner forgets."""
    given = {one.name for one in node.attribute}
    for name, one in onnx.defs.get_schema(node.op_type, opset, "").attributes.items():
        if name not in given and one.default_value.type:
            node.attribute.append(one.default_value)


def _has_definition(kind: str, opset: int) -> bool:
    if not onnx.defs.has(kind, opset, ""):
        return False
    schema = onnx.defs.get_schema(kind, opset, "")
    return bool(schema.has_function or schema.has_context_dependent_function)


def _opset(model: ModelProto) -> int:
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)


def _inline_branches(model: ModelProto) -> None:
    """An `If` whose condition is constant becomes its branch."""
    constants = {one.name: one for one in model.graph.initializer}
    nodes, changed = [], False
    for node in model.graph.node:
        if node.op_type != "If" or node.input[0] not in constants:
            nodes.append(node)
            continue
        taken = bool(numpy_helper.to_array(constants[node.input[0]]))
        branch = next(one.g for one in node.attribute if one.name == ("then_branch" if taken else "else_branch"))
        model.graph.initializer.extend(branch.initializer)
        nodes.extend(branch.node)
        nodes.extend(
            helper.make_node("Identity", [inner.name], [outer])
            for inner, outer in zip(branch.output, node.output, strict=True)
        )
        changed = True
    replace_nodes(model, nodes)
    if changed:
        inline_constants(model)
        _inline_branches(model)


def _refuse_disputed(model: ModelProto, translator: str) -> None:
    """Refuses what ONNX defines by other operators, and ONNX Runtime computes otherwise."""
    for node in model.graph.node:
        if node.op_type == "Attention" and len(node.output) > 3 and node.output[3] and attribute(node, "is_causal", 0):
            raise refusal(translator, node, "ONNX and ONNX Runtime differ in the scores of what the mask hides")


def _check(model: ModelProto, translator: str) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise refusal(translator, node, f"its domain {node.domain!r} is not ONNX's own")
        if any(one.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for one in node.attribute):
            raise refusal(translator, node, "control flow is not supported")
        if node.op_type in _RANDOM:
            raise refusal(translator, node, "its result is random")


class _MisfitSizes(Exception):
    """The sizes do not fit the graph."""


class _SizeWalk:
    """Types, shapes and known values of one pass through the graph with inputs of given shapes."""

    def __init__(
        self,
        model: ModelProto,
        weights: Mapping[str, TensorProto | Lent],
        shapes: Sequence[tuple[int, ...]],
        inputs: Sequence[np.ndarray],
        same: dict[str, np.ndarray],
    ) -> None:
        """Goes through the graph.

        Args:
            model: The graph.
            weights: Contents of its large initialisers.
            shapes: Of the inputs.
            inputs: Examples, for their types.
            same: What does not depend on any size, for this walk and the next.
        """
        self.sources: dict[str, Source] = {
            one.name: weights[one.name] if one.name in weights else numpy_helper.to_array(one)
            for one in model.graph.initializer
        }
        self.types: dict[str, TypeProto] = {
            one.name: helper.make_tensor_type_proto(one.data_type, tuple(one.dims)) for one in model.graph.initializer
        }
        self._fixed = set(self.sources)
        self._same = same
        for declared, shape, array in zip(model.graph.input, shapes, inputs, strict=True):
            kind = declared.type.tensor_type.elem_type or helper.np_dtype_to_tensor_dtype(array.dtype)
            self.types[declared.name] = helper.make_tensor_type_proto(kind, shape)
        self._opsets = list(model.opset_import)
        self._version = _opset(model)
        self._largest, self._until = RESULT.value, time.monotonic() + FOLDED_SECONDS.value
        held = sum(one.ByteSize() for one in model.graph.initializer)
        for one in weights.values():
            held += max(math.prod(one.dims), 0) * np.dtype(helper.tensor_dtype_to_np_dtype(one.data_type)).itemsize
        self._left = RESULT.value // 2 + _MOST_GROWTH * held
        for node in model.graph.node:
            self._step(node)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Sizes of a value, None if they are not known."""
        kind = self.types.get(name)
        if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        return tuple(one.dim_value for one in dims) if all(one.HasField("dim_value") for one in dims) else None

    def dtype(self, name: str) -> np.dtype | None:
        """Numpy type of a value."""
        kind = self.types.get(name)
        if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.elem_type:
            return None
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))

    def _step(self, node: NodeProto) -> None:
        names = [name for name in node.input if name]
        if node.op_type in ("Shape", "Size") and (shape := self.shape(names[0])) is not None:
            part = {one.name: one.i for one in node.attribute}
            sizes = np.array(shape, np.int64)[part.get("start", 0) : part.get("end")]
            self._know(node.output[0], sizes if node.op_type == "Shape" else np.array(np.prod(sizes), np.int64))
            return
        self._infer(node, names)
        self._check_sizes(node)
        if node.op_type == "CastLike" and names[0] in self.sources and (kind := self.dtype(node.output[0])) is not None:
            # Only the type of the second input counts.
            if np.dtype(kind).kind in "fiub":
                self._know(node.output[0], unpack(self.sources[names[0]]).astype(kind))
            return
        # A node without inputs that is no Constant makes something random, which was refused before.
        is_random = node.op_type == "Dropout" and len(node.input) > 2
        if names and not is_random and all(name in self.sources for name in names) and self._is_small(node):
            self._compute(node, names)

    def _infer(self, node: NodeProto, names: Sequence[str]) -> None:
        if node.op_type in SHAPED_LIKE_INPUT and names[0] in self.types:
            self.types[node.output[0]] = self.types[names[0]]
            return
        schema = onnx.defs.get_schema(node.op_type, self._version, "")
        data = {
            name: numpy_helper.from_array(source)
            for name in names
            if isinstance(source := self.sources.get(name), np.ndarray) and source.size <= 64
        }
        types = {name: self.types[name] for name in names if name in self.types}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self._opsets, ir_version=10
            )
        except Exception as error:
            raise _MisfitSizes(
                f"the shapes do not fit operator {node.op_type} (node {node.name!r}): {error}"
            ) from error
        self.types.update(found)

    def _check_sizes(self, node: NodeProto) -> None:
        """Refuses results that no example of a few samples should have."""
        for name in node.output:
            shape, dtype = self.shape(name), self.dtype(name)
            if shape is not None and dtype is not None and math.prod(shape) * dtype.itemsize > self._largest:
                size = math.prod(shape) * dtype.itemsize
                raise RESULT.error_of(TranslationError, f"{describe(node)} makes {size:,} bytes of a few samples")

    def _is_small(self, node: NodeProto) -> bool:
        """Whether the reference evaluator computes it in a while, and more than a while is left."""
        if time.monotonic() > self._until or self._left < 0:
            return False
        shapes = [self.shape(name) for name in node.output if name]
        if None in shapes and node.op_type in _GROWING:
            return False
        most = _MOST_FOLDED if node.op_type in _QUICK else _MOST_PRODUCT if node.op_type in _PRODUCTS else _MOST_SLOW
        return all(shape is None or math.prod(shape) <= most for shape in shapes)

    def _compute(self, node: NodeProto, names: Sequence[str]) -> None:
        results = [name for name in node.output if name]
        is_fixed = self._fixed.issuperset(names)
        if is_fixed:
            self._fixed.update(results)
            if all(name in self._same for name in results):
                for name in results:
                    self._know(name, self._same[name])
                return
        values = {name: unpack(self.sources[name]) for name in names}
        given = [helper.make_value_info(name, self.types[name]) for name in values]
        wanted = [helper.make_empty_tensor_value_info(name) for name in results]
        graph = helper.make_graph([node], "constant", given, wanted)
        try:
            found = ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets)).run(None, values)
        except Exception:  # noqa: BLE001 - what the reference cannot compute is left to the reader
            return
        for name, result in zip(results, found, strict=True):
            if isinstance(result, np.ndarray | np.generic):
                self._know(name, np.asarray(result))
                if is_fixed:
                    self._same[name] = np.asarray(result)

    def _know(self, name: str, value: np.ndarray) -> None:
        self._left -= value.nbytes
        self.sources[name] = value
        self.types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _join(model: ModelProto, walks: Sequence[_SizeWalk], needs: Needs) -> Program:
    """What both walks say."""
    values: dict[str, Value] = {}

    def value(name: str) -> Value:
        if name not in values:
            values[name] = _value(name, walks)
        return values[name]

    operations = []
    for node in model.graph.node:
        outputs = tuple(value(name) if name else None for name in node.output)
        if all(one is None or one.is_constant for one in outputs):
            continue
        schema = onnx.defs.get_schema(node.op_type, _opset(model), "")
        given = {one.name: plain(helper.get_attribute_value(one)) for one in node.attribute}
        operations.append(
            Operation(
                node.op_type,
                node.name,
                schema.since_version,
                tuple(value(name) if name else None for name in node.input),
                outputs,
                {**default_attributes(schema), **given},
                any(one.key == MODULE_END for one in node.metadata_props),
            )
        )
    inputs, outputs = (tuple(value(one.name) for one in ends) for ends in (model.graph.input, model.graph.output))
    kept = tuple(prune(operations, outputs, needs))
    return Program(model.graph.name, inputs, outputs, kept, len(walks) > 1, _opset(model))


def _value(name: str, walks: Sequence[_SizeWalk]) -> Value:
    shapes = [walk.shape(name) for walk in walks]
    found = [walk.sources[name] for walk in walks if name in walk.sources]
    made = Value(name, walks[0].dtype(name))
    first, last = shapes[0], shapes[-1]
    if first is not None and last is not None and len(first) == len(last):
        pairs = list(zip(first, last, strict=True))
        # A size that follows the samples in another way than so many for each is not known.
        if all(a == b or (a * SAMPLES[1] == b * SAMPLES[0] and a % SAMPLES[0] == 0) for a, b in pairs):
            made.shape = tuple(a if a == b else None for a, b in pairs)
            made.multiples = {axis: a // SAMPLES[0] for axis, (a, b) in enumerate(pairs) if a != b}
    if len(found) == len(walks):
        if len(found) == 1 or _equal(*found):
            made.source = found[0]
        else:
            made.varying = (unpack(found[0]), unpack(found[1]))
    return made


def _equal(one: Source, other: Source) -> bool:
    if one is other or not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))
