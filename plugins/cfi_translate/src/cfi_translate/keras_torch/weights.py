"""Weights of Keras as tensors of torch, and modules that are made with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from torch import nn


def tensor_of(variable: Any, *shape: int, axes: Sequence[int] | None = None) -> torch.Tensor:
    """A Keras variable's value as a new contiguous tensor.

    Args:
        variable: Keras variable, or array.
        shape: Reshaped to this first, if given.
        axes: Then its axes are put in this order, and copied once.
    """
    tensor = _shared_memory(getattr(variable, "value", variable))
    if shape:
        tensor = tensor.reshape(shape)
    if axes is not None:
        tensor = tensor.permute(tuple(axes))
    return tensor.clone(memory_format=torch.contiguous_format)


def _shared_memory(value: Any) -> torch.Tensor:
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.array(value))
    if value.dtype == tf.bool or value.dtype.is_integer:
        return torch.from_numpy(np.array(value.numpy()))
    return torch.from_dlpack(tf.experimental.dlpack.to_dlpack(tf.convert_to_tensor(value))).cpu()


def make(
    kind: Callable[..., nn.Module], *arguments: Any, tensors: Mapping[str, torch.Tensor | None], **options: Any
) -> nn.Module:
    """A module that gets its weights from `tensors`; none are allocated or drawn at random."""
    with torch.device("meta"):
        module = kind(*arguments, **options)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            setattr(module, name, nn.Parameter(tensor))
    for name, held in (*module.named_parameters(), *module.named_buffers()):
        if held.is_meta:
            raise AssertionError(f"{type(module).__name__} was left without its {name}")
    return module


def bias_of(layer: Any) -> torch.Tensor | None:
    """The bias of a layer that may have one."""
    return tensor_of(layer.bias) if layer.use_bias else None


def constant_array(value: Any) -> np.ndarray | None:
    """A number, array, variable or tensor as an array; None for anything else."""
    if isinstance(value, bool | int | float | np.ndarray | np.generic):
        return np.asarray(value)
    if isinstance(value, keras.Variable):
        return keras.ops.convert_to_numpy(value)
    if isinstance(value, tf.Variable) or (isinstance(value, tf.Tensor) and not tf.is_symbolic_tensor(value)):
        return value.numpy()
    if isinstance(value, list | tuple) and value and all(constant_array(one) is not None for one in value):
        return np.asarray(value)
    return None
