"""Runs one of captum's methods."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import captum.attr
import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn

from cfi_captum.cells import with_similarity
from cfi_captum.checks import check_arguments, check_modules, check_tunnel
from cfi_captum.draws import captum_class, make_explainer, own_generators
from cfi_captum.forward import make_forward
from cfi_captum.lrp import Absorption, attach_rules
from cfi_captum.passes import divide_gradients, limit_batch, tell_steps
from cfi_captum.sampling import Hearing
from cfi_captum.table import (
    DRAWING,
    GRAD_CAM,
    METHODS,
    NOISE_TUNNEL,
    TUNNELLED,
    UPSAMPLING,
    WORKAROUNDS,
    CaptumMethod,
    Rule,
)
from cfi_captum.workarounds import (
    COLUMN_FLATTENED,
    TARGET_INSIDE,
    contiguous,
    keep_generators,
    mend_rules,
    ready_for_tunnel,
)
from cfi_core.contract import Axes, MethodRequest, MethodResult, Sampling
from cfi_core.errors import ArgumentError, CFIError, LayerError, MethodError, ModelWarning, warn
from cfi_core.silence import without_warnings
from cfi_core.specs import Kind
from cfi_torchgraph.calls import one_call_of_each
from cfi_torchgraph.marks import without_marks
from cfi_torchgraph.nodes import tensors

# What captum says about its own workings, and what nobody can act on.
_NOT_FOR_USERS = (
    r"\s*Setting forward, backward hooks and attributes",
    r"Setting backward hooks on ReLU",
    r"Input Tensor \d+ did not already require gradients",
    r"You are providing multiple inputs for Lime",
)
_EMPTY_INSTEAD_OF_ERROR = "Couldn't appropriately interpolate"
_NO_INFLUENCE = frozenset(
    {"inputs", "target", "layer", "neuron_selector", "device_ids", "show_progress", "verbose", "memory_efficient"}
)
_LONGEST_MESSAGE = 300
_ROUNDING = 1e-3
_ABLATING_LAYERS = frozenset({"layer_feature_ablation", "layer_feature_permutation"})


def run(request: MethodRequest) -> MethodResult:
    """Runs the method that the request names.

    Returns:
        Raw values: one tensor for each input, or for each output of each layer.

    Raises:
        ArgumentError: An argument is missing or does not fit (also InputError, LayerError, TargetError).
        MethodError: The model is not one that the method can explain, or captum failed.
    """
    method = _method(request)
    init_args, call, tunnel = _arguments(method, request)
    init_args = with_similarity(request, method.key, init_args)
    workarounds = bool(init_args.pop(WORKAROUNDS)) if WORKAROUNDS in method.own_init_args else None
    upsample = call.pop("upsample") if method.key == GRAD_CAM else None
    check_arguments(method, request, call)
    limit_batch(method, request, call, tunnel)
    tell_steps(method, request, call, tunnel)
    if tunnel is not None:
        check_tunnel(method, request, call, tunnel)
    _check_upsampling(upsample, call, request)
    with torch.inference_mode(False), torch.enable_grad(), without_marks(request.model, *request.layer):
        if method.rule is Rule.RELEVANCE and not request.method.alters_model:
            request = _with_own_weights(request)
            if request.layer:
                init_args["layer"] = _layer_argument(request)
        model, target = make_forward(
            request.model,
            request.target if "target" in method.exec_args else None,
            inside=method.key in TARGET_INSIDE
            or (method.key in COLUMN_FLATTENED and request.target is not None and not request.target.index),
            as_child=_must_be_child(method, request.model),
        )
        if "target" in method.exec_args:
            call.setdefault("target", target)
        graph = check_modules(method, model, request, call)
        absorption = Absorption(len(request.inputs[0])) if method.rule is Rule.RELEVANCE and tunnel is None else None
        with ExitStack() as stack:
            if isinstance(model, nn.Module):
                stack.enter_context(without_marks(model))
                if graph is not None and method.rule is Rule.RELEVANCE:
                    attach_rules(model, graph, method.key)
                if absorption is not None:
                    stack.enter_context(absorption.watch(model))
            stack.enter_context(one_call_of_each(model, request.layer))
            stack.enter_context(_unchanged_layers(model, request))
            stack.enter_context(_only_warnings_for_users())
            draws = partial(_draws, request, method)
            hearing = Hearing(method.key, "smoothgrad" if tunnel is None else tunnel.get("nt_type", "smoothgrad"))
            stack.enter_context(hearing.listen())
            call_captum = partial(_call_captum, method, request, model, init_args, call, tunnel, draws, hearing)
            if workarounds is None:
                raw = call_captum()
            else:
                raw = _apply_rules(method, model, call_captum, workarounds, request.seeded)
    extras = {}
    if call.get("return_convergence_delta"):
        raw, delta = raw
        extras["convergence_delta"] = _numpy(delta)
    values = tuple(value.detach() for value in _flat(raw))
    sampling = hearing.sampling(values, call, tunnel)
    values, axes = _shape_values(method, values, request, call, upsample)
    sampling = _shape_sampling(sampling, values, axes)
    applied = _list_settings(method, init_args, call, tunnel, upsample, axes)
    if workarounds is not None:
        applied[WORKAROUNDS] = workarounds
    absorbed = None if absorption is None else absorption.of(request.layer)
    told = dict.fromkeys(extras, 0)  # with one for each sample, or for each of its baselines
    return MethodResult(values, axes, extras, applied, absorbed=absorbed, sampling=sampling, sample_axes=told)


def _method(request: MethodRequest) -> CaptumMethod:
    """The method itself; inside a noise tunnel, the method that it wraps."""
    if request.method.key != NOISE_TUNNEL:
        return METHODS[request.method.key]
    key = request.init_args["method"]
    if key not in TUNNELLED:
        raise ArgumentError(f"'{NOISE_TUNNEL}' cannot wrap {key!r}. It wraps one of: {', '.join(TUNNELLED)}.")
    return TUNNELLED[key]


def _arguments(
    method: CaptumMethod, request: MethodRequest
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """Arguments for the constructor, for the call, and for the noise tunnel around it (None without one)."""
    init_args = dict(request.init_args)
    call = dict(request.exec_args)
    tunnel: dict[str, Any] | None = None
    if request.method.key == NOISE_TUNNEL:
        del init_args["method"]
        # `stdevs` is a word of the tunnel and of GradientShap: outside wins, as in captum.
        tunnel = {name: call.pop(name) for name in METHODS[NOISE_TUNNEL].exec_args if name in call}
        tunnel.pop("inputs", None)
        _refuse_unknown(method, init_args, call)
        if "stdevs" in tunnel:
            tunnel["stdevs"] = _floats(tunnel["stdevs"])
    elif "stdevs" in call:
        call["stdevs"] = _floats(call["stdevs"])
    if "layer" in method.init_args and request.layer and init_args.get("layer") is None:
        init_args["layer"] = _layer_argument(request)
    call.setdefault("inputs", _one_or_several(request.inputs))
    if "baselines" in method.exec_args and request.baselines is not None:
        call.setdefault("baselines", _one_or_several(request.baselines))
    if "neuron_selector" in method.exec_args and request.neuron is not None:
        neuron = request.neuron
        alone = isinstance(neuron, tuple) and len(neuron) == 1 and not isinstance(neuron[0], slice)
        call.setdefault("neuron_selector", neuron[0] if alone else neuron)
    for name in ("inputs", "baselines", "feature_mask"):
        if name in call:
            call[name] = contiguous(call[name])
    return init_args, call, tunnel


def _refuse_unknown(method: CaptumMethod, init_args: Mapping[str, Any], call: Mapping[str, Any]) -> None:
    """The tunnel's spec lists the arguments of all methods, so those of the wrapped one are sorted out here."""
    for where, given, known in (
        ("init_args", init_args, (*method.init_args, *method.own_init_args)),
        ("exec_args", call, (*method.exec_args, *method.own_exec_args)),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ArgumentError(
                f"'{method.key}' inside '{NOISE_TUNNEL}' does not take {', '.join(map(repr, unknown))} in {where}. "
                f"It takes: {', '.join(known) or 'nothing'}."
            )


def _layer_argument(request: MethodRequest) -> Any:
    return request.layer[0] if len(request.layer) == 1 else list(request.layer)


def _one_or_several(values: tuple[Any, ...]) -> Any:
    # Functions of the user's (perturbations, similarities) get one tensor for one input, as in captum.
    return values[0] if len(values) == 1 else values


def _floats(stdevs: Any) -> Any:
    """Captum insists on floats."""
    return tuple(float(stdev) for stdev in stdevs) if isinstance(stdevs, (tuple, list)) else float(stdevs)


def _must_be_child(method: CaptumMethod, model: Any) -> bool:
    """Whether captum would overlook the model itself, or its calls could not be counted."""
    if not isinstance(model, nn.Module):
        return "layer" in method.init_args
    return method.rule is not Rule.NONE and next(model.children(), None) is None


def _with_own_weights(request: MethodRequest) -> MethodRequest:
    """LRP changes weights while it runs; inside a noise tunnel the model may share them with the user's."""
    model, layer = copy.deepcopy((request.model, request.layer))
    return replace(request, model=model, layer=layer)


def _draws(request: MethodRequest, method: CaptumMethod) -> AbstractContextManager[None]:
    """Where random numbers come from: generators of the run, unless the global ones have been seeded for it."""
    if request.seeded or not {request.method.key, method.key} & DRAWING:
        return nullcontext()
    return own_generators(request.seed)


def _apply_rules(
    method: CaptumMethod, model: Any, call_captum: Callable[[], Any], workarounds: bool, seeded: bool
) -> Any:
    """Runs captum's backward rules with their faults mended; or as they are, telling whether the faults show."""
    if workarounds:
        with mend_rules(method, model):
            return call_captum()
    with keep_generators() if seeded else nullcontext(), mend_rules(method, model):
        right = call_captum()
    raw = call_captum()
    if (apart := _apart(raw, right)) > _ROUNDING:
        warn(
            f"'{method.key}': on this model, captum's own values differ by a relative {apart:.1e} from what the method "
            f"defines: its rules mix modules that share a tensor, or the samples of a batch. You get captum's; pass "
            f"init_args={{'{WORKAROUNDS}': True}} for the others.",
            ModelWarning,
        )
    return raw


def _apart(raw: Any, right: Any) -> float:
    """The largest difference, relative to the largest value."""
    pairs = [(one.detach(), other.detach()) for one, other in zip(_flat(raw), _flat(right), strict=True)]
    scale = max((float(other.abs().max()) for _, other in pairs), default=0.0)
    difference = max((float((one - other).abs().max()) for one, other in pairs), default=0.0)
    return difference / scale if scale else difference


def _call_captum(
    method: CaptumMethod,
    request: MethodRequest,
    model: Callable[..., Any],
    init_args: Mapping[str, Any],
    call: Mapping[str, Any],
    tunnel: Mapping[str, Any] | None,
    draws: Callable[[], AbstractContextManager[None]],
    hearing: Hearing,
) -> Any:
    try:
        with draws():
            explainer = make_explainer(method.captum_class, model, init_args)
            divide_gradients(method, request, explainer)
            hearing.attach(explainer)
            if tunnel is None:
                return explainer.attribute(**call)
            return captum_class("NoiseTunnel")(ready_for_tunnel(explainer)).attribute(**call, **tunnel)
    except CFIError:
        raise
    # Captum and the user's model raise anything from AssertionError to KeyError; all of it is the cause.
    except Exception as error:
        # Captum prints whole tensors into some of its messages.
        message = str(error) if len(str(error)) <= _LONGEST_MESSAGE else f"{str(error)[:_LONGEST_MESSAGE]}…"
        raise MethodError(
            f"'{method.key}': captum's {method.captum_class} failed ({type(error).__name__}: {message}). Check the "
            f"arguments against https://captum.ai/api, or try another method."
        ) from error


@contextmanager
def _unchanged_layers(model: Callable[..., Any], request: MethodRequest) -> Iterator[None]:
    """Refuses a layer whose output is changed in place by what follows, where captum goes on from the output."""
    if not isinstance(model, nn.Module) or request.method.key not in _ABLATING_LAYERS:
        yield
        return
    _work_out_of_place(model)
    given: list[tuple[Tensor, int]] = []
    changed = False

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        given[:] = [(one, one._version) for one in tensors(output)]

    def compare(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal changed
        changed = changed or any(one._version != version for one, version in given)

    handles = [model.register_forward_hook(compare), *(layer.register_forward_hook(keep) for layer in request.layer)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if changed:
        raise LayerError(
            f"What follows the layer changes its output in place, and '{request.method.key}' would go on from the "
            "changed values. Write it out of place (h = h + x instead of h += x), or choose another layer."
        )


def _work_out_of_place(model: nn.Module) -> None:
    """Tells the modules of a twin that can work in place not to: captum keeps the layer's output between its passes."""
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False


@contextmanager
def _only_warnings_for_users() -> Iterator[None]:
    # Captum returns an empty tensor here and warns.
    with without_warnings(*_NOT_FOR_USERS), without_warnings(_EMPTY_INSTEAD_OF_ERROR, action="error"):
        yield


def _flat(raw: Any) -> tuple[Tensor, ...]:
    return tuple(tensors(raw))


def _numpy(delta: Any) -> Any:
    if isinstance(delta, (tuple, list)):
        return tuple(_numpy(one) for one in delta)
    return delta.detach().cpu().numpy()


def _shape_values(
    method: CaptumMethod,
    values: tuple[Tensor, ...],
    request: MethodRequest,
    call: Mapping[str, Any],
    upsample: str | None,
) -> tuple[tuple[Tensor, ...], Axes]:
    if method.key == GRAD_CAM:
        return _maps(values, request, call, upsample)
    if method.kind is Kind.LAYER:
        return values, Axes.LAYER
    if not call.get("return_input_shape", True):
        return values, Axes.FEATURE
    for position, (value, given) in enumerate(zip(values, tensors(call["inputs"]), strict=True)):
        if value.shape != given.shape:
            raise MethodError(
                f"'{method.key}' gave values of shape {tuple(value.shape)} for input {position} of shape "
                f"{tuple(given.shape)}. The model or the target does not give one value per sample: choose one with "
                "target=…."
            )
    return values, Axes.INPUT


def _shape_sampling(sampling: Sampling | None, values: tuple[Tensor, ...], axes: Axes) -> Sampling | None:
    """The same for the errors; what was stretched over the image has none of its own."""
    if sampling is None or axes is Axes.INPUT_SIZED_MAP:
        return None
    pairs = zip(sampling.errors, values, strict=True)
    return replace(sampling, errors=tuple(error.reshape(value.shape) for error, value in pairs))


def _maps(
    values: tuple[Tensor, ...], request: MethodRequest, call: Mapping[str, Any], upsample: str | None
) -> tuple[tuple[Tensor, ...], Axes]:
    """Class activation maps: the channel axis, of length one after the sum, goes."""
    for value in values:
        if value.dim() < 3:
            raise LayerError(
                f"'{GRAD_CAM}' needs a layer with channels and at least one spatial axis, but this layer's output has "
                f"{value.dim()} axes. Choose a convolution or a pooling before the flattening."
            )
    if not call.get("attr_dim_summation", True):
        return values, Axes.LAYER
    if upsample is None:
        return tuple(value.squeeze(1) for value in values), Axes.LAYER_MAP
    channel = request.channel_axis[0] if request.channel_axis else 1
    size = tuple(length for axis, length in enumerate(request.inputs[0].shape) if axis not in (0, channel))
    for value in values:
        if value.dim() - 2 != len(size) or (upsample == "bilinear" and len(size) != 2):
            raise ArgumentError(
                f"upsample={upsample!r} cannot stretch a map with {value.dim() - 2} spatial axes over an input with "
                f"{len(size)}. Leave it out to get the map at the layer's own size."
            )
    stretched = tuple(LayerAttribution.interpolate(value, size, upsample) for value in values)
    return tuple(value.squeeze(1) for value in stretched), Axes.INPUT_SIZED_MAP


def _check_upsampling(upsample: Any, call: Mapping[str, Any], request: MethodRequest) -> None:
    if upsample not in UPSAMPLING:
        raise ArgumentError(f"upsample={upsample!r} is unknown. Choose one of: None, 'nearest', 'bilinear'.")
    if upsample is None:
        return
    if not call.get("attr_dim_summation", True):
        raise ArgumentError("upsample stretches a map without channels. Leave out attr_dim_summation=False.")
    if len(request.inputs) != 1:
        raise ArgumentError(
            f"upsample stretches the map over the input, but the model has {len(request.inputs)} inputs. Leave it out."
        )


def _list_settings(
    method: CaptumMethod,
    init_args: Mapping[str, Any],
    call: Mapping[str, Any],
    tunnel: Mapping[str, Any] | None,
    upsample: str | None,
    axes: Axes,
) -> dict[str, Any]:
    """Every setting that the values depend on, captum's defaults included."""
    explainer = getattr(captum.attr, method.captum_class)
    applied: dict[str, Any] = {"class": f"captum.attr.{method.captum_class}"}
    applied |= _settings(explainer.__init__, init_args, method.init_args)
    applied |= _settings(explainer.attribute, call, method.exec_args)
    if method.key == GRAD_CAM:
        applied["upsample"] = upsample
        if axes is Axes.INPUT_SIZED_MAP:
            # What `torch.nn.functional.interpolate` does unless told otherwise.
            applied["align_corners"] = False if upsample == "bilinear" else None
    if method.key == "guided_grad_cam":
        applied["relu_attributions"] = True
    if tunnel is not None:
        names = METHODS[NOISE_TUNNEL].exec_args
        inside = {f"{method.key}.{name}": value for name, value in applied.items() if name != "class"}
        applied = {
            "class": "captum.attr.NoiseTunnel",
            "method": method.key,
            **_settings(captum.attr.NoiseTunnel.attribute, tunnel, names),
            **inside,
        }
    return applied


def _settings(function: Callable[..., Any], given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {
        name: _plain(given[name] if name in given else parameters[name].default)
        for name in names
        if name not in _NO_INFLUENCE
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_plain(one) for one in value)
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return getattr(value, "__qualname__", type(value).__qualname__)
