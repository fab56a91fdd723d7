"""The state of a call: what each step knows and hands to the next. Everything here is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cfi_core.contract import MethodRequest, MethodResult, Target, Unpacked
from cfi_core.coordinates import Names
from cfi_core.display import html_facts, html_table, outline
from cfi_core.errors import ArgumentError, kind_of
from cfi_core.framework import (
    Canonical,
    ForesightRunner,
    FrameworkAdapter,
    Layer,
    Passes,
    Placed,
    Recorded,
    flatten,
)
from cfi_core.framework.axes import Permutation, permutation_at
from cfi_core.specs import DEFAULTS, BatchSize, Head, Kind, MethodSpec, Need, Role, Translator, TranslatorSpec
from cfi_core.tables import Table

if TYPE_CHECKING:
    from cfi_core.certificate import Certificate
    from cfi_core.layer_map import LayerMap


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of a call as the user gave them: the one place that lists them (see `cfi_core.attribute`).

    Raises:
        ArgumentError: `head`, `defaults`, `seed`, `progress`, `init_args` or `exec_args` are of the wrong form.
    """

    model: Any
    method_key: str
    toolset: str | None = None
    inputs: Any = None
    explain: Sequence[str] | None = None
    feature_names: Any = None
    target: Any = None
    layer: Any = None
    reshape: Any = None
    neuron: Any = None
    baselines: Any = None
    init_args: Mapping[str, Any] | None = None
    exec_args: Mapping[str, Any] | None = None
    translator: Translator = None
    head: str | None = None
    defaults: str = "raw"
    plot: bool | str | Path = False
    progress: bool | None = None
    seed: int | None = None
    batch_size: BatchSize = None
    started: float = field(default_factory=perf_counter, kw_only=True)  # when the call began
    unpacked: Unpacked | None = field(default=None, kw_only=True)  # of a model that brings its own preparation
    called: str = field(default="", kw_only=True)  # the user's own class, or function, with its module

    __repr__ = outline

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in tuple(Head):
            raise ArgumentError(f"head={self.head!r} is neither 'logit' nor 'output'.")
        if self.defaults not in DEFAULTS:
            raise ArgumentError(f"defaults={self.defaults!r} is neither 'raw' nor 'toolset'.")
        check_seed(self.seed)
        check_progress(self.progress)
        check_batch_size(self.batch_size)
        for name in ("init_args", "exec_args"):
            given = getattr(self, name)
            if not isinstance(given, Mapping | None):
                raise ArgumentError(f"{name} must be a dict of the toolset's own arguments, not {given!r}.")

    @property
    def own(self) -> dict[str, Any]:
        """The arguments in the toolset's own words, of constructor and call together."""
        return {**(self.init_args or {}), **(self.exec_args or {})}

    def of_role(self, role: Role, method: MethodSpec) -> list[Any]:
        """Values of those that play this role in the method."""
        return [value for name, value in self.own.items() if method.roles.get(name) is role]


def check_seed(seed: Any) -> None:
    """Refuses what no generator of random numbers takes.

    Raises:
        ArgumentError: It is neither None nor an integer between 0 and 2**32 - 1.
    """
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ArgumentError(f"seed={seed!r} is no integer between 0 and 2**32 - 1.")


def check_progress(progress: Any) -> None:
    """Refuses anything but True, False and None.

    Raises:
        ArgumentError: It is something else.
    """
    if progress not in (None, True, False) or not isinstance(progress, bool | None):
        raise ArgumentError(
            f"progress={progress!r} is neither True nor False, nor None, which shows it in a terminal or notebook."
        )


def check_batch_size(batch_size: Any) -> None:
    """Refuses anything but a number of rows, "auto" and None.

    Raises:
        ArgumentError: It is something else.
    """
    is_word = isinstance(batch_size, str) and batch_size == "auto"
    is_number = isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 1
    if not (batch_size is None or is_word or is_number):
        raise ArgumentError(
            f"batch_size={batch_size!r} is neither a number of rows (1 or more) nor 'auto', which finds one that fits "
            f"into memory, nor None, which leaves all samples together."
        )


@dataclass(frozen=True)
class InputNames:
    """What the inputs are called that a user gave by name."""

    explained: tuple[str, ...]
    held: tuple[str, ...] = ()  # carried with every pass, as they are

    @property
    def every(self) -> tuple[str, ...]:
        """In the order in which the model takes them in this call."""
        return (*self.explained, *self.held)


