"""The methods that take one gradient, of the model or of what TorchRay's rules make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.errors import ArgumentError, LayerError, MethodError, TargetError
from cfi_core.specs import resolve
from cfi_core.turns import hold_alone
from cfi_torchgraph.calls import one_call_of_each
from cfi_torchgraph.nodes import tensors
from cfi_torchray.excitation import orient
from cfi_torchray.explained import Explained, check_inputs, class_indices, failures, with_own_parameters
from cfi_torchray.graph import owners
from cfi_torchray.library import common, deconvnet, excitation_backprop, guided_backprop, private_copy
from cfi_torchray.maps import finish
from cfi_torchray.plugin import CONTEXT, REDUCTION, WORKAROUNDS
from cfi_torchray.rules import Check, Rules, originals
from cfi_torchray.workarounds import GuidedReLU, Probe


def run(request: MethodRequest) -> MethodResult:
    """Runs `saliency`, `deconvolution`, `guided_backprop`, `linear_approx`, `grad_cam` or `excitation_backprop`.

    Returns:
        The gradient with the axes of the input or layer, or a map that `gradient_to_saliency` makes of it.

    Raises:
        ArgumentError: An argument does not fit (also InputError, LayerError, TargetError).
        MethodError: The method's rules would not reach all of the model, or TorchRay failed.
    """
    builder = _builder(request)
    if request.exec_args.get(CONTEXT) is None:
        return _run(request, builder)
    with hold_alone("torch"), originals():  # nobody knows what a context of the user's exchanges
        return _run(request, builder)


def run_contrastive(request: MethodRequest) -> MethodResult:
    """Runs `contrastive_excitation_backprop` at one layer, against another one nearer to the output.

    Raises:
        ArgumentError: As `run`; `contrast_layer` is missing.
        MethodError: As `run`.
    """
    return _run(request, excitation_backprop.ExcitationBackpropContext)


def _run(request: MethodRequest, builder: Callable[[], Any] | None) -> MethodResult:
    _check(request, builder)
    request = with_own_parameters(request)
    mend = bool(request.init_args[WORKAROUNDS])
    if mend and "excitation" in request.method.key:
        orient(request.model, request.inputs[0], request.layer)
    explained = Explained(request, whole=request.exec_args.get("get_backward_gradient") is not None)
    reference = explained.input_of(request)
    rules = None if builder is None else Rules(builder, mend=mend)
    if rules is not None and rules.excitation:
        # What goes around the layer gets its share of a residual sum only if it is known to depend on the input.
        reference.requires_grad_()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        check = None
        if rules is not None:
            check = Check(request.method.key, rules, stack.enter_context(owners(explained.model)))
            stack.enter_context(_stops_at(request.layer, check))
        stack.enter_context(one_call_of_each(explained, request.layer))
        x = _gradient(request, explained, reference, rules, check, mend)
    values, axes = finish(request, x, reference, _channel(request))
    if axes is Axes.INPUT and explained.channel not in (None, 1):
        values = values.movedim(1, explained.channel or 0)
    return MethodResult((values,), axes, applied=_applied(request, rules))


def _builder(request: MethodRequest) -> Callable[[], Any] | None:
    """What makes the context in which TorchRay runs the model; None: the plain gradient."""
    mend = request.init_args[WORKAROUNDS]
    match request.method.key:
        case "deconvolution":
            return deconvnet.DeConvNetContext
        case "guided_backprop":
            return partial(common.ReLUContext, GuidedReLU) if mend else guided_backprop.GuidedBackpropContext
        case "excitation_backprop":
            return excitation_backprop.ExcitationBackpropContext
    own = request.exec_args.get(CONTEXT)
    own = resolve(own) if isinstance(own, str) else own
    if own is not None and not callable(own):
        raise ArgumentError(f"{CONTEXT} must make a context manager when it is called, but is a {type(own).__name__}.")
    return own


def _check(request: MethodRequest, builder: Callable[[], Any] | None) -> None:
    check_inputs(request, images=False)
    key, target = request.method.key, request.target
    if len(request.layer) > 1:
        raise LayerError(f"'{key}' explains one layer, not {len(request.layer)}: call it once for each.")
    modules = list(request.model.modules()) if isinstance(request.model, nn.Module) else []
    if builder is not None and not modules:
        raise MethodError(f"'{key}' needs a torch.nn.Module, whose functions its rules can stand for.")
    compiled = any(
        isinstance(one, torch.jit.ScriptModule) or type(one).__name__ == "OptimizedModule" for one in modules
    )
    if builder is not None and compiled:
        raise MethodError(
            f"'{key}' changes rules in Python, which a scripted or compiled module does not look up. Pass the "
            "nn.Module that it was made from."
        )
    if "excitation" in key and target is not None and target.function is not None:
        raise TargetError(f"'{key}' starts at one output and cannot explain a function of several. Name its index.")
    if key == "grad_cam" and request.layer_channel_axis is None:
        raise LayerError("'grad_cam' weights channels by their gradients: choose a layer whose output has channels.")


def _gradient(
    request: MethodRequest,
    explained: Explained,
    reference: Tensor,
    rules: Rules | None,
    check: Check | None,
    mend: bool,
) -> Tensor:
    """The tensor of the layer, or of the input, with its gradient."""
    caught: list[Tensor] = []

    def catch(x: Tensor) -> Tensor:
        if x.grad is None:
            raise MethodError(
                f"'{request.method.key}': no gradient leads from the output to what is explained. Explain another "
                "layer, or use a method that only runs the model, such as 'rise'."
            )
        caught.append(x)
        return x.grad[:, :1]

    def start(outputs: Tensor, target: Any) -> Tensor:
        if check is not None and explained.outputs is not None:
            check(explained.outputs)
        return _backward_gradient(request, outputs, target)

    target = 0 if explained.target is not None or request.target is None else list(class_indices(request))
    arguments = {"model": explained, "input": reference, "target": target, "get_backward_gradient": start}
    exchanged: dict[str, Any] = {"Probe": Probe} if mend else {}
    context = common.NullContext if rules is None else partial(_itself, rules)
    with failures(request.method.key):
        if request.method.key == "contrastive_excitation_backprop":
            exchanged["ExcitationBackpropContext"] = context
            exchanged["gradient_to_contrastive_excitation_backprop_saliency"] = catch
            arguments |= _contrast(request, reference, mend)
            private_copy("excitation_backprop", **exchanged).contrastive_excitation_backprop(**arguments)
        else:
            layer = request.layer[0] if request.layer else ""
            arguments |= {"saliency_layer": layer, "context_builder": context, "gradient_to_saliency": catch}
            private_copy("common", **exchanged).saliency(**arguments)
    return caught[0]


def _itself(rules: Rules) -> Rules:
    return rules


def _backward_gradient(request: MethodRequest, outputs: Tensor, target: Any) -> Tensor:
    own = request.exec_args.get("get_backward_gradient")
    if own is None:
        found: Tensor = common.get_backward_gradient(outputs, target)
        return found
    own = resolve(own) if isinstance(own, str) else own
    alone = target[0] if isinstance(target, list) and len(target) == 1 else target
    found = own(outputs, alone)
    if not isinstance(found, Tensor) or found.shape != outputs.shape:
        raise ArgumentError(f"get_backward_gradient must give a tensor of the outputs' shape {tuple(outputs.shape)}.")
    return found


def _contrast(request: MethodRequest, reference: Tensor, mend: bool) -> dict[str, Any]:
    """The layers of the contrastive method, the weights of the classifier being nobody else's."""
    key, call, model = request.method.key, request.exec_args, request.model
    contrast, classifier = call.get("contrast_layer"), call.get("classifier_layer")
    if contrast is None:
        raise ArgumentError(
            f"'{key}' subtracts at a layer what speaks for the other classes: pass exec_args={{'contrast_layer': …}}, "
            "a layer of your model or its name, behind the one that is explained."
        )
    contrast = _module(model, contrast, "contrast_layer")
    if classifier is not None:
        classifier = _module(model, classifier, "classifier_layer")
    elif mend:
        classifier = _last_linear(model, request)
    else:
        classifier, _ = excitation_backprop._get_classifier_layer(model)
    if not isinstance(getattr(classifier, "weight", None), Tensor):
        raise ArgumentError(f"classifier_layer is a {type(classifier).__name__}, which has no weight to negate.")
    classifier.weight = nn.Parameter(classifier.weight.detach().clone(), requires_grad=False)
    return {"saliency_layer": request.layer[0], "contrast_layer": contrast, "classifier_layer": classifier}


