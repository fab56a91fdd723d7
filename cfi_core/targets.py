"""Targets with names: what is explained of an output, in words that mean the same for models of every framework.

Each is a frozen record that prints as it is written, can be pickled and compared, and is a function of a model's
outputs (tensors of any framework, with their gradients) that gives one value per sample. As a target of a call it is
resolved first: names of classes become indices, regions are read from what your model gives for your samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, ClassVar, cast, get_args

import numpy as np

from cfi_core.boxes import Form, boxes_in, form_of, value_of
from cfi_core.errors import ModelWarning, TargetError, warn
from cfi_core.outputs import adapter_of, one_each, rows_of, shape_of, tensor_of, total
from cfi_core.turns import aside

__all__ = ["class_", "mean", "difference", "token", "mask", "box"]


@dataclass(frozen=True)
class Context:
    """What a target is resolved against.

    Attributes:
        outputs: What the user's model gives for the user's samples, as arrays: the chosen tensor, or all of it for
            targets that take all.
        samples: How many there are.
        find_class: From the name (or index) of a class to its index.
        channel_axis: From the shape of an output to where the model has its channels (None: nowhere).
    """

    outputs: Any
    samples: int
    find_class: Callable[[Any], int]
    channel_axis: Callable[[Sequence[int]], int | None] = lambda shape: None


class NamedTarget:
    """What all of them have in common."""

    takes_all: ClassVar[bool] = False
    """Whether it is a function of all outputs, not of one tensor."""

    @property
    def is_told(self) -> bool:
        """Whether all that it computes stands in it: two that print alike are alike."""
        return True

    def __call__(self, outputs: Any) -> Any:
        """One value per sample, shape (samples,), a tensor of the outputs' framework."""
        raise NotImplementedError

    def resolve(self, context: Context) -> NamedTarget:
        """The same with indices for names.

        Raises:
            TargetError: It names nothing in these outputs.
        """
        return self

    def take(self, rows: Sequence[int]) -> NamedTarget:
        """The same for some of the samples."""
        return self

    @property
    def samples(self) -> int:
        """How many samples it tells apart by their rows; 1: all are alike to it."""
        return 1

    def index(self, shape: Sequence[int]) -> tuple[Any, ...] | None:
        """The place in an output of that shape (without the sample axis) that it names; None if it is not one place."""
        return None

    def __repr__(self) -> str:
        given = [(one, getattr(self, one.name)) for one in fields(cast("Any", self))]
        words = [f"{one.name}={value!r}" if one.kw_only else repr(value) for one, value in given if value is not None]
        return f"{type(self).__name__.lower()}{'_' if type(self) is Class else ''}({', '.join(words)})"


@dataclass(frozen=True, repr=False)
class Class(NamedTarget):
    """The score of a class: column `which` of an output of shape (samples, classes).

    Attributes:
        which: Index, or a name that the model knows (`classes_`, `config.id2label`).
    """

    which: int | str

    def __call__(self, outputs: Any) -> Any:
        """The column."""
        tensor = tensor_of(outputs)
        if len(tensor.shape) != 2 or isinstance(self.which, str):
            raise TargetError(
                f"{self} is a column of an output of shape (samples, classes), by its index; got {shape_of(tensor)}."
            )
        return tensor[:, self.which]

    def resolve(self, context: Context) -> Class:
        """With an index."""
        shape = context.outputs.shape
        if len(shape) != 2:
            raise TargetError(
                f"{self} is one of several classes of each sample, and the model gives an output of shape {shape}: "
                f"pass a tuple of indices, cfi.targets.token(position, id) or cfi.targets.mask(region, class)."
            )
        return Class(_in_range(context.find_class(self.which), shape[1], self))

    def index(self, shape: Sequence[int]) -> tuple[Any, ...]:
        """The column."""
        return (self.which,)


@dataclass(frozen=True, repr=False)
class Mean(NamedTarget):
    """The mean of all values that an output has for a sample."""

    def __call__(self, outputs: Any) -> Any:
        """Over all axes but the first."""
        tensor = tensor_of(outputs)
        return total(tensor) / float(np.prod(shape_of(tensor)[1:]))


