"""Which inputs are images, signals or volumes, and so come channels-last."""

from __future__ import annotations

from cfi_translate.onnx_keras.tensors import channels_last, identity
from cfi_translate.program import Order, Program, Value

SPATIAL = frozenset(
    (
        *("Conv", "ConvTranspose", "DepthToSpace", "SpaceToDepth", "Resize", "Upsample"),
        *("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
        *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN"),
    )
)
# Behind these, an axis no longer means what it did in the input.
_MIXING = frozenset(("Einsum", "Flatten", "Gemm", "GRU", "LSTM", "MatMul", "RNN", "Reshape", "Shape", "Transpose"))


def input_layouts(program: Program) -> list[Order]:
    """The order of axes in which each input shall come."""
    users = program.users()

    def is_spatial(value: Value) -> bool:
        seen, waiting = {value}, [value]
        while waiting:
            for operation in users.get(one := waiting.pop(), ()):
                if operation.kind in SPATIAL and operation.input(0) is one and one.rank == value.rank:
                    return True
                if operation.kind in _MIXING:
                    continue
                new = [made for made in operation.outputs if made is not None and made not in seen]
                seen.update(new)
                waiting.extend(new)
        return False

    return [
        channels_last(rank) if 3 <= (rank := value.rank or 0) <= 5 and is_spatial(value) else identity(rank)
        for value in program.inputs
    ]
