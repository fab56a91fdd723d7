"""Records one forward pass of a module: functions and modules, in the order in which they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from cfi_core.errors import MethodError
from cfi_torch.canonical.program import Constant, Ref, Step, Weight, leaves, map_entries, words

# What asks for the form of a tensor and not for its values.
_FORM = words(
    "size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point is_complex is_signed "
    "is_tensor is_same_size get_device element_size itemsize type dtype __len__ __hash__ data_ptr __repr__ __str__ "
    "__format__ __dir__ has_names result_type can_cast promote_types is_inference is_conj is_neg is_pinned is_shared "
    "broadcast_shapes untyped_storage typename is_set_to"
)
_READ_VALUES = words(
    "__bool__ __int__ __float__ __index__ __complex__ __contains__ item tolist numpy __array__ is_nonzero equal "
    "allclose __reversed__"
)
_NOT_STEPS = frozenset({"requires_grad_", "retain_grad"})


@dataclass(frozen=True, eq=False)
class Recording:
    """A forward pass.

    Attributes:
        samples: How many it was made with.
        steps: In their order.
        output: What the model gave, as a structure of references.
        constants: Tensors that the model holds without a name.
        calls: How often each module was called, by name.
        form: Type of the output, where that is a mapping of a class of its own.
    """

    samples: int
    steps: tuple[Step, ...]
    output: Any
    constants: tuple[torch.Tensor, ...]
    calls: Counter[str]
    form: type | None = None


def record(
    model: nn.Module, inputs: Sequence[Any], held: Sequence[Any], is_leaf: Callable[[nn.Module], bool]
) -> Recording:
    """Runs the model once.

    Args:
        model: A twin in inference mode.
        inputs: Its arguments.
        held: Further ones behind them.
        is_leaf: Whether a module is one step, and not what it calls itself.

    Raises:
        MethodError: The pass cannot be told by functions and modules alone: the model decides by values, computes with
            what torch does not show, or writes into what it still uses.
    """
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    arguments = tuple(_differentiable(value) for value in (*inputs, *held))
    recorder = _Recorder(model, weights, arguments)
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        handles += recorder.watch(name, module, is_leaf=bool(name) and is_leaf(module))
    try:
        with torch.enable_grad(), recorder:
            output = torch.func.functional_call(model, weights, arguments)
    finally:
        for handle in handles:
            handle.remove()
    form = type(output) if isinstance(output, Mapping) and type(output) is not dict else None
    return Recording(
        next(len(value) for _, value in leaves(inputs)),
        tuple(recorder.steps),
        recorder.template(output),
        tuple(recorder.constants),
        recorder.calls,
        form,
    )


def _differentiable(value: Any) -> Any:
    """A tensor on which all that is made of it can be told to depend; and which may be written to."""
    if not isinstance(value, torch.Tensor):
        return map_entries(_differentiable, value)
    fresh = value.detach().clone()
    return fresh.requires_grad_() * 1 if fresh.is_floating_point() or fresh.is_complex() else fresh


@dataclass(frozen=True)
class _Known:
    tensor: torch.Tensor  # kept, so that no other gets its id
    ref: Ref
    version: int
    depends: bool  # on the inputs
    has_gradient: bool  # as far as the steps tell


@dataclass
class _Call:
    """A call of a module that has begun."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    versions: list[tuple[torch.Tensor, int]] = field(default_factory=list)
    depends: bool = False
    is_heard: bool = True