def _module(model: nn.Module, reference: Any, name: str) -> nn.Module:
    if isinstance(reference, nn.Module):
        return reference
    try:
        return model.get_submodule(str(reference))
    except AttributeError as error:
        raise LayerError(
            f"{name}={reference!r} is no layer of the model that runs. cfi.layers(model) lists all."
        ) from error


def _last_linear(model: nn.Module, request: MethodRequest) -> nn.Module:
    """The linear layer or convolution that runs last (TorchRay takes the one that was defined last)."""
    ran: list[nn.Module] = []
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    modules = [module for module in model.modules() if isinstance(module, kinds)]
    handles = [module.register_forward_hook(lambda module, args, output: ran.append(module)) for module in modules]
    try:
        with torch.no_grad():
            model(request.inputs[0])
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise MethodError(
            f"'{request.method.key}' negates the weights of the classifier, and the model has no linear layer or "
            "convolution that runs. Pass exec_args={'classifier_layer': …}."
        )
    return ran[-1]


def _channel(request: MethodRequest) -> int | None:
    if request.layer:
        return request.layer_channel_axis
    # The input was given with its channels second.
    return 1 if request.channel_axis and request.channel_axis[0] is not None else None


@contextmanager
def _stops_at(layers: tuple[Any, ...], check: Check) -> Iterator[None]:
    """Notes the nodes of the layer's output: what lies before it takes no part, and what lies behind it does."""

    def note(module: nn.Module, args: Any, output: Any) -> None:
        for value in tensors(output):
            if value.is_floating_point() and not value.requires_grad:
                value.requires_grad_()  # the first pass of the contrastive method starts at the contrast otherwise
            check.stops.append(value.grad_fn)

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _applied(request: MethodRequest, rules: Rules | None) -> dict[str, Any]:
    call = request.exec_args
    names = {"saliency": "common.saliency", "deconvolution": "deconvnet.deconvnet"}
    where = {
        "guided_backprop": "guided_backprop",
        "linear_approx": "linear_approx",
        "grad_cam": "grad_cam",
        "excitation_backprop": "excitation_backprop",
        "contrastive_excitation_backprop": "excitation_backprop",
    }
    key = request.method.key
    function = names.get(key) or f"{where[key]}.{key}"
    applied: dict[str, Any] = {"function": f"torchray.attribution.{function}"}
    for name in (REDUCTION, "resize", "resize_mode", "smooth", CONTEXT, "get_backward_gradient"):
        if name in call:
            value = call[name]
            applied[name] = getattr(value, "__qualname__", value if _is_plain(value) else type(value).__qualname__)
    applied[WORKAROUNDS] = bool(request.init_args[WORKAROUNDS])
    applied["repaired"] = () if rules is None else tuple(sorted(rules.repaired))
    return applied


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, tuple, list))
