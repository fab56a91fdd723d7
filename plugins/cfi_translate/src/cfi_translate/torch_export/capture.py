"""From a module to the graph of its operators, which `torch.export` captures without running the model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch._decomp import get_decompositions
from torch._guards import detect_fake_mode
from torch.fx.experimental.proxy_tensor import make_fx

from cfi_core.adapters import adapter_for
from cfi_core.errors import kind_of
from cfi_core.framework import flatten
from cfi_core.registry import registry
from cfi_core.silence import without_output
from cfi_core.turns import Lock
from cfi_translate.failures import failure
from cfi_translate.grammar import Refusal, require
from cfi_translate.torch_export import attention_modules, normalization_modules
from cfi_translate.translators import TORCH_EXPORT
from cfi_translate.workarounds import keep_environment, quiet

_WEIGHTS_LIMIT = 2**31
# torch.export keeps its settings and its "exporting" mark in module globals.
_exporting = Lock()
# It looks through all operators that there are.
_rules_for_export = functools.cache(torch.export.default_decompositions)


class Flat(nn.Module):
    """A model that returns the tensors of its output as a tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors, in the structure's own order."""
        outputs = flatten(self.model(*inputs))
        for output in outputs:
            if not isinstance(output, torch.Tensor):
                raise failure(
                    TORCH_EXPORT, f"takes models that return tensors, and this one returns {type(output).__name__}"
                )
        return tuple(outputs)


@dataclass(frozen=True)
class Captured:
    """A captured model.

    Attributes:
        program: The `torch.export.ExportedProgram`; its placeholders are weights, then inputs.
        state: What each placeholder of a weight, buffer or constant holds, by the placeholder's name.
        names: What those are called in the model.
    """

    program: Any
    state: dict[str, torch.Tensor]
    names: dict[str, str]


def capture(model: Any, arrays: Sequence[np.ndarray]) -> Captured:
    """Captures a twin of the model, for any number of samples.

    Raises:
        TranslationError: The model is too large or cannot be captured for any number of samples.
    """
    adapter = adapter_for(registry(), "torch")
    twin = adapter.twin(adapter.load(model))
    held = [*twin.parameters(), *twin.buffers()]
    require_size(TORCH_EXPORT, held)
    attention_modules.simplify(twin)
    normalization_modules.simplify(twin)
    # Two samples: a size of one would be taken for a constant.
    examples = (np.resize(array, (2, *array.shape[1:])) if array.ndim else array for array in arrays)
    tensors = [place_beside(array, held) for array in examples]
    samples = torch.export.Dim("samples", min=1)
    sizes = {len(tensor) for tensor in tensors[:1] if tensor.ndim}
    shapes = tuple({0: samples} if tensor.ndim and len(tensor) in sizes else None for tensor in tensors)
    with _exporting, _isolate():
        try:
            program = torch.export.export(Flat(twin).eval(), tuple(tensors), dynamic_shapes=(shapes,), strict=False)
        except Exception as error:  # capturing runs the user's code: anything may come out of it
            raise failure(TORCH_EXPORT, f"could not capture {kind_of(model)}", error) from error
    return look_up(program)


def look_up(program: Any) -> Captured:
    """Looks up what the placeholders of a program hold.

    Raises:
        TranslationError: The model changes its own buffers, or holds something else than tensors.
    """
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        changed = ", ".join(sorted(name.removeprefix("model.") for name in signature.buffers_to_mutate.values()))
        raise failure(TORCH_EXPORT, f"cannot translate a model that changes its own buffers ({changed})")
    state: dict[str, torch.Tensor] = {}
    names: dict[str, str] = {}
    for spec in signature.input_specs:
        if spec.target is None:
            continue
        holder = program.state_dict if spec.target in program.state_dict else program.constants
        value = holder[spec.target]
        if not isinstance(value, torch.Tensor):
            raise failure(
                TORCH_EXPORT, f"cannot translate the {type(value).__name__} {spec.target!r} that the model holds"
            )
        state[spec.arg.name] = value.detach()
        names[spec.arg.name] = spec.target.removeprefix("model.")
    return Captured(program, state, names)


