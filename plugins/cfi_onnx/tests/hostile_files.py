"""Builds hostile ONNX files: what a stranger could send to stop a process, fill its memory or read its files.

Each builder gets an empty folder and returns the path that is passed as the model. Huge files have holes, so that they
take no space on disk.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SECRET = "the-secret-that-no-message-may-show"
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
GIB = 2**30

Builder = Callable[[Path], Path]
CASES: dict[str, Builder] = {}
"""Builders by the name of what they build."""


def case(build: Builder) -> Builder:
    """Registers a builder under its name."""
    CASES[build.__name__] = build
    return build


# What files are made of


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def field(number: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    return head(number, len(content)) + content


def head(number: int, size: int) -> bytes:
    """What precedes a content of that many bytes."""
    return varint(number << 3 | 2) + varint(size)


def info(name: str, kind: int = FLOAT, shape: Sequence[Any] | None = None) -> onnx.ValueInfoProto:
    """A tensor's name, type and shape."""
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, value: Any, dtype: Any = np.int64) -> TensorProto:
    """An initialiser."""
    return numpy_helper.from_array(np.array(value, dtype), name)


def graph(nodes: Iterable[onnx.NodeProto], weights: Iterable[TensorProto] = (), **others: Any) -> onnx.GraphProto:
    """A graph from x of shape (n, 4) to y."""
    return helper.make_graph(
        list(nodes),
        "hostile",
        others.get("inputs", [info("x", FLOAT, ["n", 4])]),
        others.get("outputs", [info("y", others.get("kind", FLOAT), [None] * others.get("rank", 2))]),
        list(weights),
    )


def proto(made: onnx.GraphProto, functions: Iterable[onnx.FunctionProto] = (), **opsets: int) -> onnx.ModelProto:
    """A model."""
    versions = {"": 21, "f": 1} | {name.replace("_", "."): version for name, version in opsets.items()}
    sets = [helper.make_opsetid(name, version) for name, version in versions.items()]
    return helper.make_model(made, opset_imports=sets, ir_version=10, functions=list(functions))


