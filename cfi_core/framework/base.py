"""What an adapter of a framework is: the one interface through which core deals with the framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn
from uuid import uuid4

import numpy as np

from cfi_core.errors import InputError, LayerError, MethodError, NoGradientError, kind_of
from cfi_core.framework.axes import Arrays, named_axes
from cfi_core.framework.canonical import Canonical, Factories
from cfi_core.framework.layout import Layout
from cfi_core.framework.parameters import Parameters
from cfi_core.framework.passes import Passes
from cfi_core.framework.recorded import Pullback, Recorded
from cfi_core.framework.state import State


@dataclass(frozen=True)
class Layer:
    """A layer of a model, under the name that users call it by.

    Attributes:
        name: Dotted module name (torch), layer name (Keras), node name (ONNX).
        kind: Class or operator, such as `Conv2d`.
        output_shape: Without the sample axis; None where it is not known.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True, eq=False)
class Embedded:
    """A model from the output of its embedding on.

    Attributes:
        layer: Name of the layer that turns tokens into vectors.
        activation: What it gives for the inputs.
        model: Takes that in front of all inputs of the user's model, and uses it in the place of what the layer gives.
    """

    layer: str
    activation: np.ndarray
    model: Any


@dataclass(frozen=True, eq=False)
class Staged:
    """What a stage of a model gave.

    Attributes:
        results: One activation, or all outputs as a flat tuple.
        pullback: Back to the values; None where no gradient was recorded.
    """

    results: Sequence[Any]
    pullback: Pullback | None = None


class Runner(ABC):
    """A model made ready to run many times in its own framework, opened at some of its layers.

    The model is a chain of stages. Stage `i` gives the activation of `layers[i]`, the last stage gives the outputs.
    Each stage takes the model's inputs followed by the activations of the layers before it, and puts these in the place
    of what the model would compute there itself. So the gradients to the inputs and to every layer are exact, paths
    around a layer included. All tensors are the framework's own, in the axis order of the model; none of those that are
    given is written to.

    Attributes:
        layers: Names of the opened layers, in the order in which the model computes them.
    """

    layers: tuple[str, ...] = ()

    @abstractmethod
    def run(self, stage: int, values: Sequence[Any]) -> tuple[Any, ...]:
        """The results of a stage: one activation, or all outputs as a flat tuple. Records no gradient."""

    def linearize(self, stage: int, values: Sequence[Any]) -> tuple[tuple[Any, ...], Pullback]:
        """The same results, and the function that carries cotangents of them back to the values.

        Raises:
            NoGradientError: The framework has no gradients, which is so unless this is overridden.
        """
        _refuse_gradients("This model has")

    def make(self, stage: int, values: Sequence[Any], *, records: bool) -> Staged:
        """One of the two."""
        return Staged(*self.linearize(stage, values)) if records else Staged(self.run(stage, values))

    def chain(self, inputs: Sequence[Any], records: Sequence[bool]) -> Sequence[Staged]:
        """All stages, each with what the ones before it gave; a pass that gives several of them may take their place.

        Args:
            inputs: The model's inputs.
            records: Of each stage, whether a gradient is recorded.
        """
        made: list[Staged] = []
        values = list(inputs)
        for stage, is_recorded in enumerate(records):
            made.append(self.make(stage, values, records=is_recorded))
            values.extend(made[-1].results)
        return made

    def settle(self) -> None:  # noqa: B027 - nothing to do, where nothing is put off
        """Says that many passes will follow: what is compiled for them is compiled now."""


