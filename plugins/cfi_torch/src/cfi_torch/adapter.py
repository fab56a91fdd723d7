"""PyTorch models and tensors. Imported when a torch model or toolset is first used."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd
from torch.overrides import TorchFunctionMode

from cfi_core.errors import InputError, LayerError
from cfi_core.framework import (
    Canonical,
    Embedded,
    Factories,
    FrameworkAdapter,
    Layer,
    Layout,
    Passes,
    Recorded,
    UnseenError,
    flatten,
    map_structure,
)
from cfi_torch import content, naming
from cfi_torch.canonical import rewrite
from cfi_torch.embedding import find_embedding, from_embedding, own_embedding, starts_at_embedding
from cfi_torch.ending import ended_by
from cfi_torch.exported import ExportedModel, kind_of, open_exported
from cfi_torch.files import graphs
from cfi_torch.function import TorchFunction, function_model, modules_behind
from cfi_torch.gradients import missing_gradient
from cfi_torch.holding import bind
from cfi_torch.keras import KerasModel, channel_axis, is_keras, keras_model
from cfi_torch.maps import show_map
from cfi_torch.passes import count_passes, watch_passes
from cfi_torch.runner import TorchRunner, freeze, pull_back
from cfi_torch.state import ModelState
from cfi_torch.watch import LayerWatch
from cfi_torch.wrappers import is_offloaded, parallel_parts, unwrap, with_weights

_SOFTMAX_NAMES = frozenset({"softmax", "log_softmax"})
_CONVOLUTIONS = {"conv1d": 3, "conv2d": 4, "conv3d": 5}
_ONE_DIMENSIONAL = (nn.Conv1d, nn.ConvTranspose1d)
# Exactly these classes: torchvision's LayerNorm2d, for one, is a LayerNorm that works channels-first.
_FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention)
_CHANNELS_FIRST = (_ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd)


class TorchAdapter(FrameworkAdapter):
    """Layers go by their dotted module names."""

    name = "torch"
    arithmetic = torch
    file_sizes = graphs.FILE_SIZES
    map_channels = 1

    # models

    def load(self, model: Any) -> nn.Module:
        """The module (of an exported program its own), checked to have its weights; one that calls a function."""
        if is_keras(model):
            return keras_model(model)
        model = open_exported(model) or unwrap(model)
        if not isinstance(model, nn.Module):
            return function_model(model)
        offloaded = is_offloaded(model)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if nn.parameter.is_lazy(tensor):
                raise InputError(
                    f"{name!r} of the {type(model).__name__} has no values yet (a lazy module): run the model once "
                    f"before explaining it."
                )
            if _has_no_values(tensor) and not offloaded:
                raise InputError(
                    f"{name!r} of the {type(model).__name__} has no values (it lies on the meta device, or is a "
                    f"FakeTensor): load its weights before explaining it (model.to_empty(device='cpu'), then "
                    f"load_state_dict)."
                )
        return model

    def twin(self, model: nn.Module, *, share_weights: bool = True) -> nn.Module:
        """A structural copy in inference mode: parameters are shared, buffers and hook places are not."""
        if not share_weights and isinstance(model, TorchFunction):
            return super().twin(model, share_weights=False)  # refuses
        memo: dict[int, Any] = {}
        own = {id(module) for _, module in _parts(model)}
        for _, module in _parts(model):
            for value in vars(module).values():
                # Only leaf tensors can be deep-copied; modules may keep results of a forward pass.
                if isinstance(value, torch.Tensor) and not value.is_leaf:
                    memo[id(value)] = value.detach()
            for hooks in _hook_tables(module):
                # The same callables, so that the user's hooks still fire and still reach the user's objects. Methods
                # of the model's own modules are part of what it computes: they go over to the twin's modules.
                memo.update(
                    (id(hook), hook) for hook in hooks.values() if id(getattr(hook, "__self__", None)) not in own
                )
        if share_weights:
            memo.update((id(parameter), parameter) for parameter in model.parameters())
        try:
            parallel_parts(model, memo)
            twin: nn.Module = with_weights(copy.deepcopy(model, memo))
        except Exception as error:  # an attribute of the user's model may refuse in any way
            raise InputError(
                f"The {type(model).__name__} cannot be copied, and explaining it must not leave marks on it: "
                f"{type(error).__name__}: {error}. Remove what cannot be copied from the model (open files, locks, "
                f"results of a forward pass kept in containers) or give its class a __deepcopy__."
            ) from error
        for _, module in _parts(twin):
            if module._compiled_call_impl is not None:
                module._compiled_call_impl = None  # `module.compile()` leaves code there that runs the original
        # What is frozen has no mode, and no eval() that would not fail.
        return twin if _is_frozen(twin) else twin.eval()

    def in_training_mode(self, model: nn.Module) -> bool:
        """Whether any module is in training mode."""
        return any(getattr(module, "training", False) for _, module in _parts(model))  # frozen ones have no mode

    def fingerprint(self, model: nn.Module) -> str:
        """Hash of everything that the modules hold: parameters, buffers, tensors, settings, functions, hooks.

        Of a function another one each time, because a change of what it holds could not be seen.
        """
        unseen = isinstance(model, TorchFunction) or is_offloaded(model)
        return uuid4().hex if unseen else content.fingerprint(_parts(model))

    def glance(self, model: nn.Module, part: int = 0) -> Hashable:
        """Of identities and versions of all tensors, and some of their numbers; where these cannot be had, all."""
        if isinstance(model, TorchFunction) or is_offloaded(model):
            return uuid4().hex
        with suppress(UnseenError, RuntimeError):
            return content.glance(_parts(model))
        return self.fingerprint(model)

    def content(self, model: nn.Module) -> str | None:
        """Hash of the same and of the code of the modules' classes; None for functions and models that hold some."""
        return None if isinstance(model, TorchFunction) or is_offloaded(model) else content.content(_parts(model))

    def save(self, model: nn.Module) -> dict[str, bytes] | None:
        """The graph as JSON and its weights as safetensors, if all that it consists of is torch's own."""
        return graphs.write(model)

    def restore(self, held: Mapping[str, bytes]) -> nn.Module:
        """From such files, which hold no code."""
        return graphs.read(held)

    def input_names(self, model: nn.Module) -> tuple[str, ...] | None:
        """Parameters of the forward pass."""
        return naming.parameters_of(model).names or None

    def by_name(self, model: nn.Module, names: Sequence[str], constants: Mapping[str, Any]) -> nn.Module:
        """The module itself in another class, whose forward pass calls the module's own by keyword."""
        return naming.by_name(model, names, constants)

    def bind(self, model: nn.Module, held: Sequence[Any]) -> nn.Module:
        """The module itself in another class, whose forward pass hands these to the module's own."""
        return bind(model, held)

    def ended_by(self, model: nn.Module, end: Callable[[Any], Any]) -> nn.Module:
        """The module itself in another class, whose forward pass goes on with `end`."""
        return ended_by(model, end)

    def class_names(self, model: nn.Module) -> tuple[str, ...] | None:
        """Of the configuration that transformer libraries keep with a model (`config.id2label`)."""
        labels = getattr(getattr(model, "config", None), "id2label", None)
        if not isinstance(labels, Mapping) or not labels:
            return None
        named = {str(place): str(name) for place, name in labels.items()}  # files of settings have keys of text alone
        places = [str(place) for place in range(len(labels))]
        return tuple(named[place] for place in places) if set(places) == set(named) else None

    def vocabulary(self, model: nn.Module) -> int | None:
        """The rows of the table that the model names itself as its embedding of the inputs."""
        return getattr(own_embedding(model), "num_embeddings", None)

    def split_embedding(self, model: nn.Module, inputs: Sequence[Any], layer: str | None = None) -> Embedded | None:
        """From the output of the layer on that is given the tokens; of TorchScript, and an exchanged forward, none."""
        if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()) or "forward" in vars(model):
            return None
        found = find_embedding(self.twin(model), inputs, layer)
        return None if found is None else Embedded(found[0], self.to_numpy(found[1]), from_embedding(model, found[0]))

    def channel_axis(self, model: nn.Module, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """Axis 1, but the last one where features lie there.

        That is so for sequences (rank 3 in a model without 1-D convolutions or kernels of some), and for layers of
        vision models that permute their images: a linear layer or layer norm, or a last axis of a size that the model
        has features of, where axis 1 has no size that it has channels of.
        """
        rank = len(shape)
        if isinstance(model, KerasModel):
            return channel_axis(model, rank, layer)
        if rank <= 2:
            return None
        if layer is None and starts_at_embedding(model):
            return rank - 1
        if rank == 3:
            is_convolved = any(isinstance(kind_of(module), _ONE_DIMENSIONAL) for module in _modules(model))
            return 1 if is_convolved or _has_kernel(model, shape) else 2
        return rank - 1 if layer is not None and _is_channels_last(model, shape, layer) else 1

    def is_certain(self, model: nn.Module, shape: Sequence[int | None], layer: str) -> bool:
        """By the kind of the layer, or if only one of both axes has a size of channels or features in the model."""
        own = kind_of(dict(model.named_modules()).get(layer))
        if len(shape) <= 3 or type(own) in _FEATURES_LAST or isinstance(own, _CHANNELS_FIRST):
            return True
        first, last = (_knows_size(model, shape[axis]) for axis in (1, -1))
        return first is not last

    def show_map(self, model: nn.Module, layer: nn.Module, layout: Layout) -> tuple[nn.Module, nn.Module]:
        """By a hook, which puts an identity between what the layer gives and what goes on."""
        return model, show_map(layer, layout)

    def without_softmax(self, model: nn.Module, inputs: Sequence[torch.Tensor]) -> nn.Module | None:
        """Recognises a softmax by watching a forward pass, module or function alike.

        A softmax module is replaced by an identity, in the twin given; a function is stepped over.
        """
        made: dict[str, torch.Tensor] = {}
        names = [name for name, module in model.named_modules() if isinstance(module, nn.Softmax | nn.LogSoftmax)]
        with torch.no_grad(), _SoftmaxWatch() as watch, LayerWatch(model, names, made.__setitem__) as layers:
            outputs = flatten(model(*inputs))
        softmaxed = [output for output in outputs if watch.input_of(output) is not None]
        if not softmaxed:
            return None
        modules = [
            name for name, result in made.items() if layers.is_single(name) and any(result is out for out in softmaxed)
        ]
        if len(modules) < len(softmaxed):
            return WithoutSoftmax(model)
        for name in modules:
            model.set_submodule(name, nn.Identity())
        return model

    def canonical(
        self,
        model: nn.Module,
        inputs: Sequence[torch.Tensor],
        modules: Factories,
        *,
        held: Sequence[Any] = (),
        knows: Callable[[Any], bool] | None = None,
    ) -> Canonical:
        """By recording forward passes (`cfi_torch.canonical`)."""
        with torch.inference_mode(False):
            return rewrite(model, inputs, modules, held, knows)

    def in_double(self, model: nn.Module) -> nn.Module | None:
        """A copy with its weights in double precision; none of a function, whose weights cannot be seen."""
        is_plain = _floating_types(model) == {torch.float32}
        return self.twin(model, share_weights=False).double() if is_plain and not _has_fixed_types(model) else None

    def in_single(self, model: nn.Module) -> nn.Module | None:
        """A copy with its weights in single precision; none of a function or a graph, which have theirs built in."""
        is_half = _floating_types(model) <= {torch.float16, torch.bfloat16, torch.float32}
        return self.twin(model, share_weights=False).float() if is_half and not _has_fixed_types(model) else None

    def weights(self, model: nn.Module) -> dict[str, tuple[np.ndarray, ...]]:
        """Parameters by module; of a function, whose modules cannot be copied, none."""
        return {name: tuple(map(self.to_numpy, held)) for name, held in _parameters_by_module(model).items()}

    def with_weights(self, model: nn.Module, weights: Mapping[str, Sequence[np.ndarray]]) -> nn.Module:
        """A deep copy, in whose parameters these are written."""
        copied = self.twin(model, share_weights=False)
        held = _parameters_by_module(copied)
        with torch.no_grad():
            for name, arrays in weights.items():
                for parameter, array in zip(held[name], arrays, strict=True):
                    parameter.copy_(torch.as_tensor(np.array(array)))
        return copied

    def state(self, model: nn.Module) -> ModelState:
        """Of parameters, buffers and plain numbers, also of modules that can be seen behind a function."""
        return ModelState(model)

    def state_for_passes(self, model: nn.Module) -> ModelState:
        """Without copies of the parameters of torch's own modules, which do not write to them: hashes of them."""
        return ModelState(model, passes_alone=True)

    def precision(self, model: nn.Module) -> frozenset[str]:
        """Types of all floating point parameters and buffers; single precision if there are none."""
        held = [tensor for module in _modules(model) for tensor in _own_tensors(module) if tensor.is_floating_point()]
        names = {str(tensor.dtype).removeprefix("torch.") for tensor in held} or {"float32"}
        is_quick = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
        return frozenset(names | {"tensorfloat32"} if torch.cuda.is_initialized() and is_quick else names)

    # running

    def outputs(self, model: nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
        """Forward pass without gradients.

        Raises:
            InputError: A convolution gets a single sample without a sample axis, which torch would take silently.
        """
        with torch.no_grad(), _SampleAxisWatch():
            return map_structure(self.to_numpy, model(*inputs))

    def other_outputs(self, model: nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
        """A pass that records gradients; of attention, which has a path for inference alone, one that takes this path.

        It does so only where nothing watches, so `outputs` never takes it.
        """
        if _may_take_inference_path(model):
            with torch.no_grad():
                return map_structure(self.to_numpy, model(*inputs))
        with torch.enable_grad():
            return map_structure(self.to_numpy, model(*_behind(_leaves(inputs))))

    def record(self, model: nn.Module, inputs: Sequence[torch.Tensor]) -> Recorded | None:
        """As the runner of a bridge does; of a model without attention, which may do something else then."""
        if _may_take_inference_path(model):
            return None
        shown: list[Any] = []
        shows = model.register_forward_hook(lambda _module, _inputs, outputs: shown.append(outputs))
        with shows, torch.inference_mode(False), _SampleAxisWatch():
            results, pullback = TorchRunner(model, inputs).linearize(0, inputs)
        return Recorded(self.to_numpy, inputs, map_structure(self.to_numpy, shown[-1]), results, pullback)

    def vjp(
        self, model: nn.Module, inputs: Sequence[torch.Tensor], cotangents: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Gradient by `torch.autograd.grad`; nothing is accumulated in any `.grad`."""
        leaves = _leaves(inputs)
        differentiable = [leaf for leaf in leaves if leaf.requires_grad]
        with torch.enable_grad():
            outputs = flatten(model(*_behind(leaves)))
        found = iter(_gradients(outputs, cotangents, differentiable))
        gradients = [self.to_numpy(next(found)) if leaf.requires_grad else None for leaf in leaves]
        return [*map(self.to_numpy, outputs)], gradients

    def missing_gradient(self, model: nn.Module, inputs: Sequence[torch.Tensor], layers: Sequence[str] = ()) -> str:
        """The first module at which it is lost, such as a quantised one."""
        return missing_gradient(model, inputs, layers)

    # layers

    def layers(self, model: nn.Module, inputs: Sequence[torch.Tensor] | None = None) -> tuple[Layer, ...]:
        """Every named module except the model itself and scripted ones, which show nothing."""
        shapes: dict[str, tuple[int | None, ...]] = {}
        if inputs is not None:
            shapes = {name: value.shape[1:] for name, value in self.activations(self.twin(model), inputs).items()}
        return tuple(
            Layer(name, type(module).__name__, shapes.get(name))
            for name, module in model.named_modules()
            if name and not isinstance(module, torch.jit.ScriptModule)
        )

    def layer_name(self, model: nn.Module, reference: Any) -> str | None:
        """Dotted name of a module of the model.

        Raises:
            LayerError: The model is scripted, so none of its layers can be opened.
        """
        if isinstance(model, torch.jit.ScriptModule):
            raise LayerError(
                "TorchScript shows nothing of the layers inside a model. Pass the nn.Module that it was made from."
            )
        if isinstance(model, KerasModel):
            return model.layer_name(reference)
        reference = getattr(reference, "_orig_mod", reference)
        names = (reference, reference.removeprefix("_orig_mod.")) if isinstance(reference, str) else ()
        for name, module in model.named_modules():
            if name and (getattr(module, "_orig_mod", module) is reference or name in names):
                return name
        return None

    def layer_object(self, model: nn.Module, name: str) -> nn.Module:
        """The module of that dotted name."""
        return model.get_submodule(name)

    def activations(
        self, model: nn.Module, inputs: Sequence[torch.Tensor], names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """Outputs of the modules that are called once, copied before anything in place can change them.

        A structure that holds one tensor, such as the `(output, None)` of an attention, is read as that tensor.
        """
        found: dict[str, np.ndarray] = {}

        def keep(name: str, output: torch.Tensor) -> None:
            found[name] = np.array(self.to_numpy(output))

        with torch.no_grad(), LayerWatch(model, names, keep) as watch:
            model(*inputs)
        return {name: value for name, value in found.items() if watch.is_single(name)}

    def layer_gradients(
        self,
        model: nn.Module,
        inputs: Sequence[torch.Tensor],
        cotangents: Sequence[np.ndarray],
        names: Sequence[str] | None = None,
    ) -> Mapping[str, np.ndarray]:
        """Gradients at the outputs of the modules that are called once."""
        found: dict[str, torch.Tensor] = {}

        def replace(name: str, output: torch.Tensor) -> torch.Tensor | None:
            if not output.is_floating_point():
                return None
            # Two copies: the first is differentiated, the second may be changed in place by the next module.
            found[name] = output.clone() if output.requires_grad else output.clone().requires_grad_()
            return found[name].clone()

        with torch.enable_grad(), LayerWatch(model, names, replace) as watch:
            outputs = flatten(model(*inputs))
        once = [name for name in found if watch.is_single(name)]
        gradients = _gradients(outputs, cotangents, [found[name] for name in once])
        return {name: self.to_numpy(gradient) for name, gradient in zip(once, gradients, strict=True)}

    @contextmanager
    def watch_passes(self, model: nn.Module, passes: Passes, layers: Sequence[Any] = ()) -> Iterator[None]:
        """By hooks."""
        with watch_passes(model, passes, layers, self.to_numpy):
            yield

    @contextmanager
    def count_passes(self, model: Any, count: Callable[[int], None]) -> Iterator[None]:
        """Of a module, by a hook."""
        with count_passes(model, count) if isinstance(model, nn.Module) else nullcontext():
            yield

    def runner(self, model: nn.Module, inputs: Sequence[torch.Tensor], layers: Sequence[str] = ()) -> TorchRunner:
        """A runner on a twin of its own."""
        with torch.inference_mode(False):
            return TorchRunner(freeze(self.twin(model), model), inputs, layers)

    # tensors

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself, apart from gradients, where it lies row by row; on a device, once it has been computed.

        Others compute in streams of their own, and not all of them ask for one.
        """
        shared = tensor.detach().resolve_conj().resolve_neg().contiguous()
        if shared.is_cuda:
            torch.cuda.current_stream(shared.device).synchronize()
        return shared

    def adopt(self, shared: Any, model: Any) -> torch.Tensor:
        """A tensor on the same memory, unless the model is on another device or DLPack does not know the type."""
        if isinstance(shared, np.ndarray) and min(shared.strides, default=0) < 0:
            shared = shared.copy()  # torch before 2.14 ends the process over an axis that runs backwards
        try:
            tensor = shared.detach() if isinstance(shared, torch.Tensor) else _from_other(shared)
        except Exception:  # noqa: BLE001 - every framework refuses in its own way, and a copy serves as well
            tensor = _from_array(np.asarray(shared))
        like = _example(model)
        return tensor if like is None else tensor.to(like.device)

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a `torch.Tensor`."""
        return isinstance(value, torch.Tensor)

    def unreadable(self, tensor: torch.Tensor) -> str:
        """Of kinds other than dense ones with values."""
        if tensor.is_nested:
            return "is a nested tensor: pad it first (x.to_padded_tensor(0))"
        if tensor.layout is not torch.strided:
            return f"is sparse ({tensor.layout}): make it dense first (x.to_dense())"
        if tensor.is_quantized:
            return "is quantised: pass x.dequantize()"
        if _has_no_values(tensor):
            return "has no values (it lies on the meta device, or is a FakeTensor): make it on a real device"
        return ""

    def to_numpy(self, tensor: torch.Tensor | float) -> np.ndarray:
        """The values; shares memory on the CPU. Of a number, an array without axes; quantised ones as numbers."""
        if not isinstance(tensor, torch.Tensor):
            return np.asarray(tensor)
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
        if tensor.dtype is torch.bfloat16:
            tensor = tensor.float()  # numpy has no bfloat16; every bfloat16 is a float32
        return tensor.numpy()

    def tensor(self, value: Any, model: Any) -> torch.Tensor:
        """A fresh tensor on the model's device, in the model's floating point type."""
        if not isinstance(value, torch.Tensor):
            value = _from_array(np.asarray(value))
        like = _example(model)
        fresh: torch.Tensor = value.detach().clone()
        if like is None:
            return fresh
        return fresh.to(device=like.device, dtype=like.dtype if fresh.is_floating_point() else None)

    def constant(self, array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
        """On the device of the other."""
        return torch.as_tensor(array, dtype=like.dtype, device=like.device)

    def same_values(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Of tensors of one type and device."""
        return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)

    def permute(self, tensor: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        """A view with its axes in another order."""
        return tensor.permute(*axes)

    # memory

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Of a device, or of the CPU, where torch raises a plain RuntimeError."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)

    def release_memory(self) -> None:
        """What graphs of autograd held that refer to themselves, and what the allocator of the device keeps."""
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def is_accelerated(self, model: Any) -> bool:
        """Whether its parameters lie elsewhere than on the CPU."""
        like = _example(model)
        return like is not None and like.device.type not in ("cpu", "meta")

    # process

    def shared_parts(self, model: nn.Module) -> Sequence[Any]:
        """Nothing of a module, whose twins have places for hooks of their own; a function cannot be copied."""
        return (model.function,) if isinstance(model, TorchFunction) else ()

    def seed(self, seed: int) -> None:
        """Seeds all of torch's generators."""
        torch.manual_seed(seed)

    def random_state(self) -> tuple[bytes, ...]:
        """The states of the generators of the CPU and of every CUDA device."""
        states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]
        return tuple(state.numpy().tobytes() for state in states)

    def restore_random_state(self, state: tuple[bytes, ...]) -> None:
        """Sets them."""
        cpu, *cuda = (torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in state)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    @contextmanager
    def keep_settings(self) -> Iterator[None]:
        """Restores whether gradients are recorded."""
        gradient = torch.is_grad_enabled()
        try:
            # Gradients cannot be had of what is computed in inference mode, which a caller may be in.
            with torch.inference_mode(False):
                yield
        finally:
            torch.set_grad_enabled(gradient)


class WithoutSoftmax(nn.Module):
    """A model with its final softmax left out: each output that a softmax made is replaced by its input.

    It has the layers, parameters and buffers of the model as its own, under the names that they have there.
    """

    _with_softmax: nn.Module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers
        self._non_persistent_buffers_set = model._non_persistent_buffers_set
        # Past torch's registration, which would put the model above its layers and so rename all of them.
        self.__dict__["_with_softmax"] = model
        self.training = model.training

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Runs the model and returns the logits."""
        with _SoftmaxWatch() as watch:
            outputs = self._with_softmax(*inputs)

        def logits(output: torch.Tensor) -> torch.Tensor:
            found = watch.input_of(output)
            return output if found is None else found

        return map_structure(logits, outputs)

    def train(self, mode: bool = True) -> WithoutSoftmax:
        """Switches the model as well, which is not among the modules of this one."""
        self._with_softmax.train(mode)
        return super().train(mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> WithoutSoftmax:
        # By way of the model, whose class may copy itself as it likes: the layers must be those that the copy runs.
        memo[id(self)] = made = WithoutSoftmax(copy.deepcopy(self._with_softmax, memo))
        return made


def _may_take_inference_path(model: nn.Module) -> bool:
    return any(isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer) for module in _modules(model))


class _SampleAxisWatch(TorchFunctionMode):
    """Torch's convolutions take one sample without a sample axis, and what follows takes its channels for samples."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rank = _CONVOLUTIONS.get(getattr(func, "__name__", ""))
        if rank is not None and args and isinstance(args[0], torch.Tensor) and args[0].ndim == rank - 1:
            raise InputError(
                f"A convolution of the model gets values of shape {tuple(args[0].shape)}, without a sample axis. "
                f"If the inputs are a single sample, pass x[None]."
            )
        return func(*args, **(kwargs or {}))


class _SoftmaxWatch(TorchFunctionMode):
    """Remembers the input of every softmax that is computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _SOFTMAX_NAMES:
            logits = args[0] if args else (kwargs or {})["input"]
            self._seen.append((result, logits))
        return result

    def input_of(self, output: Any) -> torch.Tensor | None:
        """The input of the softmax that made this very tensor."""
        return next((logits for result, logits in self._seen if result is output), None)


def _leaves(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies, the floating point ones of which record gradients."""
    return [tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in inputs]


def _behind(leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What models take in their place: in-place modules at the front would fail on a leaf."""
    return [leaf * 1 if leaf.requires_grad else leaf for leaf in leaves]


def _gradients(
    outputs: Sequence[torch.Tensor], cotangents: Sequence[np.ndarray | None], tensors: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Of `sum(output * cotangent)` at tensors that the outputs were made from; zeros where none was."""
    found = pull_back(outputs, cotangents, tensors)
    return [torch.zeros_like(each) if one is None else one for each, one in zip(tensors, found, strict=True)]


def _from_other(shared: Any) -> torch.Tensor:
    """A tensor on the memory of another framework's.

    On a device torch names its stream, which TensorFlow refuses to hear: it has been waited for (`share`), so that the
    capsule is taken without one, and nothing goes through the host.
    """
    try:
        return torch.from_dlpack(shared)
    except Exception:
        if not hasattr(shared, "__dlpack_device__") or int(shared.__dlpack_device__()[0]) == _DLPACK_CPU:
            raise
        return torch.from_dlpack(shared.__dlpack__())


_DLPACK_CPU = 1
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory", "out of memory")


def _example(model: Any) -> torch.Tensor | None:
    if not isinstance(model, nn.Module):
        return None
    like: torch.Tensor | None = None
    for tensor in chain.from_iterable(map(_own_tensors, _modules(model))):
        if tensor.is_floating_point():
            like = tensor
            break
        like = tensor if like is None else like
    return torch.empty(0, dtype=like.dtype) if like is not None and like.is_meta else like  # of an offloaded model


def _has_no_values(tensor: torch.Tensor) -> bool:
    return tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor)


def _parameters_by_module(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Floating point parameters, each once, under the name of the module that holds it."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in [] if isinstance(model, TorchFunction) else model.named_parameters():
        if parameter.is_floating_point():
            found.setdefault(name.rpartition(".")[0] or type(model).__name__, []).append(parameter)
    return found


def _floating_types(model: nn.Module) -> set[torch.dtype]:
    return {tensor.dtype for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()}


def _has_fixed_types(model: nn.Module) -> bool:
    fixed = TorchFunction | torch.jit.ScriptModule | ExportedModel
    return any(isinstance(module, fixed) for _, module in _parts(model))


def _own_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules by name, and a model that stands beside its layers."""
    if isinstance(model, WithoutSoftmax):
        yield "", model._with_softmax
    if isinstance(model, ExportedModel):
        yield "", model._graph
    yield from model.named_modules()


def _is_frozen(model: nn.Module) -> bool:
    """Whether TorchScript has built the mode, and all else, into the code."""
    return isinstance(model, torch.jit.ScriptModule) and not hasattr(model, "training")


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """All modules of the model, and those that can be seen behind a function."""
    for _, module in _parts(model):
        yield module
        if isinstance(module, TorchFunction):
            for behind in modules_behind(module.function):
                yield from behind.modules()


def _is_channels_last(model: nn.Module, shape: Sequence[int | None], layer: str) -> bool:
    try:
        own = kind_of(model.get_submodule(layer))
    except AttributeError:
        own = None
    kinds = [kind_of(module) for module in model.modules()]
    if type(own) in _FEATURES_LAST:
        return True
    if isinstance(own, _CHANNELS_FIRST) or any(shape[1] in _channels_of(module) for module in kinds):
        return False
    return any(shape[-1] in (*_features_of(module), *_channels_of(module)) for module in kinds)


def _has_kernel(model: nn.Module, shape: Sequence[int | None]) -> bool:
    """Whether a parameter can be what a function convolves series of that shape with: (out, in, length).

    Position embeddings are as long as the series, and one for all.
    """
    sizes = [tuple(one.shape) for one in model.parameters() if one.ndim == 3]
    return any(out > 1 and channels == shape[1] and length != shape[2] for out, channels, length in sizes)


def _knows_size(model: nn.Module, size: int | None) -> bool:
    return any(size in (*_channels_of(kind), *_features_of(kind)) for kind in map(kind_of, model.modules()))


def _channels_of(module: nn.Module) -> tuple[int, ...]:
    if isinstance(module, _ConvNd):
        return module.in_channels, module.out_channels
    if isinstance(module, _BatchNorm | _InstanceNorm):
        return (module.num_features,)
    return (module.num_channels,) if isinstance(module, nn.GroupNorm) else ()


def _features_of(module: nn.Module) -> tuple[int, ...]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return (module.normalized_shape[-1],) if isinstance(module, nn.LayerNorm) else ()


def _from_array(array: np.ndarray) -> torch.Tensor:
    """A copy in a type that torch knows: the machine's byte order, double precision at the most."""
    if array.dtype.name == "bfloat16":  # other frameworks' addition to numpy
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    array = np.array(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array.astype(np.float64) if array.dtype == np.longdouble else array)


def _hook_tables(module: nn.Module) -> Iterator[Mapping[int, Any]]:
    for name, value in vars(module).items():
        if name.endswith("_hooks") and isinstance(value, Mapping):
            yield value
