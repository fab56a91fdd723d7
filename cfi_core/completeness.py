"""Whether the values add up to what their method promises, measured on the user's own model after the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, as_arrays, is_number, number
from cfi_core.batches import run_apart
from cfi_core.contract import Axes, MethodResult, Target
from cfi_core.errors import FOREIGN, CompletenessWarning, summary, warn
from cfi_core.framework import Runner, flatten, items, map_structure
from cfi_core.holding import has_own_background
from cfi_core.records import Call, Carried, Prepared
from cfi_core.reference import reference_of
from cfi_core.registry import Registry
from cfi_core.specs import Completeness, Kind, Total
from cfi_core.targets import Values
from cfi_core.turns import aside

SHARE = 0.25
"""A gap is told relative to the total, or to this share of what took part, where that is more: a total that is small
because much cancels in it is known no better than what cancels."""

ROUNDINGS = 32
"""How many units in the last place of values in half precision count as rounding; of single precision it is nothing."""

_UNITS = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
_SUMMED = {Axes.INPUT, Axes.LAYER, Axes.FEATURE}
_AROUND = "f(inputs) - f(inputs, with the layer's output that of the baselines)"


class _Unmeasured(Exception):
    """Why the sum cannot be judged, in a few words."""


def measure_completeness(
    registry: Registry,
    call: Call,
    prepared: Prepared,
    carried: Carried,
    result: MethodResult,
    values: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Compares the sum of each sample's values (in the user's axes) with the outputs that it stands for.

    It costs one forward pass of the model on the baselines; one more, on the inputs, where a neuron is explained,
    and two more where a softmax was left out, which has to be found first. Only where the sum of a layer's values is
    off, the model is run again, to see what leads around the layer.

    Returns:
        For the provenance: `gap` (the largest of all samples), `bound` and `against`, and where the sum is a difference
        of outputs, what is explained of each sample `at_inputs` and, in the mean, `at_baselines`; or a `gap` of None,
        and `why`.

    Warns:
        CompletenessWarning: The gap is above the bound.
    """
    promise = call.plan.method.completeness
    if promise is None:
        return {"gap": None, "why": f"{call.plan.method.key} promises no sum"}
    if not call.in_full:
        return {"gap": None, "why": "not measured in this batch"}
    try:
        _check_promise(call, promise, result, values)
        explained = _Explained(registry, call, prepared, carried, promise)
        sums = _Sums(explained, result, values)
        against = sums.judge()
    except _Unmeasured as reason:
        return {"gap": None, "why": str(reason)}
    except FOREIGN as error:  # of the user's model or function, at the baselines; the attribution must not be lost
        return {"gap": None, "why": f"your model could not be run for it ({summary(error)})"}
    gap = sums.gaps.max()
    if gap > sums.bound:
        warn(sums.tell(against), CompletenessWarning)
    return {"gap": float(gap), "bound": sums.bound, "against": against, **sums.outputs}


def _check_promise(call: Call, promise: Completeness, result: MethodResult, values: Sequence[np.ndarray]) -> None:
    """Refuses to judge where nothing is promised, or no sum can be made."""
    if promise.unmeasured:
        raise _Unmeasured(promise.unmeasured)
    own = call.plan.arguments.own
    for name, value in promise.only_with.items():
        if name in own and own[name] is not value:
            shown = own[name] if isinstance(own[name], bool) else "…"
            raise _Unmeasured(f"nothing is promised with {name}={shown}")
    if call.plan.own_target:
        raise _Unmeasured("the target is named in the toolset's own words")
    if result.axes not in _SUMMED:
        raise _Unmeasured(f"the values are reduced ({result.axes})")
    if any(len(part) != call.inputs.samples for part in values):
        raise _Unmeasured("the first axis does not hold the samples")


