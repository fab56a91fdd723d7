"""What a forward pass computes from its inputs although autograd's graph does not show it.

The graph holds what gradients pass. A mask that is computed from the inputs without one (`h * (h > 0)`) is a constant
there, and the rectifier that it makes a product like any other. So a mode of torch's follows what is computed from
what; and where values are rectified by still other means, the values themselves tell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from cfi_torchgraph.nodes import Edge, base_name, is_real, tensors, walk
from cfi_torchgraph.operations import MASKING, MAX_POOL, chooses_against_constant

_LIKE = frozenset({"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like"})
_NEW = frozenset({"new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"})
_FIRST = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
_SCALING = frozenset(
    {"mul", "multiply", "div", "divide", "true_divide", "rtruediv", "rdiv", "rmul", "truediv", "einsum"}
)
_SCALING_NODES = MASKING | {"Mul", "Div"}
_INDEXING = frozenset({"Index", "Gather", "IndexSelect"})
_AFFINE_IN_PLACE = frozenset(
    {"setitem", "copy", "zero", "fill", "add", "iadd", "sub", "isub", "mul", "imul", "div", "itruediv", "neg"}
)
_CLOSE = 1e-5
"""How far sums of equal values in single precision may be apart, after rounding in another order of operations."""


@dataclass(frozen=True)
class _Print:
    """What is noted of a tensor's values.

    Attributes:
        node: What computed it.
        is_negative: Whether some values are.
        sums: Of the values that are positive, and of their squares.
    """

    node: Node
    is_negative: bool
    sums: tuple[float, float]


class Watch(TorchFunctionMode):
    """Follows what a model computes in this thread while it runs.

    Args:
        values: Whether to look for rectifiers by their values too, at the price of some sums over each tensor.

    Attributes:
        hidden: Operations that take, beside what a gradient leads to, something computed from the inputs that no
            gradient leads to.
        masked: Those of them that multiply each element by such a factor of its own, or put another value in its place.
        veiled: Changes of a part of a tensor in place, which the graph does not tell from one another, that are not
            affine.
    """

    def __init__(self, *, values: bool = False) -> None:
        super().__init__()
        self.hidden: set[Node | None] = set()
        self.masked: set[Node | None] = set()
        self.veiled: set[Node | None] = set()
        self._values = values
        self._noted: set[Edge] = set()
        self._changes: set[Node] = set()
        self._made: dict[Any, Tensor] = {}  # by memory; kept, so that no other gets the same
        self._prints: dict[tuple[int, int], list[_Print]] = defaultdict(list)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.see(func, args, kwargs or {}, result)
        return result

    def see(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Notes what a call of a function did; where another mode sees the calls, it tells them."""
        name = str(getattr(func, "__name__", func)).partition(".")[0].strip("_")  # `mul` of `mul.Tensor` and `__mul__`
        given = [value for value in _told_by_values(name, args, kwargs) if self._depends(value)]
        if given:
            for value in given:
                self.note(value)  # what no function of torch's gave
            hidden = [one for one in given if not one.requires_grad]
            # What gives nothing changes its first argument.
            for value in tensors(args[:1] if result is None else result):
                self._follow(name, value, hidden)

    def note(self, value: Any) -> None:
        """Looks at the values of a tensor that depends on the inputs, unless they have been looked at."""
        if self._values and is_real(value) and value.requires_grad and value.numel():
            edge = get_gradient_edge(value)
            place = (edge.node, edge.output_nr)
            if place not in self._noted:
                self._noted.add(place)
                self._note_values(value, edge.node)

    def hidden_rectifiers(self, nodes: Sequence[Node], ruled: Set[Node]) -> Iterator[Node]:
        """Operations that rectify values, or may, though they are none that does by itself.

        They multiply each element by a factor of its own that is computed from the inputs without a gradient; choose
        the larger of a value and a constant; or give earlier values with zeros in place of the negative ones, by any
        means.

        Args:
            nodes: Where to look, from the outputs on.
            ruled: Those of known rectifiers, through which values may come to be rectified.
        """
        rectified = set(self._rectified(ruled))
        for node in nodes:
            chooses = base_name(node) in MAX_POOL or (base_name(node) in _INDEXING and node in self.hidden)
            if node in self.masked or node in rectified or (chooses and chooses_against_constant(node)):
                yield node

    def _rectified(self, ruled: Set[Node]) -> Iterator[Node]:
        for found in self._prints.values():
            for place, later in enumerate(found):
                if later.is_negative:
                    continue
                before = [one.node for one in found[:place] if one.is_negative and _are_close(one.sums, later.sums)]
                if before and not set(before).isdisjoint(walk([later.node], ruled)):
                    yield later.node

    def _depends(self, value: Tensor) -> bool:
        return value.requires_grad or _memory(value) in self._made

    def _follow(self, name: str, result: Tensor, hidden: list[Tensor]) -> None:
        if not result.requires_grad:
            self._made[_memory(result)] = result
            return
        nodes = {result.grad_fn}
        whole = (result if result._base is None else result._base).grad_fn
        if whole is not None and base_name(whole) == "CopySlices" and whole not in self._changes:
            self._changes.add(whole)
            nodes.add(whole)
            if name not in _AFFINE_IN_PLACE:
                self.veiled |= nodes
        if hidden:
            self.hidden |= nodes
            scales = name.removeprefix("i") in _SCALING or any(
                node and base_name(node) in _SCALING_NODES for node in nodes
            )
            if scales and any(_is_elementwise(one, result) for one in hidden):
                self.masked |= nodes
        self.note(result)

    def _note_values(self, value: Tensor, node: Node) -> None:
        with torch.no_grad():
            positive = value.detach().double().clamp(min=0)
            counted = torch.stack([positive.count_nonzero().double(), (value < 0).any().double()])
            try:
                count, negative, *sums = torch.cat(
                    [counted, torch.stack([positive.sum(), (positive**2).sum()])]
                ).tolist()
            except RuntimeError:  # inside of a function transform, values are nobody's
                return
        if 0 < count < value.numel():
            self._prints[value.numel(), int(count)].append(_Print(node, bool(negative), (sums[0], sums[1])))


def _told_by_values(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors whose values tell in a function's result; of others it takes the form alone."""
    if name in _LIKE or name in _NEW:
        return tensors((args[1:], {key: one for key, one in kwargs.items() if key not in ("input", "self")}))
    return tensors(args[:1]) if name in _FIRST else tensors((args, kwargs))


def _memory(value: Tensor) -> Any:
    """What tensors share that are parts of one another."""
    try:
        return value.untyped_storage().data_ptr() or id(value)
    except (RuntimeError, NotImplementedError):  # sparse ones, and those inside of a function transform
        return id(value)


def _is_elementwise(factor: Tensor, result: Tensor) -> bool:
    """Whether each element of a sample has a factor of its own."""
    if factor.dim() > result.dim() or result.numel() <= len(result):
        return False
    sizes = (*(1,) * (result.dim() - factor.dim()), *factor.shape)
    return sizes[1:] == tuple(result.shape[1:])


def _are_close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(abs(a - b) <= _CLOSE * abs(a) for a, b in zip(one, other, strict=True))
