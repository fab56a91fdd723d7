"""An explanation that is to be checked: what was explained, how to explain again, and what the model gives."""

from __future__ import annotations

import ast
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cfi_core.adapters import adapter_for, as_array, framework_of_tensor
from cfi_core.api import attribute
from cfi_core.attribution import Attribution
from cfi_core.checking import check
from cfi_core.detection import detect_framework, load_original
from cfi_core.errors import ArgumentError, InputError, MethodError
from cfi_core.framework import flatten, items, map_structure
from cfi_core.prediction import predict
from cfi_core.process import keep_model, keep_process, use
from cfi_core.records import Arguments, Call, Choice, Route, check_seed
from cfi_core.reference import reference_of
from cfi_core.registry import Registry, registry
from cfi_core.silence import without_warnings
from cfi_core.specs import Head, Kind, MethodSpec, Need, Role
from cfi_core.turns import aside

Arrays = Sequence[np.ndarray]
Score = Callable[[Arrays], np.ndarray]

NAMES = (
    *("method_key", "toolset", "layer", "neuron", "reshape", "baselines", "init_args", "exec_args", "translator"),
    *("head", "defaults", "seed", "explain", "feature_names"),
)
"""What `explain=` may say: the arguments of `cfi.attribute` but model, inputs, target and plot."""

APART = 1e-3
"""How far an explanation that is made again may be from the given one, relative to its largest value."""

_LOST = object()


