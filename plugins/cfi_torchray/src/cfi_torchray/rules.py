"""TorchRay's rules, put in place for one run, with what they would overlook handed to them or refused.

The rules stand where `torch.relu` and functions of `torch.nn.functional` stood, so they are reached only by what is
looked up there at the time of the call. A mode of torch's, which sees every function of this thread's, hands them the
rest; what they have not reached after all is seen in autograd's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from cfi_core.errors import MethodError
from cfi_core.silence import without_warnings
from cfi_torchgraph.nodes import base_name, sources, walk
from cfi_torchgraph.operations import LAYOUT, MAX_POOL, NOT_RECTIFYING, head_of
from cfi_torchgraph.watch import Watch
from cfi_torchray.excitation import average, normalise, saturate, share
from cfi_torchray.graph import Owners, is_rule, leading_to
from cfi_torchray.library import common, excitation_backprop
from cfi_torchray.workarounds import positional

Function = Callable[..., Any]

_RELU, _CLAMP_MAX, _COPY = torch.relu, torch.clamp_max, Tensor.copy_
_PATCHED = (
    *((torch, name) for name in ("relu", "relu_")),
    *((F, name) for name in ("conv1d", "conv2d", "conv3d", "linear", "batch_norm")),
    *((F, f"{kind}avg_pool{n}d") for kind in ("", "adaptive_") for n in (1, 2, 3)),
    (excitation_backprop, "eltwise_sum"),
)
_ORIGINALS = {(place, name): getattr(place, name) for place, name in _PATCHED}


@contextmanager
def originals() -> Iterator[None]:
    """Leaves the functions that TorchRay exchanges as they were, whatever a context of the user's leaves behind."""
    try:
        yield
    finally:
        for (place, name), function in _ORIGINALS.items():
            if getattr(place, name) is not function:
                setattr(place, name, function)


