"""Leaves no trace of a call in the process or the model, and lets calls from several threads run side by side.

What a framework keeps for each thread is restored by every call. What belongs to the whole process is changed by those
calls alone that cannot do without, which have it to themselves meanwhile (`cfi_core.turns`): conversions, methods of
toolsets that say so (`ToolsetSpec.patches`), and models that draw random numbers.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from time import perf_counter, sleep
from typing import Any, TypeVar

import numpy as np

from cfi_core.adapters import adapter_for
from cfi_core.contract import MethodRequest
from cfi_core.drawing import DrawWatch
from cfi_core.errors import UnknownFrameworkError
from cfi_core.framework.base import FrameworkAdapter
from cfi_core.records import Original, Purity, Route
from cfi_core.registry import Registry
from cfi_core.silence import keep_filters
from cfi_core.specs import ANY, RANDOM, Role, TranslatorSpec
from cfi_core.turns import Lock, Needs, Turn, at_fork, current

_PATIENCE = 0.5
"""Seconds that another thread of the user's has to draw again, where nothing in a model's code speaks of drawing."""

_ANOTHER_SEED = 20_000_003
"""No model seeds with it, as far as one can tell."""

_T = TypeVar("_T")
States = dict[str, Any]


@contextmanager
def keep_process(registry: Registry) -> Iterator[None]:
    """One call: what it changes is as before on leaving, also after an error; inside it has a turn."""
    with Turn(Needs()).take(), keep_filters(), ExitStack() as stack:
        for adapter in _loaded_adapters(registry):
            stack.enter_context(adapter.keep_settings())
        yield


@contextmanager
def keep_model(original: Original, purity: Purity | None = None) -> Iterator[None]:
    """Undoes on leaving what passes have written to the user's model, unless it is known to leave itself alone."""
    state = original.adapter.state(original.model) if purity is None or purity.writes else None
    try:
        yield
    finally:
        if state is not None:
            state.restore()


def use(registry: Registry, original: Original, routes: Sequence[Route], framework: str) -> None:
    """From now on the call uses the frameworks of its routes, and has to itself what it marks of its model."""
    steps = [step for route in routes for step in route.translators]
    named = {original.framework, framework, *(name for step in steps for name in (step.source, step.target))}
    specs = [registry.frameworks[name] for name in named & set(registry.frameworks)]
    modules = {module for spec in specs for module in (spec.module, *(module for module, _ in spec.model_types))}
    used = {name.partition(".")[0] for name in (*named - {ANY}, *modules, "numpy")}
    _need(Needs(frozenset(_marks(original, translated=bool(steps))), frozenset(used)))


def _marks(original: Original, *, translated: bool) -> Iterator[str]:
    """What twins of the model share; what is made of it is kept for all calls on it, which take turns too."""
    model = original.model
    yield from (f"model {id(part)}" for part in original.adapter.shared_parts(model))
    if translated and not hasattr(type(model), "__weakref__"):
        yield f"models of {original.framework}"  # known by their contents, so two of them may share a translation
    elif translated:
        yield f"model {id(model)}"


def first_pass(registry: Registry, run: Callable[[], _T]) -> _T:
    """What the first pass of a call's model gives; a model that draws random numbers has them to itself from then on.

    It is seen by the states of the generators. Where they have moved, which another thread may have done, a second pass
    tells, during which no other call draws; and where they do not move again and its code speaks of seeding, a third
    one that begins with others, for a model that seeds them ends in the same state each time.
    """
    turn = current()
    if turn is None or turn.generators:
        return run()
    with _watch() as begin:
        with turn.extend(Needs(shared=frozenset({RANDOM}))):
            # Inside a call that has the generators to itself nobody else watches.
            before = _states(registry) if RANDOM in turn.needs.alone else begin(registry)
            made = _Pass(run)
            drawn = _changes(before, _states(registry))
        if drawn and made.was_interrupted:  # who interrupts does not wait for a second pass
            drawn = [name for name in drawn if not _moves_by_itself(registry, name)]
        elif drawn:
            with turn.extend(Needs(frozenset({RANDOM}))):
                again, drawn, seeds = _pass_once_more(registry, run)
                if seeds and not drawn:
                    again, drawn = _pass_from_another_state(registry, run)
                    turn.seeds = bool(drawn)
                made = again if made.error is None else made
        _restore(registry, {name: before[name] for name in drawn})
    result = made.result()
    if drawn:
        _take_generators(registry, turn)
    return result


