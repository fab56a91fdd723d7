"""A question about a model: prepared once, asked of any number of inputs. Its eight steps are the way of one call."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np

from cfi_core.attribution import Attribution
from cfi_core.binding import explain_unknown_arguments
from cfi_core.boundary import observe
from cfi_core.carrying import carry
from cfi_core.checking import check
from cfi_core.checking.batch import check_batch, is_plain
from cfi_core.checking.forecast import Forecast
from cfi_core.confirming import confirm_run, lacks_evidence
from cfi_core.detection import find_original, load_original
from cfi_core.diagnosis import tell_what_is_missing
from cfi_core.errors import FOREIGN, ArgumentError, LayerError, TargetError, summary
from cfi_core.finding import find_methods
from cfi_core.homecoming import bring_home
from cfi_core.precision import in_single
from cfi_core.preparation import unpack, unpack_model
from cfi_core.process import keep_model, keep_process, use
from cfi_core.progress import logger_of, phase, show
from cfi_core.records import Arguments, Call, ModelAtHead, PendingLayer, Plan, Prepared
from cfi_core.registry import Registry, registry
from cfi_core.routing import choose
from cfi_core.running import run
from cfi_core.seeking import settle_layer
from cfi_core.specs import BatchSize, Kind, Translator
from cfi_core.translation import prepare
from cfi_core.translation.bridging import often
from cfi_core.turns import Lock

ATTRIBUTION_KINDS = frozenset({Kind.ATTRIBUTION, Kind.LAYER, Kind.NEURON})
VISUALIZATION_KINDS = frozenset({Kind.FEATURE_VISUALIZATION})

CHECKS = ("every", "sampled", "first")
SAMPLED = 16
"""One in so many batches is checked in full, besides the first; which, the seed and the batch's number draw."""
_CAPACITY = 8
"""Kinds of batches (shapes and types) that are known at a time."""

_OWN = ("checks", "columns", "factory")

_log = logger_of(__name__)


def explain_once(arguments: Arguments, kinds: frozenset[Kind]) -> Attribution | PendingLayer:
    """What an explainer gives that is made for this call alone; a call that lacks its layer waits for it."""
    answer = _explain(arguments, kinds, once=True).answer
    assert answer is not None
    return answer


