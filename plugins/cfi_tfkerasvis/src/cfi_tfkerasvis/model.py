"""The model that tf-keras-vis gets: a functional view of the given one, or a copy where it would be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional  # has no public name

from cfi_core.adapters import adapter_for
from cfi_core.contract import MethodRequest, Target
from cfi_core.errors import InputError, LayerError, MethodError, ModelWarning, TargetError, kind_of, warn
from cfi_core.registry import registry
from cfi_core.turns import keep_random
from cfi_tfkerasvis.describe import describe
from cfi_tfkerasvis.workarounds import Conv, GuidedBackpropagation, ReplaceToLinear, find_layer, functional

OVER_A_BRIDGE = "pass translator='bridge' (of cfi-bridge), which runs any model inside a functional one"


@dataclass(frozen=True)
class PreparedModel:
    """A model ready for tf-keras-vis.

    Attributes:
        model: Functional model; shares the layers of the given one unless something would change them.
        layer: The chosen layer, in `model`; None without one.
        activation: The symbolic tensor that the layer gives in `model`.
        modifiers: What to pass as `model_modifier`.
        applied: What was done, for the provenance.
        sought: Whether the layer is another one than the request names.
    """

    model: Any
    layer: Any = None
    activation: Any = None
    modifiers: tuple[CheckedModifier, ...] = ()
    applied: Mapping[str, Any] = field(default_factory=dict)
    sought: bool = False


def prepare(
    request: MethodRequest,
    *,
    layer: Any = None,
    seek: bool = False,
    probe: Sequence[Any] = (),
    training: bool = False,
    up_to_layer: bool,
) -> PreparedModel:
    """Makes the model of a request ready for tf-keras-vis without touching it.

    Args:
        request: The run.
        layer: Object, name or position of the layer to read.
        seek: If that is no convolution, take the one that tf-keras-vis takes in its place, and tell.
        probe: Inputs on which a copy is compared with the original.
        training: Whether the method calls the model in training mode, which changes batch statistics.
        up_to_layer: The model is to end at the layer instead of its own output.

    Raises:
        MethodError: Not a model that tf-keras-vis can run, or a modifier that would do nothing.
        LayerError: The layer cannot be read in it.
    """
    whole = _graph(request.model)
    named = None if layer is None else _find(whole, layer)
    chosen = _seek(whole, named) if seek and named is not None else named
    sought = chosen is not named
    activation = None if chosen is None else _output_of(whole, chosen)
    view = functional(whole, [activation] if up_to_layer else _outputs(request))
    if chosen is not None and chosen not in view.operations:
        raise LayerError(f"layer {chosen.name!r} does not lead to the chosen output; take one of {_names(view.layers)}")
    modifiers = _modifiers(request, probe)
    reasons = [
        reason
        for reason, holds in (
            ("the model modifier changes layers", bool(modifiers)),
            ("training mode changes batch statistics", training),
        )
        if holds
    ]
    applied: dict[str, Any] = {}
    if modifiers:
        applied["model_modifier"] = [describe(modifier.modifier) for modifier in modifiers]
    if reasons:
        view = _copy(view, probe)
        applied["ran on a copy of the model"] = "; ".join(reasons)
        chosen = None if chosen is None else view.get_layer(chosen.name)
        activation = None if chosen is None else _output_of(view, chosen)
    return PreparedModel(view, chosen, activation, modifiers, applied, sought)


def with_joined_outputs(request: MethodRequest) -> MethodRequest:
    """A target function of several outputs as the end of the model: tf-keras-vis has a score for each output alone."""
    target = request.target
    if target is None or target.function is None or target.output is not None or len(_graph(request.model).outputs) < 2:
        return request
    joined = adapter_for(registry(), "tensorflow").ended_by(request.model, target.function)
    return replace(request, model=joined, target=Target())


def declared_inputs(model: Any) -> list[Any]:
    """The symbolic inputs of a model that tf-keras-vis can run.

    Raises:
        MethodError: It cannot run this model.
    """
    return list(_graph(model).inputs)


def check_inputs(declared: Sequence[Any], inputs: Sequence[Any]) -> int:
    """The number of samples of inputs that fit a model's symbolic inputs.

    Raises:
        InputError: Wrong number, rank, size or type of the inputs.
    """
    if len(inputs) != len(declared):
        raise InputError(f"the model has {len(declared)} inputs, got {len(inputs)}; give one array for each")
    for position, (value, tensor) in enumerate(zip(inputs, declared, strict=True)):
        given, shape = tuple(value.shape), tuple(tensor.shape)
        if len(given) != len(shape) or any(d not in (None, g) for g, d in zip(given, shape, strict=True)):
            raise InputError(f"input {position} has shape {given}, the model declares {shape}")
        name = value.dtype if isinstance(value.dtype, np.dtype) else value.dtype.name
        if np.dtype(name if name != "bfloat16" else "float32").kind != "f":
            instead = (
                "where its whole numbers are tokens, take a method that does not scale them, such as 'grad_cam', "
                "'layer_cam' or 'saliency'"
                if len(given) == 2
                else "convert it to the model's floating point type, scaled as the model expects"
            )
            raise InputError(
                f"input {position} is of type {name}, which has no gradient and which tf-keras-vis does not accept; "
                f"{instead}"
            )
    samples = {int(value.shape[0]) for value in inputs}
    if len(samples) != 1 or 0 in samples:
        raise InputError(f"the inputs hold {sorted(samples)} samples; each must hold the same number, at least one")
    return samples.pop()


def check_gradcam_layer(prepared: PreparedModel) -> None:
    """Refuses a layer that has no class activation map.

    Raises:
        LayerError: The layer has no space axes.
    """
    layer, shape = prepared.layer, prepared.activation.shape
    if len(shape) < 3:
        raise LayerError(
            f"layer {layer.name!r} gives {tuple(shape)}: a class activation map needs axes for samples, space and "
            f"channels; take a layer before the image is pooled or flattened (cfi.layers(model, inputs) shows shapes)"
        )


def gives_probabilities(output: np.ndarray) -> bool:
    """Whether the values over the last axis are those of a softmax, whatever made them."""
    return bool(output.shape[-1] > 1 and (output >= 0).all() and np.allclose(output.sum(axis=-1), 1, atol=1e-3))


class CheckedModifier:
    """A model modifier that raises where tf-keras-vis's own would silently do nothing.

    Attributes:
        modifier: The user's modifier.
        probe: Inputs on which the model's outputs are looked at.
    """

    def __init__(self, modifier: Any, probe: Sequence[Any]) -> None:
        self.modifier = modifier
        self.probe = probe

    def __call__(self, model: Any) -> Any:
        """Modifies the model, and makes sure that something was modified."""
        before = {layer.name: layer.activation for layer in model.layers if hasattr(layer, "activation")}
        result = self.modifier(model)
        changed = {name for name, activation in before.items() if model.get_layer(name).activation is not activation}
        if isinstance(self.modifier, ReplaceToLinear):
            self._check_linear(model, before, changed)
        if isinstance(self.modifier, GuidedBackpropagation):
            self._check_guided(model, changed)
        return result

    def _check_linear(self, model: Any, before: Mapping[str, Any], changed: set[str]) -> None:
        for position, tensor in enumerate(model.outputs):
            layer = tensor._keras_history.operation
            known = layer.name in before
            if layer.name in changed or (known and before[layer.name] is keras.activations.linear):
                continue
            # A head that was cut off already leaves nothing to replace, and that is fine.
            if self.probe and gives_probabilities(flat(model([*self.probe], training=False))[position]):
                raise MethodError(
                    f"ReplaceToLinear does nothing to the output layer {layer.name!r} ({type(layer).__name__}), which "
                    "has no `activation` and still gives probabilities; leave the modifier out and explain the logit "
                    "with a model that ends before this layer"
                )

    def _check_guided(self, model: Any, changed: set[str]) -> None:
        if keras.activations.relu not in self.modifier.target_activations:
            if not changed:
                raise MethodError("GuidedBackpropagation finds none of its target activations in the model")
            return
        missed = [operation.name for operation in model.operations if _hides_relu(operation)]
        if missed or not changed:
            culprit = f"the ReLUs {missed}" if missed else "any layer, as none has activation='relu'"
            raise MethodError(
                f"GuidedBackpropagation does not attach to {culprit}: it sees only layers with activation='relu' at "
                "the top of the model, so the result would be (partly) the plain gradient; use "
                "keras.layers.Activation('relu') in their place, or leave the modifier out"
            )


def _hides_relu(operation: Any) -> bool:
    """Whether an operation applies a ReLU that is not an `activation` of a layer at the top of the model."""
    if isinstance(operation, keras.Model):
        return any(
            _hides_relu(inner) or getattr(inner, "activation", None) is keras.activations.relu
            for inner in operation.layers
        )
    return type(operation).__name__.lower() == "relu"


def _graph(model: Any) -> Any:
    """The model with its graph of layers, or an error if it has none."""
    if keras.config.backend() != "tensorflow":
        raise MethodError(
            f"tf-keras-vis needs Keras on TensorFlow; this process runs it on {keras.config.backend()}: "
            "set the environment variable KERAS_BACKEND=tensorflow before Keras is imported"
        )
    if not isinstance(model, keras.Model):
        raise MethodError(f"tf-keras-vis explains Keras 3 models, and this is a {kind_of(model)}; {OVER_A_BRIDGE}")
    if isinstance(model, keras.Sequential) and not model.built:
        raise MethodError(
            f"the Sequential model {model.name!r} is not built; call it once, or start it with keras.Input"
        )
    # A class that overrides `call` computes something else than its graph.
    if not isinstance(model, Functional | keras.Sequential) or type(model).call not in (
        Functional.call,
        keras.Sequential.call,
    ):
        raise MethodError(
            f"{type(model).__name__} defines its own `call`; tf-keras-vis needs a functional or Sequential model. "
            f"Build one: x = keras.Input(shape); keras.Model(x, model.call(x)); or {OVER_A_BRIDGE}"
        )
    return model


def _outputs(request: MethodRequest) -> list[Any]:
    """The tensors that the model is to end at: the chosen output of a target, or all of them."""
    model, target = request.model, request.target
    outputs = list(model.outputs)
    if "score" in request.exec_args or len(outputs) == 1:
        return outputs
    if target is None or target.output is None:
        raise TargetError(f"the model has {len(outputs)} outputs; the target must name one of them")
    positions = keras.tree.pack_sequence_as(model._outputs_struct, list(range(len(outputs))))
    try:
        position = positions[target.output]
    except (KeyError, IndexError, TypeError) as error:
        raise TargetError(f"the model has no output {target.output!r}; its outputs are {positions!r}") from error
    return [outputs[position]]


def _find(model: Any, reference: Any) -> Any:
    """The layer at the top of the model that an object, a name or a position refers to."""
    if isinstance(reference, int) and not isinstance(reference, bool):
        if not -len(model.layers) <= reference < len(model.layers):
            raise LayerError(f"the model has {len(model.layers)} layers, so none at position {reference}")
        return model.layers[reference]
    for layer in model.layers:
        if layer is reference or layer.name == reference:
            return layer
    name = getattr(reference, "name", reference)
    if any(name == inner.name for nested in model.layers for inner in _inner_layers(nested)):
        raise LayerError(
            f"layer {name!r} lies inside a nested model, whose layers tf-keras-vis cannot read; "
            f"take one at the top of the model: {_names(model.layers)}; or {OVER_A_BRIDGE}"
        )
    raise LayerError(f"the model has no layer {name!r}; it has {_names(model.layers)}")


def _seek(model: Any, layer: Any) -> Any:
    """The layer itself if it is a convolution, or if no convolution stands before it."""
    found = find_layer(model, lambda entry: isinstance(entry, Conv), offset=layer)
    if found is None or found is layer:
        return layer
    warn(
        f"tf-keras-vis explains the convolution {found.name!r} in place of layer {layer.name!r}, which is none. Pass "
        f"exec_args={{'seek_penultimate_conv_layer': False}} to explain {layer.name!r} itself.",
        ModelWarning,
    )
    return _find(model, found)


def _inner_layers(layer: Any) -> list[Any]:
    if not isinstance(layer, keras.Model):
        return []
    return [inner for child in layer.layers for inner in (child, *_inner_layers(child))]


def _output_of(model: Any, layer: Any) -> Any:
    """The tensor that the layer gives in this model."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    own = {id(node) for nodes in graph._nodes_by_depth.values() for node in nodes}
    calls = [node for node in layer._inbound_nodes if id(node) in own]
    if len(calls) != 1:
        raise LayerError(
            f"the model calls layer {layer.name!r} {len(calls)} times, so its activation is not one tensor; "
            "take a layer that is called once"
        )
    if len(calls[0].output_tensors) != 1:
        raise LayerError(f"layer {layer.name!r} gives {len(calls[0].output_tensors)} tensors; take one that gives one")
    return calls[0].output_tensors[0]