def without_work_in_place(program: Any) -> Captured:
    """The same program as torch writes it where every operator gives a new value.

    Raises:
        TranslationError: Torch cannot.
    """
    with _exporting, _isolate():
        try:
            return look_up(program.run_decompositions({}))
        except Exception as error:  # the decompositions run through all layers of torch
            raise failure(TORCH_EXPORT, "could not take the captured graph apart", error) from error


def take_apart(node: fx.Node, operator: Any) -> fx.Graph:
    """What torch's own rule for an operator makes of it where it stands.

    To let `run_decompositions` do that takes several times as long, because it goes through the whole program.

    Args:
        node: A call.
        operator: What it calls, or the operator that computes the same and changes none of its operands.

    Returns:
        A graph whose placeholders are the node's inputs, in the order of `node.all_input_nodes`.

    Raises:
        Refusal: There is no rule, or none for these inputs.
    """
    # Those for exporting keep more operators whole; an operator without any rule may yet be made of others.
    rules, for_export = get_decompositions([operator]), _rules_for_export()
    rule: Any = for_export[operator] if operator in for_export else rules.get(operator, operator)

    def run(*tensors: Any) -> Any:
        given = dict(zip(node.all_input_nodes, tensors, strict=True))
        arguments, keywords = fx.map_arg((node.args, node.kwargs), given.__getitem__)
        return rule(*arguments, **keywords)

    operands = [one.meta["val"] for one in node.all_input_nodes]
    # Without the mode, a rule that is given sizes alone makes a real tensor, and the number of samples is fixed.
    mode = detect_fake_mode([node.meta.get("val"), *operands]) or contextlib.nullcontext()
    with _exporting, _isolate(), mode:
        try:
            graph = make_fx(run)(*operands).graph
        except Exception as error:  # the rules run through all layers of torch
            raise Refusal("the operator is not supported") from error
    require(all(one.target != operator for one in graph.nodes), "the operator is not supported")
    sizes = [one for one in operands if isinstance(one, torch.SymInt)]
    require(all(one.node.expr.free_symbols for one in sizes), "torch's rule for it fixes the number of samples")
    return graph


def require_size(translator: str, held: Sequence[torch.Tensor]) -> None:
    """Refuses more weights than fit into a file of ONNX."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in held)
    if size >= _WEIGHTS_LIMIT:
        raise failure(translator, f"is limited to 2 GiB of weights and this model has {size / 2**30:.1f} GiB")


def place_beside(array: np.ndarray, held: Sequence[torch.Tensor]) -> torch.Tensor:
    """An input where the weights are; in their type, if both are floating point numbers."""
    tensor = torch.from_numpy(np.array(array))
    model_values = next((value for value in held if value.is_floating_point()), None)
    if model_values is None:
        return tensor
    return tensor.to(model_values.device, model_values.dtype if tensor.is_floating_point() else None)


@contextlib.contextmanager
def _isolate() -> Iterator[None]:
    """No warnings and logs reach the user, and torch's settings are as before afterwards."""
    fast = torch.backends.mha.get_fastpath_enabled()
    config: Any = fx.config
    without_traces = getattr(config, "do_not_emit_stack_traces", None)
    # Where a model cannot be captured, torch.export prints the graph so far to the standard error output.
    with (
        quiet("torch"),
        without_output("stderr"),
        keep_environment(),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):
        # Its fused operator is for running only; the plain path shows the layers inside.
        torch.backends.mha.set_fastpath_enabled(False)
        if without_traces is not None:  # not every version of torch has it; nobody reads where each node was called
            config.do_not_emit_stack_traces = True
        try:
            yield
        finally:
            if without_traces is not None:
                config.do_not_emit_stack_traces = without_traces
            torch.backends.mha.set_fastpath_enabled(fast)