class Explainer:
    """A model, a method and all that is asked of it, to explain any number of batches of inputs.

    The model is translated and certified once: when the explainer is made, if `inputs` are given, otherwise at the
    first batch. A batch is then carried across, explained and brought home; `cfi.attribute` is an explainer that is
    used once.

        explainer = cfi.Explainer(model, "integrated_gradients", "captum", exec_args={"n_steps": 50})
        for images, labels in batches:
            attribution = explainer(images, labels)

    **Checks.** Of every batch are checked: types, shapes, target, baselines, whether the values are finite, and whether
    the model looks as before (identities, versions and some numbers of all its weights). Checked in full is the first
    batch of each kind (shapes and types), and every batch of a model that looks different, is no function of each
    sample alone or writes to itself, of inputs by name, tables, tokens and pipelines, and of a target that is a
    function. In full means as in `cfi.attribute`: one forward pass of your model, its content compared weight by
    weight, the certificate on these inputs and on samples of the run, completeness. `checks` says which other batches
    are; `provenance["checks"]` which of both was done.

    **Processes.** It goes through pickle as its model does (Keras and ONNX models by their content, torch modules by
    their class and state), without what was prepared, and is prepared anew where it arrives. A model that cannot be
    pickled is made there: see `factory`. Threads may share one.

    Args:
        model: As for `cfi.attribute`; or what makes it, see `factory`.
        method_key: As there.
        toolset: As there.
        inputs: A batch to prepare with, of the kind of those that come.
        explain: As there.
        feature_names: As there.
        target: Of batches that come without one.
        layer: As there; a method of a layer needs it here.
        reshape: As there.
        neuron: As there.
        baselines: Of batches that come without.
        init_args: As there.
        exec_args: As there.
        translator: As there.
        head: As there.
        defaults: As there.
        progress: As there, for each batch.
        seed: Of every batch that comes without one; None draws one for each.
        batch_size: As there, of each batch; `"auto"` keeps what it has found.
        checks: `"sampled"` (the first batch and one in 16, which the seed draws), `"every"` or `"first"`.
        columns: Names of the columns that hold inputs and target, where batches are dicts of arrays, as in
            `ray.data.Dataset.map_batches` and `datasets.Dataset.map`: `{"inputs": "image", "target": "label"}`. Such a
            batch is given back with the values beside it, as `"attribution"` (of several inputs `"attribution.0"` and
            so on).
        factory: Whether `model` is not the model but a function without arguments that makes it, or the name of one
            (`"package.module:function"`), which is called once in each process.

    Raises:
        CFIError: As `cfi.attribute`, of the steps that are taken when it is made.
    """

    @explain_unknown_arguments
    def __init__(
        self,
        model: Any,
        method_key: str,
        toolset: str | None = None,
        *,
        inputs: Any = None,
        explain: Sequence[str] | None = None,
        feature_names: Any = None,
        target: Any = None,
        layer: Any = None,
        reshape: Any = None,
        neuron: Any = None,
        baselines: Any = None,
        init_args: Mapping[str, Any] | None = None,
        exec_args: Mapping[str, Any] | None = None,
        translator: Translator = None,
        head: str | None = None,
        defaults: str = "raw",
        progress: bool | None = None,
        seed: int | None = None,
        batch_size: BatchSize = None,
        checks: str = "sampled",
        columns: Mapping[str, str] | None = None,
        factory: bool = False,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", *_OWN)}
        self._asked = Arguments(**{**given, "inputs": None})
        self._checks, self._columns, self._factory = checks, columns, factory
        _check_own(self._asked, checks, columns, factory=factory)
        self._forget()
        if inputs is not None:
            self.prepare(inputs)

    def prepare(self, inputs: Any, target: Any = None) -> Plan:
        """Takes the steps that are taken once, on these inputs: translates, certifies, and says what will be done.

        Raises:
            CFIError: As `cfi.attribute`; `LayerError`: the method needs a layer.
        """
        arguments = self._arguments(self._columns_of(inputs)[0], target, None, None)
        targets = ["predicted", None] if arguments.target is None else [arguments.target]
        for other in targets:  # a target may come with each batch
            try:
                return self._prepare(replace(arguments, target=other))
            except TargetError:
                if other == targets[-1]:
                    raise
        raise AssertionError

    def __call__(
        self,
        inputs: Any = None,
        target: Any = None,
        *,
        baselines: Any = None,
        seed: int | None = None,
        check: bool | None = None,
    ) -> Any:
        """Explains a batch.

        Args:
            inputs: As for `cfi.attribute`; or a dict of columns, if the explainer was given `columns`.
            target: As there; None: that of the explainer.
            baselines: As there; None: those of the explainer.
            seed: As there; None: that of the explainer.
            check: Whether this batch is checked in full; None: as `checks` says.

        Returns:
            The `Attribution`; with `columns` the dict with the values beside its own columns.

        Raises:
            CFIError: As `cfi.attribute`.
        """
        taken, own = self._columns_of(inputs)
        arguments = self._arguments(taken, own if target is None else target, baselines, seed)
        attribution = self._explain(arguments, in_full=self._draws_check() if check is None else check)
        return attribution if self._columns is None else _with_columns(inputs, attribution)

    @property
    def plan(self) -> Plan:
        """What is done with each batch.

        Raises:
            ArgumentError: Nothing was prepared yet.
        """
        if self._plan is None:
            raise ArgumentError("Nothing is prepared yet. Call explainer.prepare(inputs), or explain a batch.")
        return self._plan

    @property
    def asked(self) -> Arguments:
        """What is asked of every batch, under the names of the arguments; the model, or its factory."""
        return self._asked

    @property
    def fingerprint(self) -> str:
        """A hash of the model's content: the same in every process where it can be read in full, else of this one."""
        current, asked = registry(), self._asked
        with keep_process(current):
            model, inputs = unpack_model(current, self._model(), None)
            original = load_original(current, model, inputs, asked.explain)
            return original.adapter.content(original.model) or original.adapter.fingerprint(original.model)

    def __repr__(self) -> str:
        what = f"{self._asked.method_key} of {self._asked.toolset or 'any toolset'}"
        done = f"prepared: {self._plan.route}" if self._plan else "not prepared yet"
        return f"<Explainer {what}, {done}>"

    def __getstate__(self) -> dict[str, Any]:
        """All that was asked, and nothing that was made of it; layers by their names, which lead to them again."""
        return {
            "asked": self._without_layer_objects(),
            "checks": self._checks,
            "columns": self._columns,
            "factory": self._factory,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._asked, self._checks = state["asked"], state["checks"]
        self._columns, self._factory = state["columns"], state["factory"]
        self._forget()

    def _without_layer_objects(self) -> Arguments:
        layer = self._asked.layer
        parts = layer if isinstance(layer, list | tuple) else (layer,)
        if self._plan is None or all(isinstance(part, str | None) for part in parts):
            return self._asked
        return replace(self._asked, layer=list(self._plan.layers))

    def _forget(self) -> None:
        self._lock = Lock()
        self._plan: Plan | None = None
        self._made: Any = None
        self._batches = 0
        self._known: OrderedDict[tuple[Any, ...], _Known] = OrderedDict()

    def _model(self) -> Any:
        """The model; what the factory makes, once."""
        if not self._factory:
            return self._asked.model
        with self._lock:
            if self._made is None:
                self._made = _make(self._asked.model)
            return self._made

    def _arguments(self, inputs: Any, target: Any, baselines: Any, seed: int | None) -> Arguments:
        asked = self._asked
        return replace(
            asked,
            model=self._model(),
            inputs=inputs,
            target=asked.target if target is None else target,
            baselines=asked.baselines if baselines is None else baselines,
            seed=asked.seed if seed is None else seed,
            started=perf_counter(),
        )

    def _columns_of(self, batch: Any) -> tuple[Any, Any]:
        """Inputs and target of a batch."""
        if self._columns is None:
            return batch, None
        if not isinstance(batch, Mapping):
            raise ArgumentError(f"The explainer was given columns= and takes dicts of them, not {type(batch)}.")
        names = [name for name in self._columns.values() if name not in batch]
        if names:
            raise ArgumentError(f"The batch has no column {names[0]!r}. It has: {', '.join(map(str, batch))}.")
        return tuple(batch[name] if (name := self._columns.get(part)) else None for part in ("inputs", "target"))  # type: ignore[return-value]

    def _draws_check(self) -> bool:
        """Whether the next batch is checked in full, as `checks` says."""
        with self._lock:
            number, self._batches = self._batches, self._batches + 1
        if self._checks != "sampled":
            return self._checks == "every"
        return bool(np.random.default_rng([self._asked.seed or 0, number]).integers(SAMPLED) == 0)

    def _prepare(self, arguments: Arguments) -> Plan:
        made = self._take_steps(arguments, runs=False)
        self._plan = made.plan
        return made.plan

    def _explain(self, arguments: Arguments, *, in_full: bool) -> Attribution:
        kind = _kind(arguments)
        with self._lock:
            known = self._known.get(kind) if kind else None
        if known is not None and not in_full:
            attribution = known.explain(arguments)
            if attribution is not None:
                return attribution
        made = self._take_steps(arguments)
        self._plan, known = made.plan, made.known() if kind else None
        with self._lock:
            self._known.pop(kind, None)
            if known is not None:
                self._known[kind] = known
                while len(self._known) > _CAPACITY:
                    self._known.popitem(last=False)
        return made.attribution

    def _take_steps(self, arguments: Arguments, *, runs: bool = True) -> Explained:
        """All of them; what is compiled for many batches is compiled at once, so that equal batches have equal passes.

        Raises:
            LayerError: The method needs a layer.
        """
        with often():
            made = _explain(arguments, ATTRIBUTION_KINDS | VISUALIZATION_KINDS, runs=runs)
        if isinstance(made.answer, PendingLayer):
            raise _lacks_layer(made.answer)
        return made


# The way of one call


@dataclass(frozen=True, eq=False)
class Explained:
    """What came of a call, and of what use it is to others on the same model."""

    plan: Plan
    answer: Attribution | PendingLayer | None  # None of one that only prepares
    known: Callable[[], _Known | None] = lambda: None  # what other batches can use of it

    @property
    def attribution(self) -> Attribution:
        """Of a call that has its layer."""
        assert isinstance(self.answer, Attribution)
        return self.answer


def _explain(arguments: Arguments, kinds: frozenset[Kind], *, runs: bool = True, once: bool = False) -> Explained:
    """The eight steps of a call, which may be its model's only one; the first five of one that only prepares."""
    with show(arguments.progress), phase(f"preparing {arguments.method_key}"), ExitStack() as stack:
        current = registry()
        stack.enter_context(keep_process(current))
        methods = find_methods(current, arguments, kinds)  # 1
        arguments = unpack(current, arguments, methods)  # where the model brings its own preparation
        original = find_original(current, arguments, methods)  # 2
        choice = choose(current, methods, original, arguments.translator)  # 3
        _log.info("%s of %s: %s: %s", choice.method.key, choice.method.toolset, choice.routes[0], choice.reason)
        use(current, original, choice.routes, choice.toolset_framework)
        call = check(current, arguments, original, choice, records=once)  # 4
        stack.enter_context(keep_model(original, call.purity))
        if runs:
            observe(current, "cfi_before_run", plan=call.plan)
        with tell_what_is_missing(call):
            call = in_single(call)
            if call.plan.needs_layer:
                return Explained(call.plan, _wait_for_layer(current, call))
            prepared = prepare(current, call)  # 5
            return finish(current, call, prepared) if runs else Explained(call.plan, None)


def finish(current: Registry, call: Call, prepared: Prepared) -> Explained:
    """The steps after the model has been prepared."""
    call = settle_layer(call, prepared)
    carried = carry(current, call, prepared)  # 6
    made = run(current, call, prepared, carried)  # 7
    if lacks_evidence(call, prepared):
        call = replace(call, recorded=None)
        return finish(current, call, prepare(current, call))
    confirmed = confirm_run(call, prepared, carried, made)  # its end
    attribution = bring_home(current, call, confirmed, carried, made)  # 8
    if prepared.translation is not None and prepared.translation.runner is not None:
        prepared.translation.runner.release()  # passes of a run that is over
    return Explained(
        call.plan, attribution, lambda: _Known.of(call, prepared, carried.head) if is_plain(call) else None
    )


def _wait_for_layer(current: Registry, call: Call) -> PendingLayer:
    """The call with its translated model, and the layers that its method could use."""
    adapter, model = call.original.adapter, call.original.model
    users = call.users or call.original
    listed, fingerprint = adapter.layers(model, call.inputs.passed), adapter.fingerprint(users.model)
    if call.plan.route.bridge:
        # A bridge is built at the layers of the call, so it waits for them; it can open what is read in one piece.
        prepared, choosable = None, [layer for layer in listed if layer.output_shape is not None]
    else:
        prepared = prepare(current, call)
        layer_map = prepared.translation.layer_map if prepared.translation else None
        choosable = [layer for layer in listed if layer_map is None or layer.name in layer_map]
    return PendingLayer(call.plan, tuple(choosable), call, prepared, fingerprint)


# Another batch of the same kind


@dataclass(frozen=True, eq=False)
class _Known:
    """What was found and made for a batch, of use to others of its kind."""

    call: Call
    prepared: Prepared
    looks: Sequence[Any]  # how the model looked, part by part
    forecast: Forecast
    heads: deque[ModelAtHead] = field(default_factory=deque)  # that no run uses now
    batches: Iterator[int] = field(default_factory=count)

    @classmethod
    def of(cls, call: Call, prepared: Prepared, head: ModelAtHead | None) -> _Known:
        """With the model as it is now."""
        adapter, model = call.original.adapter, call.original.model
        looks = [adapter.glance(model, part) for part in range(adapter.glances)]
        return cls(call, prepared, looks, Forecast(call, prepared), deque([head] if head else []))

    def explain(self, arguments: Arguments) -> Attribution | None:
        """Steps 6 to 8 for another batch; None where it has to be checked in full."""
        original, plan = self.call.original, self.call.plan
        with show(arguments.progress), phase(f"preparing {plan.method.key}"):
            current = registry()
            with keep_process(current), self.forecast.begin():
                use(current, original, plan.routes, plan.toolset_framework)
                if self._has_changed():
                    return None
                call = check_batch(current, self.call, arguments, self.forecast)  # 4
                if call is None:
                    return None
                observe(current, "cfi_before_run", plan=call.plan)
                with tell_what_is_missing(call):
                    return self._finish(current, call)

    def _has_changed(self) -> bool:
        """Whether the model looks another; batches take turns with its parts where it runs itself, as it is now."""
        original, route = self.call.original, self.call.plan.route
        runs_itself = (route.native or route.bridge) and self.prepared.repair is None
        parts = (next(self.batches) % len(self.looks),) if runs_itself else range(len(self.looks))
        return any(original.adapter.glance(original.model, part) != self.looks[part] for part in parts)

    def _finish(self, current: Registry, call: Call) -> Attribution:
        head = self.heads.pop() if self.heads else None
        carried = carry(current, call, self.prepared, head)  # 6
        made = run(current, call, self.prepared, carried)  # 7
        confirmed = confirm_run(call, self.prepared, carried, made)  # its end
        attribution = bring_home(current, call, confirmed, carried, made)  # 8
        if carried.head is not None and not (made.batch or {}).get("halved"):  # what failed may have left marks
            self.heads.append(carried.head)
        return attribution


def _kind(arguments: Arguments) -> tuple[Any, ...]:
    """Shapes and types of inputs, of one sample; empty where others may be of another kind all the same."""
    parts = arguments.inputs if isinstance(arguments.inputs, tuple) else (arguments.inputs,)
    if not all(hasattr(part, "shape") and hasattr(part, "dtype") for part in parts):
        return ()
    return tuple((type(part), tuple(part.shape[1:]), str(part.dtype)) for part in parts)


# Batches of columns, factories


def _check_own(asked: Arguments, checks: str, columns: Mapping[str, str] | None, *, factory: bool) -> None:
    if checks not in CHECKS:
        raise ArgumentError(f"checks={checks!r} is none of {', '.join(map(repr, CHECKS))}.")
    if asked.plot:
        raise ArgumentError("An explainer draws nothing. Call plot() of the attributions that you want to see.")
    if columns is not None and (
        not isinstance(columns, Mapping) or not {"inputs"} <= set(columns) <= {"inputs", "target"}
    ):
        raise ArgumentError(
            f"columns={columns!r} does not name the columns of the inputs, and of the target if there is one: pass "
            f'for example columns={{"inputs": "image", "target": "label"}}.'
        )
    if factory and not callable(asked.model) and not (isinstance(asked.model, str) and ":" in asked.model):
        raise ArgumentError(
            f"With factory=True the model is a function that makes it, or its name 'package.module:function', not "
            f"{asked.model!r}."
        )


def _make(factory: Callable[[], Any] | str) -> Any:
    """The model of a factory.

    Raises:
        ArgumentError: There is no such function, it fails, or it gives none.
    """
    try:
        if isinstance(factory, str):
            module, _, name = factory.partition(":")
            made = getattr(import_module(module), name)()
        else:
            made = factory()
    except FOREIGN as error:
        raise ArgumentError(f"The factory {factory!r} makes no model ({summary(error)}).") from error
    if made is None:
        raise ArgumentError(f"The factory {factory!r} gives None instead of a model.")
    return made


def _with_columns(batch: Mapping[str, Any], attribution: Attribution) -> dict[str, Any]:
    values = [values for values, _ in attribution.parts]
    names = ["attribution"] if len(values) == 1 else [f"attribution.{position}" for position in range(len(values))]
    if taken := sorted(set(names) & set(batch)):
        raise ArgumentError(f"The batch has a column {taken[0]!r} already. Rename it.")
    return {**batch, **dict(zip(names, values, strict=True))}


def _lacks_layer(pending: PendingLayer) -> LayerError:
    plan = pending.plan
    return LayerError(f"{plan.method.key} of {plan.method.toolset} needs a layer: pass layer=. {pending.advice}")
