"""PyTorch models run in stages, opened at some of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import nn

from cfi_core.errors import InputError, LayerError, MethodError
from cfi_core.framework import Pullback, Runner, Staged, flatten
from cfi_core.turns import Lock
from cfi_torch.watch import LayerWatch


class TorchRunner(Runner):
    """A stage that gives an activation ends its forward pass there.

    Passes on one runner wait for each other, because hooks are put on its model while one runs.
    """

    def __init__(self, twin: nn.Module, inputs: Sequence[torch.Tensor], layers: Sequence[str] = ()) -> None:
        """Opens a model.

        Args:
            twin: Nobody else's: it is marked while it runs.
            inputs: Examples.
            layers: Names of its modules.

        Raises:
            LayerError: A layer is not called exactly once, or does not give one tensor.
        """
        self._model = twin
        self._inputs = len(inputs)
        self._one_pass = Lock()
        self.layers = self._in_order(inputs, tuple(dict.fromkeys(layers)))

    def run(self, stage: int, values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The results of a stage."""
        with self._one_pass, torch.inference_mode(False), torch.no_grad():
            return tuple(_own(result) for result in self._forward(stage, values))

    def linearize(self, stage: int, values: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], Pullback]:
        """The results of a stage, and the vector-Jacobian product at these values.

        The first product frees what the pass has kept, while it goes back: kept until later it would take new memory
        for each gradient, and a third more time. Further products run the pass once more, and keep what it keeps.
        """
        return self._linear(stage, values, self._record(stage, values))

    def _linear(
        self, stage: int, values: Sequence[torch.Tensor], recorded: _Pass
    ) -> tuple[tuple[torch.Tensor, ...], Pullback]:
        """Of a recorded pass, in which some of the values may not have been followed."""
        passes = [recorded]
        results = tuple(_own(result) for result in passes[0].results)
        products = 0

        def pullback(
            cotangents: Sequence[torch.Tensor | None], wanted: Sequence[bool]
        ) -> tuple[torch.Tensor | None, ...]:
            nonlocal products
            with self._one_pass:
                if products == 1 or not _follows(passes[0], wanted):
                    passes[0] = self._record(stage, values)
                    _check_same(self._model, passes[0].results, results)
                products += 1
                return self._product(stage, passes[0], cotangents, wanted, keep=products > 1)

        return results, pullback

    def chain(self, inputs: Sequence[torch.Tensor], records: Sequence[bool]) -> Sequence[Staged]:
        """All stages of one pass, where a gradient is taken of nothing but what follows the last layer."""
        if len(records) < 2 or any(records[:-1]):
            return super().chain(inputs, records)
        taken: list[torch.Tensor] = []
        leaves: list[torch.Tensor] = []

        def go_on(name: str, tensor: torch.Tensor) -> torch.Tensor:
            taken.append(_own(tensor))
            leaves.append(_leaf(taken[-1]) if records[-1] else taken[-1])
            return _private(leaves[-1])

        # Of what comes before the first leaf nothing is recorded, as neither inputs nor weights ask for it.
        with self._one_pass, torch.inference_mode(False), torch.set_grad_enabled(records[-1]):
            with LayerWatch(self._model, self.layers, go_on) as watch:
                outputs = _tensors(self._model(*(_private(value) for value in inputs)))
            for name in self.layers:
                watch.check(name)
        stages = [Staged((one,)) for one in taken]
        if not records[-1]:
            return [*stages, Staged([_own(output) for output in outputs])]
        recorded = _Pass([*(value.detach() for value in inputs), *leaves], outputs)
        return [*stages, Staged(*self._linear(len(self.layers), (*inputs, *taken), recorded))]

    def _record(self, stage: int, values: Sequence[torch.Tensor]) -> _Pass:
        with self._one_pass, torch.inference_mode(False), torch.enable_grad():
            leaves = [_leaf(value) for value in values]
            return _Pass(leaves, self._forward(stage, leaves))

    def _product(
        self,
        stage: int,
        recorded: _Pass,
        cotangents: Sequence[torch.Tensor | None],
        wanted: Sequence[bool],
        *,
        keep: bool,
    ) -> tuple[torch.Tensor | None, ...]:
        leaves = recorded.leaves
        asked = [leaf for leaf, is_wanted in zip(leaves, wanted, strict=True) if is_wanted and leaf.requires_grad]
        # Models that recompute instead of keeping (activation checkpointing) run parts of themselves here again.
        with self._one_pass, torch.inference_mode(False), self._hooks(stage, leaves, None):
            gradients = pull_back(recorded.results, cotangents, asked, keep=keep)
        found = {id(leaf): gradient for leaf, gradient in zip(asked, gradients, strict=True)}
        return tuple(found.get(id(leaf)) for leaf in leaves)

    def _forward(self, stage: int, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The results, still connected to the values."""
        reached: list[torch.Tensor] = []
        outputs = None
        with self._hooks(stage, values, reached) as hooks, suppress(_TapReached):
            outputs = self._model(*(_private(value) for value in values[: self._inputs]))
        for name in self.layers[: stage + 1]:
            hooks.check(name)
        return reached or _tensors(outputs)

    def _hooks(self, stage: int, values: Sequence[torch.Tensor], reached: list[torch.Tensor] | None) -> LayerWatch:
        """Puts given activations in the place of what their layers compute, and ends the pass at a layer."""
        given = dict(zip(self.layers[:stage], values[self._inputs :], strict=True))

        def replace(name: str, tensor: torch.Tensor) -> torch.Tensor:
            if reached is not None and name not in given:
                reached.append(tensor)
                raise _TapReached
            return _private(given[name])

        return LayerWatch(self._model, given if reached is None else self.layers[: stage + 1], replace)

    def _in_order(self, inputs: Sequence[torch.Tensor], names: tuple[str, ...]) -> tuple[str, ...]:
        own = dict(self._model.named_modules(remove_duplicate=False))
        for name in names:
            if not name or name not in own:
                raise LayerError(
                    f"The {type(self._model).__name__} has no layer {name!r}; cfi.layers(model) lists them."
                )
            if isinstance(own[name], torch.jit.ScriptModule):
                raise LayerError(
                    f"Layer {name!r} is TorchScript, which cannot be opened. Choose a layer that is a plain module: "
                    f"cfi.layers(model, inputs) shows an output shape for each of them."
                )
        if not names:
            return ()
        found: dict[str, torch.Tensor] = {}
        with torch.inference_mode(False), torch.no_grad(), LayerWatch(self._model, names, found.__setitem__) as watch:
            _tensors(self._model(*(_private(value) for value in inputs)))
        for name in names:
            watch.check(name)
            _check_tensor(name, watch.kinds[name], found[name])
        return tuple(found)


class _Pass(NamedTuple):
    """A forward pass that autograd has recorded."""

    leaves: list[torch.Tensor]
    results: list[torch.Tensor]


def _follows(recorded: _Pass, wanted: Sequence[bool]) -> bool:
    """Whether a pass was recorded from all the values whose gradients are wanted."""
    pairs = zip(recorded.leaves, wanted, strict=True)
    return all(leaf.requires_grad for leaf, is_wanted in pairs if is_wanted and leaf.is_floating_point())


class _TapReached(BaseException):
    """Ends a forward pass; a model that catches `Exception` does not hold it up."""


def pull_back(
    results: Sequence[torch.Tensor], cotangents: Sequence[Any], tensors: Sequence[torch.Tensor], *, keep: bool = False
) -> Sequence[torch.Tensor | None]:
    """Gradients of `sum(result * cotangent)`, where there is a cotangent; None where a tensor has no influence.

    Args:
        results: What was recorded.
        cotangents: Tensors, arrays or None.
        tensors: That the results may have been made from.
        keep: Whether the recording is needed again.
    """
    pairs = [
        (result, torch.as_tensor(cotangent, dtype=result.dtype, device=result.device).detach())
        for result, cotangent in zip(results, cotangents, strict=True)
        if cotangent is not None and result.requires_grad
    ]
    if not pairs or not tensors:
        return [None] * len(tensors)
    ends, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(ends, tensors, weights, allow_unused=True, retain_graph=keep)


def freeze(twin: nn.Module, original: nn.Module) -> nn.Module:
    """Parameters of the twin become aliases on the same memory that need no gradient.

    Where weights need none, autograd keeps up to half as much for the gradients of inputs and activations.
    """
    aliases: dict[int, nn.Parameter] = {}
    users = set(original.modules())  # a class may answer a request for a copy with the object itself
    for module in twin.modules():
        if module in users or isinstance(module, torch.jit.ScriptModule):
            continue
        for name, parameter in list(module._parameters.items()):
            # Subclasses (quantised or distributed weights) may mean more than their values.
            if type(parameter) is nn.Parameter and parameter.requires_grad:
                if id(parameter) not in aliases:
                    aliases[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
                # By attribute, because recurrent modules keep a second list of their weights.
                setattr(module, name, aliases[id(parameter)])
    return twin


def _leaf(value: torch.Tensor) -> torch.Tensor:
    # Of a tensor that was made in inference mode only a copy can require a gradient.
    leaf = value.clone() if value.is_inference() else value.detach()
    return leaf.requires_grad_() if leaf.is_floating_point() else leaf


def _private(value: torch.Tensor) -> torch.Tensor:
    """A copy, which a module may work on in place; the original may be memory of another framework."""
    return value.clone(memory_format=torch.contiguous_format)


def _own(result: torch.Tensor) -> torch.Tensor:
    """The values at this moment, on memory that no later pass writes to."""
    return result.detach().clone(memory_format=torch.contiguous_format)


def _check_same(model: nn.Module, results: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> None:
    """A pass that is run again must be at the same point; only the order of sums may differ."""
    for result, earlier in zip(results, before, strict=True):
        same = result.shape == earlier.shape
        if same and result.is_floating_point() and result.numel():
            now, finite = result.detach(), earlier.isfinite()
            size = float(earlier[finite].abs().amax()) if finite.any() else 0.0
            same = torch.allclose(now[finite], earlier[finite], rtol=1e-3, atol=1e-4 * size)
            same = same and torch.allclose(now[~finite], earlier[~finite], equal_nan=True)
        if not same:
            raise MethodError(
                f"The {type(model).__name__} gives other outputs when it is run again on the same values, so no second "
                f"gradient can be taken at the same point. Fix what is random or changes from call to call (in "
                f"inference mode), or that writes to the inputs."
            )


def _tensors(outputs: Any) -> list[torch.Tensor]:
    leaves = flatten(outputs)
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise InputError(
                f"The model gives a {type(leaf).__name__} among its outputs, where only tensors can be handed on. "
                f"Wrap it in a module that returns its tensors."
            )
    return leaves


def _check_tensor(name: str, kind: str, tensor: torch.Tensor) -> None:
    if tensor.is_complex() or tensor.is_quantized or tensor.layout is not torch.strided:
        nature = tensor.layout if tensor.layout is not torch.strided else tensor.dtype
        raise LayerError(
            f"Layer {name!r} ({kind}) gives a {nature} tensor, which cannot be handed to another framework. Choose a "
            f"layer that gives dense real numbers."
        )
