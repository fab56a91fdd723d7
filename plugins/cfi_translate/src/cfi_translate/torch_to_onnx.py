"""torch to ONNX, by torch's own exporter."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_core.errors import TranslationError, TranslationWarning, warn
from cfi_core.turns import Lock
from cfi_translate.failures import name_failures
from cfi_translate.grammar import NEXT_STEP
from cfi_translate.graph import inline_constants, remove_dead_nodes, remove_identities
from cfi_translate.names import from_torch, rename_nodes
from cfi_translate.workarounds import patch_torch_exporter

NAME = "torch-onnx"
OPSET = 13
# The exporter keeps its settings and its "exporting" mark in module globals.
_exporting = Lock()


@name_failures(NAME)
def convert(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Exports a module, or a callable of tensors, that is in inference mode.

    Args:
        model: `torch.nn.Module` or callable; module names become node names.
        inputs: One array per input, sample axis first; at most two samples are used for tracing.

    Returns:
        An `onnx.ModelProto` of opset 13 with inputs `x0`, … and outputs `y0`, …, the sample axis free.

    Raises:
        TranslationError: The model is too large, returns something else than tensors, or does not export.
    """
    load_safely()
    import torch

    from cfi_translate.torch_export.capture import place_beside, require_size

    module = model if isinstance(model, torch.nn.Module) else _as_module(model)
    values = [*module.parameters(), *module.buffers()]
    require_size(NAME, values)
    tensors = tuple(place_beside(array[:2], values) for array in inputs)
    with _exporting, patch_torch_exporter(), torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs, lines = _run_once(module, tensors)
        count = _output_count(outputs)
        buffer = io.BytesIO()
        names = [f"x{i}" for i in range(len(tensors))], [f"y{i}" for i in range(count)]
        torch.onnx.export(
            module,
            tensors,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            # EVAL would fuse batch normalisation into convolutions, and the layers would be gone.
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=names[0],
            output_names=names[1],
            dynamic_axes={name: {0: "batch"} for group in names for name in group},
        )
    exported = onnx.load_from_string(buffer.getvalue())
    inline_constants(exported)
    remove_identities(exported, NAME)
    remove_dead_nodes(exported)
    rename_nodes(exported, from_torch)
    if lines:
        _warn_of_values(lines)
    return Converted(exported, (None,) * len(inputs), (None,) * count)


def _run_once(module: Any, tensors: Sequence[Any]) -> tuple[Any, list[str]]:
    """What the model returns, and the lines that take values out of tensors."""
    from cfi_translate.python_values import watch_values

    try:
        with watch_values(tensors) as lines:
            return module(*tensors), lines
    except Exception:  # noqa: BLE001 - some models do not run under torch's modes; what else fails, fails again
        return module(*tensors), []


def _warn_of_values(lines: list[str]) -> None:
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    warn(
        f"{NAME} follows the model once, with your first samples: what it makes of values of the inputs in Python at "
        f"{lines[0]}{more} stays as it is for these, such as a branch or a factor. For samples of other values the "
        "translated model may compute something else than yours, and only those that are compared tell. Write it with "
        "tensors (torch.where), or let a bridge run the model itself.",
        TranslationWarning,
    )


def _as_module(function: Callable[..., Any]) -> Any:
    import torch

    class Function(torch.nn.Module):
        """A callable as a module."""

        def forward(self, *tensors: torch.Tensor) -> Any:
            return function(*tensors)

    return Function().eval()


def _output_count(outputs: Any) -> int:
    import torch

    if isinstance(outputs, torch.Tensor):
        return 1
    if isinstance(outputs, tuple | list) and all(isinstance(one, torch.Tensor) for one in outputs):
        return len(outputs)
    raise TranslationError(
        f"{NAME} takes models that return a tensor, or a tuple of tensors, and this one returns "
        f"{type(outputs).__name__}. Wrap it in a module that returns the tensor to explain. {NEXT_STEP}"
    )
