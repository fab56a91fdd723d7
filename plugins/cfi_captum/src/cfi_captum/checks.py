"""Refuses what captum would accept and answer wrongly.

Methods with rules of their own (DeepLIFT, guided backpropagation, LRP) fall back to the plain gradient,
without a word, wherever a rule finds no module to attach to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from captum.attr._core.lrp import SUPPORTED_NON_LINEAR_LAYERS
from torch import Tensor, nn
from torch.autograd.graph import Node

from cfi_captum.graph import Graph, trace
from cfi_captum.lrp import explain_unruled, without_rule
from cfi_captum.table import GRAD_CAM, CaptumMethod, Rule
from cfi_core.contract import MethodRequest, Miss
from cfi_core.errors import ArgumentError, InputError, LayerError, MethodError, TargetError, kind_of
from cfi_core.specs import Need
from cfi_torchgraph.nodes import base_name, operation, walk
from cfi_torchgraph.operations import NOT_RECTIFYING, head_of

MOST_SHAPLEY_FEATURES = 9
"""Exact Shapley values take `n!` orders of `n` features; one more would be over 3.6 million of them."""

_BETWEEN_INPUTS = frozenset(("internal_influence", "layer_conductance", "layer_gradient_shap"))

_CHANNELS_SECOND = (1, None)


def check_arguments(method: CaptumMethod, request: MethodRequest, call: dict[str, Any]) -> None:
    """Refuses arguments that captum would misread, before anything runs.

    Raises:
        ArgumentError: Something required is missing, or the call would never end.
        InputError: Inputs or baselines do not fit the method.
        LayerError: The layer is missing, or not of the form the method needs.
        TargetError: The method cannot explain this kind of target.
    """
    if not request.inputs:
        raise ArgumentError(f"'{method.key}' needs inputs: pass inputs=….")
    _check_layer(method, request)
    if "neuron" in method.required and request.neuron is None and call.get("neuron_selector") is None:
        raise ArgumentError(
            f"'{method.key}' explains one neuron of the layer: pass neuron=(…), its position in the layer's output."
        )
    _check_inputs(method, request)
    _check_baselines(method, call)
    if method.key == "occlusion" and call.get("sliding_window_shapes") is None:
        raise ArgumentError(
            "'occlusion' needs the size of the window: pass exec_args={'sliding_window_shapes': (…)}, "
            "one number for each axis of the input but the first."
        )
    if method.key == "shapley_values":
        _check_features(request.inputs, call.get("feature_mask"))
    if method.rule is Rule.RELEVANCE and request.target is not None and request.target.function is not None:
        raise TargetError(
            f"'{method.key}' starts from the relevance of one output and cannot explain a function of several. "
            "Name the output by its index."
        )


def check_tunnel(method: CaptumMethod, request: MethodRequest, call: dict[str, Any], tunnel: dict[str, Any]) -> None:
    """Refuses what the noise tunnel cannot make noisy samples of, or baselines that it cannot repeat for them.

    Raises:
        InputError: There is neither one baseline per sample nor leave to draw them at random, or no noise can be added
            to an input.
    """
    _refuse_integers(request, "'noise_tunnel' adds noise to the inputs", "a method that adds none")
    if not method.baseline_distribution or tunnel.get("draw_baseline_from_distrib"):
        return
    baselines = call["baselines"]
    samples = len(request.inputs[0])
    for value in baselines if isinstance(baselines, tuple) else (baselines,):
        if isinstance(value, Tensor) and len(value) not in (1, samples):
            raise InputError(
                f"'noise_tunnel' repeats the baselines of '{method.key}' with the inputs, but got {len(value)} "
                f"baselines for {samples} samples. Pass exec_args={{'draw_baseline_from_distrib': True}} to draw them "
                "at random, or one baseline per sample."
            )


def _check_layer(method: CaptumMethod, request: MethodRequest) -> None:
    if "layer" not in method.required:
        return
    layers = request.layer
    if not layers and request.init_args.get("layer") is None:
        raise LayerError(f"'{method.key}' needs a layer: pass layer=….")
    if len(layers) > 1 and not method.several_layers:
        raise LayerError(f"'{method.key}' takes one layer, not {len(layers)}: call it once for each layer.")
    if method.rule is Rule.RELEVANCE and any(True for layer in layers for _ in layer.children()):
        raise LayerError(
            f"'{method.key}' reads the relevance at a module with a rule, but this layer holds others. Choose the one "
            "in it whose output is the layer's."
        )
    if method.key not in (GRAD_CAM, "guided_grad_cam"):
        return
    if request.layer_channel_axis not in _CHANNELS_SECOND:
        raise LayerError(
            f"'{method.key}' averages over the axes behind axis 1, but the channels of this layer are axis "
            f"{request.layer_channel_axis}. Choose a layer whose channels are axis 1."
        )


def _check_inputs(method: CaptumMethod, request: MethodRequest) -> None:
    if Need.INPUT_GRADIENT in method.needs:
        for position, value in enumerate(request.inputs):
            if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex()):
                raise InputError(
                    f"'{method.key}' differentiates by the inputs, but input {position} has type {value.dtype}. "
                    "Convert it to floating point, or use a layer method (such as 'layer_integrated_gradients' on "
                    "the embedding) or a perturbation method (such as 'feature_ablation')."
                )
    if method.key in _BETWEEN_INPUTS:
        _refuse_integers(
            request,
            f"'{method.key}' runs the model on values between the baselines and the inputs",
            "'layer_integrated_gradients' at the embedding, whose path lies behind it",
        )
    if method.key == "feature_permutation" and len(request.inputs[0]) < 2:
        raise InputError("'feature_permutation' exchanges values between samples: pass at least two samples.")
    if method.key == "layer_feature_permutation" and len(request.inputs[0]) < 2:
        raise InputError("'layer_feature_permutation' exchanges values between samples: pass at least two samples.")
    if method.key == "guided_grad_cam" and any(axis not in _CHANNELS_SECOND for axis in request.channel_axis):
        raise InputError(
            f"'guided_grad_cam' stretches the map over the axes behind axis 1, but the channels of the inputs are "
            f"axes {request.channel_axis}. Multiply 'guided_backprop' by 'grad_cam' with upsample='nearest' instead."
        )


def _refuse_integers(request: MethodRequest, what: str, instead: str) -> None:
    for position, value in enumerate(request.inputs):
        if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex()):
            raise InputError(
                f"{what}, but input {position} has type {value.dtype}, which holds none of them. If the model computes "
                f"with it, convert it to floating point; if it looks something up by it, use {instead}, or explain the "
                "part of the model behind the embedding, with embeddings as inputs."
            )


def _check_baselines(method: CaptumMethod, call: dict[str, Any]) -> None:
    baselines = call.get("baselines")
    if not method.baseline_distribution:
        return
    if baselines is None:
        raise ArgumentError(
            f"'{method.key}' averages over a distribution of baselines: pass baselines=…, an array of several "
            "examples with the axes of the inputs."
        )
    if callable(baselines):
        return
    least = 2 if "deep_lift" in method.key else 1
    for position, value in enumerate(baselines if isinstance(baselines, tuple) else (baselines,)):
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) < least:
            found = f"an array of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise InputError(
                f"'{method.key}' averages over a distribution of baselines, but baseline {position} is {found}. "
                f"Pass an array of at least {least} examples with the axes of the input."
            )


def _check_features(inputs: tuple[Any, ...], feature_mask: Any) -> None:
    if feature_mask is None:
        features = sum(value[0].numel() for value in inputs)
    else:
        masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
        features = len(torch.unique(torch.cat([torch.as_tensor(mask).reshape(-1) for mask in masks])))
    if features > MOST_SHAPLEY_FEATURES:
        raise ArgumentError(
            f"'shapley_values' runs through all orders of the features, and these are {features} features "
            f"(at most {MOST_SHAPLEY_FEATURES}). Group them with exec_args={{'feature_mask': …}}, or use "
            "'shapley_value_sampling'."
        )


def check_modules(
    method: CaptumMethod, model: Callable[..., Any], request: MethodRequest, call: dict[str, Any]
) -> Graph | None:
    """Refuses a model on which the method's rules would not attach, at the price of one forward pass.

    Returns:
        What the model computes; None for a method without rules.

    Raises:
        MethodError: Some operation on the way has no rule, or the rules would meet in the wrong place.
    """
    if method.rule is Rule.NONE:
        return None
    extra = call.get("additional_forward_args")
    held = extra if isinstance(extra, tuple) else () if extra is None else (extra,)
    graph, misses = find_misses(method, find_modules(method, model), request.inputs, held, request.layer)
    if misses:
        raise MethodError(misses[0].why)
    return graph


def find_modules(method: CaptumMethod, model: Any) -> nn.Module:
    """The model itself, if rules can attach to modules of it.

    Raises:
        MethodError: It has none, or is scripted.
    """
    if not isinstance(model, nn.Module) or not any(True for _ in model.children()):
        raise MethodError(
            f"'{method.key}' attaches rules to the modules of the model, but this model is a "
            f"{kind_of(model)} without modules. Use a method that needs gradients only, such as "
            "'integrated_gradients', or a translator that builds native modules."
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise MethodError(
            f"'{method.key}' cannot attach rules inside a scripted model. Pass the nn.Module that it was made from."
        )
    return model


def find_misses(
    method: CaptumMethod, model: nn.Module, inputs: Sequence[Any], held: Sequence[Any], layers: Sequence[Any]
) -> tuple[Graph, tuple[Miss, ...]]:
    """What the model computes on the way that is explained, and where the method's rules would fail on it.

    Raises:
        MethodError: The model fails on the inputs, or there is no such way.
    """
    layer = layers[0] if len(layers) == 1 else None
    neuron = "neuron" in method.required
    at_layer = "layer" in method.required and not neuron and method.rule is Rule.DIFFERENCE
    try:
        graph = trace(
            model,
            inputs,
            held,
            start=layer if at_layer else None,
            end=layer if neuron else None,
            values=method.rule is Rule.RECTIFIER,
        )
    # Whatever the model raises on its inputs is the cause; there is no list of such errors.
    except Exception as error:
        raise MethodError(f"'{method.key}': the model failed on the inputs ({error}). Check the inputs.") from error
    if not graph.nodes and not graph.starts_at_end:
        start, end = "the layer" if at_layer else "the inputs", "the layer" if neuron else "the output"
        raise MethodError(
            f"'{method.key}': no gradient leads from {start} to {end}, so no rule has anything to attach to. "
            "Explain another layer, or use a method that only runs the model, such as 'feature_ablation'."
        )
    return graph, tuple(_RULE_CHECKS[method.rule](method, model, graph))


def _check_rectifiers(method: CaptumMethod, model: nn.Module, graph: Graph) -> Iterator[Miss]:
    head = head_of(graph.nodes)
    ruled = {node for node, owner in graph.owners.items() if isinstance(owner.module, nn.ReLU)}
    for node in graph.nodes:
        known = graph.is_affine(node) or (base_name(node) in NOT_RECTIFYING and node not in graph.watch.veiled)
        if not (node in ruled or known or node in head):
            yield Miss(
                operation(node),
                f"'{method.key}' changes the gradient of nn.ReLU modules only, but the model computes "
                f"{graph.where(node)}, whose gradient would stay as it is. Use nn.ReLU modules there, or another "
                "method, such as 'saliency'.",
            )
    for node in graph.watch.hidden_rectifiers(graph.nodes, ruled):
        yield Miss(
            operation(node),
            f"'{method.key}' changes the gradient of nn.ReLU modules only, but the model rectifies values, or "
            f"multiplies them by a mask that it computes from the inputs, by {graph.where(node)}, whose gradient would "
            "stay as it is. Use nn.ReLU modules there, or another method, such as 'saliency'.",
        )
    if ruled.isdisjoint(graph.nodes) and "neuron" not in method.required:
        yield Miss(
            "the model",
            f"'{method.key}' changes the gradient of nn.ReLU modules, but no nn.ReLU takes part in this model: the "
            "result would be the plain gradient. Use 'saliency', which says so.",
        )
    if "deconvolution" in method.key:
        yield from _check_deconvolved(method, graph)


def _check_deconvolved(method: CaptumMethod, graph: Graph) -> Iterator[Miss]:
    """Captum keeps one gradient per module; of parallel calls of one module each would get the other's."""
    for name, spans in graph.spans.items():
        modules = {owner.module for owner in graph.owners.values() if owner.name == name}
        if not any(isinstance(module, nn.ReLU) for module in modules):
            continue
        for (_, earlier), (later, _) in pairwise(spans):
            if not earlier <= set(walk(later, frozenset())):
                yield Miss(
                    name,
                    f"'{method.key}': module '{name}' is used in parallel branches, which captum confuses. Give each "
                    "use an nn.ReLU of its own.",
                )