def _copy(model: Any, probe: Sequence[Any]) -> Any:
    """A copy with its own layers and weights, compared with the original on the probe."""
    try:
        with keep_random():
            copied = keras.models.clone_model(model)
        copied.set_weights(model.get_weights())
    except Exception as error:  # whatever a layer's own get_config, from_config or build raises
        raise MethodError(
            "Keras cannot clone the model, which this call needs so that yours stays as it is "
            f"({type(error).__name__}: {error}); leave out model_modifier and training=True"
        ) from error
    if probe:
        pairs = zip(flat(model([*probe], training=False)), flat(copied([*probe], training=False)), strict=True)
        for original, again in pairs:
            scale = max(float(np.abs(original).max()), 1e-30)
            if not np.abs(original - again).max() <= 1e-4 * scale:
                raise MethodError(
                    "Keras's clone of the model computes something else, so a layer's get_config() does not hold all "
                    "of its settings; leave out model_modifier and training=True"
                )
    return copied


def flat(outputs: Any) -> list[Any]:
    """All outputs of a model, in double precision."""
    return [np.asarray(output, dtype=np.float64) for output in keras.tree.flatten(outputs)]


def _modifiers(request: MethodRequest, probe: Sequence[Any]) -> tuple[CheckedModifier, ...]:
    given = request.init_args.get("model_modifier")
    if given is None:
        return ()
    modifiers = given if isinstance(given, list | tuple) else [given]
    for modifier in modifiers:
        if not callable(modifier):
            raise MethodError(f"model_modifier holds {modifier!r}, which cannot be called with a model")
    return tuple(CheckedModifier(modifier, probe) for modifier in modifiers)


def _names(layers: Any) -> str:
    return ", ".join(repr(layer.name) for layer in layers)