@dataclass(frozen=True, eq=False)
class _Explained:
    """What is explained, as the user's own model gives it."""

    registry: Registry
    call: Call
    prepared: Prepared
    carried: Carried
    promise: Completeness

    @property
    def samples(self) -> int:
        return self.call.inputs.samples

    @cached_property
    def twin(self) -> Any:
        return self.call.original.adapter.twin(self.call.original.model)

    @cached_property
    def model(self) -> Any:
        """The user's model, ending where the method explains it."""
        found = reference_of(self.call, cut=self.carried.cut)
        if found is None:
            raise _Unmeasured("the softmax that was left out is not found in your own model")
        return found.model if self.end is None else self._end(found.model, self.end)

    @cached_property
    def end(self) -> Values | None:
        """The values of a target function, where that runs on the tensors of the user's model."""
        target, adapter = self.call.target, self.call.original.adapter
        if target is None or target.function is None or target.output is not None or self.neuron:
            return None
        end = Values.of(target.function)
        return end if adapter.ended_by(self.call.original.model, end) is not None else None

    def _end(self, model: Any, end: Values) -> Any:
        found = self.call.original.adapter.ended_by(model, end)
        if found is None:
            raise _Unmeasured("your own model cannot be made to end in the target function")
        return found

    @property
    def neuron(self) -> bool:
        """Whether a unit of a layer is explained, not the output."""
        return self.call.plan.method.kind is Kind.NEURON

    @cached_property
    def at_inputs(self) -> np.ndarray:
        """Of each sample."""
        known = not self.neuron and not self.carried.cut and self.end is None
        outputs = self.call.outputs if known else self.run(self.call.inputs.passed)
        return self.pick(outputs, np.arange(self.samples)[:, None])[:, 0]

    @cached_property
    def at_baselines(self) -> np.ndarray:
        """Of each sample and each of its baselines."""
        passed, rows = self._pair_baselines()
        found = self.pick(self.run(passed), rows)
        if not np.isfinite(found).all():
            raise _Unmeasured("the model gives NaN or infinite values at the baselines")
        return found

    def _pair_baselines(self) -> tuple[list[Any], np.ndarray]:
        """What the model is run on, in as few rows as there are baselines, and which rows belong to each sample.

        What is held behind the inputs belongs to the samples, so it is paired with every baseline.
        """
        adapter, model, held, samples = self.call.original.adapter, self.call.original.model, [], self.samples
        rows, arrays = self.rows_of_baselines, self.baselines
        declared = adapter.input_shapes(model)
        fixed = declared is not None and declared[0][:1] not in ((), (None,))
        # A function may want as many samples as there are.
        fixed = fixed or self.end is not None or self.call.original.function is not None
        if fixed or self.call.inputs.held_arrays:
            arrays = [array[rows.ravel()] for array in arrays]
            rows = np.arange(rows.size).reshape(rows.shape)
        for one in self.call.inputs.held:
            of_samples = adapter.is_tensor(one) and tuple(one.shape[:1]) == (samples,)
            held.append(
                adapter.tensor(np.repeat(adapter.to_numpy(one), rows.shape[1], 0), model) if of_samples else one
            )
        return [*(adapter.tensor(array, model) for array in arrays), *held], rows

    @cached_property
    def rows_of_baselines(self) -> np.ndarray:
        """Which row of the baselines belongs to a sample: all of them, or its own, or the only one."""
        rows, samples = len(self.baselines[0]), self.samples
        if self.promise.total is Total.MEAN_DIFFERENCE and not has_own_background(self.call):
            return np.tile(np.arange(rows), (samples, 1))
        if rows not in (1, samples):
            raise _Unmeasured(f"{rows} baselines for {samples} samples")
        return np.arange(samples)[:, None] % rows

    @cached_property
    def baselines(self) -> list[np.ndarray]:
        """One array for each input, in the user's axes, with a row for each baseline."""
        given, inputs = self.call.plan.arguments.baselines, self.call.inputs
        if given is None or is_number(given):
            parts: Sequence[Any] = (given,) * len(inputs.arrays)
        else:
            parts = given if isinstance(given, tuple) else as_arrays(self.registry, given)
        arrays = [self._baseline(part, like) for part, like in zip(parts, inputs.arrays, strict=True)]
        rows = max(map(len, arrays))
        return [np.broadcast_to(array, (rows, *array.shape[1:])) for array in arrays]

    def _baseline(self, part: Any, like: np.ndarray) -> np.ndarray:
        if part is None or is_number(part):
            value = self.promise.baseline if part is None else number(self.registry, part)
            return np.full((1, *like.shape[1:]), value).astype(like.dtype)
        array = as_array(self.registry, part, "baselines")
        return np.broadcast_to(array, (len(array), *like.shape[1:])).astype(like.dtype)

    def run(self, passed: Sequence[Any]) -> Any:
        """The model's outputs; the layer's, where a neuron is explained."""
        adapter = self.call.original.adapter
        arrays = [adapter.to_numpy(one) for one in passed[: len(self.call.inputs.arrays)]]
        return run_apart(adapter, self._pass, passed, arrays, self.call.plan.arguments.batch_size)

    def _pass(self, passed: Sequence[Any]) -> Any:
        adapter = self.call.original.adapter
        if not self.neuron:
            return adapter.outputs(self.model, passed)
        (layer,) = self.call.plan.layers
        return adapter.activations(self.twin, passed, [layer])[layer]

    def pick(self, outputs: Any, rows: np.ndarray) -> np.ndarray:
        """What is explained of each sample, in each of the rows of the outputs that belong to it."""
        target = self.call.target
        if self.neuron:
            neuron = self.call.neuron
            if callable(neuron):
                return self._apply(Target(function=neuron), outputs, rows)
            return np.asarray(outputs, np.float64)[(slice(None), *neuron)].reshape(len(outputs), -1).sum(1)[rows]
        if target is None:
            raise _Unmeasured("there is no target")
        if self.end is not None:
            return np.asarray(outputs, np.float64).reshape(-1)[rows]
        if target.function is not None:
            return self._apply(target, outputs, rows)
        chosen = np.asarray(flatten(outputs)[self.call.output], np.float64)
        if target.index is None:
            return chosen.reshape(-1)[rows]
        columns = np.array(target.indices(self.samples)).T
        return chosen[(rows, *columns[:, :, None])]

    def _apply(self, target: Target, outputs: Any, rows: np.ndarray) -> np.ndarray:
        """The user's function, which takes tensors of the framework that the method ran in, in the user's axes."""
        adapter, function = self.prepared.adapter, target.function
        assert function is not None
        chosen = outputs if target.output is None else dict(items(outputs))[target.output]
        taken = map_structure(lambda leaf: adapter.tensor(leaf[rows.ravel()], self.prepared.model), chosen)
        found = aside(function)(taken)  # it may wait for other calls
        array = adapter.to_numpy(found) if adapter.is_tensor(found) else np.asarray(found)
        return array.astype(np.float64).reshape(rows.shape)

    @cached_property
    def own_baselines(self) -> list[Any]:
        """Tensors with a baseline for each sample, the first of a distribution."""
        adapter, rows = self.call.original.adapter, self.rows_of_baselines[:, 0]
        return [adapter.tensor(array[rows], self.call.original.model) for array in self.baselines]

    @cached_property
    def runner(self) -> Runner:
        """The model, opened at the layers."""
        return self.call.original.adapter.runner(self.model, self.call.inputs.passed, self.call.plan.layers)

    def with_layers_of(self, others: Sequence[Any], inputs: Sequence[Any]) -> np.ndarray:
        """What the inputs give where the layers' outputs are those of others."""
        held, runner, adapter = self.call.inputs.held, self.runner, self.call.original.adapter
        values = [*others, *held]
        for stage in range(len(runner.layers)):
            values.extend(runner.run(stage, values))
        values[: len(inputs)] = inputs
        leaves = iter([adapter.to_numpy(leaf) for leaf in runner.run(len(runner.layers), values)])
        outputs = next(leaves) if self.end is not None else map_structure(lambda _: next(leaves), self.call.outputs)
        return self.pick(outputs, np.arange(self.samples)[:, None])[:, 0]


