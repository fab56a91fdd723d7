"""Operations of autograd's graph by what becomes of relevance where the plain gradient carries it."""

from __future__ import annotations

import re

from torch.autograd.graph import Node

# Move, repeat, drop or pad values: the gradient hands on all relevance that arrives.
LAYOUT = frozenset(
    [
        "View",
        "UnsafeView",
        "Reshape",
        "ReshapeAlias",
        "Permute",
        "Transpose",
        "T",
        "Squeeze",
        "Unsqueeze",
        "Clone",
        "Copy",
        "Alias",
        "AsStrided",
        "Select",
        "Slice",
        "Index",
        "IndexSelect",
        "Gather",
        "Cat",
        "Stack",
        "Split",
        "SplitWithSizes",
        "Unbind",
        "Expand",
        "Repeat",
        "ToCopy",
        "Flip",
        "Roll",
        "Narrow",
        "Diagonal",
        "Unfold",
        "PixelShuffle",
        "PixelUnshuffle",
        "ChannelShuffle",
        "ConstantPadNd",
        "ReflectionPad1D",
        "ReflectionPad2D",
        "ReflectionPad3D",
        "ReplicationPad1D",
        "ReplicationPad2D",
        "ReplicationPad3D",
        "UpsampleNearest1D",
        "UpsampleNearest2D",
        "UpsampleNearest3D",
        "UpsampleNearestExact1D",
        "UpsampleNearestExact2D",
        "UpsampleNearestExact3D",
        "Movedim",
        "AccumulateGrad",
        "ViewAs",
        "Identity",
    ]
)
# Hand all relevance to the winner, or stop it at units that are off, which get none from the rules of LRP.
CHOOSING = frozenset(
    [
        "MaxPool2DWithIndices",
        "MaxPool3DWithIndices",
        "MaxPool2D",
        "MaxPool3D",
        "AdaptiveMaxPool2D",
        "AdaptiveMaxPool3D",
        "Max",
        "Amax",
        "Relu",
    ]
)
ACTIVATIONS = frozenset(
    [
        "Relu",
        "Gelu",
        "Elu",
        "Celu",
        "Selu",
        "Sigmoid",
        "Tanh",
        "Silu",
        "Mish",
        "LeakyRelu",
        "PreluKernel",
        "Prelu",
        "RreluWithNoise",
        "Hardtanh",
        "Hardsigmoid",
        "Hardswish",
        "Softplus",
        "Softshrink",
        "Hardshrink",
        "Threshold",
        "LogSigmoid",
        "Clamp",
        "ClampMin",
        "ClampMax",
    ]
)
WEIGHTED = frozenset(
    ["Convolution", "ConvolutionOverrideable", "MkldnnConvolution", "Addmm", "Linear", "MkldnnLinear", "Mm"],
)
AVERAGING = frozenset(
    [
        "Mean",
        "AvgPool1D",
        "AvgPool2D",
        "AvgPool3D",
        "UpsampleLinear1D",
        "UpsampleBilinear2D",
        "UpsampleTrilinear3D",
        "UpsampleBicubic2D",
        "AdaptiveAvgPool1D",
        "AdaptiveAvgPool2D",
        "AdaptiveAvgPool3D",
        "MkldnnAdaptiveAvgPool2D",
        "Sum",
    ]
)
BATCH_NORM = frozenset({"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"})

RULED_AS_MODULES = (ACTIVATIONS - {"Relu"}) | WEIGHTED | AVERAGING | BATCH_NORM
"""What Zennit's composites have rules for where a module computes it, and none where a function does."""

# No rectifiers: guided backpropagation and its kin leave them to the gradient by definition.
SMOOTH_OR_LINEAR = (
    LAYOUT
    | (CHOOSING - {"Relu"})
    | WEIGHTED
    | AVERAGING
    | BATCH_NORM
    | frozenset(
        [
            "Add",
            "Sub",
            "Rsub",
            "Neg",
            "Mul",
            "Div",
            "Bmm",
            "Mv",
            "Dot",
            "Addmv",
            "Baddbmm",
            "Cumsum",
            "Softmax",
            "LogSoftmax",
            "NativeLayerNorm",
            "NativeGroupNorm",
            "UpsampleLinear1D",
            "UpsampleBilinear2D",
            "UpsampleTrilinear3D",
            "UpsampleBicubic2D",
        ]
    )
)


def base_name(node: Node) -> str:
    """The operation's name without autograd's ending: `Relu` for `ReluBackward0`."""
    return re.sub(r"Backwards?\d*$", "", node.name().rpartition("::")[2])


def operation(node: Node) -> str:
    """The operation's name in PyTorch's spelling: `relu` for `ReluBackward0`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", base_name(node)).lower()