def _check_differences(method: CaptumMethod, model: nn.Module, graph: Graph) -> Iterator[Miss]:
    for node in graph.nodes:
        owner = graph.owners.get(node)
        if owner is not None and type(owner.module) in SUPPORTED_NON_LINEAR:
            if graph.calls[owner.name] > 1:
                yield Miss(
                    owner.name,
                    f"'{method.key}': module '{owner.name}' ({type(owner.module).__name__}) is used "
                    f"{graph.calls[owner.name]} times, but the rule keeps one activation per module. Give each use a "
                    "module of its own.",
                )
        elif not graph.is_affine(node) or node in graph.watch.hidden:
            beside = ", with an operand that it computes from the inputs without a gradient"
            where = graph.where(node) + (beside if graph.is_affine(node) else "")
            yield Miss(
                operation(node),
                f"'{method.key}' has no rule for {where}: the result would mix DeepLIFT with the plain "
                f"gradient. Use modules that it knows ({_names(SUPPORTED_NON_LINEAR)}), or 'integrated_gradients'.",
            )


def _check_relevance(method: CaptumMethod, model: nn.Module, graph: Graph) -> Iterator[Miss]:
    for name, calls in graph.calls.items():
        if calls > 1:
            yield Miss(
                name,
                f"'{method.key}': module '{name}' is used {calls} times, but the rules keep one activation per "
                "module. Give each use a module of its own.",
            )
    for node in graph.nodes:
        if node not in graph.owners and not graph.moves(node):
            yield Miss(
                operation(node),
                f"'{method.key}' has no rule for {graph.where(node)}. Use a module for it (nn.ReLU for relu, "
                "captum's Addition_Module for +), so that relevance can be propagated through it.",
            )
    for consumers in graph.consumers.values():
        ruled = [node for node in consumers if _has_rule(graph, node)]
        others = [node for node in consumers if not _has_rule(graph, node)]
        if ruled and others:
            yield Miss(
                operation(others[0]),
                f"'{method.key}': a value is used by {graph.where(ruled[0])} and by {graph.where(others[0])}. Captum "
                "would add a relevance to a gradient there. Put a module that copies it in front of the second.",
            )
    for name, module in without_rule(model, graph):
        yield Miss(name, explain_unruled(method.key, name, module))


def _has_rule(graph: Graph, node: Node) -> bool:
    owner = graph.owners.get(node)
    return owner is not None and type(owner.module) not in SUPPORTED_NON_LINEAR_LAYERS


def _names(types: Any) -> str:
    return ", ".join(f"nn.{kind.__name__}" for kind in types if kind.__module__.startswith("torch.nn"))


_RULE_CHECKS: dict[Rule, Callable[[CaptumMethod, nn.Module, Graph], Iterator[Miss]]] = {
    Rule.RECTIFIER: _check_rectifiers,
    Rule.DIFFERENCE: _check_differences,
    Rule.RELEVANCE: _check_relevance,
}
