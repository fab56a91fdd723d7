"""The frozen records that plugins return from their hooks; each checks itself (`cfi_core.validation`) when it is made.

Implementations are named by `"module:attribute"` strings and imported on first use,
so that listing what is installed imports no framework.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, Literal

from cfi_core.progress import phase
from cfi_core.validation import (
    Checked,
    Command,
    Hexadecimal,
    Identifier,
    Key,
    Module,
    Name,
    Place,
    Reference,
    Requires,
    Suffix,
    name_but,
    one_of,
)


class Need(StrEnum):
    """What a method requires of the model it is given."""

    FORWARD = "forward"
    INPUT_GRADIENT = "input_gradient"
    LAYER = "layer"
    LAYER_GRADIENT = "layer_gradient"
    MODULES = "modules"


class Kind(StrEnum):
    """What a method explains."""

    ATTRIBUTION = "attribution"
    LAYER = "layer"
    NEURON = "neuron"
    FEATURE_VISUALIZATION = "feature visualization"


class Head(StrEnum):
    """Where a model that ends in a softmax is explained."""

    LOGIT = "logit"
    """At the input of the softmax (for example Simonyan 2013, Selvaraju 2017)."""
    OUTPUT = "output"
    """At the output as the model gives it (for example Sundararajan 2017, Ribeiro 2016)."""


class Role(StrEnum):
    """How core carries one of the toolset's own arguments across (see `MethodSpec.roles`)."""

    INPUTS = "inputs"
    TARGET = "target"
    LAYER = "layer"
    NEURON = "neuron"
    BASELINES = "baselines"
    OWN_TARGET = "own target"
    """Names the target in the toolset's own way (a score function): passed on as it is."""
    LIKE_INPUTS = "like inputs"
    """An array (or one per input) with the axes of the inputs, such as a feature mask."""
    LIKE_LAYER = "like layer"
    """An array with the axes of the layer's output, such as a layer mask."""
    OTHER_LAYER = "other layer"
    """A further layer of the user's model, by object or name: the one of the model that runs is passed on."""
    WINDOW = "window"
    """A tuple of ints (or one per input), one for each axis of the inputs but the first."""
    HELD = "held"
    """Further arguments of the model's forward pass, behind the inputs: part of every pass, held as they are."""
    ONE_OR_SEVERAL = "one or several samples"
    """Inputs, where one sample alone may come without its sample axis, if the model declares how many axes it takes."""


class Total(StrEnum):
    """What the values of a method add up to, all values of a sample together; `f` is what is explained."""

    DIFFERENCE = "f(inputs) - f(baselines)"
    MEAN_DIFFERENCE = "f(inputs) - mean of f(baselines)"
    """Over all baselines, which are a distribution for every sample."""
    RELEVANCE = "f(inputs), less what the rules absorb by design"
    """Of each layer on its own, where the values are of layers."""


class Samples(StrEnum):
    """Which samples a method may be asked to explain together, without another result for any of them."""

    APART = "apart"
    """Any: the values of a sample are its own, whatever stands beside it."""
    ALONE = "alone"
    """One at a time, or else all: what is drawn at random for a sample depends on those in front of it."""
    TOGETHER = "together"
    """All: they are made of each other, as where features are exchanged between samples."""


BatchSize = int | Literal["auto"] | None
"""What users may write in `batch_size=`."""

Translator = str | Sequence[str] | None
"""What users may write in `translator=`: a name, a kind (`"conversion"`, `"bridge"`), a list of names, or nothing."""

TRANSLATOR_KINDS = ("conversion", "bridge")
UNIFORM_ARGUMENTS = ("inputs", "target", "layer", "neuron", "baselines")

DEFAULTS = ("raw", "toolset")
"""What users may write in `defaults=`."""

COMMON = ("steps", "samples", "noise", "noise share", "window", "stride")
"""Words for own arguments that toolsets name differently: points of a path, draws, the standard deviation of noise (in
units of the inputs, or as a share of each sample's range), and what is covered of the inputs, by steps of what size."""

ANY = "*"
"""As the source of a bridge: every framework whose adapter can run its models."""

RANDOM = "random"
"""Among what is patched: the global generators of Python, numpy and every framework."""

RUNNABLE = frozenset({Need.FORWARD, Need.INPUT_GRADIENT, Need.LAYER, Need.LAYER_GRADIENT})
"""What a model can meet without being converted."""

