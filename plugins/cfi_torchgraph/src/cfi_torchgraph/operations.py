"""Operations of autograd's graph by what they do with what depends on the inputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch.autograd.graph import Node

from cfi_torchgraph.nodes import base_name, operation, sources


def words(text: str) -> frozenset[str]:
    """A set of names."""
    return frozenset(text.split())


LAYOUT = words(
    "View UnsafeView ViewAs Reshape ReshapeAlias Permute Transpose T Squeeze Unsqueeze Clone Alias Identity AsStrided "
    "Select Slice Index IndexSelect Gather Cat Stack Split SplitWithSizes Unbind Expand Repeat ToCopy Copy CopySlices "
    "Flip Roll Narrow Diagonal Unfold PixelShuffle PixelUnshuffle ChannelShuffle ConstantPadNd Movedim AccumulateGrad"
)
"""Only move values, or repeat, drop or zero-pad them."""
REPEATING = words(
    "ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D "
    "UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D UpsampleNearestExact2D "
    "UpsampleNearestExact3D"
)
"""Repeat values, at the edges or everywhere."""
INTERPOLATING = words("UpsampleLinear1D UpsampleBilinear2D UpsampleTrilinear3D UpsampleBicubic2D")
AVERAGING = INTERPOLATING | words(
    "Sum Mean AvgPool1D AvgPool2D AvgPool3D AdaptiveAvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D "
    "MkldnnAdaptiveAvgPool2D"
)
"""Weigh values, by weights that are none of the model's."""
ADDING = words("Add Sub Rsub Neg Cumsum")
MASKING = words("Where MaskedFill")
"""Put other values in places that a mask names; linear where the mask does not depend on the inputs."""
LINEAR = LAYOUT | REPEATING | AVERAGING | ADDING | MASKING
"""Are linear (or affine) in what a gradient leads through them to."""
WEIGHTED = words(
    "Convolution ConvolutionOverrideable MkldnnConvolution CudnnConvolution SlowConv2D Addmm Linear MkldnnLinear Mm"
)
"""Layers with weights."""
PRODUCTS = {
    **dict.fromkeys(("Mul", "Mm", "Bmm", "Mv", "Dot"), (0, 1)),
    **dict.fromkeys(("Addmm", "Addmv", "Baddbmm"), (1, 2)),
    **dict.fromkeys(WEIGHTED - {"Addmm", "Mm"}, (0, 1)),
}
"""Positions of the two factors among a node's inputs; linear if only one depends on the inputs."""
BATCH_NORM = words("NativeBatchNorm CudnnBatchNorm MiopenBatchNorm")
NORMALIZATION = BATCH_NORM | words("Softmax LogSoftmax NativeLayerNorm NativeGroupNorm")
"""Relate values to one another."""
MAX_POOL = words(
    "MaxPool2DWithIndices MaxPool3DWithIndices MaxPool2D MaxPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D Max Amax"
)
"""Choose the largest of several values."""
NOT_RECTIFYING = LINEAR | PRODUCTS.keys() | MAX_POOL | NORMALIZATION | {"Div"}
"""No rectifiers by themselves: guided backpropagation and its kin leave them to the gradient by definition."""


def is_linear(node: Node) -> bool:
    """Whether an operation is linear (or affine) in what a gradient leads through it to."""
    name = base_name(node)
    if name in LINEAR:
        return True
    before = [one for one, _ in node.next_functions]
    if name in PRODUCTS:
        return not all(place < len(before) and before[place] is not None for place in PRODUCTS[name])
    if name == "Div":
        return len(before) < 2 or before[1] is None
    # In inference mode of the module, batch normalisation is an affine map with constant statistics.
    return name in BATCH_NORM and not getattr(node, "_saved_training", True)


def chooses_against_constant(node: Node) -> bool:
    """Whether an operation takes the largest of values that depend on the inputs and others that do not.

    So the largest of a value and zero is found, by a maximum over an axis along which the two were put together.
    """
    while base_name(node) in MAX_POOL | LAYOUT:
        if base_name(node) in ("Cat", "Stack") and any(before is None for before, _ in node.next_functions):
            return True
        if len(sources(node)) != 1:
            return False
        node = sources(node)[0]
    return False


def head_of(nodes: Sequence[Node]) -> set[Node]:
    """A sigmoid or tanh that nothing but a change of layout follows: not an activation between layers.

    Args:
        nodes: From the output on.
    """
    head: set[Node] = set()
    node = nodes[0] if nodes else None
    while node is not None and (base_name(node) in LAYOUT or operation(node) in ("sigmoid", "tanh")):
        head.add(node)
        node = sources(node)[0] if len(sources(node)) == 1 else None
    return head
