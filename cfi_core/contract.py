"""What passes between core and the implementations that plugins name in their specs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from cfi_core.display import outline
from cfi_core.framework.foresight import ForesightRunner
from cfi_core.specs import Head, MethodSpec
from cfi_core.validation import Checked, Name, Notes, Permuted

if TYPE_CHECKING:
    from cfi_core.framework.base import FrameworkAdapter


class Axes(StrEnum):
    """Whose axes a result value has, in the layout of the model that the method ran on."""

    INPUT = "input"
    """All axes of the input of the same position."""
    INPUT_MAP = "input map"
    """The axes of the input without the channel axis."""
    LAYER = "layer"
    """All axes of the layer's output."""
    LAYER_MAP = "layer map"
    """The axes of the layer's output without the channel axis."""
    INPUT_SIZED_MAP = "input-sized map"
    """A layer map that was resized to the spatial size of the input; same axes as `INPUT_MAP`."""
    FEATURE = "feature"
    """Samples, and the features that a mask of the toolset's own makes of all inputs together."""


@dataclass(frozen=True)
class Target:
    """What is explained, checked against the model's output and in the layout of the model that runs.

    Exactly one of `index` and `function` is set, unless the chosen output has one value per sample.

    Attributes:
        output: Position or key of the chosen output of a structured output; None for a single tensor, and
            where the model was made to end in that output (`FrameworkAdapter.ended_by`).
        index: One tuple of indices (all axes after the first) for all samples, or one per sample.
        function: Maps the model's (chosen) output to one value per sample.
    """

    output: int | str | None = None
    index: tuple[int, ...] | tuple[tuple[int, ...], ...] | None = None
    function: Callable[[Any], Any] | None = None

    __repr__ = outline

    @property
    def per_sample(self) -> bool:
        """Whether `index` holds one tuple per sample."""
        return bool(self.index) and isinstance(self.index[0], tuple)  # type: ignore[index]

    def indices(self, samples: int) -> tuple[tuple[int, ...], ...]:
        """The index tuple of each of `samples` samples."""
        if self.index is None:
            raise ValueError("this target has no index")
        return self.index if self.per_sample else (self.index,) * samples  # type: ignore[return-value]


@dataclass(frozen=True)
class MethodRequest:
    """One run of a method, everything already in the toolset's framework and the model's layout.

    Attributes:
        method: The method to run.
        model: Model to run it on: in inference mode, safe to put hooks on, never the user's own object
            where the framework can hold marks on it. With `head` "logit", a softmax head is already cut off.
        inputs: One fresh tensor per model input; empty if the user gave none.
        target: What to explain; None where the method takes no target or `own` names it.
        layer: Native layer objects; empty, or one, or several where the user gave a list.
        neuron: Index tuple into the layer's output (axes after the first), or a callable. A slice stands for the sum of
            its units.
        baselines: One tensor or number per input, or None.
        init_args: The toolset's constructor arguments, carried.
        exec_args: The toolset's call arguments, carried.
        seed: Seeds every random number of the run.
        seeded: Whether the global generators are seeded with it, as they are for a toolset that patches them
            (`ToolsetSpec.patches`) and for a model that draws from them. Otherwise they are the user's, and the method
            draws from generators of its own.
        channel_axis: Position of the channel axis of each input (None where it has none).
        layer_channel_axes: Position of the channel axis of each layer's output (None where it has none, or several
            outputs).
        head: Where a softmax head is explained in this run (the spec's choice, or the user's).
        place: Where each sample has held inputs of its own, which are constants of the model, or a target function of
            its own: position of the one sample of this run, and how many the call has. What the user gave in the
            toolset's own words for all samples is as it was given.
        codes: Whether the inputs are codes that stand for the cells of a table: to be exchanged with those of the
            baselines, while their sizes and distances mean nothing.
        rows: How many rows may go through the model at once, at most, as the user says or as memory allows; None: as
            sizes say. For `rows_at_once`, which divides the passes that a toolset would make of several rows of each
            sample; of the samples themselves there are not more than that.
    """

    method: MethodSpec
    model: Any
    inputs: tuple[Any, ...]
    target: Target | None = None
    layer: tuple[Any, ...] = ()
    neuron: Any = None
    baselines: tuple[Any, ...] | None = None
    init_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    exec_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    seed: int = 0
    seeded: bool = True
    channel_axis: tuple[int | None, ...] = ()
    layer_channel_axes: tuple[int | None, ...] = ()
    head: Head = Head.OUTPUT
    place: tuple[int, int] | None = None
    codes: bool = False
    rows: int | None = None

    __repr__ = outline

    @property
    def layer_channel_axis(self) -> int | None:
        """Position of the channel axis of the layer's output, where there is one layer."""
        return self.layer_channel_axes[0] if len(self.layer_channel_axes) == 1 else None