@dataclass(frozen=True, repr=False)
class Difference(NamedTarget):
    """How much more one target is than another, such as the logit of one class than that of another.

    Attributes:
        first: A target, the index or the name of a class, or a function of the outputs.
        second: What is taken off; likewise.
    """

    first: Any
    second: Any

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            given = getattr(self, name)
            if not callable(given):
                object.__setattr__(self, name, Class(given))

    @property
    def takes_all(self) -> bool:  # type: ignore[override]
        """Whether one of them does; a function takes what there is."""
        return any(getattr(part, "takes_all", False) for part in (self.first, self.second))

    @property
    def is_told(self) -> bool:
        """Whether none of them is a function of the user's."""
        return all(getattr(part, "is_told", False) for part in (self.first, self.second))

    def __call__(self, outputs: Any) -> Any:
        """The one less the other."""
        return self.first(outputs) - self.second(outputs)

    @property
    def samples(self) -> int:
        """As many as one of them does."""
        return max(getattr(part, "samples", 1) for part in (self.first, self.second))

    def resolve(self, context: Context) -> Difference:
        """Both of them."""
        return Difference(*(_resolve_part(part, context, self.takes_all) for part in (self.first, self.second)))

    def take(self, rows: Sequence[int]) -> Difference:
        """Of both."""
        parts = (self.first, self.second)
        return Difference(*(part.take(rows) if isinstance(part, NamedTarget) else part for part in parts))


@dataclass(frozen=True, repr=False)
class Token(NamedTarget):
    """The score of a token at a position of an output of shape (samples, positions, tokens).

    Attributes:
        position: Index (a negative one counts from the end); a slice stands for the sum over its positions.
        id: Index of the token in the vocabulary.
    """

    position: int | slice
    id: int

    def __call__(self, outputs: Any) -> Any:
        """The score."""
        tensor = tensor_of(outputs)
        _check_rank(self, tensor, 3, "(samples, positions, tokens)")
        return total(tensor[:, self.position, self.id])

    def resolve(self, context: Context) -> Token:
        """Checked; the index is checked like any other."""
        _check_rank(self, context.outputs, 3, "(samples, positions, tokens)")
        return self

    def index(self, shape: Sequence[int]) -> tuple[Any, ...]:
        """Position and token."""
        return (self.position, self.id)

    def __repr__(self) -> str:
        return f"token({_write(self.position)}, {self.id})"

    def __hash__(self) -> int:
        return hash((Token, str(self.position), self.id))  # slices have none before Python 3.12


@dataclass(frozen=True, repr=False)
class Selected(NamedTarget):
    """The sum of what indices with slices select: what a tuple such as (slice(2, 5), 7) means as a target.

    Attributes:
        rows: Indices and slices over all axes but the first; one tuple for all samples, or one for each.
    """

    rows: tuple[tuple[Any, ...], ...]

    def __call__(self, outputs: Any) -> Any:
        """The sums."""
        tensor = tensor_of(outputs)
        if len(self.rows) == 1:
            return total(tensor[(slice(None), *self.rows[0])])
        adapter, count = adapter_of(tensor), len(self.rows)
        parts = [total(tensor[(slice(row, row + 1), *self.rows[row % count])]) for row in range(rows_of(tensor))]
        return adapter.arithmetic.concatenate(parts, axis=0)

    @property
    def samples(self) -> int:
        """As many as have indices of their own."""
        return len(self.rows)

    def take(self, rows: Sequence[int]) -> Selected:
        """With their indices."""
        return Selected(_rows_of(self.rows, rows))

    def __repr__(self) -> str:
        return ", ".join(f"({', '.join(map(_write, row))})" for row in self.rows)


