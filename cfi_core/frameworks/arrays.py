"""Functions of numpy arrays as models: Python functions, estimators, ONNX Runtime sessions. They have outputs only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn
from uuid import uuid4

import numpy as np

from cfi_core.errors import InputError, LayerError, NoGradientError
from cfi_core.frameworks.axes import named_axes
from cfi_core.frameworks.base import Layer
from cfi_core.frameworks.portions import Portions, one_size
from cfi_core.frameworks.structure import flatten, map_structure

_SCORES = ("predict_proba", "decision_function")
_MOST_COLOURS = 4
_TORCH_FLOATS = ("torch.float16", "torch.float32", "torch.float64")
_SESSION_TYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    **{f"tensor({kind}int{bits})": np.dtype(f"{kind}int{bits}") for kind in ("", "u") for bits in (8, 16, 32, 64)},
}


class ArrayModel:
    """A function of numpy arrays, and what is known of the arrays that it takes.

    What the function holds cannot be seen, so each of these is a model of its own: nothing is ever taken for it that
    was made for an earlier one.

    Attributes:
        function: Takes one array per input.
        shapes: Of its inputs, sample axis first; None where nothing declares them.
        types: Of its inputs (None: any); empty where nothing declares them.
        channels_first: Whether it takes images channels-first for certain.
        identity: Its own for each object.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        shapes: tuple[tuple[int | None, ...], ...] | None = None,
        types: tuple[np.dtype[Any] | None, ...] = (),
        *,
        channels_first: bool = False,
    ) -> None:
        self.function = function
        self.shapes = shapes
        self.types = types
        self.channels_first = channels_first

    def __call__(self, *inputs: np.ndarray) -> Any:
        """Runs the function on copies, and copies what it gives: it may write to the ones and reuse the others.

        Raises:
            InputError: It takes another number of inputs, or gives nothing.
        """
        if self.types and len(inputs) != len(self.types):
            raise InputError(f"The model takes {len(self.types)} inputs, but gets {len(inputs)}.")
        types = self.types or (None,) * len(inputs)
        # Copies rather than read-only views, which compiled code (such as scikit-learn's) may refuse.
        outputs = self.function(*(_fitting(array, dtype) for array, dtype in zip(inputs, types, strict=True)))
        if not flatten(outputs):
            raise InputError("The function gives nothing. It must return an array with the sample axis first.")
        return map_structure(lambda output: np.array(as_array(output)), outputs)