_Framework = Annotated[str, name_but((ANY,), "stands for every framework, which only the source of a bridge can be")]
_Uniform = Annotated[str, one_of(*UNIFORM_ARGUMENTS)]


@dataclass(frozen=True, kw_only=True)
class ModelFormat(Checked):
    """A format of files, or folders of files, in which a framework keeps models or weights (see `cfi.load_model`).

    What a file holds is told by its first bytes and, where these are an archive's, by the archive's members; a format
    that names neither is told by the suffix alone. Of several that a file fits, the one that says most of it counts.

    Attributes:
        name: For messages: `"a Keras archive"`.
        suffixes: How its files are named; a file whose name belongs to other formats is refused. Empty where the first
            bytes alone tell, and the names are everybody's.
        begins: Bytes that files begin with, one of these: in hexadecimal, `??` for any (`"89 48 44 46"`).
        members: Patterns of names, as the shell's: an archive (or the folder) has a member for each of them.
        folder: It is a folder.
        model: `"module:function"`, called with the path and whether the caller trusts it; returns the model. It raises
            `ModelFileError` for a file that holds none, and `UntrustedFileError` for one that could run code and is not
            trusted. Empty if there are only weights in such files, or (with `weights` empty as well) if they are
            refused, with what is to be done instead.
        weights: `"module:function"`, called with a model and the path: gives the model the weights in the file, and
            raises `ModelFileError` where names or shapes differ, before anything is changed. It never runs what stands
            in the file. Empty if there are none to be had.
        runs_code: Why reading a model of this format could run code that stands in the file, as a clause; then the
            function is called only for those who trust it. Empty if it cannot, or if the function decides.
        instead: What to do who does not trust such a file, or has one that holds no model, in a sentence.
        requirements: PEP 508 requirements, such as the first version whose safe mode is one.
    """

    name: Name
    suffixes: tuple[Suffix, ...] = ()
    begins: tuple[Hexadecimal, ...] = ()
    members: tuple[Name, ...] = ()
    folder: bool = False
    model: Reference | Literal[""] = ""
    weights: Reference | Literal[""] = ""
    runs_code: str = ""
    instead: str = ""
    requirements: tuple[Requires, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FrameworkSpec(Checked):
    """A library that models live in.

    Attributes:
        name: `"torch"`, `"tensorflow"`, `"onnx"`, …
        models: What its models are, in words, for listings and messages: `"a torch.nn.Module"`.
        model_types: `("module", "Class")` pairs, looked up in `sys.modules`, never imported.
        tensor_types: Pairs of the same kind, for the framework's tensors.
        adapter: `"module:Class"` of a `cfi_core.framework.FrameworkAdapter`.
        module: Name that the library is imported by (several distributions may bring it).
        model_methods: An object that has one of these methods, and is a model of no framework by its type, is one of
            this framework.
        file_suffixes: Paths that end so are models of this framework.
        formats: What files its models and weights are read from.
        aliases: Other names that users may take for this framework's; a message tells them the right one.
        offers: What its adapter's `runner` can do with a model: the needs that a bridge from it can meet.
        takes_functions: Whether its adapter takes plain functions of its tensors as models.
        without_gradients: What to tell a user whose method needs more than the framework offers.
        before_use: `"module:function"`, called before the adapter of any framework is loaded: a precaution for what
            happens when several frameworks are loaded in one process.
    """

    name: _Framework
    models: str = ""
    model_types: tuple[tuple[Module, Identifier], ...]
    tensor_types: tuple[tuple[Module, Identifier], ...]
    adapter: Reference
    module: Module
    model_methods: tuple[Identifier, ...] = ()
    file_suffixes: tuple[Suffix, ...] = ()
    formats: tuple[ModelFormat, ...] = ()
    aliases: tuple[_Framework, ...] = ()
    offers: frozenset[Need] = RUNNABLE
    takes_functions: bool = False
    without_gradients: str = ""
    before_use: Reference | Literal[""] = ""

    def __repr__(self) -> str:
        return f"{self.name:<13} {self.adapter.partition(':')[0].partition('.')[0]:<15} {self.models or self.name}"


@dataclass(frozen=True, kw_only=True)
class ToolsetSpec(Checked):
    """A library of introspection methods that is bound to one framework.

    Attributes:
        name: `"captum"`, `"tf-keras-vis"`, …
        framework: Name of the `FrameworkSpec` it works on.
        requirements: PEP 508 requirements; whether they are met is read from installed metadata.
        homepage: Where its users read about it.
        patches: What its methods change for the whole process while they run; no other call that uses it goes on beside
            them. `RANDOM`: they draw from the global generators, which are seeded for them. Else dotted names, such as
            `"torch.relu"`, which every call uses that has to do with torch. A toolset that draws from generators of
            its own, seeded with the request's seed, needs none.
    """

    name: Name
    framework: _Framework
    requirements: tuple[Requires, ...] = ()
    homepage: str = ""
    patches: tuple[Name, ...] = (RANDOM,)

    def __repr__(self) -> str:
        return f"{self.name:<13} for {self.framework} models" + (f", {self.homepage}" if self.homepage else "")


@dataclass(frozen=True, kw_only=True)
class Defaults(Checked):
    """Two sets of settings of one method: what a call gets where the user says nothing.

    Both map names of `init_args` or `exec_args` without a uniform meaning to values. Where the sets differ, so do the
    values that a user of CFI and a user of the toolset get. What neither names is left to the toolset's own signature.
    Values import nothing: a function is written as a `"module:attribute"` string, which the implementation resolves
    when it runs.

    Attributes:
        raw: Give the method as its paper defines it: no absolute values, ReLU, normalisation or resizing besides.
        toolset: Give what the toolset's own users get who write none of these settings.
    """

    raw: Mapping[Identifier, Any] = field(default_factory=dict)
    toolset: Mapping[Identifier, Any] = field(default_factory=dict)

    def choose(self, name: str) -> Mapping[str, Any]:
        """The set of that name: `"raw"` or `"toolset"`."""
        return {"raw": self.raw, "toolset": self.toolset}[name]

    def around(self, inner: Defaults) -> Defaults:
        """Of a method that wraps another: both methods' settings, its own first."""
        return Defaults(raw={**inner.raw, **self.raw}, toolset={**inner.toolset, **self.toolset})


@dataclass(frozen=True, kw_only=True)
class Completeness(Checked):
    """What the values of a method promise to add up to; core measures it after every run.

    Attributes:
        total: What they add up to.
        within: The largest gap, relative to that total or a quarter of what took part, that is no reason to
            warn (see docs/certificates.md).
        baseline: What the method takes where the user gives no baselines.
        only_with: Own arguments, and the value (a bool or None) without which nothing is promised.
        steps: Own argument that says in how many steps the values are approximated.
        groups: Own argument whose array numbers groups of elements, each of which holds the value of its whole group.
        inputs_at_layer: Of a layer method: paths around the layer are held at the inputs. Without it, nothing is
            promised of a layer that has such paths.
        suspect: What to suspect first of a large gap, in a sentence.
        unmeasured: Why no output can tell whether the promise is kept, if so.
    """

    total: Total
    within: float = 1e-3
    baseline: float = 0.0
    only_with: Mapping[Identifier, Any] = field(default_factory=dict)
    steps: Identifier | Literal[""] = ""
    groups: Identifier | Literal[""] = ""
    inputs_at_layer: bool = False
    suspect: str = ""
    unmeasured: str = ""


@dataclass(frozen=True, kw_only=True)
class Guard(Checked):
    """Where a method's rules attach: core looks before every run, and has the model rewritten where they would not.

    Attributes:
        check: `"module:function"`, called with a `GuardRequest`; returns a tuple of `Miss`, one for each place where a
            rule would attach to nothing or wrongly, and raises `MethodError` for what no rewriting can help.
        modules: For operations of a canonical copy (`FrameworkAdapter.canonical` lists their names), a
            `"module:factory"` that makes the module which the method's rules know for it, from the operation's settings
            as keyword arguments. Operations that are not named become the framework's own modules.
        knows: `"module:function"`, called with a layer of the model: whether the rules know it as it is, so that it is
            not rewritten. Left out, they know what the framework itself brings.
    """

    check: Reference
    modules: Mapping[Name, Reference] = field(default_factory=dict)
    knows: Reference | Literal[""] = ""


@dataclass(frozen=True, kw_only=True)
class Documentation(Checked):
    """Where a method's own arguments are explained: read when somebody looks the method up (`cfi.methods(key)`).

    Places are `"module:Class"`, `"module:Class.method"` or `"module:function"` of the toolset; of each, signature and
    docstring (Google, NumPy or Sphinx style) are read, and the first that knows a name counts. They are imported then,
    and not before.

    Attributes:
        init_args: What takes the arguments of the constructor.
        exec_args: What takes the arguments of the call.
        words: What arguments mean that the toolset does not explain, or does not have, in a sentence each.
        example: Values for the example call, as Python text, of arguments that it cannot do without.
    """

    init_args: tuple[Place, ...] = ()
    exec_args: tuple[Place, ...] = ()
    words: Mapping[Identifier, str] = field(default_factory=dict)
    example: Mapping[Identifier, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Checked):
    """One introspection method of one toolset.

    Attributes:
        key: Snake-case name shared by all toolsets that offer the method.
        toolset: Name of its `ToolsetSpec`.
        kind: What it explains.
        needs: What it requires of the model.
        implementation: `"module:function"`, called with a `MethodRequest`, returns a `MethodResult`.
        citation: Paper or library that defines it.
        required: Uniform arguments without which it cannot run.
        optional: Uniform arguments that it also understands.
        init_args: Names that the toolset's constructor takes (besides the model).
        exec_args: Names that the toolset's call takes.
        roles: For own argument names: how core carries the value. Names without a role are carried
            by their value: tensors change framework, layers of the user's model become the
            corresponding layers, everything else is passed on as it is.
        head: Where a softmax head is explained.
        alters_model: The implementation changes weights while it runs, so it gets a full copy.
        native_only: Own arguments that ask for something which no certificate covers (such as a layer's input
            instead of its output): set, they are refused on a translated model.
        argument_needs: Own arguments with which the method requires more of the model than without.
        wraps: Own constructor argument that names another method of the same toolset, whose needs and head then
            count as well.
        defaults: Settings that apply where the user gives none: raw, and those of the toolset.
        completeness: What the values promise to add up to; None if nothing.
        patches: What it changes for the whole process besides what all methods of its toolset change.
        guard: Where its rules attach; None for a method without rules of its own.
        takes_integers: Whether its toolset's code takes inputs of whole numbers. If not, and the method needs no
            gradient of them, they are given as floating point numbers, of which the model makes whole ones again.
        zero_baseline: It takes 0 for every element of the inputs where no baselines are given, which is told once.
        instead_of_baselines: Own arguments with which it does not.
        maps_layer: Works with the axes of space of a layer's output (weights channels by their mean over them, or
            stretches them over the image): tokens on a grid are shown to it as a map with channels.
        own_required: Own arguments without which it cannot run, and which neither uniform words nor defaults give.
        documentation: Where its own arguments are explained.
        common: Own arguments that other toolsets have under other names, in the word for them (one of `COMMON`):
            `cfi.compare` sets one toolset's to another's.
        choices: Own arguments that are one of a few values, with these: `cfi.compare` tries them.
        samples: Which samples may be explained together where a user divides them (`batch_size=`).
        rows_together: How many rows of one sample go through the model together in any case.
        for_each_baseline: Whether there are as many for each baseline.
        alone_with: Own arguments that, set to something else than among the raw defaults, have them explained one at a
            time (such as the number of noisy copies, of a method that draws nothing without them).
        once: It runs the model once, on the inputs as they are, forward and back: over a bridge the pass that the model
            has made by itself may serve. What makes other passes all the same is found, and costs a second run.
    """

    key: Key
    toolset: Name
    kind: Kind
    needs: frozenset[Need]
    implementation: Reference
    citation: str = ""
    required: tuple[_Uniform, ...] = ("inputs",)
    optional: tuple[_Uniform, ...] = ()
    init_args: tuple[Identifier, ...] = ()
    exec_args: tuple[Identifier, ...] = ()
    roles: Mapping[Identifier, Role] = field(default_factory=dict)
    head: Head = Head.OUTPUT
    alters_model: bool = False
    native_only: tuple[Identifier, ...] = ()
    argument_needs: Mapping[Identifier, Need] = field(default_factory=dict)
    wraps: Identifier | Literal[""] = ""
    defaults: Defaults = field(default_factory=Defaults)
    completeness: Completeness | None = None
    patches: tuple[Name, ...] = ()
    guard: Guard | None = None
    takes_integers: bool = True
    zero_baseline: bool = False
    instead_of_baselines: tuple[Identifier, ...] = ()
    maps_layer: bool = False
    own_required: tuple[Identifier, ...] = ()
    documentation: Documentation = field(default_factory=Documentation)
    common: Mapping[Identifier, Annotated[str, one_of(*COMMON)]] = field(default_factory=dict)
    choices: Mapping[Identifier, tuple[Any, ...]] = field(default_factory=dict)
    samples: Samples = Samples.ALONE
    rows_together: int = 1
    for_each_baseline: bool = False
    alone_with: tuple[Identifier, ...] = ()
    once: bool = False

    def argument_of(self, role: Role) -> str | None:
        """Name of the argument of the toolset's call that plays a role; None if there is none."""
        return next((name for name in self.exec_args if self.roles.get(name) is role), None)

    def complete(
        self, defaults: str, init_args: Mapping[str, Any], exec_args: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The own arguments of a call, with the settings of the set `defaults` wherever they are not given."""
        settings = self.defaults.choose(defaults)
        of_init = {name: value for name, value in settings.items() if name in self.init_args}
        of_exec = {name: value for name, value in settings.items() if name not in self.init_args}
        return MappingProxyType({**of_init, **init_args}), MappingProxyType({**of_exec, **exec_args})

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = (
            "roles",
            "native_only",
            "argument_needs",
            "own_required",
            "common",
            "choices",
            "instead_of_baselines",
            "alone_with",
        )
        spoken_of = {name: {*getattr(self, name)} for name in fields}
        spoken_of["documentation"] = {*self.documentation.words, *self.documentation.example}
        spoken_of["defaults"] = {*self.defaults.raw, *self.defaults.toolset}
        if promise := self.completeness:
            spoken_of["completeness"] = {*promise.only_with, *filter(None, (promise.steps, promise.groups))}
        for name, arguments in spoken_of.items():
            if unknown := sorted(arguments - {*self.init_args, *self.exec_args}):
                names = ", ".join(map(repr, unknown))
                self.refuse(f"{name} speaks of {names}, which init_args and exec_args do not hold")
        if self.wraps and self.wraps not in self.init_args:
            names = ", ".join(map(repr, self.init_args)) or "empty"
            self.refuse(f"wraps={self.wraps!r} is none of init_args ({names})")

    def __repr__(self) -> str:
        optional = "".join(f", [{name}]" for name in self.optional)
        return f"{self.key:<28} {self.toolset:<13} {self.kind:<21} {', '.join(self.required)}{optional}"


@dataclass(frozen=True, kw_only=True)
class TranslatorSpec(Checked):
    """An edge from one framework to another.

    Attributes:
        name: What users write in `translator=`.
        source: Framework it takes models of; a bridge may take those of `ANY`.
        target: Framework it makes models of.
        preserves: Needs that a model still meets after it.
        cost: Relative cost; the cheapest route that preserves a method's needs is taken.
        implementation: `"module:function"`; of a conversion called as `function(model, inputs)`, of a bridge with a
            `BridgeRequest`; returns `Converted`.
        requirements: PEP 508 requirements.
        extra: What pip installs to meet them, where that is an extra of its distribution (`"my-plugin[library]"`).
        kind: `"conversion"` (builds a native model) or `"bridge"` (runs the original inside).
        patches: What a conversion changes for the whole process while it runs, as in `ToolsetSpec.patches`; None stands
            for all of its source and target. The global generators are restored after it in any case.
    """

    name: Annotated[str, name_but(TRANSLATOR_KINDS, "is what translator= calls a kind, so nobody could ask for it")]
    source: Name
    target: _Framework
    preserves: frozenset[Need]
    cost: float
    implementation: Reference
    requirements: tuple[Requires, ...] = ()
    extra: Requires | Literal[""] = ""
    kind: Annotated[str, one_of(*TRANSLATOR_KINDS)] = "conversion"
    patches: tuple[Name, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "conversion" and self.source == ANY:
            self.refuse(f"source={ANY!r} stands for every framework, which only the source of a bridge can be")
        if self.kind == "conversion" and self.source == self.target:
            self.refuse(f"it leads from {self.source!r} to itself; only a bridge may")

    def __repr__(self) -> str:
        source = "any framework" if self.source == ANY else self.source
        return f"{self.name:<18} {source} → {self.target}, {self.kind}"


@dataclass(frozen=True, kw_only=True)
class PreparationSpec(Checked):
    """Models that bring their own preparation: what users give them is text or pictures, and not what the model takes.

    Attributes:
        name: For messages and listings.
        model_types: `("module", "Class")` pairs, looked up in `sys.modules`, never imported; empty for any model, which
            is asked after all others.
        implementation: `"module:function"`, called with the model and the inputs, as the user gave them; returns
            `Unpacked`, or None where the model takes these inputs as they are.
        requirements: PEP 508 requirements.
    """

    name: Name
    model_types: tuple[tuple[Module, Identifier], ...] = ()
    implementation: Reference
    requirements: tuple[Requires, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlotterSpec(Checked):
    """Draws attributions.

    Attributes:
        name: What users write in `Attribution.plot(plotter=…)`.
        implementation: `"module:function"`, called as `function(attribution, **options)`, returns a figure. Its
            keyword arguments are the options of `Attribution.plot`; others are refused before it is called.
        accepts: Names of axes (`Attribution.dims`) that an attribution must have; empty takes all.
        several: It draws several attributions in one figure: called as `function(attributions, titles=…, **options)`
            with a sequence of them, and with a title for each or None.
        draws: `"attribution"`, or `"checks"`: it is called with a `cfi_core.Checks` instead.
        requirements: PEP 508 requirements.
    """

    name: Name
    implementation: Reference
    accepts: tuple[Name, ...] = ()
    several: bool = False
    draws: Annotated[str, one_of("attribution", "checks")] = "attribution"
    requirements: tuple[Requires, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WriterSpec(Checked):
    """Writes attributions to files.

    Attributes:
        name: For messages and listings.
        suffixes: File name endings that it serves, such as `".npz"`.
        implementation: `"module:function"`, called as `function(attribution, path, **options)`. Its keyword arguments
            are the options of `Attribution.save`; others are refused before it is called.
        requirements: PEP 508 requirements.
    """

    name: Name
    suffixes: tuple[Suffix, ...]
    implementation: Reference
    requirements: tuple[Requires, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Checked):
    """A measure of how good the explanations of a model are.

    Attributes:
        name: In its library's words: `"Faithfulness Correlation"`.
        library: Whose words these are; several libraries may offer a metric of one name.
        category: What it measures, such as `"Faithfulness"`.
        better: Whether a `"higher"` or a `"lower"` score is that of the better explanation.
        needs: What it requires of the model.
        explains: It explains again (perturbed inputs, changed weights, other targets), so it has to know the method
            and its arguments; one that does not is content with the values.
        implementation: `"module:function"`, called as `function(model, attributions, name)` with an `Attribution` or a
            mapping of such, returns an `xarray.Dataset` (or, of one attribution, a `cfi_core.checks.Check`). Of its
            keyword-only arguments `cfi.check` gives `inputs`, `target`, `explain` and `seed` as it got them; the others
            are the options of the metric.
        requirements: PEP 508 requirements.
        citation: Paper that defines it.
    """

    name: Name
    library: Name
    category: Name
    better: Annotated[str, one_of("higher", "lower")]
    needs: frozenset[Need]
    implementation: Reference
    explains: bool = False
    requirements: tuple[Requires, ...] = ()
    citation: str = ""

    def __repr__(self) -> str:
        again = ", explains again" if self.explains else ""
        needs = ", ".join(sorted(self.needs)) or "the values alone"
        return f"{self.name:<34} {self.library:<9} {self.category:<14} {self.better} is better, needs {needs}{again}"


@dataclass(frozen=True, kw_only=True)
class CommandSpec(Checked):
    """A command of the command line, `cfi NAME …` (`cfi-cli` brings it).

    Attributes:
        name: What users type: `"attribute"`.
        help: What it does, in one line, for the list of commands, which imports no implementation.
        implementation: `"module:attribute"`, a `typer.Typer`, or a function that typer makes a command of.
        requirements: PEP 508 requirements.
    """

    name: Command
    help: Name
    implementation: Reference
    requirements: tuple[Requires, ...] = ()

    def __repr__(self) -> str:
        return f"{self.name:<14} {self.help}"


Spec = (
    FrameworkSpec
    | ToolsetSpec
    | MethodSpec
    | TranslatorSpec
    | PreparationSpec
    | PlotterSpec
    | WriterSpec
    | MetricSpec
    | CommandSpec
)


def resolve(implementation: str, called: str = "") -> Any:
    """Imports what a `"module:attribute"` string names.

    Args:
        implementation: That string.
        called: What is loaded with it, for whoever waits; the package, if left out.
    """
    module, _, attribute = implementation.partition(":")
    if module in sys.modules:
        return getattr(import_module(module), attribute)
    with phase(f"loading {called or module.partition('.')[0]}"):
        return getattr(import_module(module), attribute)
