"""The weights that a module of torch's has, told from what it is made with: so that none is made to find out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Shapes = dict[str, tuple[int, ...]]

RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Recurrent layers, and how many gates each has."""


def shapes_of(kind: str, settings: Mapping[str, Any]) -> Shapes:
    """Names and shapes of weights and buffers of a module, as `torch.nn` makes them.

    Args:
        kind: A class in `torch.nn`, one of `allowed.MODULES`.
        settings: What it is made with.

    Raises:
        KeyError, TypeError, ValueError: They are no settings of that class.
    """
    if "Conv" in kind:
        return _of_convolution(kind, settings)
    if kind == "Linear":
        features = settings["out_features"]
        return _and_bias((features, settings["in_features"]), features, settings["bias"])
    if kind == "Embedding":
        return {"weight": (settings["num_embeddings"], settings["embedding_dim"])}
    if kind in RECURRENT:
        return _of_recurrent(RECURRENT[kind], settings)
    if kind.startswith(("BatchNorm", "InstanceNorm")):
        return _of_statistics(settings)
    if kind == "GroupNorm":
        return _and_bias((settings["num_channels"],), settings["num_channels"], True) if settings["affine"] else {}
    if kind in ("LayerNorm", "RMSNorm"):
        shape = settings["normalized_shape"]
        shape = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        names = ("weight", "bias") if settings.get("bias") else ("weight",)
        return dict.fromkeys(names, shape) if settings["elementwise_affine"] else {}
    return {"weight": (settings["num_parameters"],)} if kind == "PReLU" else {}


def _and_bias(weight: tuple[int, ...], features: int, has_bias: bool) -> Shapes:
    return {"weight": weight, "bias": (features,)} if has_bias else {"weight": weight}


def _of_convolution(kind: str, settings: Mapping[str, Any]) -> Shapes:
    """A transposed one has its channels the other way round."""
    size = settings["kernel_size"]
    size = tuple(size) if isinstance(size, Sequence) else (size,) * int(kind[-2])
    channels, features, groups = settings["in_channels"], settings["out_channels"], settings["groups"]
    around = (channels, features // groups) if "Transpose" in kind else (features, channels // groups)
    return _and_bias((*around, *size), features, settings["bias"])


def _of_recurrent(gates: int, settings: Mapping[str, Any]) -> Shapes:
    """One layer, in one direction or both."""
    hidden, shapes = settings["hidden_size"], Shapes()
    for end in ("", "_reverse") if settings["bidirectional"] else ("",):
        shapes |= {f"weight_ih_l0{end}": (gates * hidden, settings["input_size"])}
        shapes |= {f"weight_hh_l0{end}": (gates * hidden, hidden)}
        if settings["bias"]:
            shapes |= dict.fromkeys((f"bias_ih_l0{end}", f"bias_hh_l0{end}"), (gates * hidden,))
    return shapes


def _of_statistics(settings: Mapping[str, Any]) -> Shapes:
    features: tuple[int, ...] = (settings["num_features"],)
    shapes: Shapes = dict.fromkeys(("weight", "bias"), features) if settings["affine"] else {}
    if settings["track_running_stats"]:
        shapes |= {"running_mean": features, "running_var": features, "num_batches_tracked": ()}
    return shapes
