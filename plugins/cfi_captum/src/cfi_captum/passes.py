"""How many steps a run of captum's has, and how much of them goes through the model at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from math import factorial, prod
from typing import Any

import torch
from captum._utils.common import _run_forward
from captum._utils.gradient import compute_gradients
from torch import Tensor

from cfi_captum.draws import captum_class
from cfi_captum.table import CaptumMethod
from cfi_core.contract import MethodRequest
from cfi_core.framework import rows_at_once
from cfi_core.progress import is_shown
from cfi_core.progress import steps as expect
from cfi_torchgraph.nodes import tensors

# Each row has a gradient of its own, whatever rows are beside it, and nothing is drawn row by row.
_ROW_BY_ROW = frozenset(
    {"integrated_gradients", "saliency", "input_x_gradient", "deconvolution", "guided_backprop", "gradient_shap"}
)
_UNTOLD = frozenset({"layer_feature_ablation", "layer_feature_permutation", "layer_gradient_shap"})
_AT_ONCE = "internal_batch_size"
_BY_DIFFERENCES = frozenset({"layer_conductance"})  # of steps that follow each other


def limit_batch(
    method: CaptumMethod, request: MethodRequest, call: dict[str, Any], tunnel: Mapping[str, Any] | None
) -> None:
    """Has captum divide the steps of a path, where they are more than should go through the model at once."""
    if _AT_ONCE not in method.exec_args or method.key in _ROW_BY_ROW or call.get(_AT_ONCE) is not None:
        return
    samples = len(request.inputs[0]) * _noisy(tunnel)
    most = rows_at_once([x.shape for x in request.inputs], samples, limit=request.rows)
    least = samples * (2 if method.key in _BY_DIFFERENCES else 1)
    if samples * _setting(method.captum_class, "n_steps", call) > max(most, least):
        call[_AT_ONCE] = max(most, least)


def divide_gradients(method: CaptumMethod, request: MethodRequest, explainer: Any) -> None:
    """Has the explainer take gradients of a part of the rows at a time: what is drawn stays what it was."""
    if method.key in _ROW_BY_ROW:
        most = rows_at_once([x.shape for x in request.inputs], len(request.inputs[0]), limit=request.rows)
        of_rows = gradients_at_once if explainer.gradient_func is compute_gradients else explainer.gradient_func
        explainer.gradient_func = _in_portions(of_rows, most)


def gradients_at_once(
    forward_fn: Callable[..., Any], inputs: Any, target_ind: Any = None, additional_forward_args: Any = None
) -> tuple[Tensor, ...]:
    """Captum's `compute_gradients`, which takes every row's output apart first: of many rows, a third of the time."""
    with torch.enable_grad():
        outputs = _run_forward(forward_fn, inputs, target_ind, additional_forward_args)
        assert isinstance(outputs, Tensor)
        if not outputs.ndim or outputs[0].numel() != 1:
            return compute_gradients(forward_fn, inputs, target_ind, additional_forward_args)  # which tells why not
        return torch.autograd.grad(outputs, inputs, torch.ones_like(outputs))


def _in_portions(gradients_of: Callable[..., tuple[Tensor, ...]], most: int) -> Callable[..., tuple[Tensor, ...]]:
    def gradients(
        forward_fn: Callable[..., Any], inputs: Any, target_ind: Any = None, additional_forward_args: Any = None
    ) -> tuple[Tensor, ...]:
        given = tuple(tensors(inputs))
        rows = len(given[0])
        others = () if additional_forward_args is None else additional_forward_args
        others = others if isinstance(others, tuple) else (others,)
        apart = all(len(one) == rows for one in others if isinstance(one, Tensor) and one.ndim)
        if rows <= most or not apart or not isinstance(inputs, tuple):
            return gradients_of(forward_fn, inputs, target_ind, additional_forward_args)
        parts = []
        for first in range(0, rows, most):
            some = slice(first, first + most)
            own = tuple(one[some].detach().requires_grad_(one.requires_grad) for one in given)
            rest = tuple(_rows_of(one, rows, some) for one in others) or None
            parts.append(gradients_of(forward_fn, own, _rows_of(target_ind, rows, some), rest))
        return tuple(torch.cat(each) for each in zip(*parts, strict=True))

    return gradients


def _rows_of(value: Any, rows: int, some: slice) -> Any:
    """Of what has an entry for each row, those of some."""
    by_row = isinstance(value, Tensor | list) and (not isinstance(value, Tensor) or value.ndim) and len(value) == rows
    return value[some] if by_row else value


def tell_steps(
    method: CaptumMethod, request: MethodRequest, call: Mapping[str, Any], tunnel: Mapping[str, Any] | None
) -> None:
    """Tells whoever waits how many steps there will be, as far as the arguments tell."""
    if not is_shown():
        return
    total, unit = _steps(method, call)
    if tunnel is not None:
        noisy = _noisy(tunnel)
        total, unit = (None if total is None else total * noisy), unit if total != 1 else "noisy samples"
    if total is not None and total > 1:
        expect(total, unit, share=len(request.inputs[0]))


def _steps(method: CaptumMethod, call: Mapping[str, Any]) -> tuple[int | None, str]:
    """How many times each sample goes through the model, and what one of these is."""
    key, inputs, setting = method.key, tuple(tensors(call["inputs"])), method.captum_class
    if "n_steps" in method.exec_args:
        return _setting(setting, "n_steps", call), "steps"
    if key == "occlusion":
        windows = [_windows(x.shape[1:], *_window(call, i)) for i, x in enumerate(inputs)]
        return sum(windows) + 1, "masks"
    features = _features(inputs, call.get("feature_mask"))
    if key == "shapley_values":
        return features * factorial(features) + 1 if features < 10 else None, "masks"
    if key == "shapley_value_sampling":
        return features * _setting(setting, "n_samples", call) + 1, "masks"
    if key in ("lime", "kernel_shap"):
        return _setting(setting, "n_samples", call) + 1, "samples"
    if key in ("gradient_shap", "neuron_gradient_shap"):
        return _setting(setting, "n_samples", call), "samples"
    if key in ("feature_ablation", "feature_permutation", "neuron_feature_ablation"):
        return features + 1, "masks"
    return (None, "") if key in _UNTOLD else (1, "passes")


def _setting(name: str, argument: str, call: Mapping[str, Any]) -> int:
    """As given, or as captum has it."""
    given = call.get(argument)
    return int(inspect.signature(captum_class(name).attribute).parameters[argument].default if given is None else given)


def _noisy(tunnel: Mapping[str, Any] | None) -> int:
    return 1 if tunnel is None else _setting("NoiseTunnel", "nt_samples", tunnel)


def _features(inputs: Sequence[Tensor], mask: Any) -> int:
    if mask is None:
        return sum(prod(x.shape[1:]) for x in inputs)
    return len(torch.cat([one.flatten() for one in tensors(mask)]).unique())


def _window(call: Mapping[str, Any], position: int) -> tuple[Any, Any]:
    """Size and strides of the window that moves over an input."""
    sizes, strides = call["sliding_window_shapes"], call.get("strides")
    of_several = isinstance(sizes[0], tuple)
    size = sizes[position] if of_several else sizes
    return size, (strides[position] if isinstance(strides, tuple) and of_several else strides)


def _windows(shape: Sequence[int], size: Sequence[int], strides: Any) -> int:
    steps = [1] * len(shape) if strides is None else [strides] * len(shape) if isinstance(strides, int) else strides
    return prod(-(-(whole - part) // step) + 1 for whole, part, step in zip(shape, size, steps, strict=True))
