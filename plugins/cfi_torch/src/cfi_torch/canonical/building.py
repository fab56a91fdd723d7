"""Makes the canonical copy out of a recording."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from cfi_core.errors import MethodError
from cfi_core.framework import Canonical, Factories
from cfi_torch.canonical.model import Block, CanonicalModel, Program, constant_name
from cfi_torch.canonical.operations import ELEMENTWISE, Operation, operation, operation_of
from cfi_torch.canonical.program import Ref, Sized, Step, Weight, fill, inside, leaves, map_entries
from cfi_torch.canonical.recording import Recording, function_name, record
from cfi_torch.canonical.samples import record_for_any

_ANY, _COPY, _ELEMENTWISE = "function", "copy", "elementwise"
_SHOWN = 4
"""Names of layers in one line of provenance; the others are counted."""


def rewrite(
    model: nn.Module,
    inputs: Sequence[Any],
    modules: Factories,
    held: Sequence[Any] = (),
    knows: Callable[[nn.Module], bool] | None = None,
) -> Canonical:
    """The canonical copy of a twin (see `FrameworkAdapter.canonical`), whose modules become the copy's.

    Operations are torch's functions by their names (`relu`, `leaky_relu`, `linear`, `conv2d`, `softmax`, `flatten`, …),
    `max_pool`, `avg_pool`, `adaptive_avg_pool`, `adaptive_max_pool`, `batch_norm`, `dropout`, `add` (of two values that
    both depend on the inputs) and `cat`. `elementwise` is any other function of one value, element by element; its
    factory takes `function`. `function` is any other function that gives one tensor; its factory takes `function`, to
    be called with the tensors and keyword arguments that the module is called with. `copy` stands for each use of a
    value by an elementwise operation, where others use it too.

    Raises:
        MethodError: The model cannot be recorded.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise MethodError("parts of it are scripted. Pass the nn.Module that it was made from.")

    def is_leaf(module: nn.Module) -> bool:
        return (knows is not None and knows(module)) or _is_torchs_own(module)

    def make(samples: int) -> Recording:
        return record(model, *_resize(inputs, held, samples), is_leaf)

    given = next(len(tensor) for _, tensor in leaves(tuple(inputs)))
    recording = record_for_any(make, given)
    return _Builder(model, recording, modules, knows).build(_first((*inputs, *held)))


def _is_torchs_own(module: nn.Module) -> bool:
    """Whether a module is one of torch's that does not merely call others."""
    kind = type(module)
    is_parametrized = hasattr(module, "parametrizations")
    if is_parametrized:
        kind = kind.__mro__[1]
    alone = is_parametrized or next(module.children(), None) is None or kind is nn.MultiheadAttention
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return alone and kind.__module__.startswith("torch.nn.") and not isinstance(module, containers)


