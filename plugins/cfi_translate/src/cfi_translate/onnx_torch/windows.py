"""Windows that move over space: padding, strides and sizes of convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from cfi_translate.onnx_torch.reader import refuse
from cfi_translate.program import Operation, Value

ZERO_PADS: dict[int, type[nn.Module]] = {1: nn.ZeroPad1d, 2: nn.ZeroPad2d, 3: nn.ZeroPad3d}
CONSTANT_PADS: dict[int, type[nn.Module]] = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}


@dataclass(frozen=True)
class Window:
    """A window, one number per spatial axis in each of its fields.

    Attributes:
        kernel: Its sizes.
        strides: Steps.
        dilations: Distances between its elements.
        begin: Padding before.
        end: Padding behind.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def is_symmetric(self) -> bool:
        """Whether torch's modules can pad by themselves."""
        return self.begin == self.end

    @property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.begin) or any(self.end)

    @property
    def extent(self) -> tuple[int, ...]:
        """How far it reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def padding(self) -> tuple[int, ...]:
        """Padding in the order of `torch.nn.functional.pad`: the last axis first."""
        pairs = zip(reversed(self.begin), reversed(self.end), strict=True)
        return tuple(one for pair in pairs for one in pair)

    def rounded_up(self, sizes: Sequence[int | None]) -> Window:
        """The window with so much padding behind that the sizes of the output are rounded up.

        A window that would begin in the padding behind is left out, as ONNX and torch both do.
        """
        end = []
        for axis, size in enumerate(sizes):
            if size is None:
                raise ValueError("the size that its output is rounded up from is not known")
            reach = size + self.begin[axis] + self.end[axis] - self.extent[axis]
            steps = -(-reach // self.strides[axis])
            if steps * self.strides[axis] >= size + self.begin[axis]:
                steps -= 1
            end.append(max(self.end[axis], steps * self.strides[axis] + self.extent[axis] - size - self.begin[axis]))
        return replace(self, end=tuple(end))


def window(op: Operation, kernel: Sequence[int], spatial: Sequence[int | None]) -> Window:
    """The window of a convolution or pooling over axes of these sizes."""
    ones = (1,) * len(kernel)
    if len(kernel) not in ZERO_PADS or len(kernel) != len(spatial):
        raise refuse(op, f"torch has no such operator over {len(spatial)} spatial axes")
    strides = tuple(op.attributes.get("strides") or ones)
    dilations = tuple(op.attributes.get("dilations") or ones)
    pads = tuple(op.attributes.get("pads") or (0,) * 2 * len(kernel))
    found = Window(tuple(kernel), strides, dilations, pads[: len(kernel)], pads[len(kernel) :])
    mode = op.attributes.get("auto_pad", "NOTSET") or "NOTSET"
    if mode == "NOTSET":
        return found
    nothing = (0,) * len(kernel)
    if mode == "VALID":
        return replace(found, begin=nothing, end=nothing)
    totals = []
    for size, extent, stride in zip(spatial, found.extent, strides, strict=True):
        if size is None:
            raise refuse(op, "its padding follows a size that is not known")
        totals.append(max((-(-size // stride) - 1) * stride + extent - size, 0))
    less = tuple(total // 2 for total in totals)
    more = tuple(total - total // 2 for total in totals)
    return replace(found, begin=less, end=more) if mode == "SAME_UPPER" else replace(found, begin=more, end=less)


def spatial_sizes(op: Operation, value: Value | None) -> tuple[int | None, ...]:
    """Sizes of the axes after samples and channels."""
    if value is None or value.shape is None:
        raise refuse(op, "the sizes of its input are not known")
    if len(value.shape) < 3:
        raise refuse(op, "its input has no spatial axes")
    return value.shape[2:]
