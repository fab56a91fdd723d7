"""Faults of captum 0.9 and what is done about each; a test for each fails when captum no longer has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import Tensor, nn

from cfi_captum.table import CaptumMethod, Rule

# Captum's LayerFeaturePermutation selects the target twice and fails; LayerFeatureAblation does not
# repeat a target per sample when it evaluates several perturbations at once. For both, the target is
# selected inside the forward function.
TARGET_INSIDE = frozenset({"layer_feature_ablation", "layer_feature_permutation"})


# Captum's ShapleyValues gives values of another shape for a model whose output is a column.
COLUMN_FLATTENED = frozenset({"shapley_values", "shapley_value_sampling"})


def contiguous(values: Any) -> Any:
    """Captum takes views of these, which arrays with permuted or repeated axes do not have."""
    if isinstance(values, tuple):
        return tuple(contiguous(value) for value in values)
    return values.contiguous() if isinstance(values, Tensor) else values


def ready_for_tunnel(explainer: Any) -> Any:
    """Lets the noise tunnel call a method that captum forgot to log (LayerLRP): it asks for `__wrapped__`."""
    attribute = explainer.attribute
    if not hasattr(attribute, "__wrapped__"):

        def attribute_logged(*args: Any, **kwargs: Any) -> Any:
            return attribute(*args, **kwargs)

        attribute_logged.__wrapped__ = lambda _, *args, **kwargs: attribute(*args, **kwargs)  # type: ignore[attr-defined]
        explainer.attribute = attribute_logged
    return explainer


@contextmanager
def mend_rules(method: CaptumMethod, model: nn.Module) -> Iterator[None]:
    """Keeps captum's backward rules to one module and one sample each."""
    with own_gradients(method, model), separate_samples(method, model):
        yield


@contextmanager
def keep_generators() -> Iterator[None]:
    """Lets what runs inside draw random numbers without a trace on what runs next."""
    numpy_state = np.random.get_state()  # captum draws from numpy's global generator, too
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)


@contextmanager
def own_gradients(method: CaptumMethod, model: nn.Module) -> Iterator[None]:
    """Gives every module with a rule a copy of its input.

    Captum's backward rules are hooks on a module's input tensor. Where that tensor is used elsewhere
    too (a skip connection around the activation), they would replace the gradient of the other use.
    Where it is the output of another module with a rule (nn.ReLU directly before nn.MaxPool2d), that
    module's rule would see the gradient as it was before this one changed it.
    """
    ruled = _ruled_types(method)
    handles = [
        module.register_forward_pre_hook(_copy_inputs) for module in model.modules() if isinstance(module, ruled)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _ruled_types(method: CaptumMethod) -> tuple[type[nn.Module], ...]:
    if method.rule is Rule.RECTIFIER:
        return (nn.ReLU,)
    if method.rule is Rule.DIFFERENCE:
        return tuple(SUPPORTED_NON_LINEAR)
    return ()


def _copy_inputs(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in args)


class _MaxPool1d(nn.MaxPool1d):
    """`nn.MaxPool1d` under DeepLIFT's rule for one sample at a time."""


class _MaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d` under DeepLIFT's rule for one sample at a time."""


class _MaxPool3d(nn.MaxPool3d):
    """`nn.MaxPool3d` under DeepLIFT's rule for one sample at a time."""


class _Softmax(nn.Softmax):
    """`nn.Softmax` under DeepLIFT's rule for one sample at a time."""


_ONE_SAMPLE: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool1d: _MaxPool1d,
    nn.MaxPool2d: _MaxPool2d,
    nn.MaxPool3d: _MaxPool3d,
    nn.Softmax: _Softmax,
}


@contextmanager
def separate_samples(method: CaptumMethod, model: nn.Module) -> Iterator[None]:
    """Puts rules in place of captum's DeepLIFT rules that mix the samples of a batch.

    Captum normalises a softmax by the mean over the whole batch, uses the first sample's gradient at
    the positions of a max pooling where input and baseline agree, and counts only one of several
    pooling windows that share their largest value. Captum looks rules up by the exact type, so the
    modules of the (disposable) model take another type while it runs.
    """
    changed = []
    if method.rule is Rule.DIFFERENCE:
        changed = [module for module in model.modules() if type(module) in _ONE_SAMPLE]
    original = [type(module) for module in changed]
    for module in changed:
        module.__class__ = _ONE_SAMPLE[type(module)]
    try:
        yield
    finally:
        for module, kind in zip(changed, original, strict=True):
            module.__class__ = kind


def _softmax_rule(
    module: nn.Module, inputs: Tensor, outputs: Tensor, grad_input: Tensor, grad_output: Tensor, eps: float = 1e-10
) -> Tensor:
    """Shrikumar et al. 2017, section 3.4: the contributions to a softmax have mean zero over its inputs."""
    difference_in, difference_out = _differences(inputs), _differences(outputs)
    multipliers = torch.where(difference_in.abs() < eps, grad_input, grad_output * difference_out / difference_in)
    of_input, of_baseline = multipliers.chunk(2)
    mean = ((of_input + of_baseline) / 2).flatten(1).mean(1).reshape(-1, *(1,) * (multipliers.dim() - 1))
    return multipliers - torch.cat(2 * [mean])


def _max_pool_rule(pool: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    def rule(
        module: Any, inputs: Tensor, outputs: Tensor, grad_input: Tensor, grad_output: Tensor, eps: float = 1e-10
    ) -> Tensor:
        difference_in = _differences(inputs)
        output, output_of_baseline = outputs.chunk(2)
        largest = torch.maximum(output, output_of_baseline)
        difference_out = torch.cat([largest - output_of_baseline, output - largest])
        _, positions = pool(
            inputs, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, True
        )
        # Of one channel, all positions of its map are one axis, as in the positions that pooling returns.
        contributions = torch.zeros_like(inputs).flatten(2)
        contributions.scatter_add_(2, positions.flatten(2), (grad_output * difference_out).flatten(2))
        of_input, of_baseline = contributions.reshape(inputs.shape).chunk(2)
        multipliers = torch.cat(2 * [of_input + of_baseline]) / difference_in
        return torch.where(difference_in.abs() < eps, grad_input, multipliers)

    return rule


def _differences(values: Tensor) -> Tensor:
    value, value_of_baseline = values.chunk(2)
    return torch.cat(2 * [value - value_of_baseline])


# A new type in captum's table changes nothing for the types that are in it.
SUPPORTED_NON_LINEAR[_MaxPool1d] = _max_pool_rule(F.max_pool1d)
SUPPORTED_NON_LINEAR[_MaxPool2d] = _max_pool_rule(F.max_pool2d)
SUPPORTED_NON_LINEAR[_MaxPool3d] = _max_pool_rule(F.max_pool3d)
SUPPORTED_NON_LINEAR[_Softmax] = _softmax_rule