@dataclass(frozen=True)
class Region:
    """Pixels, as a record that can be compared.

    Attributes:
        shape: (height, width), or (samples, height, width).
        bits: One for each pixel, in rows.
    """

    shape: tuple[int, ...]
    bits: bytes

    @classmethod
    def of(cls, array: Any) -> Region:
        """Of an array of truth values."""
        whole = np.asarray(array)
        if whole.ndim not in (2, 3) or whole.dtype.kind not in "biu" or not np.isin(whole, (0, 1)).all():
            raise TargetError(
                f"A region is an array of True and False, of shape (height, width) or (samples, height, width), not "
                f"{whole.dtype} of shape {whole.shape}. Pass one, such as labels == 3, or 'predicted'."
            )
        return cls(whole.shape, np.packbits(whole.astype(bool)).tobytes())

    @property
    def array(self) -> np.ndarray:
        """Its truth values."""
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=int(np.prod(self.shape)))
        return flat.reshape(self.shape).astype(bool)

    def __repr__(self) -> str:
        digest = hashlib.blake2s(self.bits, digest_size=8).hexdigest()
        return f"<{int(self.array.sum())} pixels of {' × '.join(map(str, self.shape))}, {digest}>"


@dataclass(frozen=True, repr=False)
class Mask(NamedTarget):
    """The sum of a class's scores over some pixels of a segmentation.

    What is summed is the score itself, as in pytorch-grad-cam's `SemanticSegmentationTarget`.

    Attributes:
        region: Truth values, of shape (height, width) for all samples or (samples, height, width), in the size of the
            output; or "predicted": where your model gives the class its largest score, for your samples.
        class_: Index or name of the class.
        axis: Where the output has its classes: 1 or -1; None: where the model has its channels.
    """

    region: Any
    class_: int | str
    axis: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.region, str | Region):
            object.__setattr__(self, "region", Region.of(self.region))

    def __call__(self, outputs: Any) -> Any:
        """The sums."""
        tensor = tensor_of(outputs)
        _check_rank(self, tensor, 4, "(samples, classes, height, width)")
        if isinstance(self.region, str) or isinstance(self.class_, str) or self.axis is None:
            raise TargetError(f"{self} is not resolved yet: pass it as target=, or a region, an index and the axis.")
        scores = tensor[:, self.class_] if self.axis == 1 else tensor[..., self.class_]
        pixels = self.region.array
        if pixels.shape[-2:] != shape_of(scores)[1:]:
            raise TargetError(f"The region is of {pixels.shape[-2:]} pixels, and the output of {shape_of(scores)[1:]}.")
        return total(scores * adapter_of(scores).constant(_for_rows(pixels, scores), scores))

    def resolve(self, context: Context) -> Mask:
        """With pixels, an index and the axis of the classes."""
        scores = context.outputs
        _check_rank(self, scores, 4, "(samples, classes, height, width), or with the classes last")
        axis = self._axis(scores.shape, context.channel_axis(scores.shape))
        scores = scores if axis == 1 else np.moveaxis(scores, -1, 1)
        which = _in_range(context.find_class(self.class_), scores.shape[1], self)
        region = self.region
        if isinstance(region, str):
            region = self._predict(scores, which)
        if region.shape[-2:] != scores.shape[2:] or region.shape[:-2] not in ((), (len(scores),)):
            raise TargetError(
                f"The region has shape {region.shape}, and the model gives {scores.shape[2:]} pixels for each of "
                f"{len(scores)} samples. Bring the region to that size."
            )
        return replace(self, region=region, class_=which, axis=axis)

    @property
    def samples(self) -> int:
        """As many as have a region of their own."""
        return self.region.shape[0] if isinstance(self.region, Region) and len(self.region.shape) == 3 else 1

    def take(self, rows: Sequence[int]) -> Mask:
        """With their pixels."""
        return replace(self, region=Region.of(self.region.array[list(rows)])) if self.samples > 1 else self

    def _axis(self, shape: Sequence[int], channels: int | None) -> int:
        if self.axis is not None:
            if self.axis in (1, -1, 3):
                return 1 if self.axis == 1 else -1
            raise TargetError(f"The classes of an output of four axes are on axis 1 or -1, not {self.axis}.")
        found = [1] * (not isinstance(self.region, str) and shape[2:] == self.region.shape[-2:])
        found += [-1] * (not isinstance(self.region, str) and shape[1:3] == self.region.shape[-2:])
        return found[0] if len(found) == 1 else 1 if channels == 1 else -1

    def _predict(self, scores: np.ndarray, which: int) -> Region:
        if self.region != "predicted":
            raise TargetError(f"The region {self.region!r} is neither an array of True and False nor 'predicted'.")
        # Of one column, what is above the middle: the score of a sigmoid that gives logits or probabilities.
        if scores.shape[1] == 1:
            middle = 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0.0
            region = scores[:, 0] > middle
        else:
            region = scores.argmax(1) == which
        empty = [i for i, one in enumerate(region) if not one.any()]
        if empty:
            warn(
                f"The model predicts class {self.class_!r} at no pixel of sample {empty[0]}: what is explained there "
                f"is 0, with gradient 0. Pass a region.",
                ModelWarning,
            )
        return Region.of(region)