class Rules(TorchFunctionMode):
    """A context of TorchRay's, entered as TorchRay enters it.

    Attributes:
        context: TorchRay's, or the user's own.
        mend: Whether what the rules would overlook is handed to them; otherwise it is refused.
        repaired: Names of the operations that were handed to a rule.
        watch: What autograd's graph does not show of the others.
    """

    def __init__(self, builder: Callable[[], Any], *, mend: bool) -> None:
        super().__init__()
        with without_warnings():
            self.context = builder()
        self.mend = mend
        self.repaired: set[str] = set()
        self.watch = Watch(values=not self.excitation)
        self._stack = ExitStack()
        self._exchanged: dict[Function, Function] = {}

    @property
    def excitation(self) -> bool:
        """Whether these are the rules of excitation backprop."""
        return isinstance(self.context, excitation_backprop.ExcitationBackpropContext)

    def __enter__(self) -> Rules:
        with self._stack as stack:
            stack.enter_context(originals())
            stack.enter_context(without_warnings(".*should not be instantiated"))
            stack.enter_context(self.context)
            if self.mend:
                self._mend()
            now = {getattr(place, name): original for (place, name), original in _ORIGINALS.items()}
            self._exchanged = {function: original for function, original in now.items() if function is not original}
            super().__enter__()
            stack.callback(super().__exit__, None, None, None)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def _mend(self) -> None:
        """Lets the exchanged functions be called as the ones that they stand for."""
        if torch.relu_ is not _ORIGINALS[torch, "relu_"]:
            torch.relu_ = _in_place(torch.relu_)
        for place, name in _PATCHED[2:-1]:
            if getattr(place, name) is not _ORIGINALS[place, name]:
                setattr(place, name, positional(getattr(place, name), _ORIGINALS[place, name]))
        if self.excitation:
            excitation_backprop.eltwise_sum = share
            F.batch_norm = positional(normalise, _ORIGINALS[F, "batch_norm"])

    def __torch_function__(self, func: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # A function of torch's looks itself up by its name, where a rule stands now.
        func = self._exchanged.get(func, func)
        repaired = self._repair(func, args, kwargs)
        if repaired is not None:
            self.repaired.add(_name(func))
            self.watch.see(_COPY, args, kwargs, repaired)
            return repaired
        result = func(*args, **kwargs)
        self.watch.see(func, args, kwargs, result)
        return result

    def _repair(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result by way of a rule; None where there is none."""
        repair = (_EXCITATION if self.excitation else _RECTIFIER).get(func) if self.mend else None
        # What depends on no input needs no rule, nor do passes that record no gradients.
        depends = args and isinstance(args[0], Tensor) and args[0].requires_grad and torch.is_grad_enabled()
        return repair(*args, **kwargs) if repair is not None and depends else None


def _name(func: Function) -> str:
    return str(getattr(func, "__name__", func)).strip("_")


def _in_place(rule: Function) -> Function:
    """A rule that makes a new tensor, as a function that changes the one that it is given."""

    def changed(value: Tensor) -> Tensor:
        result: Tensor = _COPY(value, rule(value.clone()))
        return result

    return changed


# What stands for a rectifier: looked up when it is called, so that it is the rule that is in place then.


def _rectify(value: Tensor, upper: float | None = None, inplace: bool = False) -> Tensor:
    result = torch.relu(value.clone() if inplace else value)
    result = result if upper is None else _CLAMP_MAX(result, upper)
    return _COPY(value, result) if inplace else result


def _clamp(value: Any, lower: Any = None, upper: Any = None, *, inplace: bool = False, **names: Any) -> Any:
    lower, upper = names.pop("min", lower), names.pop("max", upper)
    if names or isinstance(upper, Tensor) or isinstance(lower, Tensor) or lower != 0:
        return None
    return _rectify(value, upper, inplace)


def _clamp_in_place(value: Any, lower: Any = None, upper: Any = None, **names: Any) -> Any:
    return _clamp(value, lower, upper, inplace=True, **names)


def _hardtanh(value: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return _rectify(value, max_val, inplace) if min_val == 0 else None


def _relu6(value: Any, inplace: bool = False) -> Any:
    return _rectify(value, 6.0, inplace)


def _relu(value: Any, inplace: bool = False) -> Any:
    return _rectify(value, None, inplace)


def _relu_in_place(value: Any) -> Any:
    return _rectify(value, None, True)


def _threshold(value: Any, threshold: float, to: float, inplace: bool = False) -> Any:
    return _rectify(value, None, inplace) if threshold == 0 and to == 0 else None


_aten = torch.ops.aten
_RECTIFIER: dict[Function, Function] = {
    **dict.fromkeys((Tensor.relu, _RELU, _aten.relu, _aten.relu.default), _relu),
    **dict.fromkeys((Tensor.relu_, _ORIGINALS[torch, "relu_"], _aten.relu_, _aten.relu_.default), _relu_in_place),
    **dict.fromkeys((torch.clamp, Tensor.clamp, torch.clip, Tensor.clip, _aten.clamp, _aten.clamp.default), _clamp),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min, _aten.clamp_min, _aten.clamp_min.default), _clamp),
    **dict.fromkeys((torch.clamp_, Tensor.clamp_, Tensor.clip_, Tensor.clamp_min_), _clamp_in_place),
    **dict.fromkeys((F.hardtanh, _aten.hardtanh, _aten.hardtanh.default), _hardtanh),
    F.relu6: _relu6,
    **dict.fromkeys((F.threshold, torch.threshold), _threshold),
}


# What excitation backprop has rules for, under other names.


def _add(one: Any, other: Any = None, *, alpha: float = 1, inplace: bool = False) -> Any:
    if not isinstance(other, Tensor) or not other.requires_grad or alpha != 1 or one.shape != other.shape:
        return None
    if not inplace:
        return excitation_backprop.eltwise_sum(one, other)
    return _COPY(one, excitation_backprop.eltwise_sum(one.clone(), other))


def _add_in_place(one: Any, other: Any = None, *, alpha: float = 1) -> Any:
    return _add(one, other, alpha=alpha, inplace=True)


def _average(value: Any, dim: Any = None, keepdim: bool = False, **names: Any) -> Any:
    if names:
        return None
    return average(value, dim, keepdim)


def _saturate(value: Any, lower: Any = None, upper: Any = None, *, inplace: bool = False, **names: Any) -> Any:
    lower, upper = names.pop("min", lower), names.pop("max", upper)
    if names or isinstance(upper, Tensor) or isinstance(lower, Tensor) or lower != 0:
        return None
    if upper is None:
        result = _RELU(value.clone() if inplace else value)
    else:
        result = saturate(value.clone() if inplace else value, float(upper))
    return _COPY(value, result) if inplace else result


def _saturate_in_place(value: Any, lower: Any = None, upper: Any = None, **names: Any) -> Any:
    return _saturate(value, lower, upper, inplace=True, **names)


def _saturate_hardtanh(value: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return _saturate(value, min_val, max_val, inplace=inplace)


def _saturate_relu6(value: Any, inplace: bool = False) -> Any:
    return _saturate(value, 0, 6.0, inplace=inplace)


_EXCITATION: dict[Function, Function] = {
    **dict.fromkeys((torch.add, Tensor.add, _aten.add, _aten.add.Tensor), _add),
    **dict.fromkeys((Tensor.add_, _aten.add_, _aten.add_.Tensor), _add_in_place),
    **dict.fromkeys((torch.mean, Tensor.mean, _aten.mean, _aten.mean.dim), _average),
    **dict.fromkeys((torch.clamp, Tensor.clamp, torch.clip, Tensor.clip, _aten.clamp, _aten.clamp.default), _saturate),
    **dict.fromkeys((torch.clamp_, Tensor.clamp_, Tensor.clip_), _saturate_in_place),
    **dict.fromkeys((F.hardtanh, _aten.hardtanh, _aten.hardtanh.default), _saturate_hardtanh),
    F.relu6: _saturate_relu6,
}


# What the rules have not reached.


@dataclass(frozen=True)
class Check:
    """What is looked at between the forward and the backward pass of a method with rules.

    Attributes:
        key: The method's key.
        rules: Its rules.
        owners: Which module made which node.
        stops: Nodes of what the map is of; what lies before it needs no rule. Filled while the model runs.
    """

    key: str
    rules: Rules
    owners: Owners
    stops: list[Node | None] = field(default_factory=list)

    def __call__(self, outputs: Tensor) -> None:
        """Refuses a graph in which a rule is missing, or would give something else than its method defines.

        Raises:
            MethodError: So it is.
        """
        nodes = list(walk([outputs.grad_fn], self.stops))
        if any(stop is not None for stop in self.stops):
            nodes = leading_to(self.stops, nodes)
        if self.rules.excitation:
            _check_excitation(self, nodes)
        elif torch.relu is not _RELU:
            _check_rectifiers(self, nodes)
        elif not any(map(is_rule, nodes)):
            raise MethodError(
                f"'{self.key}': the rule of your own ({type(self.rules.context).__name__}) attached to nothing between "
                "what is explained and the output, so the result would be the plain gradient. Leave it out, or explain "
                "a model (or a layer) whose path to the output calls the functions that it exchanges."
            )

    def refuse(self, node: Node, why: str) -> None:
        """Raises the error that names an operation."""
        raise MethodError(
            f"'{self.key}' of TorchRay {why} {self.owners.where(node)}"
            + ("." if self.rules.mend else "; init_args={'workarounds': True} hands it what can be handed to it.")
        )


def _check_rectifiers(check: Check, nodes: list[Node]) -> None:
    context, head = check.rules.context, head_of(nodes)
    known = context.relu_func.__name__ if isinstance(context, common.ReLUContext) else None
    ruled = {node for node in nodes if is_rule(node) and known in (None, base_name(node))}
    for node in nodes:
        smooth = base_name(node) in NOT_RECTIFYING or _is_upper_bound(node, ruled)
        if not ((smooth and node not in check.rules.watch.veiled) or node in head or node in ruled):
            check.refuse(node, "changes the gradient of ReLUs only, which would stay as it is in")
    for node in check.rules.watch.hidden_rectifiers(nodes, ruled):
        check.refuse(
            node,
            "changes the gradient of ReLUs only, which would stay as it is where a model rectifies values by other "
            "means, or multiplies them by a mask that it computes from the input (use torch.relu there):",
        )
    if not ruled:
        raise MethodError(
            f"'{check.key}' changes the gradient of ReLUs, but none lies between what is explained and the output: the "
            "result would be the plain gradient. Use 'saliency', which says so, or an earlier layer."
        )


def _is_upper_bound(node: Node, ruled: set[Node]) -> bool:
    """Whether it ends what a rectifier gives at a highest value, as of ReLU6."""
    return base_name(node) == "ClampMax" and ruled.issuperset(sources(node))


_EXCITABLE = LAYOUT | MAX_POOL | {"Relu", "Add"}


def _check_excitation(check: Check, nodes: list[Node]) -> None:
    for node in nodes:
        name = base_name(node)
        if name == "Add" and len(sources(node)) > 1:
            check.refuse(node, "shares out the sum of a residual connection by its parts, and does not know the sum in")
        known = (is_rule(node) and name.startswith("EBP")) or name in _EXCITABLE
        if not known or node in check.rules.watch.veiled:
            check.refuse(node, "has no rule of excitation backprop for")
    for node in nodes:
        if is_rule(node):
            _check_activations(check, node, base_name(node))
    if not any(is_rule(node) for node in nodes):
        raise MethodError(
            f"'{check.key}' follows linear layers backwards, but none lies between what is explained and the output. "
            "Explain an earlier layer."
        )


def _check_activations(check: Check, node: Node, name: str) -> None:
    """Its paper's assumption: what a layer takes are activations, none of which is negative."""
    if name == "EBPBatchNorm" and node.negative is not None and bool(node.negative.any()):
        before = node.next_functions[0][0]
        if before is not None and base_name(before).startswith(("EBP_conv", "EBP_linear")):
            check.refuse(
                node,
                "takes a linear layer and the batch normalisation behind it as one, which it cannot where the scale is "
                "negative and the two are not modules that nothing else uses:",
            )
    if name in ("EBP_batch_norm", "EBPBatchNorm", "EBPSum", "EBPSaturatedReLU"):
        return
    taken = node.saved_tensors[0]
    if sources(node) and bool((taken < 0).any()):
        check.refuse(
            node,
            "divides by what the positive weights make of activations that are not negative, and some are negative "
            "(pass layer=, one behind the first rectifier, if it is the input that is negative) before",
        )