class _Sums:
    """The sums of the values, what they should be, and how far apart they are: arrays of shape (totals, samples)."""

    def __init__(self, explained: _Explained, result: MethodResult, values: Sequence[np.ndarray]) -> None:
        self.explained, self.result = explained, result
        self.call, self.promise = explained.call, explained.promise
        parts = [part.reshape(len(part), -1) for part in self._of_groups(values)]
        # Relevance is kept by each layer, all else by all values together.
        alone = self.promise.total is Total.RELEVANCE and self.call.plan.method.kind is Kind.LAYER
        totals = [[part] for part in parts] if alone else [parts]
        self.sums = np.array([sum(part.sum(1, dtype=np.float64) for part in total) for total in totals])
        self.sizes = np.array([sum(np.abs(part).sum(1, dtype=np.float64) for part in total) for total in totals])
        units = max(
            _UNITS.get(str(value.dtype).rpartition(".")[2], 0.0)
            for value in (*result.values, *explained.carried.request.inputs)
        )
        self.bound = self.promise.within + ROUNDINGS * units
        self.expected = self._expect()
        self.gaps = self.relative(self.sums - self.expected, self.expected)

    def _expect(self) -> np.ndarray:
        at_inputs = self.explained.at_inputs
        if self.promise.total is not Total.RELEVANCE:
            return (at_inputs - self.explained.at_baselines.mean(1))[None]
        absorbed = self.result.absorbed
        if absorbed is None or len(absorbed) != len(self.sums):
            raise _Unmeasured("what the rules absorb by design is not known")
        return at_inputs * (1 - np.array([np.asarray(share, np.float64) for share in absorbed]))

    @property
    def outputs(self) -> dict[str, tuple[float, ...]]:
        """Both ends of the difference that is promised, for each sample."""
        if self.promise.total is Total.RELEVANCE:
            return {}
        ends = {"at_inputs": self.explained.at_inputs, "at_baselines": self.explained.at_baselines.mean(1)}
        return {name: tuple(map(float, values)) for name, values in ends.items()}

    def _of_groups(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The values, those that stand for a whole group of elements divided among these."""
        name = self.promise.groups
        mask = self.call.plan.arguments.own.get(name) if name else None
        if mask is None or self.result.axes is Axes.FEATURE:
            return list(values)
        registry = self.explained.registry
        parts = mask if isinstance(mask, tuple) else as_arrays(registry, mask)
        arrays = [np.full(1, part) if is_number(part) else as_array(registry, part, name) for part in parts]
        groups = [np.broadcast_to(array, part.shape) for array, part in zip(arrays, values, strict=True)]
        ends = np.cumsum([part[0].size for part in values])[:-1]
        shares = []
        for sample in range(len(values[0])):
            together = np.concatenate([group[sample].ravel() for group in groups])
            _, which, sizes = np.unique(together, return_inverse=True, return_counts=True)
            shares.append(np.split(1 / sizes[which], ends))
        return [part * np.array([share[i] for share in shares]).reshape(part.shape) for i, part in enumerate(values)]

    def relative(self, gaps: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Gaps relative to what is expected, or to a share of what took part, if that is more."""
        took_part = np.maximum(self.sizes, np.abs(self.explained.at_inputs))
        if self.promise.total is not Total.RELEVANCE:
            took_part = np.maximum(took_part, np.abs(self.explained.at_baselines).max(1))
        scale = np.maximum(np.abs(expected), SHARE * took_part)
        return np.abs(gaps) / np.where(scale > 0, scale, 1)

    def judge(self) -> str:
        """What the values are compared with: where they are off, and of a layer, what leads around it is looked at."""
        against = str(self.promise.total)
        if self.gaps.max() <= self.bound or self.call.plan.method.kind is not Kind.LAYER:
            return against
        explained, inputs = self.explained, self.call.inputs.tensors
        layer_at_baselines = explained.with_layers_of(explained.own_baselines, inputs)
        if self.promise.inputs_at_layer:
            self.expected = (explained.at_inputs - layer_at_baselines)[None]
            self.gaps = self.relative(self.sums - self.expected, self.expected)
            return _AROUND
        # Either is as if the inputs were exchanged too, where nothing but the layer leads from them to the output.
        layer_at_inputs = explained.with_layers_of(inputs, explained.own_baselines)
        around = [layer_at_baselines - explained.at_baselines[:, 0], layer_at_inputs - explained.at_inputs]
        if max(self.relative(one, self.expected).max() for one in around) > self.gaps.max() / 10:
            raise _Unmeasured("paths lead around the layer, so that its values need not add up")
        return against

    def tell(self, against: str) -> str:
        """The warning: how far they are apart, and why that may be."""
        method = self.call.plan.method
        total, sample = np.unravel_index(np.argmax(self.gaps), self.gaps.shape)
        return (
            f"The values of {method.key} ({method.toolset}) do not add up: of sample {sample} they sum to "
            f"{self.sums[total, sample]:.4g}, where {against} is {self.expected[total, sample]:.4g} (a gap of "
            f"{self.gaps[total, sample]:.1%}, at most {self.bound:.1%} is expected). {self._cause()}"
        )

    def _cause(self) -> str:
        if len(self.sums[0]) > 1 and self._is_permuted():
            return "They would fit if the samples stood in another order: report it to the toolset's plugin."
        steps, gap = self.result.applied.get(self.promise.steps), self.gaps.max()
        if isinstance(steps, int):
            # Half the bound, by a gap that falls as their number grows: so it does where a ReLU switches on the path.
            needed = math.ceil(round(2 * steps * gap / self.promise.within, 1))
            words = "init_args" if self.promise.steps in self.call.plan.method.init_args else "exec_args"
            return (
                f"The {steps} steps are too few: pass {words}={{'{self.promise.steps}': {needed}}}. If more steps "
                f"do not help, {self.promise.suspect}"
            )
        return self.promise.suspect[:1].upper() + self.promise.suspect[1:]

    def _is_permuted(self) -> bool:
        """Whether the sums fit the outputs of other samples, much better than those of their own."""
        expected = np.sort(self.expected)
        gaps = self.relative(np.sort(self.sums) - expected, expected)
        return bool(gaps.max() <= min(self.bound, self.gaps.max() / 10))