@dataclass(frozen=True)
class GuardRequest:
    """A model on which a method is to run, for the method's guard to look at (`cfi_core.specs.Guard`).

    Attributes:
        method: The method.
        model: The model in the toolset's framework: in inference mode, safe to put hooks on, a softmax head already cut
            off where the method explains logits.
        inputs: One fresh tensor per model input, of a few of the user's samples.
        held: Further arguments of the forward pass, behind the inputs.
        target: What is explained, without the index: its output, and the function that will be applied to it; None
            where the method takes no target or names it in its own words.
        layer: Layer objects of the model; empty for a method without one.
        neuron: As the user gave it.
        init_args: The toolset's constructor arguments, as the user gave them.
        exec_args: The toolset's call arguments, as the user gave them.
        head: Where a softmax head is explained.
    """

    method: MethodSpec
    model: Any
    inputs: tuple[Any, ...]
    held: tuple[Any, ...] = ()
    target: Target | None = None
    layer: tuple[Any, ...] = ()
    neuron: Any = None
    init_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    exec_args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    head: Head = Head.OUTPUT

    __repr__ = outline


@dataclass(frozen=True)
class Miss(Checked):
    """A place in a model where a method's rule would attach to nothing, or wrongly.

    Attributes:
        where: The place: name of the layer, or of the function.
        why: What is wrong there and what the user can do, in one or two sentences that name the method.
    """

    where: str
    why: str


@dataclass(frozen=True)
class Sampling(Checked):
    """How well values are known that are made of random draws.

    Attributes:
        errors: The standard error of each value, told by the spread of the draws: tensors or arrays like the values;
            infinite where the draws are too few to tell it.
        draws: How many draws each value is made of.
        argument: What sets their number: an own argument of the method, or `"baselines"`, which are counted.
    """

    errors: tuple[Any, ...]
    draws: int
    argument: Name


