"""Through the captured graph, operator by operator."""

from __future__ import annotations

import operator
import re
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import OutputKind
from torch.fx import Node, map_arg
from torch.utils._pytree import tree_flatten

from cfi_translate.torch_export.capture import Captured
from cfi_translate.torch_export.emitter import Emitter, Filled, Unread, Value
from cfi_translate.torch_export.operators import WRITERS, Writer

# What these check was found true while capturing, or does not change what is computed.
_CHECKS = {
    "aten::_assert_scalar",
    "aten::_assert_tensor_metadata",
    "aten::sym_constrain_range",
    "aten::sym_constrain_range_for_size",
}


class NeedsDecomposition(Exception):
    """The walk met work in place on a tensor with aliases, or operators without a writer.

    Attributes:
        operators: Those operators; none if work in place is all.
    """

    def __init__(self, operators: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.operators = operators


def walk(captured: Captured, emitter: Emitter) -> list[Any]:
    """Writes all operators of the graph.

    Returns:
        What the model returns, in order: values of the graph, constants or filled tensors.

    Raises:
        TranslationError: An operator cannot be translated.
        NeedsDecomposition: Torch must take the graph apart first.
    """
    return _Walk(captured, emitter).run()


class _Walk:
    def __init__(self, captured: Captured, emitter: Emitter) -> None:
        self.captured = captured
        self.emit = emitter
        self.known: dict[Node, Any] = {}
        self.constant: dict[Node, bool] = {}
        self.called = {module_path(node) for node in captured.program.graph.nodes}
        self.uses: Counter[str] = Counter()
        self.state = {tensor.untyped_storage().data_ptr() for tensor in captured.state.values()}
        self.order = {node: position for position, node in enumerate(captured.program.graph.nodes)}
        self.sharing: dict[int, list[Node]] = {}
        for node in self.order:
            storage = _storage(node.meta.get("val"))
            if storage is not None:
                self.sharing.setdefault(storage, []).append(node)

    def run(self) -> list[Any]:
        unknown = {node.target for node in self.order if self._is_unknown(node)}
        if unknown:
            raise NeedsDecomposition(tuple(unknown))
        inputs = 0
        for node in self.order:
            if node.op == "placeholder":
                if node.name in self.captured.state:
                    self.known[node] = self.captured.state[node.name]
                    self.emit.declare(self.known[node], self.captured.names[node.name])
                else:
                    self.known[node] = self.emit.input(f"x{inputs}", node.meta["val"])
                    inputs += 1
            elif node.op == "call_function":
                self.known[node] = self._call(node)
            elif node.op == "output":
                specs = self.captured.program.graph_signature.output_specs
                given = zip(specs, self._resolve(node.args[0]), strict=True)
                # Without work in place, what the model writes to its inputs comes out first.
                return [one for spec, one in given if spec.kind is OutputKind.USER_OUTPUT]
            else:
                self.emit.begin(str(node.target), module_path(node), None)
                raise self.emit.refuse("control flow is not supported")
        raise AssertionError("a captured graph has an output")

    def _resolve(self, arguments: Any) -> Any:
        return map_arg(arguments, lambda node: self.known[node])

    def _is_constant(self, node: Node) -> bool:
        """Whether a node follows from weights alone."""
        if node not in self.constant:
            weight = node.op == "placeholder" and node.name in self.captured.state
            from_weights = node.op == "call_function" and all(map(self._is_constant, node.all_input_nodes))
            self.constant[node] = weight or from_weights
        return self.constant[node]

    def _is_unknown(self, node: Node) -> bool:
        """Whether it takes a writer that there is not."""
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or target.name() in _CHECKS:
            return False
        if isinstance(node.meta.get("val"), torch.SymInt | int | float | bool):
            return False
        return self._writer(target) is None and not self._is_constant(node)

    def _writer(self, target: Any) -> Writer | None:
        return WRITERS.get(_out_of_place(target), WRITERS.get(target))

    def _call(self, node: Node) -> Any:
        result = node.meta.get("val")
        if node.target is operator.getitem:
            sequence, position = self._resolve(node.args)
            return sequence[position]
        if isinstance(result, torch.SymInt | int | float | bool):
            return result
        target = node.target
        self.emit.begin(str(getattr(target, "name", lambda: target)()), self._path(node), result)
        if not isinstance(target, torch._ops.OpOverload):
            raise self.emit.refuse("it is control flow, or switches a mode of torch inside the model")
        if target.name() in _CHECKS:
            return None
        if isinstance(result, torch.SymFloat | torch.SymBool):
            raise self.emit.refuse("it computes with the number of samples")
        arguments, keywords = self._resolve((node.args, node.kwargs))
        bound = _bound(target, arguments, keywords)
        self._check_random(target, bound)
        changed = _changed(target, bound)
        leaves = tree_flatten(bound)[0]
        if any(isinstance(one, Unread) for one in leaves):
            raise self.emit.refuse("it reads the statistics or indices that a layer gives besides its output")
        if not any(isinstance(one, Value | Filled | torch.SymInt) for one in leaves):
            return self._compute(node, target, arguments, keywords, changed)
        writer = self._writer(target)
        if writer is None:
            raise NeedsDecomposition((target,))
        if changed:
            self._check_aliases(node)
        written = _with_meta(writer(self.emit, *bound.values()), result)
        if changed:
            self.known[node.args[0]] = written
        return written

    def _compute(
        self, node: Node, target: Any, arguments: Any, keywords: Any, changed: list[Any]
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """What follows from weights alone is computed now."""
        for one in changed:
            if one.untyped_storage().data_ptr() in self.state:
                raise self.emit.refuse("it changes a weight or buffer of the model")
        self.emit.before_change(changed)
        with torch.no_grad():
            result = target(*arguments, **keywords)
        for one in tree_flatten(result)[0]:
            self.emit.declare(one, node.name)
        return result

    def _path(self, node: Node) -> str:
        """The module of a node: one that is never called, where the module around it uses its weight directly."""
        path = module_path(node)
        weights = [self.captured.names.get(one.name, "") for one in node.all_input_nodes]
        holders = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
        prefix = f"{path}." if path else ""
        if len(holders) != 1 or not holders[0].startswith(prefix) or holders[0] in self.called:
            return path
        count = self.uses[holders[0]]
        self.uses[holders[0]] += 1
        return f"{holders[0]}_{count}" if count else holders[0]

    def _check_random(self, target: Any, bound: dict[str, Any]) -> None:
        if torch.Tag.nondeterministic_seeded in target.tags and bound.get("train", bound.get("training")) is not False:
            if "dropout_p" in bound and not bound["dropout_p"]:
                return
            if target.name().split("::")[1].split(".")[0] in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
                return
            raise self.emit.refuse("its result is random")

    def _check_aliases(self, node: Node) -> None:
        """Work in place can be written as a new value if nothing else that is read later shares the memory."""
        changed = node.args[0]
        if not isinstance(changed, Node) or not isinstance(self.known[changed], Value):
            raise NeedsDecomposition
        for other in self.sharing.get(_storage(changed.meta["val"]) or 0, ()):
            later = any(self.order[user] > self.order[node] for user in other.users)
            if other is not changed and self.order[other] < self.order[node] and later:
                raise NeedsDecomposition


def module_path(node: Node) -> str:
    """The dotted path of the module that a node came from; `_1` and so on for its later calls."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = [(key, entry[0]) for key, entry in stack.items() if isinstance(entry, tuple)]
    if not entries:
        return ""
    key, path = entries[-1]
    call = re.findall(r"@(\d+)", key) or re.findall(r"@(\d+)", path)
    path = re.sub(r"@\d+", "", path).removeprefix("model").removeprefix(".")
    return f"{path}_{call[-1]}" if call and path else path


def activation_modules(program: Any) -> set[str]:
    """The dotted paths of torch's own activation modules in a captured program."""
    found = set()
    for node in program.graph.nodes:
        stack = [one for one in (node.meta.get("nn_module_stack") or {}).values() if isinstance(one, tuple)]
        if stack and f"{stack[-1][1]}".startswith(f"{nn.modules.activation.__name__}."):
            found.add(module_path(node))
    return found


def _bound(target: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """All arguments of an operator by name, in the order of its schema, defaults filled in."""
    bound = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(arguments):
            bound[argument.name] = arguments[position]
        else:
            bound[argument.name] = keywords.get(argument.name, argument.default_value)
    return bound


def _changed(target: Any, bound: dict[str, Any]) -> list[Any]:
    """The tensors that an operator writes to."""
    arguments = target._schema.arguments
    return [bound[one.name] for one in arguments if one.alias_info is not None and one.alias_info.is_write]


def _out_of_place(target: Any) -> Any:
    """The operator that computes what an in-place operator does: `relu` for `relu_`."""
    if not isinstance(target, torch._ops.OpOverload):
        return target
    name = target.name().split("::")[1].split(".")[0]
    if not name.endswith("_") or name.startswith("__"):
        return target
    packet = getattr(torch.ops.aten, name[:-1], None)
    return getattr(packet, target._overloadname, target)


def _storage(value: Any) -> int | None:
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _with_meta(written: Any, result: Any) -> Any:
    """Gives written values the shapes and types that torch has for them."""
    if isinstance(written, Value):
        return Value(written.name, result)
    if isinstance(written, tuple | list):
        return type(written)(_with_meta(one, like) for one, like in zip(written, result, strict=True))
    return written
