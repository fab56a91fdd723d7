"""What every method of a toolset does, whatever it computes."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.boundary import run_method
from cfi_core.contract import MethodRequest
from cfi_core.guide import make_guide
from cfi_core.registry import registry
from cfi_core.specs import Kind, MethodSpec
from cfi_core.testing.conformance.processes import compare_processes
from cfi_core.testing.conformance.samples import SampleConformance, in_threads
from cfi_core.testing.conformance.traces import assert_flat, differences, keep_process, unchanged

CALLS = 200


class Methods(ABC):
    """The methods of a toolset, and calls of them.

    Attributes:
        toolset: Its name.
        arguments: For each method key, what `cfi.attribute` needs besides the inputs.
    """

    toolset: ClassVar[str]
    arguments: ClassVar[Mapping[str, Mapping[str, Any]]]

    def methods(self) -> list[MethodSpec]:
        """All that plugins offer."""
        methods = [method for method in cfi.methods() if method.toolset == self.toolset]
        assert methods, f"no plugin offers a method of {self.toolset!r}"
        return methods

    def attribute(self, model: Any, method: MethodSpec, **arguments: Any) -> cfi.Attribution:
        """One call, with a seed."""
        visualized = method.kind is Kind.FEATURE_VISUALIZATION
        call: Callable[..., Any] = cfi.visualize_features if visualized else cfi.attribute
        found = call(model, method.key, self.toolset, **{"seed": 1, **arguments})
        assert isinstance(found, cfi.Attribution), f"{method.key} needs a layer: give one in arguments"
        return found


class ToolsetConformance(SampleConformance, Methods):
    """Every method of a toolset, run natively, on a model that all its methods can explain.

    Attributes:
        toolset: Its name.
        arguments: For each method key, what `cfi.attribute` needs besides the inputs.
        mixing: Keys of the methods whose values of a sample depend on the others by definition.
    """

    mixing: ClassVar[frozenset[str]] = frozenset()

    def test_specs_are_complete(self) -> None:
        """There are methods, and each cites where it comes from."""
        for method in self.methods():
            assert method.citation, f"{method.key} cites nothing"

    def test_every_argument_is_explained(self) -> None:
        """By the library's own words, which can be read, or by the plugin's; an example gives what is required."""
        for method in self.methods():
            guide = make_guide(registry(), method)
            assert not guide.missing, f"{method.key}: {guide.missing}"
            silent = [one.name for one in guide.arguments if not one.meaning]
            assert not silent, f"{method.key} says nowhere what {silent} mean: see MethodSpec.documentation"
            ungiven = [name for name in method.own_required if name not in method.documentation.example]
            assert not ungiven, f"{method.key} cannot run without {ungiven}: give them in its documentation's example"

    def test_arguments_are_given_for_every_method(self) -> None:
        """No method is left untested."""
        offered, given = {method.key for method in self.methods()}, set(self.arguments)
        assert offered <= given, f"without arguments: {sorted(offered - given)}; give {{}} if inputs are enough"
        assert given <= offered, f"arguments for {sorted(given - offered)}, which {self.toolset!r} does not offer"

    def test_every_method_runs_and_leaves_the_model_as_it_was(self) -> None:
        """Values are finite, named by axes, repeatable by seed; model, process and what was passed are unchanged."""
        model, inputs = self.make_model(), self.make_inputs()
        given = inputs.copy()
        for method in self.methods():
            passed = _arrays(self.arguments.get(method.key, {}))
            with unchanged(model, method.key):
                first = self._run(model, method, inputs)
                with keep_process(method.key):  # a first run may import libraries, which change it
                    again = self._run(model, method, inputs)
            np.testing.assert_array_equal(inputs, given, err_msg=f"{method.key} changed the inputs")
            assert not differences(passed, _arrays(self.arguments[method.key])), f"{method.key} changed its arguments"
            for (values, dims), (repeated, _) in zip(first.parts, again.parts, strict=True):
                assert values.ndim == len(dims) and np.isfinite(values).all(), method.key
                message = f"{method.key} gives other values with one seed"
                np.testing.assert_allclose(values, repeated, rtol=1e-5, atol=1e-7, err_msg=message)
            assert first.route == () and first.provenance["applied"] is not None, method.key

    def test_samples_keep_their_order(self) -> None:
        """Values of the first sample are the same whatever the others are, so they are its own."""
        model, inputs = self.make_model(), self.make_inputs()
        for method in self.methods():
            if method.kind is Kind.FEATURE_VISUALIZATION or method.key in self.mixing:
                continue
            batches = inputs, np.repeat(inputs[:1], len(inputs), axis=0)
            found = [self._run(model, method, batch) for batch in batches]
            for (values, _), (others, _) in zip(*(one.parts for one in found), strict=True):
                same = np.allclose(values[0], others[0], rtol=1e-3, atol=1e-4 * np.abs(values[0]).max())
                assert same, f"{method.key} gives the first sample other values, as if samples stood in another order"

    def test_values_add_up_as_promised(self) -> None:
        """Where the spec says that they add up to something, they do."""
        model, inputs = self.make_model(), self.make_inputs()
        for method in self.methods():
            if method.completeness is None or method.completeness.unmeasured:
                continue
            measured = self._run(model, method, inputs).provenance["completeness"]
            assert measured["gap"] is not None, f"the sum of {method.key} is not measured: {measured['why']}"
            assert measured["gap"] <= measured["bound"], f"{method.key} misses {measured['against']}: {measured['gap']}"

    def test_failures_are_typed(self) -> None:
        """Whatever the toolset raises reaches the user as an error of CFI."""
        method = self.methods()[0]
        with suppress(cfi.CFIError):
            run_method(MethodRequest(method=method, model=object(), inputs=(np.zeros((2, 3)),)), self.toolset)
            raise AssertionError(f"{method.key} accepted an object that is no model")

    def test_several_threads_get_the_values_of_one(self) -> None:
        """To the last bit, all methods at the same time on one model."""
        model, inputs, methods = self.make_model(), self.make_inputs(), self.methods()
        alone = self._digests(model, inputs, methods)

        def run(thread: int) -> Mapping[str, str]:
            start = thread // 2 * len(methods) // 2  # two go in step, the third runs other methods beside them
            return self._digests(model, inputs, [*methods[start:], *methods[:start]])

        apart = sorted({name for found in in_threads(run) for name in differences(alone, found)})
        assert not apart, f"other values where several threads call at the same time: {', '.join(apart)}"

    def test_two_processes_give_the_same_bytes(self) -> None:
        """With one seed, whatever the order of sets is."""

        def find() -> Mapping[str, str]:
            return self._digests(self.make_model(), self.make_inputs(), self.methods())

        apart = compare_processes(type(self), "test_two_processes_give_the_same_bytes", find)
        assert not apart, f"two processes get other values with one seed: {', '.join(apart)}"

    def test_two_hundred_calls_leave_nothing_in_memory(self) -> None:
        """All methods in turn."""
        model, inputs, methods = self.make_model(), self.make_inputs(), self.methods()

        def repeat() -> None:
            for method in methods:
                self._run(model, method, inputs)

        rounds = -(-CALLS // len(methods))
        assert_flat(repeat, 2 * -(-rounds // 2), f"the methods of {self.toolset}")

    def _run(self, model: Any, method: MethodSpec, inputs: np.ndarray) -> cfi.Attribution:
        assert method.key in self.arguments, f"without arguments: {method.key}"
        return self.attribute(model, method, inputs=inputs, **self.arguments[method.key])

    def _digests(self, model: Any, inputs: np.ndarray, methods: list[MethodSpec]) -> dict[str, str]:
        found = {method.key: self._run(model, method, inputs).parts for method in methods}
        return {key: sha256(b"".join(v.tobytes() for v, _ in parts)).hexdigest() for key, parts in found.items()}


def _arrays(value: Any, name: str = "") -> dict[str, np.ndarray]:
    """Copies of the arrays in arguments, by where they stand."""
    if isinstance(value, Mapping):
        parts = [_arrays(part, f"{name}/{key}") for key, part in value.items()]
        return {key: array for part in parts for key, array in part.items()}
    return {name: value.copy()} if isinstance(value, np.ndarray) else {}