def _resize(inputs: Sequence[Any], held: Sequence[Any], samples: int) -> tuple[list[Any], list[Any]]:
    """As many samples; what is held for each of the samples too."""
    given = next(len(tensor) for _, tensor in leaves(tuple(inputs)))

    def resize(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return map_entries(resize, value)
        rows = torch.arange(samples, device=value.device) % max(given, 1)
        return value[rows] if value.ndim and len(value) == given else value

    return [resize(value) for value in inputs], [resize(value) for value in held]


def _first(arguments: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
    """Where the first tensor among the arguments is."""
    path, _ = next(leaves(arguments))
    return path[0], path[1:]


@dataclass
class _Builder:
    model: nn.Module
    recording: Recording
    modules: Factories
    knows: Callable[[nn.Module], bool] | None
    steps: list[Step] = field(default_factory=list)
    made: dict[str, nn.Module] = field(default_factory=dict)  # by name, in the order of the first call
    repairs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    moved: dict[int, int] = field(default_factory=dict)  # for recorded steps, the steps that give the same here
    origin: dict[int, int] = field(default_factory=dict)  # the other way round
    dependent: set[int] = field(default_factory=set)  # steps that depend on the inputs
    named: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.originals = dict(self.model.named_modules())
        self.weights = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self.taken = {*self.originals, *self.weights}
        self.uses = Counter(
            self._value(one)
            for step in self.recording.steps
            for one in inside(() if step.is_output else (step.args, step.kwargs))
            if isinstance(one, Ref)
        )

    def build(self, first: tuple[int, tuple[Any, ...]]) -> Canonical:
        """The copy, with its layers and what was changed."""
        for number, step in enumerate(self.recording.steps):
            before = len(self.steps)
            self._add(step)
            assert len(self.steps) > before
            self.moved[number] = len(self.steps) - 1
            self.origin[len(self.steps) - 1] = number
        output = self._relocate(self.recording.output)
        program = Program.of(self.steps, output, self.recording.form, first)
        copied = self._assemble(program)
        for number, tensor in enumerate(self.recording.constants):
            copied.register_buffer(constant_name(number), tensor.detach().clone(), persistent=False)
        layers = {name: name for name in self.made if name in self.originals and self.recording.calls[name] == 1}
        blocks = frozenset(name for name in layers if isinstance(self.made[name], Block))
        shown = tuple(f"{what}: {_list(names)}" for what, names in self.repairs.items())
        return Canonical(copied.eval(), layers, blocks, shown)

    # steps

    def _append(self, step: Step) -> None:
        if self._depends((step.args, step.kwargs)):
            self.dependent.add(len(self.steps))
        self.steps.append(step)

    def _add(self, step: Step) -> None:
        step = replace(step, args=self._relocate(step.args), kwargs=self._relocate(step.kwargs))
        if step.is_output:
            self._add_output(step)
        elif step.function is None:
            self._add_module(step)
        else:
            self._add_function(step)

    def _add_output(self, step: Step) -> None:
        name = step.module
        if self.recording.calls[name] == 1:
            self.made[name] = Block()
            self._append(step)
        else:  # nothing can be there, but later steps refer to it
            self._append(replace(step, function=_same, module="", is_output=False))

    def _add_module(self, step: Step) -> None:
        original, name, called = self.originals[step.module], step.module, ""
        self.named[step.module] += 1
        if self.named[step.module] > 1:
            name = self._free(step.module)
            self.repairs[f"a module used {self.recording.calls[step.module]} times → copies"].append(name)
        found = self._find_unruled(original, step)
        module = self._factory(found) if found is not None else None
        if found is not None and module is not None and type(module) is not type(original):
            called = found.name
            self.repairs[f"{type(original).__name__} → {type(module).__name__}"].append(name)
        else:
            module = original if self.named[step.module] == 1 else _clone(original)
            if getattr(module, "inplace", False):
                module.inplace = False
                self.repairs["no longer in place"].append(name)
        self._add_call(step, name, module, called)

    def _find_unruled(self, original: nn.Module, step: Step) -> Operation | None:
        """The operation of one of torch's modules that the toolset has no rule for; None where the module stays."""
        is_known = self.knows is not None and self.knows(original)
        return operation_of(original, step.args) if step.args and not is_known else None

    def _add_function(self, step: Step) -> None:
        found = operation(step, self.weights, self._depends)
        depends = self._depends((step.args, step.kwargs))
        module = None if found is None or not depends else self._factory(found)
        if module is not None and found is not None:
            name = self._free(_join(step.scope, found.name))
            self.repairs[f"{found.name} as a function → {type(module).__name__}"].append(name)
            self._add_call(replace(step, args=found.operands, kwargs={}, function=None), name, module, found.name)
        elif depends and step.is_single and _ANY in self.modules:
            self._add_any(step)
        else:
            self._append(_not_in_place(step))

    def _add_any(self, step: Step) -> None:
        """Any function as a module of the tensors that it takes."""
        step = _not_in_place(step)
        taken = dict.fromkeys(inside((step.args, step.kwargs)))
        sizes = tuple(one for one in taken if isinstance(one, Sized))
        operands = tuple(one for one in taken if not isinstance(one, Sized))
        module = self.modules[_ANY](function=Application(step.function, step.args, step.kwargs, operands, sizes))
        called = function_name(step.function).strip("_")
        name = self._free(_join(step.scope, called))
        self.repairs[f"{called} as a function → {type(module).__name__}"].append(name)
        kwargs = {"sizes": sizes} if sizes else {}
        self._add_call(replace(step, args=operands, kwargs=kwargs, function=None), name, module)

    def _add_call(self, step: Step, name: str, module: nn.Module, called: str = "") -> None:
        if _COPY in self.modules and (called in ELEMENTWISE or self._is_elementwise(module)):
            step = replace(step, args=tuple(self._apart(one, name) for one in step.args))
        self.made[name] = module
        self._append(replace(step, module=name))

    def _is_elementwise(self, module: nn.Module) -> bool:
        found = operation_of(module, (None,))
        return found is not None or isinstance(module, nn.Dropout)

    def _apart(self, operand: Any, name: str) -> Any:
        """The operand by way of a module of its own, where others take it too."""
        if not isinstance(operand, Ref) or self.uses[self._source(operand)] < 2:
            return operand
        module, own = self.modules[_COPY](), self._free(f"{name}_{_COPY}")
        self.repairs[f"a value with several uses → {type(module).__name__}"].append(own)
        self.made[own] = module
        self._append(Step(None, own, "", (operand,)))
        return Ref(len(self.steps) - 1)

    def _value(self, ref: Ref) -> Ref:
        """A recorded value; what stands for the output of a module is what the module gave."""
        while ref.step >= 0 and self.recording.steps[ref.step].is_output:
            ref = self.recording.steps[ref.step].args[0]
        return ref

    def _source(self, ref: Ref) -> Ref:
        """The recorded value that a value of the copy is."""
        return self._value(ref if ref.step < 0 else Ref(self.origin[ref.step], ref.path))

    def _factory(self, found: Operation) -> nn.Module | None:
        """The module for an operation: the toolset's, or torch's own if the rules know it, or of any such function."""
        if found.name in self.modules and found.name != _ELEMENTWISE:
            return self.modules[found.name](**found.settings)
        own = found.own() if found.own is not None else None
        if own is not None and (found.function is None or self.knows is None or self.knows(own)):
            return own.eval()
        if found.function is not None and _ELEMENTWISE in self.modules:
            return self.modules[_ELEMENTWISE](function=found.function)
        return own

    # values

    def _depends(self, value: Any) -> bool:
        """Whether something among these references, in the copy, depends on the inputs."""
        refs = (one for one in inside(value) if isinstance(one, Ref))
        return any(ref.step < 0 or ref.step in self.dependent for ref in refs)

    def _relocate(self, template: Any) -> Any:
        def relocate(one: Any) -> Any:
            if isinstance(one, Ref) and one.step >= 0:
                return Ref(self.moved[one.step], one.path)
            return one

        return fill(template, relocate)

    # names and modules

    def _free(self, wanted: str) -> str:
        """A name that nothing has yet."""
        name, number = wanted, 0
        while name in self.taken or hasattr(CanonicalModel, name.rpartition(".")[2]):  # `float` is a method of modules
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name

    def _assemble(self, program: Program) -> CanonicalModel:
        """The tree of modules, with the weights that functions take."""
        copied = CanonicalModel(program, type(self.model).__name__)
        for name, module in self._in_model_order():
            parent = copied
            *path, last = name.split(".")
            for place, part in enumerate(path):
                if part not in parent._modules:
                    parent.add_module(part, self.made.get(".".join(path[: place + 1])) or Block())
                parent = parent._modules[part]
            if parent._modules.get(last) is not module:
                parent.add_module(last, module)
        used = {one.name for step in self.steps for one in inside((step.args, step.kwargs)) if isinstance(one, Weight)}
        for name in sorted(used | {one.name for one in inside(program.output) if isinstance(one, Weight)}):
            _hold(copied, name, self.weights[name])
        return copied

    def _in_model_order(self) -> Iterator[tuple[str, nn.Module]]:
        """Modules of the model where the model has them, the others where they are called first."""
        order = {name: place for place, name in enumerate(self.originals)}
        yield from sorted(self.made.items(), key=lambda item: order.get(item[0], len(order)))


class Application:
    """A function with all that it takes but its tensors."""

    def __init__(
        self, function: Any, args: Any, kwargs: Any, operands: tuple[Any, ...], sizes: tuple[Sized, ...]
    ) -> None:
        self.function, self.args, self.kwargs, self.operands, self.sizes = function, args, kwargs, operands, sizes

    def __call__(self, *tensors: Any, sizes: tuple[int, ...] = ()) -> Any:
        """The function's result for these tensors, and for numbers that depend on how many samples there are."""
        values = dict(zip((*self.operands, *self.sizes), (*tensors, *sizes), strict=True))
        return self.function(*fill(self.args, values.__getitem__), **fill(self.kwargs, values.__getitem__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Application:
        return self


def _same(value: Any) -> Any:
    return value


def _not_in_place(step: Step) -> Step:
    """The same without writing into its argument, where an argument says so."""
    if step.kwargs.get("inplace") is True:
        return replace(step, kwargs={**step.kwargs, "inplace": False})
    return step


def _clone(module: nn.Module) -> nn.Module:
    """A module that computes the same with the same weights, in parameters of its own."""
    tensors = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in module.parameters()
    }
    return copy.deepcopy(module, dict(tensors))


def _hold(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Puts a weight where it is in the original."""
    *path, last = name.split(".")
    for part in path:
        if part not in model._modules:
            model.add_module(part, Block())
        model = model._modules[part]
    if last in model._parameters or last in model._buffers:
        return
    if isinstance(tensor, nn.Parameter):
        model.register_parameter(last, tensor)
    else:
        model.register_buffer(last, tensor)


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(repr, names[:_SHOWN]))}{more}"