class FrameworkAdapter(ABC):
    """What core can do with the models and tensors of one framework.

    Arrays cross this interface as numpy arrays, in the axis order of the model at hand. `channel_axis`, `outputs` and
    `runner` must be given. All else has a default, which is right where there is nothing to do: for models without
    layers, gradients, modes, declared shapes or anything that could be marked, and for tensors that are numpy arrays.

    Attributes:
        name: The framework's name, for messages.
        file_sizes: How many bytes at most the files have that a model is kept in, by their names; none if it is not.
        arithmetic: Functions of tensors by numpy's names (`sum`, `where`, `argmax`, `stack`, …, with `axis`), which
            keep gradients where tensors have some.
        map_channels: Channel axis of the maps that `show_map` shows; None where it is not given.
        glances: In how many parts a model is looked at between batches.
    """

    name: ClassVar[str]
    glances: ClassVar[int] = 1
    file_sizes: ClassVar[Mapping[str, int]] = {}
    arithmetic: ClassVar[Any] = np
    map_channels: ClassVar[int | None] = None

    # models

    def load(self, model: Any) -> Any:
        """The model itself; for a path, the model in that file; for a plain function, a model that calls it.

        Raises:
            InputError: It cannot be run as it is.
        """
        return model

    def twin(self, model: Any, *, share_weights: bool = True) -> Any:
        """A model that computes the same in inference mode and can be marked without a trace on `model`.

        Weights are shared unless told otherwise; buffers, mode and hooks' places are its own. By default the model
        itself, which is right where nothing can be marked on it.

        Raises:
            InputError: It cannot be copied.
        """
        if not share_weights:
            raise InputError(
                f"This method changes weights while it runs, and a {kind_of(model)} cannot be copied. Choose a "
                f"method that changes no weights."
            )
        return model

    def in_training_mode(self, model: Any) -> bool:
        """Whether the user left the model in training mode."""
        return False

    def fingerprint(self, model: Any) -> str:
        """Changes whenever a weight, a buffer or the structure of the model changes.

        Another one each time for a model whose contents cannot be seen: nothing made of it is kept then.
        """
        return uuid4().hex

    def glance(self, model: Any, part: int = 0) -> Any:
        """What changes with nearly every change of the model, and is quickly told: by default the fingerprint.

        Another batch of a model that looks as before is explained by what was made of it. What takes time to read
        (weights) may be looked at in samples, as long as a step of training, another file of weights and another layer
        in the place of one are seen.

        Args:
            model: A model.
            part: Which of so many parts of that is read, as `glances` says; batches take turns.

        Returns:
            Something that is equal to another one of the same part.
        """
        return self.fingerprint(model)

    def input_shapes(self, model: Any) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes that the model declares, sample axis first; None if it declares none."""
        return None

    def declares_integer(self, model: Any, position: int) -> bool | None:
        """Whether the model declares that input as one of integers; None if it declares nothing."""
        return None

    def input_names(self, model: Any) -> tuple[str, ...] | None:
        """What the model calls its inputs, in the order in which it takes them; None if they have no names."""
        return None

    def class_names(self, model: Any) -> tuple[str, ...] | None:
        """Names of the classes, in the order of the model's scores; None if it knows none."""
        return None

    def columns(self, model: Any) -> tuple[str, ...] | None:
        """Names of the columns of the table that the model takes, in its order; None if it knows none."""
        return None

    def with_strings(self, model: Any, strings: Sequence[np.ndarray | None]) -> Any:
        """A model that takes, for those of its inputs that strings are given for, their places among these.

        Args:
            model: The user's model.
            strings: For each input its strings, in an order; None for one that stays as it is.

        Raises:
            InputError: The framework cannot look them up, which is so unless this is overridden.
        """
        raise InputError(
            f"Strings cannot be held while a {self.name} model is differentiated. Take a method that exchanges values, "
            f"such as 'shapley_value_sampling', 'kernel_shap' or 'feature_ablation'."
        )

    def takes_one_table(self, model: Any) -> bool:
        """Whether the model takes a table, whose columns a mapping of names may give too."""
        return False

    def on_frames(self, model: Any, columns: Sequence[Any]) -> Callable[[Any], Any] | None:
        """What the model gives for a data frame with these columns, as arrays; None if it takes none."""
        return None

    def special_tokens(self, model: Any) -> Mapping[str, int]:
        """Numbers of the special tokens that the model knows, by the names "pad", "mask", "cls" and their like.

        By default those of the configuration that transformer libraries keep with a model (`config.pad_token_id`).
        """
        names, config = ("pad", "mask", "unk", "cls", "sep", "bos", "eos"), getattr(model, "config", None)
        found = {name: getattr(config, f"{name}_token_id", None) for name in names}
        return {name: int(number) for name, number in found.items() if isinstance(number, int)}

    def vocabulary(self, model: Any) -> int | None:
        """How many tokens the model knows; None where it does not say, or takes none."""
        return None

    def by_name(self, model: Any, names: Sequence[str], constants: Mapping[str, Any]) -> Any:
        """A model that takes its inputs one by one in the order of these names.

        It holds what the user's model holds (weights, layers, mode, hooks), and can be used in its place.

        Args:
            model: The user's model.
            names: What the user called the inputs.
            constants: By name, what is no array, and is part of every pass as it is.

        Raises:
            InputError: The model takes other names, or none.
        """
        known = self.input_names(model)
        if known is None:
            raise InputError(
                f"The inputs of this {self.name} model have no names. Pass an array, or a tuple of arrays in its order."
            )
        Parameters(known, frozenset(known)).check(names, constants, "the model")
        if tuple(names) != known:
            raise InputError(f"The model takes its inputs in this order: {', '.join(known)}. Pass them so.")
        return model

    def bind(self, model: Any, held: Sequence[Any]) -> Any:
        """A model that takes its last inputs no longer: they are what is held. Layers go by the names that they have.

        Args:
            model: A twin.
            held: Values of these inputs. A tensor whose first axis is 1 holds one sample, and is repeated for as many
                as a pass has; anything else is part of every pass as it is.

        Raises:
            InputError: No such model can be made, which is so unless this is overridden.
        """
        raise InputError(
            f"A {kind_of(model)} cannot hold inputs here, and the method has no argument for them. Choose a "
            f"toolset whose calls take further arguments of the model's forward pass (cfi.methods() lists all)."
        )

    def ended_by(self, model: Any, end: Callable[[Any], Any]) -> Any | None:
        """A model that gives `end(outputs)`, of what the model gives as it gives it; None if there can be none.

        It holds what the user's model holds, and can be used in its place. By default there is none.

        Args:
            model: The user's model.
            end: Takes the outputs in the structure and as the tensors that the model returns, and gives one tensor or a
                tuple of some. Two that are equal make models of the same content.
        """
        return None

    def with_real_inputs(self, model: Any, layers: Sequence[str]) -> Any:
        """A model that takes whole numbers as floating point ones, for a toolset whose code takes no others.

        Gradients at the layers are those of the model.

        Raises:
            InputError: No such model can be made, which is so unless this is overridden.
        """
        raise InputError(f"A {kind_of(model)} cannot be given its whole numbers as floating point ones.")

    def split_embedding(self, model: Any, inputs: Sequence[Any], layer: str | None = None) -> Embedded | None:
        """The model from the output of its embedding on, where the first input, of tokens, goes into one layer alone.

        Of a layer that is called several times the call that takes the tokens counts; positions and token types, which
        have embeddings of their own, stay what they are. None if there is no such layer.

        Args:
            model: The user's model.
            inputs: All that a forward pass takes, the tokens first.
            layer: The layer that it is, where that is known.
        """
        return None

    @abstractmethod
    def channel_axis(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """Which axis of an input (or of `layer`'s output) of that shape holds the channels; None if there is none."""

    def dims(self, model: Any, shape: Sequence[int | None], *, layer: str | None = None) -> tuple[str, ...]:
        """Names of the axes of an input (or of `layer`'s output) of that shape."""
        return named_axes(len(shape), self.channel_axis(model, shape, layer=layer), layer)

    def is_certain(self, model: Any, shape: Sequence[int | None], layer: str) -> bool:
        """Whether `channel_axis` is known of that layer, and not guessed from sizes."""
        return True

    def without_softmax(self, model: Any, inputs: Sequence[Any]) -> Any | None:
        """A model that returns the logits, if the model ends in a softmax; None if it does not, or none can be seen."""
        return None

    def in_double(self, model: Any) -> Any | None:
        """A copy of its own that computes in double precision; None if it does already, or cannot be made to."""
        return None

    def in_single(self, model: Any) -> Any | None:
        """A copy of its own, of a model that computes in half precision, in single; None if there can be none."""
        return None

    def canonical(
        self,
        model: Any,
        inputs: Sequence[Any],
        modules: Factories,
        *,
        held: Sequence[Any] = (),
        knows: Callable[[Any], bool] | None = None,
    ) -> Canonical:
        """A copy of the model in which every operation that rules could attach to is a layer, called once.

        Args:
            model: A twin.
            inputs: Tensors that it takes, any number of samples.
            modules: What to make for operations; the framework's own layers for those that are not named.
            held: What every pass takes behind the inputs.
            knows: Whether a layer stays as it is; None: those that the framework brings do.

        Raises:
            MethodError: There can be no such copy, which is so unless this is overridden.
        """
        raise MethodError(f"models of {self.name} cannot be rewritten")

    def weights(self, model: Any) -> Mapping[str, tuple[np.ndarray, ...]]:
        """What the model has learnt, by the name of the layer that holds it, in the order of the model.

        Floating point parameters alone: statistics that batch normalisation keeps are none. Empty for a model whose
        parameters cannot be seen, which is so unless this is overridden.
        """
        return {}

    def with_weights(self, model: Any, weights: Mapping[str, Sequence[np.ndarray]]) -> Any:
        """A copy of its own, in inference mode, that holds these weights; the model itself stays as it is.

        Args:
            model: The user's model.
            weights: All that `weights` tells, of the same shapes, or some layers of it.

        Raises:
            InputError: It cannot be copied, which is so unless this is overridden.
        """
        raise InputError(f"The parameters of a {type(model).__name__} cannot be exchanged in a copy of it.")

    def state(self, model: Any) -> State:
        """All that a forward pass could write to on the user's model, to see whether it does, and to undo it.

        By default nothing, which is right where nothing of a model can be changed.
        """
        return State()

    def state_for_passes(self, model: Any) -> State:
        """The same, where nothing but passes of the model can change it: what these do not write to is not copied.

        Should it have changed all the same, that is told (`State.changes`).
        """
        return self.state(model)

    def precision(self, model: Any) -> frozenset[str]:
        """Names of the floating point types that the model computes in, as far as they are known.

        "tensorfloat32" among them says that a device may round so where it computes in single precision.
        """
        dtype = self.tensor(np.zeros(1, np.float32), model).dtype
        return frozenset({getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]})

    # files

    def content(self, model: Any) -> str | None:
        """Like `fingerprint`, but the same in every process; None for a model of which something cannot be read."""
        return None

    def save(self, model: Any) -> Mapping[str, bytes] | None:
        """What the files in `file_sizes` hold for a native model; None for one that they cannot hold."""
        return None

    def restore(self, held: Mapping[str, bytes]) -> Any:
        """The model in such files, in inference mode.

        Anybody may have written them: nothing in them may choose what is imported or called.

        Raises:
            Exception: They hold something else (or whatever the framework raises then); the model is made anew.
        """
        raise NotImplementedError(f"models of {self.name} are not kept in files")

    # running

    def call(self, model: Any, inputs: Sequence[Any]) -> Any:
        """What a native model returns for its inputs, with whatever records gradients at the time."""
        return model(*inputs)

    @abstractmethod
    def outputs(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Forward pass: numpy arrays in the structure that the model returns (array, tuple, list, dict)."""

    def other_outputs(self, model: Any, inputs: Sequence[Any]) -> Any:
        """The same of a pass that is made otherwise, where models may do something else then: it records gradients."""
        return self.outputs(model, inputs)

    def record(self, model: Any, inputs: Sequence[Any]) -> Recorded | None:
        """A pass that records gradients, whose gradients can still be taken; None where none is to be kept.

        Where it is made, `outputs` is the pass that is made otherwise: only models to which nothing but recording makes
        a difference may be recorded.
        """
        return None

    def vjp(
        self, model: Any, inputs: Sequence[Any], cotangents: Sequence[np.ndarray | None]
    ) -> tuple[Arrays, Sequence[np.ndarray | None]]:
        """Outputs of a pass that records gradients, all of them one after the other, and what is recorded.

        That is the gradient of `sum(output * cotangent)` with respect to each input; None for an integer input. Where
        the cotangent is None, it is zero.

        Raises:
            NoGradientError: The framework has no gradients.
        """
        _refuse_gradients(f"{self.name} models have")

    def missing_gradient(self, model: Any, inputs: Sequence[Any], layers: Sequence[str] = ()) -> str:
        """Why no gradient leads from the outputs to the inputs (or to these layers); empty if one does, or none knows.

        Args:
            model: A twin.
            inputs: All that a forward pass takes.
            layers: Names of layers to look at in the place of the inputs.
        """
        return ""

    def compiled(self, model: Any, inputs: Sequence[Any]) -> Any | None:
        """What may stand for a model in `outputs` and `vjp`, faster after a first pass that takes the time of several.

        For inputs of the same types and shapes, but any number of samples, as long as the model has the same
        fingerprint. None, where that gains nothing or might be something else than the model.

        Args:
            model: A twin, which is known to be a function of each sample alone.
            inputs: Some that it takes.
        """
        return None

    @contextmanager
    def watch_passes(self, model: Any, passes: Passes, layers: Sequence[Any] = ()) -> Iterator[None]:
        """Records, inside, what goes through the model and back, as `passes` asks; by default nothing.

        Args:
            model: A twin.
            passes: Says of each pass which samples to keep, and holds them.
            layers: Layer objects of which it is to be seen what takes the place of what they compute.
        """
        yield

    @contextmanager
    def count_passes(self, model: Any, count: Callable[[int], None]) -> Iterator[None]:
        """Tells, inside, of each pass of the model how many samples it has; by default nothing.

        Args:
            model: A twin.
            count: Takes that number, in whichever thread.
        """
        yield

    @abstractmethod
    def runner(self, model: Any, inputs: Sequence[Any], layers: Sequence[str] = ()) -> Runner:
        """The model (a twin) opened at some layers, for inputs of the same types and shapes, but any number of samples.

        Raises:
            LayerError: A layer is not called exactly once, or does not give one tensor.
        """

    # layers

    def layers(self, model: Any, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        """All layers, in the order of the model; output shapes where known (with inputs: all)."""
        return ()

    def layer_name(self, model: Any, reference: Any) -> str | None:
        """Name of the layer that an object or a name of the user's refers to; None if it is not of this model."""
        return None

    def layer_object(self, model: Any, name: str) -> Any:
        """The layer of that name.

        Raises:
            LayerError: Models of this framework have no layers.
        """
        raise LayerError(f"A {self.name} model has no layers, so none named {name!r}.")

    def show_map(self, model: Any, layer: Any, layout: Layout) -> tuple[Any, Any]:
        """A model that computes the same, and a layer of it that gives what `layer` gives as a map.

        The map has the axes of space of the layout, and its channels on axis `map_channels`. It is all that lies in
        space of what the layer gives: what replaces the map goes on in its place, and the other positions as they are.

        Args:
            model: A twin, which may be marked.
            layer: A layer object of it.
            layout: Where the layer's positions lie.

        Raises:
            LayerError: The layer cannot be shown so, as in every framework without `map_channels`.
        """
        raise LayerError(f"A layer of a {self.name} model cannot be shown as a map.")

    def activations(
        self, model: Any, inputs: Sequence[Any], names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """Output of every layer (of those named) that is called exactly once and returns one tensor."""
        return {}

    def layer_gradients(
        self, model: Any, inputs: Sequence[Any], cotangents: Arrays, names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """Gradient of `sum(output * cotangent)` with respect to the output of each such layer.

        Raises:
            NoGradientError: The framework has no gradients.
        """
        _refuse_gradients(f"{self.name} models have")

    # tensors

    def share(self, tensor: Any) -> Any:
        """The tensor as an object of the DLPack protocol, row by row in memory; without a copy where it lies so.

        A numpy array instead, where DLPack does not know its type.
        """
        return np.ascontiguousarray(tensor) if tensor.ndim else tensor

    def adopt(self, shared: Any, model: Any) -> Any:
        """A tensor, on the model's device, of what another adapter has shared; on the same memory where possible.

        Nobody may write to it. See `hand_over`: what raises here is given once more, as a numpy array.
        """
        return shared if isinstance(shared, np.ndarray) else np.from_dlpack(shared)

    def is_tensor(self, value: Any) -> bool:
        """Whether the value is a tensor of this framework."""
        return isinstance(value, np.ndarray)

    def unreadable(self, tensor: Any) -> str:
        """Why a tensor of the framework cannot be read as an array, and what to do: ends a sentence that it begins.

        For example 'is sparse: pass x.to_dense()'; empty for what `to_numpy` takes.
        """
        return ""

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """The tensor's values; shares memory where the framework allows."""
        return np.asarray(tensor)

    def tensor(self, value: Any, model: Any) -> Any:
        """A fresh tensor of the value (numpy array or own tensor) on the model's device.

        A floating point value takes the model's floating point type; integers stay what they are.
        """
        return np.array(value)

    def same_values(self, one: Any, other: Any) -> bool:
        """Whether two tensors hold the same numbers (a NaN is none), found out where they lie."""
        return bool(np.array_equal(self.to_numpy(one), self.to_numpy(other)))

    def constant(self, array: np.ndarray, like: Any) -> Any:
        """The array as a tensor without gradient, of the type and on the device of another."""
        return np.asarray(array, like.dtype)

    def permute(self, tensor: Any, axes: Sequence[int]) -> Any:
        """The tensor with its axes in another order: axis `i` of the result is axis `axes[i]`."""
        return np.transpose(tensor, axes)

    # memory

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether this error of the framework says that memory, of whatever device, did not suffice."""
        return isinstance(error, MemoryError)

    def release_memory(self) -> None:  # noqa: B027 - nothing to do is a default too
        """Gives back what the framework keeps of memory that nothing uses, after it did not suffice."""

    def is_accelerated(self, model: Any) -> bool:
        """Whether the model runs on a device with memory of its own."""
        return False

    # process

    def shared_parts(self, model: Any) -> Sequence[Any]:
        """The objects that carry marks of a call which twins of the model share: calls that mark the same take turns.

        None of them where a twin has all that is marked to itself.
        """
        return (model,)

    def seed(self, seed: int) -> None:  # noqa: B027 - nothing to do is a default too
        """Seeds the framework's random numbers; numpy's and Python's are core's to seed."""

    def random_state(self) -> Any:
        """The state of the framework's global generators, equal to another one as long as nothing was drawn."""
        return None

    def restore_random_state(self, state: Any) -> None:  # noqa: B027
        """Brings the generators back to what `random_state` told."""

    @contextmanager
    def keep_settings(self) -> Iterator[None]:
        """Restores on leaving what the framework keeps for the calling thread: modes, counts of names.

        Calls of several threads are inside at the same time, so nothing that belongs to the process is restored here.
        """
        yield


def _refuse_gradients(who: str) -> NoReturn:
    raise NoGradientError(
        f"{who} no gradients. Use a perturbation method, which needs none (such as feature_ablation, occlusion, lime "
        f"or kernel_shap), or pass the model in a framework that has them."
    )


def hand_over(tensor: Any, giver: FrameworkAdapter, taker: FrameworkAdapter, model: Any) -> Any:
    """A tensor of the giver's framework as one of the taker's, on the same memory where possible.

    It lies on the device of the model, which is of the taker's framework.
    """
    shared = giver.share(tensor)
    try:
        return taker.adopt(shared, model)
    except Exception:  # a framework refuses memory of another in any way; then the values are copied
        if isinstance(shared, np.ndarray):
            raise
        return taker.adopt(giver.to_numpy(tensor), model)