@dataclass(frozen=True)
class Features:
    """What is known of the elements along the last axis of an input."""

    names: Names | None = None
    tokens: bool = False  # they are tokens, known by whole numbers


@dataclass(frozen=True, eq=False)
class Original:
    """The user's model (after step 2), loaded if it came as a file, with the framework that it lives in."""

    framework: str
    adapter: FrameworkAdapter
    model: Any
    names: InputNames | None = None  # of the inputs, where they were given by name: `model` takes them so
    coded: Mapping[str, np.ndarray] = field(default_factory=dict)  # inputs by name, codes in the place of words
    table: Table | None = None  # what the inputs stand for: `model` takes its cells
    embedding: str = ""  # the layer whose output `model` takes in the place of tokens
    function: Any = None  # the target function whose values `model` gives in the place of outputs
    function_of: str = ""  # what that is a function of, in words

    __repr__ = outline


@dataclass(frozen=True)
class Route:
    """Translators that are applied one after the other; none of them when the model is native."""

    translators: tuple[TranslatorSpec, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the translators, in order."""
        return tuple(translator.name for translator in self.translators)

    @property
    def rank(self) -> tuple[int, float, tuple[str, ...]]:
        """What is tried first: native, then a bridge, then conversions, the cheapest of each; of equals, by name."""
        kind = 0 if self.native else 1 if self.bridge else 2
        return kind, sum(translator.cost for translator in self.translators), self.names

    @property
    def preserves(self) -> frozenset[Need]:
        """Needs that a model still meets at the end."""
        return frozenset(Need).intersection(*(translator.preserves for translator in self.translators))

    @property
    def native(self) -> bool:
        """Whether nothing has to be translated."""
        return not self.translators

    @property
    def bridge(self) -> bool:
        """Whether the model is run where it lives."""
        return any(translator.kind == "bridge" for translator in self.translators)

    def __str__(self) -> str:
        if self.native:
            return "native"
        frameworks = [self.translators[0].source, *(translator.target for translator in self.translators)]
        return " → ".join(frameworks) + f" ({', '.join(self.names)})"


@dataclass(frozen=True, eq=False)
class Choice:
    """What will run, and where (after step 3): the part of a `Plan` that needs no arguments."""

    method: MethodSpec
    toolset_framework: str
    routes: tuple[Route, ...]
    others: tuple[str, ...]
    reason: str

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class Plan(Choice):
    """What a call will do: print it to read it.

    Attributes:
        method: The method that will run.
        framework: The framework of the user's model.
        toolset_framework: The framework that the method runs in.
        routes: The routes to the toolset, the one to try first in front.
        reason: Why this route.
        others: Toolsets that would have served too.
        head: Where a softmax head is explained.
        layers: Names of the layers in the user's model; empty for methods without one, and while none is chosen.
        needs_layer: The method needs a layer and none was given: the call will end in a `PendingLayer`.
        embeddings: The user asks for the output of the embedding, whichever layer that is.
        arguments: The arguments, those in the toolset's own words sorted into the uniform ones that they mean.
        seeks_layer: The layer is the last one that serves (`layer="auto"`), which is found when the model has run.
    """

    framework: str
    head: Head
    layers: tuple[str, ...]
    needs_layer: bool
    arguments: Arguments
    embeddings: bool = False
    seeks_layer: bool = False

    @property
    def route(self) -> Route:
        """The route that is tried first."""
        return self.routes[0]

    @property
    def own_target(self) -> bool:
        """Whether the target is named in the toolset's own words (a score function)."""
        return bool(self.arguments.of_role(Role.OWN_TARGET, self.method))

    @property
    def explains_target(self) -> bool:
        """Whether the run explains a uniform target; feature visualization of a layer's unit does not."""
        if self.own_target or "target" not in (*self.method.required, *self.method.optional):
            return False
        of_unit = self.method.kind is Kind.FEATURE_VISUALIZATION and self.arguments.neuron is not None
        return not (of_unit and self.layers and self.arguments.target is None)

    def __str__(self) -> str:
        chosen = self.method.defaults.choose(self.arguments.defaults).items()
        settings = ", ".join(f"{name}={value!r}" for name, value in chosen) or "those of the toolset's signature"
        lines = [
            f"method    {self.method.key} ({self.method.kind})",
            f"toolset   {self.method.toolset}" + (f"; also offered by {', '.join(self.others)}" if self.others else ""),
            f"model     {self.arguments.called.rpartition('.')[2]}, {self.framework}",
            f"route     {self.route}: {self.reason}",
            f"needs     {', '.join(sorted(self.method.needs))}",
            f"head      a softmax at the end is explained at its {self.head}",
            f"defaults  {self.arguments.defaults}: {settings}",
        ]
        if len(self.routes) > 1:
            lines.insert(4, f"          if that fails: {'; '.join(str(route) for route in self.routes[1:])}")
        if self.layers or self.needs_layer or self.embeddings:
            open_ = "the embedding" if self.embeddings else "to be chosen (the call returns a PendingLayer)"
            lines.append(f"layer     {', '.join(self.layers) or open_}")
        elif self.seeks_layer:
            lines.append(
                "layer     found when it runs: the last one whose output has axes of space, or tokens on a grid, that "
                "the target's gradient reaches"
            )
        lines.append(f"citation  {self.method.citation}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        width = len("citation  ")
        rows = [(line[:width].strip(), line[width:]) for line in str(self).splitlines()]
        return html_facts(f"Plan: {self.method.key}", rows[1:])


@dataclass(frozen=True, eq=False)
class Inputs:
    """The user's inputs, twice, in the axis order of the user's model."""

    tensors: tuple[Any, ...]  # in the model's framework, on its device and in its floating point type
    arrays: tuple[np.ndarray, ...]  # the same values in numpy
    given: bool = True  # by the user, not made up where the method needs none
    held: tuple[Any, ...] = ()  # what every pass takes behind them: tensors too, or what else a native model takes
    held_arrays: tuple[np.ndarray, ...] = ()  # the same in numpy, without what is no tensor
    other: np.ndarray | None = None  # of the one input, a sample besides, where none can be made up of those given

    __repr__ = outline

    @property
    def passed(self) -> tuple[Any, ...]:
        """All that a forward pass takes."""
        return (*self.tensors, *self.held)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.arrays[0])


@dataclass(frozen=True)
class Purity:
    """Whether the user's model is a function of each sample alone (see `cfi_core.checking.purity`)."""

    found: str  # in words, for the provenance
    warning: str = ""  # what the user is told of it in each call
    writes: bool = False  # its passes change what it holds, which is to be undone
    by_sample: bool = False  # it is a function of each sample alone, whatever others are beside it


@dataclass(frozen=True, eq=False)
class Call:
    """A call whose arguments fit the model (after step 4), in the layout of the user's model."""

    plan: Plan
    original: Original
    inputs: Inputs
    outputs: Any  # what the model gives for the inputs, in its own structure
    target: Target | None  # None if the method takes none
    output: int  # position of the explained one among all tensors that the model gives
    neuron: Any  # the unit of the layer that is explained
    layer_shapes: Mapping[str, tuple[int, ...]]  # of the layers' outputs, where they could be read
    mentioned: tuple[str, ...]  # further layers, which stand as objects among the toolset's own arguments
    seed: int
    seconds: float  # that the steps so far have taken
    purity: Purity = Purity("not examined")
    fingerprint: str = ""  # of the model, when it was examined
    precision: str = ""  # in words, where a copy in another one takes the model's place
    users: Original | None = None  # the user's own model then
    features: tuple[Features, ...] = ()  # of each explained input
    kept: tuple[np.ndarray | None, ...] = ()  # of each, which tokens the baselines keep
    named: tuple[Any, ...] | None = None  # path to the output of the user's own model, and the target in it
    words: str = ""  # the same in the words of the user, and of the model
    placed: Mapping[str, Placed] = field(default_factory=dict)  # where the values of the layers lie in the image
    choices: tuple[str, ...] = ()  # of `layer="auto"`: the layers that serve, the last one in front
    sought: str = ""  # how the layer was found, in words
    in_full: bool = True  # what can be measured is measured; else the outputs are not known
    recorded: Recorded | None = None  # the pass that gave the outputs, where it may serve in the run

    __repr__ = outline

    @property
    def output_arrays(self) -> list[np.ndarray]:
        """All tensors that the model gives."""
        return flatten(self.outputs)


@dataclass(frozen=True, eq=False)
class ModelAtHead:
    """A model that ends where the method explains it."""

    model: Any
    explained: str  # in words, for the provenance
    warning: str = ""  # what the user should be told of it
    cut: bool = False  # whether a softmax was left out
    twin: Any = None  # what it was made of, where another batch may use it

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class Translation:
    """A model in another framework, and the evidence that it computes the same.

    Attributes:
        model: The translated model in inference mode: native to its framework, or of a kind that runs the original.
        route: The translators that made it.
        certificate: Measured on the inputs of this call (or of an earlier one with the same inputs and outputs).
        layer_map: Which layer is which; maps the original's names to the translated model's.
        input_axes: For each input, the permutation from the original's axes to the translated model's
            (axis `i` of the new input is axis `input_axes[i]` of the old one); None where they are the same.
        output_axes: For each output, the permutation from the original's axes to the translated model's.
        seconds: What the translators took, measurements apart, when it was made; None of a bridge and of one from disk.
        head: What a bridge explains, which is built at the head that the method wants; None of a conversion.
        input_names: Which of the original's inputs the model takes, in its order, where they were given by name.
        once: It hands on the pass that the user's model has made by itself (`Call.recorded`), and nothing speaks for
            any other.
        runner: Of a bridge: what runs the original, if its passes may be asked for before a run begins.
    """

    model: Any
    route: Route
    certificate: Certificate
    layer_map: LayerMap
    input_axes: tuple[Permutation, ...]
    output_axes: tuple[Permutation, ...]
    seconds: float | None = None
    head: ModelAtHead | None = None
    input_names: tuple[str, ...] = ()
    once: bool = False
    runner: ForesightRunner | None = None

    def __repr__(self) -> str:
        matches = self.layer_map.matches.items()
        renamed = [f"{name!r} is {match.name!r}" for name, match in matches if match.name != name]
        more = f" and {len(renamed) - 12} more (see layer_map)" if len(renamed) > 12 else ""
        layers = f"; layer {', '.join(renamed[:12])}{more}" if renamed else ""
        inputs = f"; inputs {', '.join(self.input_names)}" if self.input_names else ""
        return f"<Translation {self.route}: {self.certificate}{inputs}{layers}>"

    def _repr_html_(self) -> str:
        seconds = None if self.seconds is None else f"{self.seconds:.1f} s"
        facts = {"model": kind_of(self.model), "inputs": ", ".join(self.input_names), "translated in": seconds}
        layers = self.layer_map._repr_html_() if self.layer_map.compared else ""
        return html_facts(f"Translation {self.route}", facts.items()) + self.certificate._repr_html_() + layers


@dataclass(frozen=True, eq=False)
class Repair:
    """A canonical copy of the model that would have run, and the evidence that it computes what the user's model does.

    Attributes:
        canonical: The copy, with its layers by their names in the model that it was made of.
        certificate: Measured against the user's model.
    """

    canonical: Canonical
    certificate: Certificate

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class Prepared:
    """The model that the method runs on (after step 5): a translated one, or the user's own where it is native.

    Or a canonical copy of either, where the method's rules would not attach to it.
    """

    adapter: FrameworkAdapter  # of the model's framework
    model: Any
    translation: Translation | None = None
    seconds: float = 0.0  # that the step has taken
    repair: Repair | None = None

    __repr__ = outline

    def as_numpy(self, value: Any) -> Any:
        """A tensor of that framework as an array; anything else as it is."""
        return self.adapter.to_numpy(value) if self.adapter.is_tensor(value) else value

    @property
    def certificate(self) -> Certificate | None:
        """The evidence for the model that runs; None for the user's own."""
        made = self.repair or self.translation
        return made.certificate if made else None

    def layer_name(self, layer: str) -> str | None:
        """Name, in the model that runs, of a layer of the user's; None if it is not there."""
        name: str | None = layer
        if self.translation is not None:
            matches = self.translation.layer_map.matches
            name = matches[layer].name if layer in matches else None
        return name if name is None or self.repair is None else self.repair.canonical.layers.get(name)

    def input_axes(self, position: int) -> Permutation:
        """Permutation from the user's axes of an input to those of the model that runs."""
        return permutation_at(self.translation.input_axes if self.translation else (), position)

    def output_axes(self, position: int) -> Permutation:
        """Permutation from the user's axes of an output to those of the model that runs."""
        return permutation_at(self.translation.output_axes if self.translation else (), position)

    def layer_axes(self, layer: str) -> Permutation:
        """Permutation from the user's axes of a layer's output to those of the model that runs."""
        return self.translation.layer_map.matches[layer].axes if self.translation else None


@dataclass(frozen=True, eq=False)
class Portion:
    """What the toolset is asked for some of the samples, whose held inputs are constants of the model."""

    call: Call  # of these samples alone
    request: MethodRequest
    held: tuple[np.ndarray, ...]  # the constants, in the layout of the model that runs, each with one row
    layer_shapes: tuple[tuple[int, ...] | None, ...] = ()  # of what the layers of the request give

    __repr__ = outline


class Parts(Protocol):
    """Makes what the toolset is asked for some of the samples."""

    def take(self, rows: range, most: int | None) -> Portion:
        """For these samples, with so many rows at once at most."""

    def renew(self) -> None:
        """Another copy of the model for those that follow: what ran on the last one has failed."""


@dataclass(frozen=True, eq=False)
class Carried:
    """What the toolset is asked (after step 6)."""

    request: MethodRequest
    explained: str  # in words, for the provenance
    cut: bool  # whether a softmax at the end was left out
    started: float  # when carrying began, in the seconds of `time.perf_counter`
    portions: Callable[[], Iterator[Portion]] | None = None  # to run instead of it, where inputs are bound to the model
    parts: Parts | None = None  # to run in the place of both, where the user divides the samples
    types: Mapping[int, np.dtype[Any]] = field(default_factory=dict)  # of whole numbers that the toolset gets as others
    layer_shapes: tuple[tuple[int, ...] | None, ...] = ()  # of what the layers of the request give
    shown: Mapping[str, int] = field(default_factory=dict)  # layers shown as maps, with the channel axis of these
    head: ModelAtHead | None = None  # the model that runs, where another batch may use it as it is

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class Run:
    """What the method gave (after step 7)."""

    result: MethodResult
    passes: Passes | None = None  # samples of what it fed to a converted model; None of any other
    batch: Mapping[str, Any] | None = None  # how samples and rows were divided; None where nobody asked for it

    __repr__ = outline


@dataclass(frozen=True, eq=False)
class PendingLayer:
    """A call that waits for a layer; `cfi.finish_execution_with_layer(pending, layer)` resumes it.

    Attributes:
        plan: What is going to happen.
        layers: The layers that can be chosen.
        call: The call, checked as far as it can be without its layer.
        prepared: The converted and certified model, which is not made again; None where a bridge waits for its layer.
        fingerprint: Content of the user's model when it was translated.
    """

    plan: Plan
    layers: tuple[Layer, ...]
    call: Call
    prepared: Prepared | None
    fingerprint: str

    @property
    def usual(self) -> Layer | None:
        """The layer that is usually taken: the last convolution, or else the last whose output has axes of space."""
        convolutions = [one for one in self.layers if "conv" in one.kind.lower()]
        spacious = [one for one in self.layers if len(one.output_shape or ()) > 2]
        return next(reversed(convolutions or spacious), None)

    @property
    def advice(self) -> str:
        """Which layer is usually taken, in a sentence."""
        found = "layer='auto' finds the last one that the target's gradient reaches and whose output has axes of space"
        if self.usual is None:
            return f"{found[0].upper()}{found[1:]}, if there is one."
        what = "convolution" if "conv" in self.usual.kind.lower() else "layer with axes of space"
        return f"Usual is {self.usual.name!r}, the last {what}; {found}."

    def __str__(self) -> str:
        rows = [
            f"  {one.name}  {one.kind}  {'?' if (shape := one.output_shape) is None else shape}"
            + ("  ← usual" if one is self.usual else "")
            for one in self.layers
        ]
        title = f"{self._title}. Choose one and call "
        return "\n".join([f"{title}cfi.finish_execution_with_layer(pending, layer):", *rows, self.advice])

    @property
    def _title(self) -> str:
        return f"{self.plan.method.key} of {self.plan.method.toolset} needs a layer"

    def _repr_html_(self) -> str:
        rows = [
            (
                one.name,
                one.kind,
                "?" if one.output_shape is None else one.output_shape,
                "usual" if one is self.usual else "",
            )
            for one in self.layers
        ]
        note = f"Choose one and call cfi.finish_execution_with_layer(pending, layer). {self.advice}"
        return html_table(self._title, ("layer", "kind", "output", ""), rows, note)

    __repr__ = __str__
