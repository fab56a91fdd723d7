"""Windows that move over space: padding, strides and sizes of convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cfi_translate.grammar import Refusal, require
from cfi_translate.program import Operation, Value
from cfi_translate.semantics.values import shape_of, static

Numbers = tuple[int, ...]


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

    kernel: Numbers
    strides: Numbers
    dilations: Numbers
    begin: Numbers
    end: Numbers

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def is_symmetric(self) -> bool:
        """Whether there is as much padding before as behind."""
        return self.begin == self.end

    @property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.begin) or any(self.end)

    @property
    def is_dilated(self) -> bool:
        """Whether its elements lie apart."""
        return any(one != 1 for one in self.dilations)

    @property
    def extent(self) -> Numbers:
        """How far it reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Padding before and behind each axis."""
        return tuple(zip(self.begin, self.end, strict=True))

    def pad(self, begin: Sequence[int] | int = 0, end: Sequence[int] | int = 0) -> Window:
        """The window with other padding."""
        first, last = ((one,) * self.rank if isinstance(one, int) else tuple(one) for one in (begin, end))
        return replace(self, begin=first, end=last)

    def pad_alike(self, sizes: Sequence[int], *, more_in_front: bool = False) -> Window:
        """The window with the padding that TensorFlow calls "same": half before and half behind.

        With it, the window takes `ceil(size / stride)` steps.
        """
        axes = zip(sizes, self.extent, self.strides, strict=True)
        totals = [max((-(-size // stride) - 1) * stride + extent - size, 0) for size, extent, stride in axes]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return self.pad(more, less) if more_in_front else self.pad(less, more)

    def round_up(self, sizes: Sequence[int]) -> Window:
        """The window with so much padding behind that the sizes of the output are rounded up.

        A window that would begin in the padding behind is left out, as ONNX and torch both do.
        """
        end = []
        for axis, size in enumerate(sizes):
            reach = size + self.begin[axis] + self.end[axis] - self.extent[axis]
            steps = -(-reach // self.strides[axis])
            if steps * self.strides[axis] >= size + self.begin[axis]:
                steps -= 1
            end.append(max(self.end[axis], steps * self.strides[axis] + self.extent[axis] - size - self.begin[axis]))
        return self.pad(self.begin, end)

    def steps(self, sizes: Sequence[int]) -> Numbers:
        """How many places it takes along each axis."""
        lines = zip(sizes, self.begin, self.end, self.extent, self.strides, strict=True)
        return tuple((size + begin + end - extent) // stride + 1 for size, begin, end, extent, stride in lines)

    def counts(self, sizes: Sequence[int], counted_end: Sequence[int] | None) -> np.ndarray:
        """How many elements count at each place of the window, at least 1.

        Args:
            sizes: Of the data.
            counted_end: The padding behind that counts too, with all padding before; None where none counts.
        """
        inside = np.ones(())
        for axis, (size, steps) in enumerate(zip(sizes, self.steps(sizes), strict=True)):
            line = np.zeros(self.begin[axis] + size + self.end[axis])
            line[self.begin[axis] : self.begin[axis] + size] = 1
            if counted_end is not None:
                line[: self.begin[axis] + size + counted_end[axis]] = 1
            starts = np.arange(steps)[:, None] * self.strides[axis]
            inside = np.multiply.outer(
                inside, line[starts + np.arange(self.kernel[axis]) * self.dilations[axis]].sum(1)
            )
        return np.maximum(inside, 1)


def spatial_sizes(value: Value) -> tuple[int | None, ...]:
    """Sizes of the axes after samples and channels."""
    require(len(shape_of(value)) > 2, "its input has no spatial axes")
    return shape_of(value)[2:]


def window_of(op: Operation, kernel: Sequence[int], spatial: Sequence[int | None]) -> Window:
    """The window of a convolution or pooling over axes of these sizes."""
    rank = len(kernel)
    require(rank == len(spatial), "the kernel does not fit the axes")
    ones, pads = (1,) * rank, op.attributes.get("pads") or (0,) * 2 * rank
    strides, dilations = (tuple(op.attributes.get(name) or ones) for name in ("strides", "dilations"))
    found = Window(tuple(kernel), strides, dilations, tuple(pads[:rank]), tuple(pads[rank:]))
    mode = op.attributes.get("auto_pad") or "NOTSET"
    if mode == "NOTSET":
        return found
    if mode == "VALID":
        return found.pad()
    return found.pad_alike(static(spatial), more_in_front=mode == "SAME_LOWER")


def pooling_windows(op: Operation, data: Value) -> tuple[Window, Window]:
    """The window of a pooling, and the same with so much padding behind as its last, partial places need.

    Before version 22 of the operators, ONNX infers a size that counts a last window which begins in the padding behind.
    ONNX Runtime and torch leave that window out, and what comes after would be built for another size.
    """
    spatial = spatial_sizes(data)
    area = window_of(op, op.attributes["kernel_shape"], spatial)
    if not op.attributes.get("ceil_mode") or (op.attributes.get("auto_pad") or "NOTSET") != "NOTSET":
        return area, area
    whole = area.round_up(static(spatial))
    if whole.steps(static(spatial)) != (op.output.shape or ())[2:]:
        raise Refusal("its last window begins in the padding behind, where ONNX and its runtime differ")
    return area, whole


def transposed_window(
    op: Operation, kernel: Sequence[int], spatial: Sequence[int | None]
) -> tuple[Window, tuple[int, ...]]:
    """The window of a transposed convolution, and how much longer than it makes them the axes are at their ends."""
    rank, mode = len(kernel), op.attributes.get("auto_pad") or "NOTSET"
    area = window_of(replace(op, attributes={**op.attributes, "auto_pad": "NOTSET"}), kernel, spatial)
    added = tuple(op.attributes.get("output_padding") or (0,) * rank)
    shape = op.attributes.get("output_shape")
    if shape is None and mode in ("NOTSET", "VALID"):
        return (area if mode == "NOTSET" else area.pad()), added
    sizes = static(spatial)
    wanted = [size * stride for size, stride in zip(sizes, area.strides, strict=True)]
    wanted = wanted if shape is None else shape[-rank:]
    begin, end = [], []
    for axis in range(rank):
        total = area.strides[axis] * (sizes[axis] - 1) + added[axis] + area.extent[axis] - wanted[axis]
        require(total >= 0 or mode != "NOTSET", "its output is larger than what its input reaches")
        # ONNX Runtime cuts the larger half off in front unless the mode is SAME_UPPER.
        halves = sorted((max(total, 0) // 2, max(total, 0) - max(total, 0) // 2), reverse=mode != "SAME_UPPER")
        begin.append(halves[0])
        end.append(halves[1])
    return area.pad(begin, end), added