@dataclass(frozen=True, repr=False)
class Box(NamedTarget):
    """How well a detector still finds a box: of the boxes with the label the one with the largest IoU, score times IoU.

    Petsiuk et al. 2021 (D-RISE) take the largest product of intersection over union and similarity of classes,
    pytorch-grad-cam's `FasterRCNNBoxScoreTarget` the sum of score and IoU of the box with the largest IoU: this takes
    the product, as the one does, of that box, as the other does. Both factors have their gradients. Where no box with
    the label overlaps, the value is 0 with gradient 0.

    Three forms of outputs are known. "list", of torchvision: for each image a dict of `boxes` (corners, in pixels),
    `scores` and `labels`, in any number. "queries", of DETR: `logits` (samples, queries, classes + 1), whose softmax
    gives the scores, the last being "no object", and `pred_boxes` (centres and sizes as shares of the image).
    "anchors", of YOLO: a tensor (samples, 4 + classes, anchors), or with the last two axes exchanged: centre, size,
    and one score for each class.

    Attributes:
        iou_with: Corners (left, top, right, bottom) of the box, or one for each sample, in the unit of the model's own
            boxes: pixels of its inputs, shares of the image for "queries".
        label: Index (or name) of the class, or one for each sample; None: whatever class the box has (its largest).
        form: The form of the outputs; None: found.
    """

    iou_with: Any = None
    label: Any = None
    form: Form | None = None

    takes_all: ClassVar[bool] = True

    def __post_init__(self) -> None:
        corners = np.asarray([] if self.iou_with is None else self.iou_with, np.float64)
        is_box = corners.shape[-1:] == (4,) and corners.ndim in (1, 2) and np.isfinite(corners).all()
        if not is_box or not (corners[..., :2] < corners[..., 2:]).all():
            raise TargetError(
                f"iou_with={self.iou_with!r} is no box: pass (left, top, right, bottom), or one such row per sample."
            )
        object.__setattr__(self, "iou_with", _as_tuple(corners.tolist()))
        if self.label is not None and not isinstance(self.label, str):
            label = np.asarray(self.label)
            object.__setattr__(self, "label", _as_tuple(label.tolist()))
        if self.form not in (None, *get_args(Form)):
            raise TargetError(f"form={self.form!r} is none of {', '.join(map(repr, get_args(Form)))}.")

    def __call__(self, outputs: Any) -> Any:
        """Score times IoU."""
        found = [*boxes_in(outputs, self.form)]
        return adapter_of(found[0].scores).arithmetic.stack(
            [value_of(boxes, *self._wanted(row)) for row, boxes in enumerate(found)], axis=0
        )

    def resolve(self, context: Context) -> Box:
        """With indices of labels and the form; tells what overlaps nothing."""
        names = self.label if isinstance(self.label, tuple) else (self.label,)
        labels = tuple(context.find_class(name) if isinstance(name, str) else name for name in names)
        found = replace(
            self,
            label=labels if isinstance(self.label, tuple) else labels[0],
            form=self.form or form_of(context.outputs),
        )
        for name, rows in (("boxes", self.iou_with), ("labels", self.label)):
            several = isinstance(rows, tuple) and (name == "labels" or isinstance(rows[0], tuple))
            if several and len(rows) not in (1, context.samples):
                raise TargetError(f"{len(rows)} {name} for {context.samples} samples. Pass one for each, or for all.")
        values = found(context.outputs)
        missed = [row for row, value in enumerate(values) if not value > 0]
        if missed:
            corners, label = found._wanted(missed[0])
            warn(
                f"In sample {missed[0]} the model finds no box {f'of class {label} ' if label is not None else ''}that "
                f"overlaps {corners}: what is explained there is 0, with gradient 0.",
                ModelWarning,
            )
        return found

    @property
    def samples(self) -> int:
        """As many as have a box or a label of their own."""
        several = (self.iou_with if isinstance(self.iou_with[0], tuple) else (), self.label)
        return max(len(one) if isinstance(one, tuple) else 1 for one in several) or 1

    def take(self, rows: Sequence[int]) -> Box:
        """With their boxes and labels."""
        boxes = _rows_of(self.iou_with, rows) if isinstance(self.iou_with[0], tuple) else self.iou_with
        labels = _rows_of(self.label, rows) if isinstance(self.label, tuple) else self.label
        return replace(self, iou_with=boxes, label=labels)

    def _wanted(self, row: int) -> tuple[Sequence[float], int | None]:
        """Corners and label for a row; rows may be several copies of the samples."""
        boxes = self.iou_with if isinstance(self.iou_with[0], tuple) else (self.iou_with,)
        labels = self.label if isinstance(self.label, tuple) else (self.label,)
        return boxes[row % len(boxes)], labels[row % len(labels)]


