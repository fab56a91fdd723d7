"""torch to ONNX, operator by operator from the graph that `torch.export` captures.

Three ways were measured on the zoo. The TorchScript exporter is quick but knows no adaptive pooling whose sizes do not
divide, and it records a run where this proves that any number of samples will do. `torch.onnx.export(dynamo=True)`
proves it too, but takes several times as long and breaks layers apart. Both leave sizes to be computed by the graph.
The captured graph itself still has one operator for each layer (`linear`, `lstm`, `scaled_dot_product_attention`),
knows which module each came from, and is there in a second or two: so it is walked once, and each operator written as
the ONNX operators that a person would choose. An operator without a function of ours is taken apart by torch's
own rule where it stands, or refused.

- `capture`: from a module to the graph.
- `walk`: through the graph, computing what depends on weights alone; undoes work in place.
- `onnx_graph`: the ONNX graph being written.
- `table` and the modules of `operators`: what each operator becomes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cfi_core.coexistence import load_safely
from cfi_core.contract import Converted
from cfi_translate.failures import name_failures
from cfi_translate.translators import TORCH_EXPORT


@name_failures(TORCH_EXPORT)
def convert(model: Any, inputs: tuple[np.ndarray, ...]) -> Converted:
    """Translates a module, or a callable of tensors, that is in inference mode.

    Args:
        model: `torch.nn.Module` or callable; it is not changed. Module names become node names.
        inputs: One array per input, sample axis first.

    Returns:
        An `onnx.ModelProto` of opset 21 with inputs `x0`, … and outputs `y0`, …, the sample axis free. The outputs are
        the tensors of the model's output, in the order of `cfi_core.framework.structure.flatten`.

    Raises:
        TranslationError: The model depends on its inputs' values or on a fixed number of samples, changes its own
            buffers, draws random numbers, is too large, or has an operator that is not known.
    """
    load_safely()
    from cfi_translate.torch_export.translation import translate

    return translate(model, inputs)