@dataclass(frozen=True)
class _View:
    """A part of a tensor, in the same memory."""

    base: torch.Tensor
    places: Any  # as a template


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module, weights: Mapping[str, torch.Tensor], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.constants: list[torch.Tensor] = []
        self.calls: Counter[str] = Counter()
        self._weights = {id(tensor): name for name, tensor in (*weights.items(), *model.named_buffers())}
        self._known: dict[int, _Known] = {}
        self._constants: dict[int, int] = {}
        self._views: dict[int, _View] = {}
        self._unversioned: set[int] = set()  # parts of others whose changes nobody counts
        self._scopes: list[str] = [""]
        self._begun: list[_Call] = []
        self._quiet = 0  # inside a module that is one step
        self._autocast = torch.is_autocast_enabled("cpu")
        for place, argument in enumerate(arguments):
            for path, tensor in leaves(argument):
                self._known[id(tensor)] = _Known(tensor, Ref(-1 - place, path), tensor._version, True, True)

    # functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if self._quiet or name in _NOT_STEPS:
            return func(*args, **kwargs)
        given = (args, kwargs)
        depends = self._depends(given)
        if depends and name in _READ_VALUES:
            self._refuse(f"decides in Python by values that depend on the inputs (`{name}`)")
        if kwargs.get("out") is not None:
            self._refuse(f"writes the result of `{name}` into a tensor (out=…)")
        # Before the call, which may write into its arguments.
        template: tuple[Any, Any] = ((), {})
        if name not in _FORM:
            template = (self.template(tuple(args)), self.template(kwargs))
        versions = _versions(given)
        result = func(*args, **kwargs)
        if name == "__setitem__":
            self._add_write(Step(set_items, "", self._scopes[-1], *template, self._records), args[0], depends)
            return result
        found = [tensor for _, tensor in leaves(result)]
        if not found:
            if depends and name not in _FORM and not _is_property(func):
                self._refuse(f"takes something other than tensors out of values that depend on the inputs (`{name}`)")
            return result
        self._check_written(versions, found, name)
        rank = next((tensor.ndim for _, tensor in leaves(given)), 0)
        is_single = isinstance(result, torch.Tensor)
        step = Step(_pure_form(func, name), "", self._scopes[-1], *template, self._records, rank, is_single)
        if any(tensor is result and tensor._version != version for tensor, version in versions):
            self._add_write(step, result, depends)
        else:
            self._add(step, result, depends)
        if _is_property(func) and func.__self__.__name__ == "data":
            self._unversioned.add(id(result))
        if name == "__getitem__" and result._base is not None and isinstance(args[0], torch.Tensor):
            self._views[id(result)] = _View(args[0], template[0][1])
        return result

    @property
    def _records(self) -> bool:
        return torch.is_grad_enabled()

    def _add_write(self, step: Step, tensor: torch.Tensor, depends: bool) -> None:
        """A step that wrote into a tensor; what that is a part of has changed too."""
        if id(tensor) in self._unversioned:
            self._refuse("writes into the data of a tensor (`x.data`)")
        self._add(step, tensor, depends)
        view = self._views.get(id(tensor))
        known = self._known.get(id(view.base)) if view is not None else None
        if view is not None and known is not None:
            whole = Step(set_items, "", step.scope, (known.ref, view.places, self._known[id(tensor)].ref))
            self._add_write(whole, view.base, depends or known.depends)

    def _add(self, step: Step, result: Any, depends: bool) -> None:
        if torch.is_autocast_enabled("cpu") != self._autocast:
            self._refuse("switches autocast on or off in its forward method")
        self.steps.append(step)
        for path, tensor in leaves(result):
            has_gradient, ref = step.records or tensor.requires_grad, Ref(len(self.steps) - 1, path)
            self._known[id(tensor)] = _Known(tensor, ref, tensor._version, depends, has_gradient)

    def _check_written(
        self, before: Sequence[tuple[torch.Tensor, int]], results: Sequence[torch.Tensor], what: str
    ) -> None:
        """Refuses what was changed without being a result: nobody could tell what it is now."""
        for tensor, version in before:
            if tensor._version != version and not any(tensor is one for one in results):
                self._refuse(f"writes into a tensor by `{what}`, which does not give it back")

    # tensors

    def template(self, value: Any) -> Any:
        """A structure with its tensors as references."""
        if isinstance(value, torch.Tensor):
            return self._reference(value)
        return map_entries(self.template, value)

    def _reference(self, tensor: torch.Tensor) -> Ref | Weight | Constant:
        known = self._known.get(id(tensor))
        if known is not None:
            if known.version != tensor._version:
                self._refuse("writes into a tensor of which it uses another view later (an operation in place)")
            if tensor.requires_grad and not known.has_gradient:
                self._refuse(f"computes with a gradient of its own{_origin(tensor)}")
            return known.ref
        if id(tensor) in self._weights:
            return Weight(self._weights[id(tensor)])
        if tensor.requires_grad:
            self._refuse(f"computes with something that is no function of torch's{_origin(tensor)}")
        number = self._constants.setdefault(id(tensor), len(self.constants))
        if number == len(self.constants):
            self.constants.append(tensor)
        return Constant(number)

    def _depends(self, value: Any) -> bool:
        known = (self._known.get(id(tensor)) for _, tensor in leaves(value))
        return any(one is not None and one.depends for one in known)

    def _refuse(self, what: str) -> NoReturn:
        where = f"in module '{self._scopes[-1]}'" if self._scopes[-1] else "in its forward method"
        raise MethodError(f"the model {what}, {where}. Rewrite that place with torch's own modules and functions.")

    # modules

    def watch(self, name: str, module: nn.Module, *, is_leaf: bool) -> list[RemovableHandle]:
        """Hooks that see the calls of one module: as a step, or as the place where steps are."""
        before, after = (self._enter_step, self._leave_step) if is_leaf else (self._enter, self._leave)

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._quiet += 1  # for what the hook itself does
            before(name, args, kwargs)
            self._quiet -= 1

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._quiet += 1
            after(name, output)
            self._quiet -= 1

        return [
            module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]

    def _enter_step(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = _Call(is_heard=self._quiet == 1)
        if call.is_heard:
            call.args, call.kwargs = self.template(args), self.template(kwargs)
            call.versions, call.depends = _versions((args, kwargs)), self._depends((args, kwargs))
        self._begun.append(call)
        self._quiet += 1

    def _leave_step(self, name: str, output: Any) -> None:
        self._quiet -= 1
        call = self._begun.pop()
        if not call.is_heard:
            return
        self.calls[name] += 1
        self._check_written(call.versions, [tensor for _, tensor in leaves(output)], name)
        step = Step(None, name, self._scopes[-1], call.args, call.kwargs, self._records)
        self._add(step, output, call.depends)

    def _enter(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._quiet == 1:
            self._scopes.append(name)

    def _leave(self, name: str, output: Any) -> None:
        if self._quiet != 1:
            return
        self._scopes.pop()
        self.calls[name] += 1
        if name and isinstance(output, torch.Tensor):
            self._add(Step(None, name, name, (self._reference(output),), is_output=True), output, self._depends(output))


def set_items(tensor: torch.Tensor, places: Any, values: Any) -> torch.Tensor:
    """The tensor with other values at some places."""
    tensor = tensor.clone()
    tensor[places] = values
    return tensor


def _copy_values(tensor: torch.Tensor, values: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    return values.to(tensor).expand_as(tensor)


_WRITERS = {"zero_": torch.zeros_like, "fill_": torch.full_like, "copy_": _copy_values}


class Property:
    """Reads a property of a tensor that is a tensor itself."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, tensor: torch.Tensor) -> Any:
        """The property's value."""
        return getattr(tensor, self.__name__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Property) and other.__name__ == self.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)


def _origin(tensor: torch.Tensor) -> str:
    return f" (`{tensor.grad_fn.name()}`)" if tensor.grad_fn is not None else ""


def function_name(func: Any) -> str:
    """The name of a function of torch's: `relu` for `torch.ops.aten.relu.default`."""
    return str(getattr(func, "__name__", type(func).__name__)).partition(".")[0]


def _is_property(func: Any) -> bool:
    return function_name(func) == "__get__"


def _versions(given: Any) -> list[tuple[torch.Tensor, int]]:
    return [(tensor, tensor._version) for _, tensor in leaves(given)]


def _pure_form(func: Any, name: str) -> Any:
    """The function that gives the same result without writing into its argument."""
    if _is_property(func):
        return Property(func.__self__.__name__)
    if name.startswith("__i") and name.endswith("__") and hasattr(torch.Tensor, f"__{name[3:]}"):
        return getattr(torch.Tensor, f"__{name[3:]}")
    if name in _WRITERS:
        return _WRITERS[name]
    if name.endswith("_") and not name.endswith("__"):
        for place in (torch.Tensor, torch, nn.functional):
            with suppress(AttributeError):
                return getattr(place, name[:-1])
        raise MethodError(f"the model writes into a tensor by `{name}`, for which there is no function that does not.")
    return func
