"""What core expects of a framework: that its adapter runs models, opens them and leaves them alone."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core import targets
from cfi_core.adapters import adapter_for
from cfi_core.detection import detect_framework
from cfi_core.framework import FrameworkAdapter, flatten
from cfi_core.registry import registry
from cfi_core.specs import FrameworkSpec, Need
from cfi_core.targets import Values
from cfi_core.testing.conformance.answers import CLASSES, SAMPLES, Question
from cfi_core.testing.conformance.samples import SampleConformance, assert_close, in_threads, raises
from cfi_core.testing.conformance.toolset import CALLS
from cfi_core.testing.conformance.traces import assert_flat, keep_process, same, unchanged


class FrameworkConformance(SampleConformance):
    """A framework's adapter, on a small model and on linear ones.

    What the spec says that the framework does not offer (gradients, layers) is not asked for.

    Attributes:
        framework: Its name.
        features: Shape of one sample of the linear models.
        within: How far values on linear models may be off, relative to the largest one.
        linear: Whether the framework has linear models (trees are none); without them, what is tested on these is not.
    """

    framework: ClassVar[str]
    linear: ClassVar[bool] = True
    features: ClassVar[tuple[int, ...]] = (5,)
    within: ClassVar[float] = 1e-6

    def make_linear_model(self, weights: np.ndarray, bias: np.ndarray) -> Any:
        """A model that gives `(inputs * weights[k]).sum() + bias[k]` for each class k.

        Args:
            weights: Of shape (classes, *features).
            bias: Of shape (classes,).
        """
        raise NotImplementedError("give make_linear_model, or set linear = False where there are no such models")

    def test_its_models_are_known(self) -> None:
        """By type, file or function, and by no other framework."""
        for model, inputs in ((self.make_model(), self.make_inputs()), *([self._linear()[:2]] if self.linear else [])):
            assert detect_framework(registry(), model, inputs).name == self.framework

    def test_outputs_and_gradients_of_linear_models_are_their_own(self) -> None:
        """To 1e-6, unless `within` says otherwise; without gradients, `NoGradientError`."""
        if not self.linear:
            return
        model, inputs, question = self._linear()
        adapter, loaded = self._adapter(), self._load(model)
        tensors = (adapter.tensor(inputs, loaded),)
        (outputs,) = flatten(adapter.outputs(loaded, tensors))
        self._close(outputs, question.inputs @ question.weights.T + question.bias)
        cotangent = np.random.default_rng(0).normal(size=outputs.shape).astype(outputs.dtype)
        if not self._offers(Need.INPUT_GRADIENT):
            with raises(cfi.NoGradientError, f"the gradient of a model of {self.framework}"):
                adapter.vjp(loaded, tensors, [cotangent])
            return
        (again,), (gradient,) = adapter.vjp(loaded, tensors, [cotangent])
        self._close(again, outputs)
        assert gradient is not None
        self._close(gradient.reshape(SAMPLES, -1), cotangent @ question.weights)

    def test_tensors_come_back_as_they_went(self) -> None:
        """Values of numpy arrays, in any order of axes, also across to arrays and back."""
        model, inputs = self._load(self.make_model()), self.make_inputs()
        adapter = self._adapter()
        tensor = adapter.tensor(inputs, model)
        assert adapter.is_tensor(tensor) and not adapter.is_tensor(object())
        np.testing.assert_array_equal(adapter.to_numpy(tensor), inputs)
        axes = (0, *reversed(range(1, inputs.ndim)))
        np.testing.assert_array_equal(adapter.to_numpy(adapter.permute(tensor, axes)), np.transpose(inputs, axes))
        adopted = adapter.adopt(adapter.share(tensor), model)
        np.testing.assert_array_equal(adapter.to_numpy(adopted), inputs)
        np.testing.assert_array_equal(adapter.to_numpy(adapter.tensor(tensor, model)), inputs)

    def test_any_number_of_samples_runs(self) -> None:
        """And a sample's outputs are its own."""
        adapter, model, inputs = self._adapter(), self._load(self.make_model()), self.make_inputs()
        whole = self._outputs(adapter, model, inputs)
        for samples in (1, 5):
            batch = np.resize(inputs, (samples, *inputs.shape[1:]))
            for found, expected in zip(self._outputs(adapter, model, batch), whole, strict=True):
                assert_close(found[0], expected[0], f"the output of the first of {samples} samples")

    def test_axes_have_names(self) -> None:
        """One for each axis of the inputs, the samples first; the channels are one of them, or none."""
        model, shape = self._load(self.make_model()), self.make_inputs().shape
        dims, channel = self._adapter().dims(model, shape), self._adapter().channel_axis(model, shape)
        assert len(dims) == len(set(dims)) == len(shape) and dims[0] == "sample"
        assert channel is None or dims[channel] == "channel"

    def test_a_twin_computes_the_same(self) -> None:
        """To the last bit; and leaves the model as it was."""
        adapter, model, inputs = self._adapter(), self.make_model(), self.make_inputs()
        loaded = self._load(model)
        with unchanged(model, "making a twin"), keep_process("making a twin"):
            twin = adapter.twin(loaded)
            found, expected = self._outputs(adapter, twin, inputs), self._outputs(adapter, loaded, inputs)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, "the output of the twin")

    def test_weights_are_exchanged_in_a_copy(self) -> None:
        """With its own the copy computes what the model does, with others something else; or none can be seen."""
        adapter, model, inputs = self._adapter(), self.make_model(), self.make_inputs()
        loaded = self._load(model)
        weights = adapter.weights(loaded)
        if not weights:
            return
        with unchanged(model, "exchanging weights"), keep_process("exchanging weights"):
            same = adapter.with_weights(loaded, weights)
            other = adapter.with_weights(
                loaded, {name: [array + 1 for array in held] for name, held in weights.items()}
            )
            found = [self._outputs(adapter, self._load(one), inputs) for one in (loaded, same, other)]
        for expected, one in zip(found[0], found[1], strict=True):
            assert_close(one, expected, "the output of the copy with the same weights")
        assert not all(np.array_equal(one, two) for one, two in zip(found[0], found[2], strict=True)), (
            "other weights changed nothing"
        )

    def test_a_model_ends_where_a_target_does(self) -> None:
        """In what a function makes of its outputs, with its gradients and its layers; or there are no such models."""
        if not self.linear:
            return
        adapter, (made, inputs, question) = self._adapter(), self._linear()
        model = self._load(made)
        difference = Values.of(targets.difference(1, 0))
        ended = adapter.ended_by(model, difference)
        if ended is None:
            return
        expected = question.inputs @ (question.weights[1] - question.weights[0]) + question.bias[1] - question.bias[0]
        tensors = [adapter.tensor(inputs, ended)]
        self._close(np.asarray(adapter.outputs(adapter.twin(ended), tensors)), expected)
        self._close(np.asarray(adapter.to_numpy(adapter.call(adapter.twin(ended), tensors))), expected)
        assert adapter.fingerprint(ended) != adapter.fingerprint(model)
        names = [[layer.name for layer in adapter.layers(one)] for one in (model, ended)]
        assert set(names[0]) <= set(names[1]), "layers of the model are gone where it ends elsewhere"
        if self._offers(Need.INPUT_GRADIENT):
            _, (gradient,) = adapter.vjp(adapter.twin(ended), tensors, [np.ones(SAMPLES, inputs.dtype)])
            assert gradient is not None
            both = np.broadcast_to(question.weights[1] - question.weights[0], question.inputs.shape)
            self._close(gradient.reshape(SAMPLES, -1), both)

    def test_other_weights_have_another_fingerprint(self) -> None:
        """What was made of a model must not be taken for another one's."""
        if not self.linear:
            return
        question = Question.draw(int(np.prod(self.features)))
        weights = question.weights.reshape(CLASSES, *self.features)
        prints = [
            self._adapter().fingerprint(self._load(self.make_linear_model(factor * weights, question.bias)))
            for factor in (1, 1 + 2**-20, -1)
        ]
        assert len(set(prints)) == len(prints)

    def test_layers_are_found_by_name_and_by_object(self) -> None:
        """And give activations of the shapes that they are told with."""
        adapter, model, inputs = self._adapter(), self._load(self.make_model()), self.make_inputs()
        tensors = (adapter.tensor(inputs, model),)
        layers = adapter.layers(model, tensors)
        assert layers or not self._offers(Need.LAYER), "the framework offers layers, and the model has none"
        for layer in layers:
            for reference in (layer.name, adapter.layer_object(model, layer.name)):
                found = adapter.layer_name(model, reference)
                assert found == layer.name, f"layer {layer.name!r}, given as {type(reference).__name__}, is {found!r}"
        activations = adapter.activations(model, tensors)
        assert set(activations) <= {layer.name for layer in layers}
        for layer in layers:
            if layer.name in activations and layer.output_shape is not None:
                assert activations[layer.name].shape[1:] == layer.output_shape, layer.name

    def test_the_runner_opens_every_layer(self) -> None:
        """Stages one after the other give the activations and the outputs."""
        adapter, model, inputs = self._adapter(), self._load(self.make_model()), self.make_inputs()
        twin = adapter.twin(model)
        tensors = (adapter.tensor(inputs, twin),)
        activations = adapter.activations(twin, tensors)
        for names in dict.fromkeys(((), *((name,) for name in activations))):
            runner, values = adapter.runner(twin, tensors, names), list(tensors)
            for stage in range(len(runner.layers) + 1):
                values.extend(runner.run(stage, tuple(values)))
            found = [adapter.to_numpy(value) for value in values[1:]]
            expected = [*(activations[name] for name in runner.layers), *self._outputs(adapter, twin, inputs)]
            assert sorted(runner.layers) == sorted(names) and len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                assert_close(one, other, f"what the runner gives, opened at {names}")

    def test_the_runner_gives_the_models_gradients(self) -> None:
        """At the inputs, and through a layer that is opened."""
        if not self._offers(Need.INPUT_GRADIENT):
            return
        adapter, model, inputs = self._adapter(), self._load(self.make_model()), self.make_inputs()
        twin = adapter.twin(model)
        tensors = (adapter.tensor(inputs, twin),)
        outputs = self._outputs(adapter, twin, inputs)
        drawn = [np.random.default_rng(0).normal(size=output.shape).astype(output.dtype) for output in outputs]
        (expected,) = adapter.vjp(twin, tensors, drawn)[1]
        for names in ((), *((name,) for name in adapter.activations(twin, tensors))):
            found = self._linearize(adapter, twin, tensors, names, drawn)
            assert expected is not None and found is not None
            assert_close(found, expected, f"the gradient of the runner, opened at {names}")

    def test_running_leaves_everything_as_it_was(self) -> None:
        """The model, the process and the tensors."""
        adapter, model, inputs = self._adapter(), self.make_model(), self.make_inputs()
        loaded = self._load(model)
        tensors = (adapter.tensor(inputs, loaded),)
        self._outputs(adapter, loaded, inputs)  # a first pass may build or import something
        with unchanged(model, "running it"), keep_process("running a model"):
            self._outputs(adapter, loaded, inputs)
            adapter.activations(loaded, tensors)
        np.testing.assert_array_equal(adapter.to_numpy(tensors[0]), inputs)

    def test_several_threads_get_the_outputs_of_one(self) -> None:
        """To the last bit."""
        adapter, model, inputs = self._adapter(), self._load(self.make_model()), self.make_inputs()
        alone = self._outputs(adapter, model, inputs)
        for found in in_threads(lambda thread: self._outputs(adapter, model, inputs)):
            assert same(found, alone)

    def test_generators_are_seeded_and_restored(self) -> None:
        """With the same seed comes the same state, and the former one comes back."""
        adapter = self._adapter()
        before = adapter.random_state()
        states = []
        for seed in (3, 4, 3):
            adapter.seed(seed)
            states.append(adapter.random_state())
        adapter.restore_random_state(before)
        assert same(states[0], states[2]) and same(adapter.random_state(), before)
        assert before is None or not same(states[0], states[1])

    def test_two_hundred_passes_leave_nothing_in_memory(self) -> None:
        """Through the model and through runners of it."""
        adapter, model, inputs = self._adapter(), self._load(self.make_model()), self.make_inputs()
        tensors = (adapter.tensor(inputs, model),)
        assert_flat(lambda: self._outputs(adapter, model, inputs), CALLS, f"passes of {self.framework}")
        runner = adapter.runner(adapter.twin(model), tensors)
        assert_flat(lambda: runner.run(0, tensors), CALLS, f"runs of {self.framework}")

    def _adapter(self) -> FrameworkAdapter:
        return adapter_for(registry(), self.framework)

    def _load(self, model: Any) -> Any:
        return self._adapter().load(model)

    def _offers(self, need: Need) -> bool:
        spec: FrameworkSpec = registry().frameworks[self.framework]
        return need in spec.offers

    def _linear(self) -> tuple[Any, np.ndarray, Question]:
        question = Question.draw(int(np.prod(self.features)))
        model = self.make_linear_model(question.weights.reshape(CLASSES, *self.features), question.bias)
        return model, question.inputs.reshape(SAMPLES, *self.features), question

    def _close(self, found: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(found, expected, rtol=0, atol=self.within * np.abs(expected).max())

    @staticmethod
    def _outputs(adapter: FrameworkAdapter, model: Any, inputs: np.ndarray) -> list[np.ndarray]:
        return [np.array(output) for output in flatten(adapter.outputs(model, (adapter.tensor(inputs, model),)))]

    @staticmethod
    def _linearize(
        adapter: FrameworkAdapter, model: Any, tensors: tuple[Any, ...], names: tuple[str, ...], drawn: list[np.ndarray]
    ) -> np.ndarray | None:
        """The gradient at the input, carried back through the stages of a runner."""
        runner, values, pullbacks = adapter.runner(model, tensors, names), list(tensors), []
        for stage in range(len(runner.layers) + 1):
            results, pullback = runner.linearize(stage, tuple(values))
            pullbacks.append(pullback)
            values.extend(results)
        cotangents: list[Any] = [adapter.tensor(array, model) for array in drawn]
        total: np.ndarray | None = None
        for stage in reversed(range(len(pullbacks))):
            gradients = pullbacks[stage](cotangents, [True] * (stage + 1))
            cotangents = [gradients[-1]] if stage else []
            if gradients[0] is not None:
                part = adapter.to_numpy(gradients[0])
                total = part if total is None else total + part
        return total
