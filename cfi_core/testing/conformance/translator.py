"""What conversions and bridges keep of a model."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.boundary import build_bridge
from cfi_core.contract import BridgeRequest
from cfi_core.detection import detect_framework
from cfi_core.distance import Side
from cfi_core.framework import flatten
from cfi_core.framework.axes import permute, unpermute
from cfi_core.registry import registry
from cfi_core.specs import Need, TranslatorSpec
from cfi_core.testing.conformance.samples import THREADS, SampleConformance, assert_close, in_threads
from cfi_core.testing.conformance.traces import adapter_of, assert_flat, keep_process, unchanged

CONVERSIONS = 10


class TranslatorConformance(SampleConformance):
    """A route of conversions, on a model and inputs of its source framework.

    Attributes:
        target: Name of the framework that it leads to.
        translator: Its name, or those of its steps.
        kept: Objects that a library, not the translator, keeps of each conversion.
    """

    target: ClassVar[str]
    translator: ClassVar[str | list[str]]
    kept: ClassVar[int] = 0

    def translation(self, model: Any = None) -> cfi.Translation:
        """A model, or else a new one, translated."""
        model = self.make_model() if model is None else model
        return cfi.translate(model, self.target, inputs=self.make_inputs(), translator=self.translator)

    def test_it_is_faithful(self) -> None:
        """The certificate says so, and it measured something."""
        certificate = self.translation().certificate
        assert certificate.faithful, str(certificate)
        assert len(certificate.measurements) == 2

    def test_other_batch_sizes_work(self) -> None:
        """The number of samples is not baked in."""
        model, inputs = self.make_model(), self.make_inputs()
        sides = self._sides(model)
        for samples in (1, 5):
            batch = np.resize(inputs, (samples, *inputs.shape[1:]))
            for expected, found in zip(*(side.outputs([batch]) for side in sides), strict=True):
                assert_close(found, expected, f"the output for {samples} samples")

    def test_layers_are_found(self) -> None:
        """At least one layer has a counterpart, and matches name layers of the translated model."""
        translation = self.translation()
        names = {layer.name for layer in cfi.layers(translation.model)}
        matches = {translation.layer_map[name] for name in translation.layer_map}
        assert matches and matches <= names

    def test_the_model_is_unchanged(self) -> None:
        """Translating leaves the original and the process as they were."""
        model = self.make_model()
        with unchanged(model, str(self.translator)):
            self.translation(model)
        other = self.make_model()  # a first conversion may import libraries, which change the process
        with keep_process(str(self.translator)):
            self.translation(other)

    def test_several_threads_and_a_second_time_give_one_model(self) -> None:
        """What is translated computes the same to the last bit."""
        inputs, models = self.make_inputs(), [self.make_model() for _ in range(THREADS)]

        def outputs(number: int) -> bytes:
            return b"".join(output.tobytes() for output in self._sides(models[number])[1].outputs([inputs]))

        found = set(in_threads(outputs))
        cfi.forget_translations()
        assert len({*found, outputs(0)}) == 1, f"{self.translator} makes another model each time"

    def test_conversions_leave_nothing_in_memory(self) -> None:
        """When nobody holds what was made."""
        model = self.make_model()

        def repeat() -> None:
            self.translation(model)
            cfi.forget_translations()

        assert_flat(repeat, 2 * CONVERSIONS, str(self.translator), kept=self.kept)

    def _sides(self, model: Any) -> tuple[Side, Side]:
        source, target = adapter_of(model), adapter_for(registry(), self.target)
        made = self.translation(model)
        original = source.twin(source.load(model))
        return Side(source, original), Side(target, made.model, made.input_axes, made.output_axes)


class BridgeConformance(SampleConformance):
    """A bridge, on a model and inputs of some framework that can be run."""

    translator: ClassVar[str]

    def test_it_opens_the_layers_that_are_asked_for_and_computes_the_same(self) -> None:
        """Outputs, and activations at no layer, each alone, and all at once."""
        step, model, inputs = self._step(), self.make_model(), self.make_inputs()
        source, target = adapter_of(model), adapter_for(registry(), step.target)
        twin = source.twin(source.load(model))
        tensors = (source.tensor(inputs, twin),)
        outputs, activations = flatten(source.outputs(twin, tensors)), source.activations(twin, tensors)
        forms, shapes = [array.shape for array in outputs], {name: activations[name].shape for name in activations}
        for names in dict.fromkeys(((), *((name,) for name in activations), tuple(activations))):
            request = BridgeRequest(source, source.twin(source.load(model)), tensors, names)
            bridged = build_bridge(step, request, self.translator, outputs=forms, layers=shapes)
            side = Side(target, bridged.model, bridged.input_axes, bridged.output_axes)
            for position, (output, other) in enumerate(zip(side.outputs([inputs]), outputs, strict=True)):
                assert_close(output, other, f"output {position}")
            opened = [layer.name for layer in bridged.layers.values()]
            layers = target.activations(bridged.model, side.tensors([inputs]), opened)
            for name, layer in bridged.layers.items():
                assert_close(layers[layer.name], permute(activations[name], layer.axes), f"layer {name!r}")

    def test_gradients_are_the_models_own(self) -> None:
        """At the inputs, for any number of samples, where the model's framework has gradients."""
        step, model, inputs = self._step(), self.make_model(), self.make_inputs()
        source, target = adapter_of(model), adapter_for(registry(), step.target)
        if Need.INPUT_GRADIENT not in detect_framework(registry(), model).offers:
            return
        twin = source.twin(source.load(model))
        bridged = build_bridge(step, BridgeRequest(source, twin, (source.tensor(inputs, twin),)), self.translator)
        side = Side(target, bridged.model, bridged.input_axes, bridged.output_axes)
        for samples in (1, len(inputs), 5):
            batch = np.resize(inputs, (samples, *inputs.shape[1:]))
            outputs = flatten(source.outputs(twin, (source.tensor(batch, twin),)))
            drawn = [np.random.default_rng(0).normal(size=output.shape).astype(output.dtype) for output in outputs]
            (expected,) = source.vjp(twin, (source.tensor(batch, twin),), drawn)[1]
            axes = bridged.output_axes or (None,) * len(drawn)
            carried = [permute(array, order) for array, order in zip(drawn, axes, strict=True)]
            (found,) = target.vjp(bridged.model, side.tensors([batch]), carried)[1]
            order = bridged.input_axes[0] if bridged.input_axes else None
            assert expected is not None and found is not None, "the bridge gives no gradient"
            assert_close(np.asarray(unpermute(found, order)), expected, f"the gradient for {samples} samples")

    def test_the_model_is_unchanged(self) -> None:
        """A bridge leaves the original as it was."""
        step, model = self._step(), self.make_model()
        source = adapter_of(model)
        tensors = (source.tensor(self.make_inputs(), source.load(model)),)
        with unchanged(model, self.translator):
            build_bridge(step, BridgeRequest(source, source.twin(source.load(model)), tensors), self.translator)

    def _step(self) -> TranslatorSpec:
        known = registry().translators
        assert self.translator in known, f"no plugin offers the bridge {self.translator!r}; there are {sorted(known)}"
        return known[self.translator]