class NumpyTensors:
    """The tensors of an adapter whose models take and give numpy arrays."""

    def share(self, tensor: np.ndarray) -> np.ndarray:
        """The array itself, where it lies row by row."""
        return np.ascontiguousarray(tensor) if tensor.ndim else tensor

    def adopt(self, shared: Any, model: Any) -> np.ndarray:
        """An array on the same memory, unless numpy does not know the type or the memory is a device's."""
        return as_array(shared)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """The array itself."""
        return np.asarray(tensor)

    def permute(self, tensor: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """The array with its axes in another order."""
        return np.transpose(tensor, axes)


class ArrayAdapter(NumpyTensors):
    """See `cfi_core.frameworks.base.FrameworkAdapter`. There are no layers and no gradients."""

    name = "numpy"

    # models

    def load(self, model: Any) -> ArrayModel:
        """A function as it is; a session with all its outputs; an estimator by the scores that it gives.

        An estimator gives its class probabilities, or else its decision function, or else (a regressor) its
        predictions. One that was fitted on a data frame gets data frames of the same columns.

        Raises:
            InputError: It cannot be run: not fitted, without scores, or no function at all.
        """
        if isinstance(model, ArrayModel):
            return model
        if _is_instance(model, "onnxruntime", "InferenceSession"):
            return _session(model)
        if isinstance(model, type):
            raise InputError(f"{model.__name__} is a class. Pass an instance of it, fitted.")
        if any(hasattr(model, name) for name in _SCORES) or (hasattr(model, "predict") and not callable(model)):
            return _estimator(model)
        if not callable(model):
            raise InputError(
                f"A {type(model).__name__} is no function of arrays. Pass a function, an estimator with predict_proba, "
                f"decision_function or predict, or an onnxruntime.InferenceSession."
            )
        owner = getattr(model, "__self__", None)
        return ArrayModel(_on_frames(model, owner), _declared_shapes(owner))

    def twin(self, model: ArrayModel, *, share_weights: bool = True) -> ArrayModel:
        """The model itself: it has no places for marks, and what it holds cannot be copied."""
        return model

    def in_training_mode(self, model: ArrayModel) -> bool:
        """These models have no mode."""
        return False

    def fingerprint(self, model: ArrayModel) -> str:
        """Another one each time, because a change of the contents could not be seen."""
        return uuid4().hex

    def input_shapes(self, model: ArrayModel) -> tuple[tuple[int | None, ...], ...] | None:
        """Shapes that the session or estimator declares."""
        return model.shapes

    def declared_integer(self, model: ArrayModel, position: int) -> bool | None:
        """Whether the session declares that input as one of integers."""
        dtype = model.types[position] if position < len(model.types) else None
        return None if dtype is None else bool(np.issubdtype(dtype, np.integer))

    def channel_axis(self, model: ArrayModel, shape: Sequence[int | None], *, layer: str | None = None) -> int | None:
        """The last axis where it is short enough for colours, axis 1 otherwise; always axis 1 of a session."""
        if len(shape) <= 2:
            return None
        last = shape[-1]
        colours_last = last is not None and 0 < last <= _MOST_COLOURS
        return len(shape) - 1 if colours_last and not model.channels_first else 1

    def dims(self, model: ArrayModel, shape: Sequence[int | None], *, layer: str | None = None) -> tuple[str, ...]:
        """Named by the channel axis."""
        return named_axes(len(shape), self.channel_axis(model, shape, layer=layer))

    def without_softmax(self, model: ArrayModel, inputs: Sequence[Any]) -> None:
        """What a function ends in cannot be seen."""
        return

    def in_double(self, model: ArrayModel) -> None:
        """What a function computes with cannot be seen."""

    # running

    def outputs(self, model: ArrayModel, inputs: Sequence[np.ndarray]) -> Any:
        """What the function gives, as arrays."""
        return model(*inputs)

    def vjp(
        self, model: ArrayModel, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray]
    ) -> tuple[np.ndarray | None, ...]:
        """Always refuses."""
        _refuse_gradient()

    # layers

    def layers(self, model: ArrayModel, inputs: Sequence[Any] | None = None) -> tuple[Layer, ...]:
        """None."""
        return ()

    def layer_name(self, model: ArrayModel, reference: Any) -> str | None:
        """Nothing refers to a layer here."""
        return None

    def layer_object(self, model: ArrayModel, name: str) -> NoReturn:
        """Always refuses."""
        _refuse_layers((name,))

    def activations(
        self, model: ArrayModel, inputs: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """None."""
        return {}

    def layer_gradients(
        self,
        model: ArrayModel,
        inputs: Sequence[np.ndarray],
        cotangents: Sequence[np.ndarray],
        names: Sequence[str] | None = None,
    ) -> Mapping[str, np.ndarray]:
        """Always refuses."""
        _refuse_gradient()

    def runner(self, model: ArrayModel, inputs: Sequence[np.ndarray], layers: Sequence[str] = ()) -> ArrayRunner:
        """A runner of the one stage there is."""
        if layers:
            _refuse_layers(layers)
        return ArrayRunner(model)

    # tensors

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a numpy array."""
        return isinstance(value, np.ndarray)

    def tensor(self, value: Any, model: Any) -> np.ndarray:
        """A fresh array; a floating point type is kept, unless a session declares another."""
        array = np.array(value)
        declared = model.types if isinstance(model, ArrayModel) else ()
        floating = [dtype for dtype in declared if dtype is not None and np.issubdtype(dtype, np.floating)]
        return array.astype(floating[0]) if floating and np.issubdtype(array.dtype, np.floating) else array

    # process

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Core seeds and restores numpy's generator for every framework."""
        yield

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nothing else global is touched here."""
        yield


class ArrayRunner:
    """See `cfi_core.frameworks.base.Runner`."""

    layers: tuple[str, ...] = ()

    def __init__(self, model: ArrayModel) -> None:
        self._model = model

    def run(self, stage: int, values: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The outputs."""
        return tuple(flatten(self._model(*values)))

    def linearize(self, stage: int, values: Sequence[np.ndarray]) -> NoReturn:
        """Always refuses."""
        _refuse_gradient()


def as_array(value: Any) -> np.ndarray:
    """An array of a tensor of any framework, on the same memory where possible; what numpy lacks becomes float32."""
    if hasattr(value, "detach"):  # torch refuses to hand out what requires a gradient
        value = value.detach()
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except Exception:  # noqa: BLE001 - every framework refuses in its own way, and a copy serves as well
            value = _copied(value)
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16 and its like


def _copied(value: Any) -> Any:
    """A torch tensor where and as numpy can read it; anything else as it is."""
    if hasattr(value, "resolve_conj"):
        value = value.cpu().resolve_conj().resolve_neg()
        return value if str(value.dtype) in _TORCH_FLOATS or not value.is_floating_point() else value.float()
    return value


def _fitting(array: np.ndarray, dtype: np.dtype[Any] | None) -> np.ndarray:
    """A copy, row by row in memory; in the declared type where that holds the values (or both are floating point)."""
    floating = dtype is not None and np.issubdtype(dtype, np.floating) and np.issubdtype(array.dtype, np.floating)
    if dtype is not None and (floating or np.can_cast(array.dtype, dtype)):
        return np.array(array, dtype=dtype, order="C")
    return np.array(array, order="C")


def _session(session: Any) -> ArrayModel:
    inputs = session.get_inputs()
    shapes = [tuple(size if isinstance(size, int) else None for size in entry.shape) for entry in inputs]
    fixed = one_size(shape[0] if shape else None for shape in shapes)
    if fixed is not None:
        shapes = [(None, *shape[1:]) for shape in shapes]
    portions = Portions(lambda feeds: list(session.run(None, dict(feeds))), fixed)

    def run(*arrays: np.ndarray) -> Any:
        results = portions({entry.name: array for entry, array in zip(inputs, arrays, strict=True)})
        return results[0] if len(results) == 1 else tuple(results)

    types = tuple(_SESSION_TYPES.get(entry.type) for entry in inputs)
    return ArrayModel(run, tuple(shapes), types, channels_first=True)


def _estimator(estimator: Any) -> ArrayModel:
    kind = type(estimator).__name__
    _check_fitted(estimator)
    name = next((name for name in _SCORES if hasattr(estimator, name)), "predict")
    if name == "predict" and hasattr(estimator, "classes_"):
        raise InputError(
            f"The {kind} gives class labels only, which cannot be explained: it has neither predict_proba nor "
            f"decision_function. Configure it to give probabilities (such as voting='soft' of a VotingClassifier), or "
            f"pass a function that gives scores."
        )
    return ArrayModel(_on_frames(getattr(estimator, name), estimator), _declared_shapes(estimator))


def _check_fitted(estimator: Any) -> None:
    if not _is_instance(estimator, "sklearn.base", "BaseEstimator"):
        return
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise InputError(f"The {type(estimator).__name__} is not fitted yet: call fit before explaining it.") from error


def _on_frames(scores: Callable[..., Any], owner: Any) -> Callable[..., Any]:
    """The scores of an estimator that was fitted on a data frame, which may pick columns by their names."""
    columns = getattr(owner, "feature_names_in_", None)
    if columns is None:
        return scores
    try:
        pandas = import_module("pandas")
    except ImportError:
        return scores  # fitted elsewhere; without frames it warns that the names are missing, or tells what it lacks
    return lambda array: scores(pandas.DataFrame(array, columns=list(columns)))


def _declared_shapes(owner: Any) -> tuple[tuple[int | None, ...], ...] | None:
    features = getattr(owner, "n_features_in_", None)
    return ((None, int(features)),) if isinstance(features, int | np.integer) else None


def _is_instance(value: Any, module: str, name: str) -> bool:
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(value, found)


def _refuse_gradient() -> NoReturn:
    raise NoGradientError(
        "A function of numpy arrays has no gradients. Use a perturbation method (such as feature_ablation, occlusion, "
        "lime or kernel_shap), or pass the model itself in a framework that has them."
    )


def _refuse_layers(names: Sequence[str]) -> NoReturn:
    raise LayerError(
        f"A function of numpy arrays has no layers, so none named {', '.join(map(repr, names))}. Pass the model itself "
        f"in its own framework (torch, Keras, ONNX) to explain a layer."
    )