class_ = Class
mean = Mean
difference = Difference
token = Token
mask = Mask
box = Box


@dataclass(frozen=True)
class Values:
    """Ends a model in the values of a target function (`FrameworkAdapter.ended_by`).

    Attributes:
        function: The user's, or a target with a name.
        number: Of a function whose values may come from elsewhere too: no two such ends are equal.
    """

    function: Callable[[Any], Any]
    number: int

    @classmethod
    def of(cls, function: Callable[[Any], Any]) -> Values:
        """Of a function of all outputs."""
        return cls(function, 0 if getattr(function, "is_told", False) is True else next(_numbers))

    def __call__(self, outputs: Any) -> Any:
        """One value for each sample.

        Raises:
            TargetError: The target tells samples by their rows, and these are not the rows of the samples.
        """
        values = one_each(aside(self.function)(outputs))  # it may wait for other calls
        samples = getattr(self.function, "samples", 1) if isinstance(self.function, NamedTarget) else 1
        if samples > 1 and rows_of(values) != samples:
            raise TargetError(
                f"{self.function} is another one for each of {samples} samples, and the method gives the model "
                f"{rows_of(values)} rows at once, of which nobody could tell what sample they are. Explain one sample "
                f"at a time (inputs of one row)."
            )
        return values


_numbers = count(1)


def _check_rank(target: NamedTarget, tensor: Any, rank: int, form: str) -> None:
    if len(tensor.shape) != rank:
        raise TargetError(f"{target} takes an output of shape {form}, and the model gives {shape_of(tensor)}.")


def _write(index: Any) -> str:
    """An index or a slice, as one writes it."""
    if not isinstance(index, slice):
        return str(index)
    bounds = [index.start, index.stop, *([] if index.step is None else [index.step])]
    return ":".join("" if one is None else str(one) for one in bounds)


def _in_range(index: int, size: int, target: NamedTarget) -> int:
    if not -size <= index < size:
        raise TargetError(f"{target} is out of range: the model gives {size} classes, from 0 to {size - 1}.")
    return index % size


def _for_rows(pixels: np.ndarray, scores: Any) -> np.ndarray:
    """The region of each row, which may be several copies of the samples."""
    return pixels if pixels.ndim == 2 else pixels[np.arange(rows_of(scores)) % len(pixels)]


def _rows_of(values: tuple[Any, ...], rows: Sequence[int]) -> tuple[Any, ...]:
    """Of one for each sample, or one for all."""
    return values if len(values) == 1 else tuple(values[row] for row in rows)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _resolve_part(part: Any, context: Context, of_all: bool) -> Any:
    if not isinstance(part, NamedTarget):
        return part
    if of_all and not part.takes_all:
        context = replace(context, outputs=tensor_of(context.outputs))
    return part.resolve(context)