@dataclass(frozen=True)
class MethodResult(Checked):
    """What a method gave.

    Attributes:
        values: Tensors of the toolset's framework (or numpy arrays): one per input, or one per layer.
        axes: Whose axes each of the values has.
        extras: Further results, such as a convergence delta; numpy arrays or plain values. `"picture"` is for a picture
            that the toolset itself draws: bytes of shape (height, width) or (height, width, 3).
        sample_axes: On which axis arrays among the extras have the samples, where that is not the first.
        applied: What was done to the raw values and with which settings, for the provenance.
        layer: Name, in the model that ran, of the layer that the values are of, where the toolset took another one than
            it was given; None where it did not.
        absorbed: Of a method that promises `Total.RELEVANCE`: the share of what is explained that its rules keep back
            by design (the relevance of biases), one array of a number per sample for each total; None: not known.
        steps: What the values were on the way, of a method that makes them step by step and was asked to keep some:
            by the number of the step, each like `values`. They come home as `extras["steps"]`.
        sampling: Of a method that draws: how well its values are known, told by the same draws; None: not known.
    """

    values: tuple[Any, ...]
    axes: Axes
    extras: Notes = field(default_factory=dict)
    applied: Notes = field(default_factory=dict)
    layer: Name | None = None
    absorbed: tuple[Any, ...] | None = None
    steps: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    sampling: Sampling | None = None
    sample_axes: Mapping[str, int] = field(default_factory=dict)

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class Unpacked:
    """A model without the preparation that it brings, and what the preparation makes of the user's inputs.

    Attributes:
        model: What the preparation feeds.
        inputs: What it takes, in one of the forms of `inputs=`.
        did: What the preparation did, in words, for the provenance.
        feature_names: What the features are called, in one of the forms of `feature_names=`, unless the user says.
        baselines: What a method takes that understands baselines, unless the user says; None leaves it to the method.
        home: From values, the names of their axes and what these are of, to values and axes of what the user gave;
            None where they stay on what the model takes.
        stays: Why they do, in words.
        shown: The user's inputs as arrays, one for each explained input, and the names of their axes: what is drawn
            behind values that came home.
    """

    model: Any
    inputs: Any
    did: str
    feature_names: Any = None
    baselines: Any = None
    home: Callable[[np.ndarray, tuple[str, ...], Axes], tuple[np.ndarray, tuple[str, ...]] | None] | None = None
    stays: str = ""
    shown: tuple[tuple[np.ndarray, tuple[str, ...]], ...] = ()

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class BridgeRequest:
    """A model to be run inside another framework.

    Attributes:
        adapter: Adapter of the model's own framework.
        model: The model, in inference mode and free to be marked.
        inputs: Tensors of the model's framework that it takes, two samples or more.
        layers: Names of the model's layers that shall be layers of the new model too.
        outputs: All tensors that the model gives for these inputs, where it is known, and known that each sample is
            computed by itself; otherwise nothing.
        often: Whether many batches will run through it, so that what is compiled for that is compiled at once.
    """

    adapter: FrameworkAdapter
    model: Any
    inputs: tuple[Any, ...]
    layers: tuple[str, ...] = ()
    outputs: tuple[Any, ...] = ()
    often: bool = False

    __repr__ = outline


@dataclass(frozen=True)
class BridgedLayer(Checked):
    """A layer of the new model that stands for one of the original.

    Attributes:
        name: Its name there.
        axes: Permutation from the original's axes of its output; None: unchanged.
    """

    name: Name
    axes: Permuted = None


@dataclass(frozen=True)
class Converted(Checked):
    """What one translator made.

    Attributes:
        model: The model in the translator's target framework.
        input_axes: For each input, the permutation that was applied to its axes:
            axis `i` of the new input is axis `input_axes[i]` of the old one. None: unchanged.
        output_axes: For each output, the permutation that was applied to its axes.
        layers: Of a bridge: the layers that were asked for, by their names in the original.
        runner: Of a bridge: what runs the original, if its passes may be asked for before a run begins.
    """

    model: Any
    input_axes: tuple[Permuted, ...] = ()
    output_axes: tuple[Permuted, ...] = ()
    layers: Mapping[Name, BridgedLayer] = field(default_factory=dict)
    runner: ForesightRunner | None = None

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class Passage:
    """Where a translator stands in a route: two that know each other may hand on more than the model between them.

    Attributes:
        following: Names of the translators that come after it, the next one first.
        taken: What the one before has left beside the model that it made.
        left: What it leaves beside its own for the next one, by whatever names.
    """

    following: tuple[str, ...] = ()
    taken: Mapping[str, Any] = field(default_factory=dict)
    left: dict[str, Any] = field(default_factory=dict)

    __repr__ = outline

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the translator that is at work stands there."""
        token = _passage.set(self)
        try:
            yield
        finally:
            _passage.reset(token)


_passage: ContextVar[Passage | None] = ContextVar("cfi_core_passage", default=None)


def passage() -> Passage:
    """Where the translator that is at work stands; of one that is called by itself, alone."""
    return _passage.get() or Passage()