def write(folder: Path, model: onnx.ModelProto | onnx.GraphProto | bytes) -> Path:
    """A file that holds a model."""
    path = folder / "model.onnx"
    if isinstance(model, onnx.GraphProto):
        model = proto(model)
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node; names are separated by spaces."""
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def plain() -> onnx.GraphProto:
    """y = relu(x)."""
    return graph([node("Relu", "x")])


def hole(folder: Path, first: bytes, size: int, last: bytes = b"") -> Path:
    """A file that begins and ends with some bytes, with a hole of that size between."""
    path = folder / "model.onnx"
    with path.open("wb") as file:
        file.write(first)
        file.truncate(len(first) + size)
        file.seek(0, os.SEEK_END)
        file.write(last)
    return path


def after_graph(folder: Path, extra: bytes, repeated: int = 1, size: int = 0) -> Path:
    """A good model with further bytes in its graph."""
    inner = plain().SerializeToString()
    whole = len(inner) + len(extra) * repeated + size
    start = onnx.ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 21)]).SerializeToString()
    return hole(folder, start + head(7, whole) + inner + extra * repeated, size)


# What is no plain file


@case
def fifo(folder: Path) -> Path:
    path = folder / "model.onnx"
    os.mkfifo(path)
    return path


@case
def link_to_dev_zero(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.symlink_to("/dev/zero")
    return path


@case
def link_to_itself(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.symlink_to(path)
    return path


@case
def directory(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.mkdir()
    return path


@case
def link_to_a_secret(folder: Path) -> Path:
    (folder / "secret").write_text(SECRET * 100)
    path = folder / "model.onnx"
    path.symlink_to("secret")
    return path


@case
def link_to_proc(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.symlink_to("/proc/self/environ")
    return path


@case
def terabyte_with_a_hole(folder: Path) -> Path:
    return hole(folder, proto(plain()).SerializeToString(), 2**40)


@case
def gigabytes_with_a_hole(folder: Path) -> Path:
    return hole(folder, proto(plain()).SerializeToString() + head(1000, 3 * GIB // 2), 3 * GIB // 2)


@case
def truncated(folder: Path) -> Path:
    return write(folder, proto(plain()).SerializeToString()[:-7])


@case
def garbage(folder: Path) -> Path:
    return write(folder, np.random.default_rng(0).bytes(10**6))


# Unknown fields, long texts, many parts


@case
def unknown_field_in_the_graph(folder: Path) -> Path:
    return after_graph(folder, head(1000, GIB), size=GIB)


@case
def unknown_fields_by_the_million(folder: Path) -> Path:
    return after_graph(folder, field(1000, b""), 30 * 10**6)


@case
def nested_groups(folder: Path) -> Path:
    return write(folder, proto(plain()).SerializeToString() + b"\xc3\x3e" * 10**6)


@case
def long_documentation(folder: Path) -> Path:
    return after_graph(folder, head(10, GIB), size=GIB)


@case
def long_attribute(folder: Path) -> Path:
    text = b"a" * 10**8
    made = graph([node("Constant", "", value_string="")], kind=TensorProto.STRING, rank=0)
    made.node[0].attribute[0].s = text
    return write(folder, made)


@case
def long_name(folder: Path) -> Path:
    made = plain()
    made.node[0].name = "n" * 10**8
    return write(folder, made)


@case
def long_list_attribute(folder: Path) -> Path:
    made = graph([node("Constant", "", value_ints=[1])], kind=INT64, rank=1)
    serial = onnx.AttributeProto(name="value_ints", type=7).SerializeToString() + field(8, b"\x01" * (2 * 10**8))
    raw = field(2, b"y") + field(4, b"Constant") + field(5, serial)
    del made.node[:]
    return write(folder, _with_graph(made.SerializeToString() + field(1, raw)))


@case
def list_of_empty_strings(folder: Path) -> Path:
    serial = onnx.AttributeProto(name="value_strings", type=8).SerializeToString() + field(9, b"") * 10**7
    raw = field(2, b"y") + field(4, b"Constant") + field(5, serial)
    made = graph([], kind=TensorProto.STRING, rank=1)
    return write(folder, _with_graph(made.SerializeToString() + field(1, raw)))


@case
def node_of_ten_million_inputs(folder: Path) -> Path:
    raw = field(2, b"y") + field(4, b"Sum") + field(1, b"x") * 10**7
    return write(folder, _with_graph(graph([]).SerializeToString() + field(1, raw)))


def _with_graph(raw: bytes) -> bytes:
    start = onnx.ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 21)]).SerializeToString()
    return start + field(7, raw)


@case
def two_hundred_thousand_nodes(folder: Path) -> Path:
    names = ["x", *(f"v{i}" for i in range(200_000 - 1)), "y"]
    return write(folder, graph([node("Relu", one, other) for one, other in itertools.pairwise(names)]))


@case
def ten_million_empty_nodes(folder: Path) -> Path:
    return after_graph(folder, field(1, b""), 10**7)


@case
def million_initialisers(folder: Path) -> Path:
    return after_graph(folder, field(5, constant("w", 1).SerializeToString()), 10**6)


@case
def million_inputs(folder: Path) -> Path:
    return after_graph(folder, field(11, info("i", FLOAT, [2, 4]).SerializeToString()), 10**6)


@case
def million_outputs(folder: Path) -> Path:
    return after_graph(folder, field(12, info("y", FLOAT, [None, None]).SerializeToString()), 10**6)


@case
def million_declared_shapes(folder: Path) -> Path:
    return after_graph(folder, field(13, info("i", FLOAT, [2, 4]).SerializeToString()), 10**6)


@case
def million_operator_sets(folder: Path) -> Path:
    return write(folder, proto(plain()).SerializeToString() + field(8, field(1, b"d") + b"\x10\x01") * 10**6)


@case
def million_properties(folder: Path) -> Path:
    return write(folder, proto(plain()).SerializeToString() + field(14, field(1, b"k") + field(2, b"v")) * 10**6)


@case
def million_dimensions(folder: Path) -> Path:
    made = plain()
    made.input[0].type.tensor_type.shape.dim.extend(
        [onnx.TensorShapeProto.Dimension(dim_value=1) for _ in range(10**6)]
    )
    return write(folder, made)


# Subgraphs and functions


def _choose(depth: int) -> onnx.NodeProto:
    """An `If` in an `If` in an `If`…"""
    inner: onnx.NodeProto = node("Relu", "x", "z0")
    for level in range(1, depth + 1):
        branches = [helper.make_graph([inner], f"b{side}", [], [info(f"z{level - 1}")]) for side in (0, 1)]
        branches[1].node[0].CopyFrom(node("Neg", "x", f"z{level - 1}"))
        inner = node("If", "c", f"z{level}", then_branch=branches[0], else_branch=branches[1])
    return inner


@case
def branches_in_branches(folder: Path) -> Path:
    return write(folder, graph([_choose(30), node("Identity", "z30")], [constant("c", True, bool)]))


@case
def branches_too_deep_for_the_parser(folder: Path) -> Path:
    raw = field(4, b"Relu")
    for _ in range(2000):
        raw = field(4, b"If") + field(5, field(1, b"then_branch") + field(6, field(1, raw)))
    return write(folder, _with_graph(field(1, raw)))


def _functions(depth: int, last: str = "Relu") -> list[onnx.FunctionProto]:
    """Function i calls function i + 1 twice."""
    sets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    made = []
    for i in range(depth):
        kind, domain = (f"f{i + 1}", "f") if i + 1 < depth else (last, "f" if last.startswith("f") else "")
        nodes = [
            helper.make_node(kind, ["a"], ["b"], domain=domain),
            helper.make_node(kind, ["b"], ["c"], domain=domain),
        ]
        made.append(helper.make_function("f", f"f{i}", ["a"], ["c"], nodes, sets))
    return made


def _call(name: str = "f0") -> onnx.NodeProto:
    return helper.make_node(name, ["x"], ["y"], domain="f")


@case
def functions_that_double(folder: Path) -> Path:
    return write(folder, proto(graph([_call()]), _functions(20)))


@case
def functions_that_double_sixty_times(folder: Path) -> Path:
    return write(folder, proto(graph([_call()]), _functions(60)))


@case
def functions_that_double_unused(folder: Path) -> Path:
    return write(folder, proto(plain(), _functions(60)))


@case
def function_that_calls_itself(folder: Path) -> Path:
    return write(folder, proto(graph([_call()]), _functions(1, "f0")))


@case
def functions_that_call_each_other(folder: Path) -> Path:
    return write(folder, proto(graph([_call()]), _functions(3, "f0")))


@case
def functions_in_a_branch(folder: Path) -> Path:
    branch = helper.make_graph([helper.make_node("f0", ["x"], ["z"], domain="f")], "b", [], [info("z")])
    made = graph([node("If", "c", then_branch=branch, else_branch=branch)], [constant("c", True, bool)])
    return write(folder, proto(made, _functions(25)))


@case
def chain_of_ten_thousand_functions(folder: Path) -> Path:
    made = _functions(10_000)
    for one in made:
        del one.node[1:]
        one.node[0].output[0] = "c"
    return write(folder, proto(graph([_call()]), made))


@case
def functions_with_loops(folder: Path) -> Path:
    functions = _functions(2)
    functions[1].node[0].CopyFrom(_loop("", state="a", result="b"))
    functions[1].node[1].CopyFrom(_loop("", state="b", result="c"))
    return write(folder, proto(graph([_call()]), functions))


# Loops


def _loop(
    count: str, state: str = "x", result: str = "y", body: onnx.GraphProto | None = None, condition: str = '""'
) -> onnx.NodeProto:
    """A loop over one state, which runs its body for as long as it may."""
    made = body or _body([node("Relu", "s", "t")])
    return helper.make_node("Loop", [count, "" if condition == '""' else condition, state], [result], body=made)


def _body(nodes: Sequence[onnx.NodeProto], scans: Sequence[str] = ()) -> onnx.GraphProto:
    """From (iteration, condition, s) to (condition, t, scans)."""
    return helper.make_graph(
        [node("Identity", "again", "more"), *nodes],
        "body",
        [info("i", INT64, []), info("again", BOOL, []), info("s")],
        [info("more", BOOL, []), info("t"), *map(info, scans)],
    )


@case
def loop_of_two_to_the_62(folder: Path) -> Path:
    return write(folder, graph([_loop("m")], [constant("m", 2**62)]))


@case
def loop_without_a_count(folder: Path) -> Path:
    return write(folder, graph([_loop("", condition="c")], [constant("c", True, bool)]))


@case
def loop_whose_count_is_computed(folder: Path) -> Path:
    nodes = [node("Size", "x", "size"), node("Mul", "size m", "count"), _loop("count")]
    return write(folder, graph(nodes, [constant("m", 2**55)]))


@case
def loops_in_loops(folder: Path) -> Path:
    body = _body([node("Relu", "s", "t")])
    for _ in range(6):
        inner = helper.make_node("Loop", ["m", "", "s"], ["t"], body=body)
        body = _body([inner])
        for one in body.input:  # names of an inner loop may not hide those around it
            one.name = f"{one.name}_"
        body = _renamed(body)
    return write(folder, graph([_loop("m", body=body)], [constant("m", 10_000)]))


_level = iter(range(10**9))


def _renamed(body: onnx.GraphProto) -> onnx.GraphProto:
    level = next(_level)
    inner = body.node[1]
    new = {"i": f"i{level}", "again": f"a{level}", "s": f"s{level}", "more": f"m{level}", "t": f"t{level}"}
    for one, old in zip((*body.input, *body.output), ("i", "again", "s", "more", "t"), strict=True):
        one.name = new[old]
    body.node[0].input[0], body.node[0].output[0] = new["again"], new["more"]
    inner.input[2], inner.output[0] = new["s"], new["t"]
    return body


@case
def loop_that_collects(folder: Path) -> Path:
    body = _body([node("Relu", "s", "t"), node("Expand", "s wide", "u")], ["u"])
    made = helper.make_node("Loop", ["m", "", "x"], ["y", "z"], body=body)
    weights = [constant("m", 10**6), constant("wide", [64, 1, 4])]
    return write(folder, graph([made], weights, outputs=[info("y", FLOAT, [None, None]), info("z", FLOAT, [None] * 3)]))


@case
def loop_that_doubles(folder: Path) -> Path:
    body = _body([node("Concat", "s s", "t", axis=0)])
    return write(folder, graph([_loop("m", body=body)], [constant("m", 60)]))


@case
def loop_that_grows_a_sequence(folder: Path) -> Path:
    body = helper.make_graph(
        [node("Identity", "again", "more"), node("SequenceInsert", "s big", "t")],
        "body",
        [info("i", INT64, []), info("again", BOOL, []), helper.make_tensor_sequence_value_info("s", FLOAT, None)],
        [info("more", BOOL, []), helper.make_tensor_sequence_value_info("t", FLOAT, None)],
    )
    nodes = [
        node("Expand", "x wide", "big"),
        node("SequenceConstruct", "x", "first"),
        helper.make_node("Loop", ["m", "", "first"], ["all"], body=body),
        node("ConcatFromSequence", "all", "y", axis=0),
    ]
    return write(folder, graph(nodes, [constant("m", 10**9), constant("wide", [2**14, 1, 4])]))


@case
def scan_over_a_terabyte(folder: Path) -> Path:
    body = helper.make_graph(
        [node("Relu", "s", "t"), node("Identity", "e", "o")],
        "body",
        [info("s"), info("e")],
        [info("t"), info("o")],
    )
    nodes = [
        node("ConstantOfShape", "long", "all"),
        helper.make_node("Scan", ["x", "all"], ["y", "z"], body=body, num_scan_inputs=1),
    ]
    return write(
        folder,
        graph(nodes, [constant("long", [2**38])], outputs=[info("y", FLOAT, [None, None]), info("z", FLOAT, [None])]),
    )


# Sizes that grow


def _doubling(kind: str, times: int, **attributes: Any) -> onnx.GraphProto:
    names = ["x", *(f"v{i}" for i in range(times - 1)), "y"]
    pairs = itertools.pairwise(names)
    return graph([node(kind, f"{one} {one}", other, **attributes) for one, other in pairs])


@case
def concat_that_doubles(folder: Path) -> Path:
    return write(folder, _doubling("Concat", 40, axis=1))


@case
def concat_that_overflows(folder: Path) -> Path:
    return write(folder, _doubling("Concat", 80, axis=1))


@case
def constant_that_doubles(folder: Path) -> Path:
    names = ["c", *(f"v{i}" for i in range(38))]
    nodes = [node("Concat", f"{one} {one}", other, axis=0) for one, other in itertools.pairwise(names)]
    return write(
        folder,
        graph([*nodes, node("ReduceSum", names[-1], "r"), node("Add", "x r")], [constant("c", [1.0], np.float32)]),
    )


def _sized(name: str, *nodes: onnx.NodeProto, weights: Sequence[TensorProto] = (), **others: Any) -> None:
    CASES[name] = lambda folder: write(folder, graph(nodes, weights, **others))


def _from_data(name: str, *nodes: onnx.NodeProto, weights: Sequence[TensorProto] = (), **others: Any) -> None:
    """`huge` is 2^31, which fits into memory, and known only when the model runs."""
    made = [
        node("Sub", "x x", "zeros"),
        node("ReduceSum", "zeros", "zero", keepdims=0),
        node("Cast", "zero", "whole", to=INT64),
        node("Add", "whole big", "huge"),
        node("Unsqueeze", "huge axis", "size"),
        *nodes,
    ]
    CASES[name] = lambda folder: write(
        folder, graph(made, [constant("big", 2**31), constant("axis", [0]), *weights], **others)
    )


_sized(
    "constant_of_shape",
    node("ConstantOfShape", "s", "c"),
    node("ReduceSum", "c", "r"),
    node("Add", "x r"),
    weights=[constant("s", [2**40])],
)
_sized("constant_of_shape_that_fits_an_integer", node("ConstantOfShape", "s"), weights=[constant("s", [2**31, 2**31])])
_sized(
    "constant_of_eight_gigabytes",
    node("ConstantOfShape", "s", "c"),
    node("ReduceSum", "c", "r"),
    node("Add", "x r"),
    weights=[constant("s", [2**31])],
)
_sized(
    "product_of_four_gigabytes",
    node("ConstantOfShape", "s", "a"),
    node("Transpose", "a", "b"),
    node("MatMul", "a b", "c"),
    node("ReduceSum", "c", "r"),
    node("Add", "x r"),
    weights=[constant("s", [2**15, 1])],
)
_sized(
    "shape_of_many_axes",
    node("Reshape", "x s", "v0"),
    *(node("Relu", f"v{i}", f"v{i + 1}") for i in range(1000)),
    node("Reshape", "v1000 two"),
    weights=[constant("s", [-1] + [1] * 10**5), constant("two", [-1, 4])],
)
_sized(
    "axes_without_end",
    node("Unsqueeze", "x s", "v"),
    node("ReduceSum", "v", "r"),
    node("Add", "x r"),
    weights=[constant("s", range(2, 10**5))],
)
_sized(
    "list_that_doubles",
    node("Shape", "x", "v0"),
    *(node("Concat", f"v{i} v{i}", f"v{i + 1}", axis=0) for i in range(30)),
    node("Expand", "x v30", "z"),
    node("ReduceSum", "z", "r"),
    node("Add", "x r"),
)
_sized(
    "resize_pixel_by_pixel",
    node("Resize", "x roi scales", "z", mode="cubic"),
    node("ReduceSum", "z", "r"),
    node("Add", "x r"),
    weights=[constant("roi", [], np.float32), constant("scales", [3000, 3000], np.float32)],
)
_sized(
    "texts_repeated",
    node("Tile", "t s", "u"),
    node("Relu", "x"),
    weights=[constant("t", ["a" * 10**5], object), constant("s", [10**6])],
    outputs=[info("y", FLOAT, [None, None]), info("u", TensorProto.STRING, [None])],
)
_sized("expand", node("Expand", "x s"), weights=[constant("s", [2**36, 1, 4])], rank=3)
_sized("tile", node("Tile", "x s"), weights=[constant("s", [1, 2**36])])
_sized(
    "range",
    node("Range", "a b c"),
    weights=[constant("a", 0), constant("b", 2**40), constant("c", 1)],
    kind=INT64,
    rank=1,
)
_sized(
    "range_of_tiny_steps",
    node("Range", "a b c"),
    weights=[constant("a", 0, np.float32), constant("b", 1e30, np.float32), constant("c", 1e-30, np.float32)],
    rank=1,
)
_sized("pad", node("Pad", "x p"), weights=[constant("p", [0, 0, 0, 2**37])])
_sized(
    "resize",
    node("Resize", "x  scales".replace("  ", " none ").replace("none", "roi")),
    weights=[constant("roi", [], np.float32), constant("scales", [1, 1e10], np.float32)],
)
_sized(
    "one_hot",
    node("OneHot", "i depth values", "o"),
    weights=[constant("i", [0]), constant("depth", 2**38), constant("values", [0, 1], np.float32)],
    outputs=[info("o", FLOAT, [None, None])],
)
_sized("random", helper.make_node("RandomNormal", [], ["y"], shape=[2**38]), rank=1)
_sized("window", node("HannWindow", "n"), weights=[constant("n", 2**38)], rank=1)
_sized(
    "outer_product",
    node("ConstantOfShape", "s", "a"),
    node("Transpose", "a", "b"),
    node("MatMul", "a b", "y"),
    weights=[constant("s", [2**20, 1])],
)
_sized(
    "outer_sum",
    node("ConstantOfShape", "s", "a"),
    node("Transpose", "a", "b"),
    node("Add", "a b", "y"),
    weights=[constant("s", [2**20, 1])],
)
_sized(
    "einsum",
    node("ConstantOfShape", "s", "a"),
    node("Einsum", "a a a", "y", equation="i,j,k->ijk"),
    weights=[constant("s", [2**14])],
    rank=3,
)
_sized(
    "convolution_transposed",
    node("Reshape", "x s", "a"),
    node("ConvTranspose", "a w", "y", strides=[2**30, 2**30]),
    weights=[constant("s", [-1, 1, 2, 2]), constant("w", np.ones((1, 1, 1, 1)), np.float32)],
    rank=4,
)
_sized(
    "padding_of_a_convolution",
    node("Reshape", "x s", "a"),
    node("Conv", "a w", "y", pads=[2**30] * 4),
    weights=[constant("s", [-1, 1, 2, 2]), constant("w", np.ones((1, 1, 1, 1)), np.float32)],
    rank=4,
)
_sized(
    "gather_by_a_huge_index",
    node("Expand", "i s", "j"),
    node("Gather", "x j", "y", axis=0),
    weights=[constant("i", [0]), constant("s", [2**36])],
)
_sized(
    "texts_that_double",
    *(node("StringConcat", f"t{i} t{i}", f"t{i + 1}") for i in range(40)),
    node("Relu", "x"),
    weights=[constant("t0", "abcdefgh", object)],
    outputs=[info("y", FLOAT, [None, None]), info("t40", TensorProto.STRING, [])],
)
_sized(
    "many_products",
    node("ConstantOfShape", "s", "v0"),
    *(node("MatMul", f"v{i} v{i}", f"v{i + 1}") for i in range(200)),
    node("ReduceSum", "v200", "r"),
    node("Add", "x r"),
    weights=[constant("s", [4096, 4096])],
)
_from_data("constant_of_shape_from_data", node("ConstantOfShape", "size"), rank=1)
_from_data(
    "expand_from_data",
    node("Unsqueeze", "x axis", "z"),
    node("Concat", "size one four", "shape", axis=0),
    node("Expand", "z shape"),
    weights=[constant("one", [1]), constant("four", [4])],
    rank=3,
)
_from_data(
    "tile_from_data",
    node("Concat", "size one", "repeats", axis=0),
    node("Tile", "x repeats"),
    weights=[constant("one", [1])],
)
_from_data(
    "range_from_data",
    node("Range", "none huge one"),
    weights=[constant("none", 0), constant("one", 1)],
    kind=INT64,
    rank=1,
)
_from_data(
    "pad_from_data",
    node("Concat", "no no no size", "pads", axis=0),
    node("Pad", "x pads"),
    weights=[constant("no", [0])],
)
_from_data(
    "resize_from_data",
    node("Concat", "one size", "sizes", axis=0),
    node("Resize", "x roi roi sizes"),
    weights=[constant("one", [2]), constant("roi", [], np.float32)],
)
_from_data(
    "many_products_from_data",
    node("Concat", "few few", "s", axis=0),
    node("ConstantOfShape", "s", "v"),
    node("Add", "v zero", "v0"),
    *(node("MatMul", f"v{i} v{i}", f"v{i + 1}") for i in range(500)),
    node("ReduceSum", "v500", "r"),
    node("Add", "x r"),
    weights=[constant("few", [4096])],
)


# Weights that lie


def _weight(name: str, **fields: Any) -> None:
    def build(folder: Path) -> Path:
        tensor = TensorProto(name="w", **({"data_type": FLOAT} | fields))
        return write(folder, graph([node("Add", "x w")], [tensor]))

    CASES[name] = build


_weight("weight_of_negative_size", dims=[-4], raw_data=b"\0" * 16)
_weight("weight_whose_size_overflows", dims=[2**32, 2**32], raw_data=b"")
_weight("weight_whose_size_overflows_to_four", dims=[2**62 + 1, 4], raw_data=b"\0" * 16)
_weight("weight_with_too_few_bytes", dims=[2**20], raw_data=b"\0" * 16)
_weight("weight_with_too_many_bytes", dims=[4], raw_data=b"\0" * 10**6)
_weight("weight_without_bytes", dims=[2**40])
_weight("weight_of_unknown_type", dims=[4], data_type=999, raw_data=b"\0" * 16)
_weight("weight_of_two_contents", dims=[4], raw_data=b"\0" * 16, float_data=[1, 2, 3, 4])
_weight("weight_in_another_field", dims=[4], int64_data=[1, 2, 3, 4])
_weight("weight_of_a_thousand_axes", dims=[1] * 1000, raw_data=b"\0" * 4)


@case
def sparse_weight(folder: Path) -> Path:
    values = constant("w", [1.0], np.float32)
    sparse = onnx.SparseTensorProto(values=values, indices=constant("", [2**40]), dims=[2**21, 2**21])
    made = graph([node("ReduceSum", "w", "r"), node("Add", "x r")])
    made.sparse_initializer.append(sparse)
    return write(folder, made)


@case
def sparse_constant(folder: Path) -> Path:
    sparse = onnx.SparseTensorProto(values=constant("", [1.0], np.float32), indices=constant("", [5]), dims=[2**40])
    made = node("Constant", "", "w")
    made.attribute.append(helper.make_attribute("sparse_value", sparse))
    return write(folder, graph([made, node("ReduceSum", "w", "r"), node("Add", "x r")]))


# External data


def _external(
    name: str,
    prepare: Callable[[Path], None] = lambda folder: None,
    dims: Sequence[int] = (4,),
    times: int = 1,
    **keys: Any,
) -> None:
    def build(folder: Path) -> Path:
        inner = folder / "models"
        inner.mkdir()
        (folder / "secret").write_text(SECRET * 10)
        prepare(inner)
        tensors = []
        for i in range(times):
            tensor = TensorProto(name=f"w{i}", data_type=FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
            for key, value in ({"location": "data"} | keys).items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
        nodes = [node("ReduceSum", f"w{i}", f"r{i}") for i in range(times)]
        return write(inner, graph([*nodes, node("Sum", " ".join(["x", *(f"r{i}" for i in range(times))]))], tensors))

    CASES[name] = build


def _sparse_data(size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(os.open(folder / "data", os.O_CREAT | os.O_WRONLY, 0o600), size)


_external("data_above_its_folder", location="../secret")
_external("data_at_an_absolute_path", location="/etc/passwd")
_external("data_in_proc", location="/proc/self/environ")
_external("data_behind_a_link", lambda folder: (folder / "data").symlink_to("../secret"))
_external("data_behind_a_linked_folder", lambda folder: (folder / "sub").symlink_to(".."), location="sub/secret")
_external("data_behind_a_hard_link", lambda folder: os.link(folder.parent / "secret", folder / "data"))
_external("data_from_dev_zero", lambda folder: (folder / "data").symlink_to("/dev/zero"))
_external("data_from_a_fifo", lambda folder: os.mkfifo(folder / "data"))
_external("data_from_a_folder", lambda folder: (folder / "data").mkdir())
_external("data_that_is_missing")
_external("data_of_a_terabyte", _sparse_data(2**40), dims=(2**38,))
_external("data_of_a_terabyte_without_a_length", _sparse_data(2**40))
_external("data_of_three_gigabytes_without_a_length", _sparse_data(3 * GIB))
_external("data_of_two_gigabytes_with_a_hole", _sparse_data(2 * GIB), dims=(2**29,))
_external(
    "data_that_is_read_a_thousand_times",
    lambda folder: (folder / "data").write_bytes(b"\1" * 2**24),
    dims=(2**22,),
    times=1000,
)
_external("data_that_ends_early", lambda folder: (folder / "data").write_bytes(b"\1" * 8), length=16)
_external("data_from_beyond_its_end", lambda folder: (folder / "data").write_bytes(b"\1" * 16), offset=2**62)
_external("data_from_a_negative_place", lambda folder: (folder / "data").write_bytes(b"\1" * 16), offset=-8, length=16)
_external("data_of_a_negative_length", lambda folder: (folder / "data").write_bytes(b"\1" * 16), length=-1)
_external("data_longer_than_its_weight", lambda folder: (folder / "data").write_bytes(b"\1" * 10**6), length=10**6)
_external("data_from_an_address", location="*/_ORT_MEM_ADDR_/*", offset=2**40, length=16)
_external("data_of_a_long_name", location="a" * 10**7)
_external("data_of_a_name_with_a_zero", location="da\0ta")
_external("data_whose_place_is_a_word", lambda folder: (folder / "data").write_bytes(b"\1" * 16), offset="first")


@case
def data_of_a_constant(folder: Path) -> Path:
    (folder / "models").mkdir()
    (folder / "secret").write_text(SECRET * 10)
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    return write(folder / "models", graph([node("Constant", "", "w", value=tensor), node("Add", "x w")]))


@case
def data_of_a_constant_in_a_function(folder: Path) -> Path:
    (folder / "models").mkdir()
    (folder / "secret").write_text(SECRET * 10)
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=str(folder / "secret"))
    nodes = [node("Constant", "", "w", value=tensor), node("Add", "a w", "c")]
    function = helper.make_function("f", "f0", ["a"], ["c"], nodes, [helper.make_opsetid("", 21)])
    return write(folder / "models", proto(graph([_call()]), [function]))


# Graphs that are none


def _graph(name: str, *nodes: onnx.NodeProto, weights: Sequence[TensorProto] = (), **others: Any) -> None:
    _sized(name, *nodes, weights=weights, **others)


_graph("cycle", node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b"))
_graph("node_that_reads_itself", node("Add", "x y"))
_graph("tensor_made_twice", node("Relu", "x"), node("Neg", "x"))
_graph("nodes_of_one_name", node("Relu", "x", "a", name="one"), node("Neg", "a", "y", name="one"))
_graph("node_without_results", helper.make_node("Relu", ["x"], []), node("Relu", "x"))
_graph("result_that_nothing_makes", node("Relu", "x", "z"))
_graph("unknown_operator", node("NoSuchOperator", "x"))
_graph("unknown_domain", helper.make_node("Relu", ["x"], ["y"], domain="no.such.domain"))
_graph("weights_of_one_name", node("Add", "x w"), weights=[constant("w", [1.0], np.float32)] * 2)
_graph("input_of_huge_size", node("Relu", "x"), inputs=[info("x", FLOAT, [2**40, 2**20])])
_graph("input_of_negative_size", node("Relu", "x"), inputs=[info("x", FLOAT, [-1, -5])])
_graph("no_nodes")


@case
def future_versions(folder: Path) -> Path:
    model = proto(plain())
    model.ir_version = 10**9
    model.opset_import[0].version = 10**12
    return write(folder, model)


@case
def negative_versions(folder: Path) -> Path:
    model = proto(plain())
    model.ir_version, model.opset_import[0].version = -5, -7
    return write(folder, model)


@case
def no_graph(folder: Path) -> Path:
    return write(folder, onnx.ModelProto(ir_version=10).SerializeToString())


@case
def empty_file(folder: Path) -> Path:
    return write(folder, b"")


# Operators with contents of their own


@case
def tree_that_is_a_circle(folder: Path) -> Path:
    made = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.0, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[1, 0, 0],
        target_treeids=[0],
        target_nodeids=[2],
        target_ids=[0],
        target_weights=[1.0],
    )
    return write(folder, proto(graph([made]), ai_onnx_ml=3))


@case
def pattern_that_takes_forever(folder: Path) -> Path:
    nodes = [node("RegexFullMatch", "t", "m", pattern="(a+)+$"), node("Cast", "m", "f", to=FLOAT), node("Add", "x f")]
    return write(folder, graph(nodes, [constant("t", ["a" * 40 + "b"], object)]))