class _Pass:
    """What a pass gives, or what it fails with."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        try:
            self._result = run()
        except BaseException as error:  # noqa: BLE001 - raised again once the generators are as they were
            self.error = error

    @property
    def was_interrupted(self) -> bool:
        return self.error is not None and not isinstance(self.error, Exception)

    def result(self) -> Any:
        if self.error is None:
            return self._result
        try:
            raise self.error
        finally:
            self.error = None  # whose traceback holds this pass


def _pass_once_more(registry: Registry, run: Callable[[], Any]) -> tuple[_Pass, list[str], bool]:
    """A pass that no other call disturbs, and the generators from which it draws, rather than another thread's code.

    And whether anything that it calls speaks of seeding.
    """
    before = _states(registry)
    with DrawWatch() as watch:
        made = _Pass(run)
    moved = _changes(before, _states(registry))
    drawn = [name for name in moved if watch.seen or not _moves_by_itself(registry, name)]
    return made, drawn, watch.seeds


def _pass_from_another_state(registry: Registry, run: Callable[[], Any]) -> tuple[_Pass, list[str]]:
    """A pass of a model that moved generators once only, and those that it brings to a state of its own: it seeds them.

    All are as they were afterwards.
    """
    before = _states(registry)
    reseed(registry, _ANOTHER_SEED)
    start = _states(registry)
    made = _Pass(run)
    seeded = _changes(start, _states(registry))
    _restore(registry, before)
    return made, seeded


def _changes(before: States, after: States) -> list[str]:
    return [name for name in before if before[name] != after[name]]


def _moves_by_itself(registry: Registry, name: str) -> bool:
    """Whether another thread draws from a generator while no model runs."""
    start, state = perf_counter(), _states(registry)[name]
    while _states(registry)[name] == state:
        if perf_counter() - start > _PATIENCE:
            return False
        sleep(0.001)
    return True


@contextmanager
def generators(registry: Registry, request: MethodRequest) -> Iterator[bool]:
    """The global generators, seeded, for what draws from them: the model, the toolset, functions among own arguments.

    Yields:
        Whether they are; otherwise they are the user's, and the toolset draws from generators of its own.
    """
    turn = current()
    if turn is None:
        yield False
        return
    method = request.method
    toolset = registry.toolsets.get(method.toolset)
    patches = frozenset((RANDOM,) if toolset is None else (*toolset.patches, *method.patches))
    if RANDOM in patches or _brings_functions(request):
        _take_generators(registry, turn)
    with turn.extend(Needs(patches)):
        if turn.generators:
            reseed(registry, request.seed)
        yield turn.generators


def _brings_functions(request: MethodRequest) -> bool:
    """Whether the user's functions may draw, such as one that perturbs inputs; a score function does not."""
    own, roles = {**request.init_args, **request.exec_args}, request.method.roles
    values = [value for name, value in own.items() if roles.get(name) is not Role.OWN_TARGET]
    return any(callable(part) for value in values for part in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)
    else:
        yield value


@contextmanager
def take_conversion_turn(registry: Registry, step: TranslatorSpec) -> Iterator[None]:
    """Runs a translator, which has to itself what it patches, and the global generators."""
    turn = current()
    patches = (step.source, step.target) if step.patches is None else step.patches
    if turn is None:
        yield
        return
    with turn.extend(Needs(frozenset(patches) | {RANDOM}, frozenset({step.source, step.target}))):
        before = _states(registry)
        try:
            yield
        finally:
            _restore(registry, before)


def _need(more: Needs) -> None:
    turn = current()
    if turn is not None:
        turn.change(turn.needs | more)


# generators


def _take_generators(registry: Registry, turn: Turn) -> None:
    """For the rest of the turn; whenever it is left, they are the user's again."""
    if turn.generators:
        return
    users: list[States] = []
    own: list[States] = []

    def enter() -> None:
        users[:] = [_states(registry)]
        for states in own:
            _restore(registry, states)

    def leave() -> None:
        own[:] = [_states(registry)]
        for states in users:
            _restore(registry, states)

    turn.leave()
    turn.needs |= Needs(frozenset({RANDOM}))
    turn.generators, turn.on_enter, turn.on_leave = True, enter, leave
    turn.enter()


def _states(registry: Registry) -> States:
    """The states of all global generators, comparable."""
    kind, keys, *rest = np.random.get_state()  # restored, not drawn from
    states: States = {"Python": random.getstate(), "NumPy": (kind, np.asarray(keys).tobytes(), *rest)}
    return states | {adapter.name: adapter.random_state() for adapter in _loaded_adapters(registry)}


def _restore(registry: Registry, states: States) -> None:
    """Those of the generators that are among the states."""
    if "Python" in states:
        random.setstate(states["Python"])
    if "NumPy" in states:
        kind, keys, *rest = states["NumPy"]
        np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))
    for adapter in _loaded_adapters(registry):
        if adapter.name in states:
            adapter.restore_random_state(states[adapter.name])


def reseed(registry: Registry, seed: int) -> None:
    """Seeds the global generators of Python, numpy and the loaded frameworks; for a call that has them to itself."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    for adapter in _loaded_adapters(registry):
        adapter.seed(seed)


def _loaded_adapters(registry: Registry) -> list[FrameworkAdapter]:
    """Adapters of the frameworks that the process has loaded; others have no state that could be lost."""
    adapters = []
    for spec in registry.frameworks.values():
        if spec.module in sys.modules:
            # An adapter that does not load touches nothing; it is told when a model of its framework comes.
            with suppress(UnknownFrameworkError):
                adapters.append(adapter_for(registry, spec.name))
    return adapters


_watching = Lock()
_watchers: list[int] = []
"""The threads in which calls watch."""
_before_them: States = {}


@contextmanager
def _watch() -> Iterator[Callable[[Registry], States]]:
    """Tells the states before the passes that several calls watch at once: any of these may be the one that draws."""
    thread, joined = threading.get_ident(), False

    def begin(registry: Registry) -> States:
        global _before_them
        nonlocal joined
        with _watching:
            if not _watchers:
                _before_them = _states(registry)
            _watchers.append(thread)
            joined = True
            return _before_them

    try:
        yield begin
    finally:
        with _watching:
            if joined:
                _watchers.remove(thread)


def _start_anew() -> None:
    """In a forked process there is one thread: nobody else watches there."""
    _watchers[:] = [thread for thread in _watchers if thread == threading.get_ident()]


at_fork(_start_anew)