@dataclass(frozen=True, eq=False)
class Question:
    """An explanation, the model, and what the user says of how it was made.

    Attributes:
        model: The user's.
        attribution: Of the model.
        given: Inputs as the user gave them; None: those of the attribution.
        asked: Target as the user gave it; None: that of the attribution.
        own: Arguments of `cfi.attribute` in the place of what the provenance tells.
        seed: Of all that is random here.
    """

    model: Any
    attribution: Attribution
    given: Any
    asked: Any
    own: Mapping[str, Any]
    seed: int

    @classmethod
    def of(
        cls, model: Any, attribution: Any, inputs: Any, target: Any, explain: Mapping[str, Any] | None, seed: int | None
    ) -> Question:
        """The question, as far as its form goes.

        Raises:
            ArgumentError: It is of another form.
        """
        if not isinstance(attribution, Attribution):
            raise ArgumentError(
                f"What is checked is an Attribution, of cfi.attribute or cfi.load, not a {type(attribution).__name__}: "
                f"cfi.check(attribution, model)."
            )
        if attribution.provenance.get("kind") == Kind.FEATURE_VISUALIZATION:
            raise ArgumentError(
                f"{attribution.method_key} makes inputs and explains none, so there is nothing to check."
            )
        if not isinstance(explain, Mapping | None) or (unknown := sorted(set(explain or {}) - set(NAMES))):
            what = "no dict" if not isinstance(explain, Mapping) else f"given {', '.join(map(repr, unknown))}"
            raise ArgumentError(f"explain= takes a dict with any of {', '.join(NAMES)}; it was {what}.")
        check_seed(seed)
        return cls(
            model, attribution, inputs, target, dict(explain or {}), secrets.randbits(31) if seed is None else seed
        )

    # what was explained

    @cached_property
    def framework(self) -> str:
        """Of the model.

        Raises:
            UnknownFrameworkError: It is of none that is known.
            ArgumentError: The attribution is of a model of another one.
        """
        told, current = self.attribution.provenance, registry()
        if "preparation" in told:
            return str(told["framework"])
        with keep_process(current):
            found = detect_framework(current, self.model, self.inputs).name
        if found != told.get("framework", found):
            raise ArgumentError(f"The attribution is of a model of {told['framework']}, and this one is of {found}.")
        return found

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The explained inputs; the tokens, where the values are of what they are embedded as.

        Raises:
            InputError: They are not known, or no arrays that the model takes.
        """
        told = self.attribution.provenance
        if "preparation" in told:
            raise InputError(
                "the model prepares its inputs itself, and what is perturbed has to be what goes into it: explain and "
                "check the model inside, with what it is given there."
            )
        if self._of_embedding:
            given = self.inputs
            parts = [given[name] for name in self.names] if isinstance(given, Mapping) else flatten(given)
            return tuple(as_array(registry(), part, "inputs") for part in parts)
        if not self.attribution.inputs:
            raise InputError("what was explained is not known: pass inputs=.")
        if "columns" in told or any(array.dtype.kind not in "fiu" for array in self.attribution.inputs):
            raise InputError("the inputs are a table of cells or no numbers: explain and check an array of numbers.")
        return self.attribution.inputs

    @property
    def dims(self) -> tuple[tuple[str, ...], ...]:
        """Names of the axes of each."""
        dims = self.attribution.input_dims
        return tuple(one[: array.ndim] for one, array in zip(dims, self.arrays, strict=True))

    @property
    def _of_embedding(self) -> bool:
        return str(self.attribution.provenance.get("inputs")).startswith("the output of layer")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the explained inputs, where inputs go by name."""
        if not isinstance(self.inputs, Mapping):
            return ()
        current = registry()
        with keep_process(current):
            found = load_original(current, self.model, self.inputs, self.own.get("explain")).names
        return found.explained if found else ()

    @cached_property
    def inputs(self) -> Any:
        """As `cfi.attribute` takes them; of a plain function in the framework's tensors, by which it is known.

        Raises:
            InputError: Only the user can give them.
        """
        if self.given is not None:
            return self.given
        if self._of_embedding:
            raise InputError("the values are of embeddings: pass inputs= with the tokens that were explained.")
        if self.attribution.provenance.get("held", "nothing") != "nothing" or isinstance(
            self.attribution.values, Mapping
        ):
            raise InputError("the model got its inputs by name: pass inputs= as you gave them to cfi.attribute.")
        return self._like(None, self.arrays)

    def _like(self, given: Any, arrays: Arrays) -> Any:
        """Arrays in the place of the explained inputs."""
        found: tuple[Any, ...] = tuple(self._tensor(array) for array in arrays)
        if isinstance(given, Mapping):
            return {**given, **dict(zip(self.names, found, strict=True))}
        return found if len(found) > 1 or isinstance(given, tuple) else found[0]

    def _tensor(self, array: np.ndarray) -> Any:
        current, name = registry(), self.attribution.provenance.get("framework")
        if self.given is not None:
            leaves = [self.given[one] for one in self.names] if isinstance(self.given, Mapping) else flatten(self.given)
            name = framework_of_tensor(current, leaves[0])
        spec = None if name is None else current.frameworks.get(name)
        if name is None or spec is None or not spec.takes_functions:
            return array
        with keep_process(current):
            if self.given is None and detect_framework(current, self.model, array).name == name:
                return array  # the model tells its framework itself
            adapter = adapter_for(current, name)
            return adapter.tensor(array, adapter.load(self.model))

    @cached_property
    def target(self) -> Any:
        """In numbers, so that it stays the same for other inputs and weights; a function as it is."""
        if self.asked is not None and self.asked != "predicted":
            return self.asked
        asked, told = self.attribution.target, self.attribution.provenance.get("target")
        if told is None or not isinstance(told, tuple) or any(isinstance(one, str) for one in told):
            return asked
        if told and all(isinstance(one, tuple) for one in told):
            return [one[0] if len(one) == 1 else one for one in told]
        return told[0] if len(told) == 1 and isinstance(told[0], int) else told

    # explaining again

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Of `cfi.attribute`, without model, inputs and target: as the provenance tells, and the user besides.

        Raises:
            ArgumentError: The provenance holds but the text of one of them.
        """
        told, attribution = self.attribution.provenance, self.attribution
        layer, neuron = attribution.layer, told.get("neuron")
        found: dict[str, Any] = {
            "method_key": attribution.method_key,
            "toolset": attribution.toolset,
            "layer": list(layer) if isinstance(layer, tuple) else layer,
            "neuron": _LOST if isinstance(neuron, str) else neuron,
            "translator": list(attribution.route) or None,
            "defaults": told.get("defaults", "raw"),
            "seed": told.get("seed"),
            **self.own,
        }
        for name in ("init_args", "exec_args"):
            own = {key: _value(text) for key, text in told.get(name, {}).items()}
            found[name] = {**self._without_questions(own), **(self.own.get(name) or {})}
        words = {"neuron": found["neuron"], **found["init_args"], **found["exec_args"]}
        if lost := [name for name, value in words.items() if value is _LOST]:
            raise ArgumentError(
                f"to explain again as it was explained, {', '.join(map(repr, lost))} must be known, of which the "
                f"provenance holds the text alone: pass explain={{…}} with it, in init_args or exec_args."
            )
        return found

    @cached_property
    def own_settings(self) -> dict[str, Any]:
        """The toolset's own arguments, as far as the provenance holds more than their text, or the user gives them."""
        told = self.attribution.provenance
        texts = {**told.get("init_args", {}), **told.get("exec_args", {})}
        found = {key: _value(text) for key, text in texts.items()}
        found |= {**(self.own.get("init_args") or {}), **(self.own.get("exec_args") or {})}
        return {key: value for key, value in found.items() if value is not _LOST}

    @cached_property
    def method(self) -> MethodSpec | None:
        """The method that explained; the one inside of a method that wraps another. None if it is not known here."""
        methods, toolset = registry().methods, self.attribution.toolset
        outer = methods.get((self.attribution.method_key, toolset))
        if outer is None or not outer.wraps:
            return outer
        return methods.get((str(self.own_settings.get(outer.wraps)), toolset)) or outer

    def _without_questions(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Without the inputs, and the target where it is given: they are told otherwise."""
        method = registry().methods.get((self.attribution.method_key, self.attribution.toolset))
        roles = {} if method is None else method.roles
        told = {Role.INPUTS, Role.ONE_OR_SEVERAL}
        told |= {Role.OWN_TARGET, Role.TARGET} if self.asked is not None else set()
        told |= {Role.HELD} if isinstance(self.inputs, Mapping) or self._of_embedding else set()
        return {name: value for name, value in own.items() if roles.get(name) not in told}

    def explain(self, arrays: Arrays | None = None, model: Any = None) -> list[np.ndarray]:
        """The values for other inputs, or of another model, in the order of the parts of the attribution.

        Raises:
            CFIError: As `cfi.attribute`.
        """
        inputs = self.inputs if arrays is None else self._like(self.inputs, arrays)
        method = registry().methods.get((self.arguments["method_key"], self.arguments["toolset"]))
        takes = method is None or "target" in (*method.required, *method.optional)
        target = self.target if takes and not self._has_own_target(method) else None
        with without_warnings():  # what concerns the method was told with the attribution
            found = attribute(self.model if model is None else model, inputs=inputs, target=target, **self.arguments)
        if not isinstance(found, Attribution):
            raise ArgumentError("to explain again, the layer must be known: pass explain={'layer': …}.")
        return [np.asarray(values, np.float64) for values, _ in self._reduced(found).parts]

    def _reduced(self, made: Attribution) -> Attribution:
        """Summed over the axes that the given one was summed over."""
        for text in self.attribution.provenance.get("applied", {}).get("reduced", ()):
            how, _, axis = text.partition(" over ")
            made = {"sum": Attribution.sum, "mean": Attribution.mean, "norm": Attribution.norm}[how](made, axis)
        return made

    def _has_own_target(self, method: MethodSpec | None) -> bool:
        own = {**self.arguments["init_args"], **self.arguments["exec_args"]}
        return method is not None and any(method.roles.get(name) is Role.OWN_TARGET for name in own)

    def explain_as_given(self) -> list[np.ndarray]:
        """The values once more, made again.

        Raises:
            ArgumentError: They are others than the given ones, so an argument is not known.
        """
        found = self.explain()
        given = [np.asarray(values, np.float64) for values, _ in self.attribution.parts]
        if [one.shape for one in found] != [one.shape for one in given]:
            raise ArgumentError(f"explaining again gives values of other shapes. {_ADVICE}")
        largest = max(float(np.abs(one).max(initial=0)) for one in given) or 1
        apart = max(float(np.abs(one - two).max(initial=0)) for one, two in zip(found, given, strict=True)) / largest
        if not apart <= APART:
            raise ArgumentError(f"explaining again gives values that differ by a relative {apart:.1e}. {_ADVICE}")
        return found

    # what the model gives

    @contextmanager
    def scores(self) -> Iterator[Score]:
        """Inside, the function from inputs, as many samples as were explained, to what was explained of each.

        Raises:
            ArgumentError: The model predicts something else for the inputs than when they were explained.
            CFIError: The model cannot be run, or the target is not known.
        """
        if self.asked is None and self.method and "target" not in (*self.method.required, *self.method.optional):
            raise MethodError(
                f"{self.method.key} explains no output of the model, by whose changes it could be checked: pass "
                f"target= to take one."
            )
        current = registry()
        head = Head.LOGIT if "logit" in str(self.attribution.provenance.get("explained")) else Head.OUTPUT
        arguments = Arguments(
            self.model, "check", inputs=self.inputs, explain=self.own.get("explain"), target=self.target, head=head
        )
        with keep_process(current), without_warnings():
            original = load_original(current, self.model, self.inputs, self.own.get("explain"))
            routes = (Route(),)
            use(current, original, routes, original.framework)
            choice = Choice(_METHOD, original.framework, routes, (), "a check")
            call = check(current, arguments, original, choice)
            self._check_prediction(call)
            with keep_model(call.original, call.purity):
                yield _Scores(current, call, cut=head is Head.LOGIT)

    def _check_prediction(self, call: Call) -> None:
        """Compares the largest output of each sample with the one in the provenance, where both are known."""
        now, then = predict(call), self.attribution.provenance.get("predicted")
        if not now or not then:
            return
        here, there = (np.array([one["value"] for one in each], np.float64) for each in (now, then))
        if len(here) == len(there) and np.allclose(here, there, rtol=0.02, atol=1e-6):
            return
        raise ArgumentError(
            "the model predicts something else for these inputs than when they were explained: the model is another "
            "one, or has changed, or inputs= are others."
        )


_ADVICE = (
    "An argument is not known, or the model is another one, or has changed: pass explain={…} with what the provenance "
    "does not hold (baselines, head, reshape, and what init_args and exec_args held as objects), and inputs= and "
    "target= as you gave them."
)

_METHOD = MethodSpec(
    key="check",
    toolset="checks",
    kind=Kind.ATTRIBUTION,
    needs=frozenset({Need.FORWARD}),
    implementation=f"{__name__}:Question",
    optional=("target",),
)
"""What the steps of a call take for a method."""


class _Scores:
    """The user's model, up to what was explained."""

    def __init__(self, current: Registry, call: Call, *, cut: bool) -> None:
        if call.target is None:
            raise MethodError("what was explained has no number for each sample: there is no target.")
        found = reference_of(call, cut=cut)
        if found is None:
            raise MethodError("logits were explained, and the softmax is not found in your model to leave it out.")
        self._registry, self._call, self._model = current, call, found.model

    def __call__(self, arrays: Arrays) -> np.ndarray:
        adapter, inputs = self._call.original.adapter, self._call.inputs
        tensors = [
            adapter.tensor(array.astype(like.dtype), self._model)
            for array, like in zip(arrays, inputs.arrays, strict=True)
        ]
        found = self._pick(adapter.outputs(self._model, [*tensors, *inputs.held]))
        if not np.isfinite(found).all():
            raise MethodError("the model gives NaN or infinite values for inputs that are changed.")
        return found

    def _pick(self, outputs: Any) -> np.ndarray:
        call, target = self._call, self._call.target
        assert target is not None
        if target.function is not None:
            adapter = call.original.adapter
            chosen = outputs if target.output is None else dict(items(outputs))[target.output]
            made = aside(target.function)(map_structure(lambda leaf: adapter.tensor(leaf, self._model), chosen))
            made = adapter.to_numpy(made) if adapter.is_tensor(made) else made
            return np.asarray(made, np.float64).reshape(call.inputs.samples)
        output = np.asarray(flatten(outputs)[call.output], np.float64)
        if target.index is None:
            return output.reshape(call.inputs.samples)
        indices = target.indices(call.inputs.samples)
        return np.array([np.sum(row[index]) for row, index in zip(output, indices, strict=True)])


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _LOST
