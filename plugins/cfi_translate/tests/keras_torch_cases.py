"""Small Keras models, and how a converted one is compared with the Keras one itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfi_core.coexistence import load_safely

load_safely()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402
from keras import layers as L  # noqa: E402
from keras import ops  # noqa: E402

from cfi_core.contract import Converted  # noqa: E402
from cfi_translate.keras_torch import convert  # noqa: E402

SAMPLES = 3


@dataclass(frozen=True)
class Difference:
    """Largest relative L2 differences from Keras over batches of 1, 2 and 3 samples."""

    outputs: float
    gradients: float


def functional(function: Callable[..., Any], *shapes: tuple[int | None, ...], dtype: str = "float32") -> Any:
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))


def randomised(model: Any, seed: int = 0) -> Any:
    """Weights that leave no bias at zero and no statistic at its default."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if not weight.dtype.startswith("float"):
            continue
        if "variance" in weight.path:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(generator.normal(0, 0.4, weight.shape))
    return model


def examples(model: Any, *sizes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(1)
    shapes = sizes or tuple(tuple(one.shape[1:]) for one in model.inputs)
    return tuple(generator.standard_normal((SAMPLES, *shape)).astype("float32") for shape in shapes)


def sequence(model: Any, with_gaps: bool) -> np.ndarray:
    """Samples of a sequence; with gaps of zeros, for masks, at the end, at the start and in between."""
    (array,) = examples(model)
    if with_gaps:
        array[0, 4:] = array[1, :2] = array[1, 4] = array[2, 1:] = 0
    return array


def relative(actual: np.ndarray, wanted: np.ndarray) -> float:
    assert actual.shape == wanted.shape
    size = float(np.linalg.norm(wanted))
    difference = float(np.linalg.norm(actual.astype(np.float64) - wanted))
    return difference / size if size else difference


def carried(array: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    return array if axes is None else np.ascontiguousarray(array.transpose(axes))


def difference(model: Any, inputs: tuple[np.ndarray, ...], converted: Converted | None = None) -> Difference:
    converted = convert(model, tuple(array[:2] for array in inputs)) if converted is None else converted
    outputs, gradients = [0.0], [0.0]
    for samples in (1, 2, 3):
        arrays = [array[:samples] for array in inputs]
        theirs, cotangents, their_gradients = _keras(model, arrays)
        tensors = [torch.tensor(carried(*pair)) for pair in zip(arrays, converted.input_axes, strict=True)]
        floating = [tensor.requires_grad_() for tensor in tensors if tensor.is_floating_point()]
        ours = converted.model(*tensors)
        ours = ours if isinstance(ours, tuple) else (ours,)
        total = torch.zeros(())
        for mine, wanted, cotangent, axes in zip(ours, theirs, cotangents, converted.output_axes, strict=True):
            outputs.append(relative(mine.detach().numpy(), carried(wanted, axes)))
            total = total + (mine * torch.from_numpy(carried(cotangent, axes))).sum()
        if not floating or not total.requires_grad:
            assert all(gradient is None for gradient in their_gradients)
            continue
        mine = torch.autograd.grad(total, floating, allow_unused=True)
        axes_of = [axes for axes, one in zip(converted.input_axes, tensors, strict=True) if one.is_floating_point()]
        for gradient, wanted, axes in zip(mine, their_gradients, axes_of, strict=True):
            assert (gradient is None) == (wanted is None)
            if gradient is not None:
                gradients.append(relative(gradient.numpy(), carried(wanted, axes)))
    return Difference(max(outputs), max(gradients))


def _keras(model: Any, arrays: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], list[Any]]:
    tensors = [tf.convert_to_tensor(array) for array in arrays]
    floating = [tensor for tensor in tensors if tensor.dtype.is_floating]
    generator = np.random.default_rng(2)
    with tf.GradientTape() as tape:
        tape.watch(floating)
        outputs = tf.nest.flatten(model(tensors if len(tensors) > 1 else tensors[0], training=False))
        cotangents = [generator.standard_normal(one.shape).astype(one.dtype.as_numpy_dtype) for one in outputs]
        total = tf.add_n([tf.reduce_sum(one * factor) for one, factor in zip(outputs, cotangents, strict=True)])
    gradients = [None if one is None else tf.convert_to_tensor(one).numpy() for one in tape.gradient(total, floating)]
    return [one.numpy() for one in outputs], cotangents, gradients


IMAGE, SIGNAL, VOLUME, ROW = (9, 10, 4), (11, 4), (6, 5, 7, 2), (6,)


def one_layer(shape: tuple[int, ...], *layers: Callable[[], Any]) -> Callable[[], Any]:
    def build() -> Any:
        def through(x: Any) -> Any:
            for layer in layers:
                x = layer()(x)
            return x

        return functional(through, shape)

    return build


class Scaled(keras.layers.Layer):
    """A custom layer made of weights, another layer and operations."""

    def __init__(self) -> None:
        super().__init__(name="scaled")
        self.inner = L.Conv2D(4, 3, padding="same", activation="relu", name="inner")

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")
        self.inner.build(shape)

    def call(self, x):
        return x * self.gamma + self.inner(x)


def squeeze_and_excite(x: Any) -> Any:
    y = L.GlobalAveragePooling2D()(x)
    y = L.Conv2D(4, 1, activation="sigmoid")(L.Conv2D(2, 1, activation="relu")(L.Reshape((1, 1, 4))(y)))
    return L.Multiply()([x, y])


def arithmetic(x: Any) -> Any:
    y = L.Conv2D(4, 3, padding="same")(x)
    a = ops.mean(y, axis=-1, keepdims=True) + 2.0 * y / (1.0 + ops.square(x)) - 1.0
    b = ops.maximum(a, 0.1) * ops.exp(-ops.abs(y)) + np.arange(4, dtype="float32")
    c = ops.concatenate([b, ops.relu(y)], axis=-1)[:, 1:-1, ::2, :]
    d = ops.softmax(ops.transpose(c, (0, 3, 1, 2)), axis=1)
    e = ops.reshape(d, (-1, 8, d.shape[2] * d.shape[3]))
    return ops.sum(ops.matmul(e, ops.swapaxes(e, 1, 2)), axis=2) + ops.max(c, axis=(1, 2))


def more_operations(x: Any) -> Any:
    one, two = ops.split(x, 2, axis=-1)
    stacked = ops.stack([one, ops.flip(two, axis=1), ops.clip(one, -0.5, 0.5)], axis=1)
    joined = ops.squeeze(ops.expand_dims(ops.where(x > 0.2, x, 0.1 * x), 1), 1)
    folded = ops.einsum("bkhwc,bhwd->bkcd", stacked, joined)
    return (
        ops.logsumexp(folded, axis=-1)
        + ops.std(folded, axis=-1)
        + ops.min(ops.pad(folded, ((0, 0), (1, 0), (1, 2), (0, 1))), axis=-1)[:, 1:, 1:-2]
    )


def rarer_operations(x: Any) -> Any:
    y = ops.roll(ops.pad(x, ((0, 0), (1, 2), (2, 0), (0, 0)), mode="reflect"), (1, -2), axis=(1, 2))
    y = ops.pad(y, ((0, 0), (0, 1), (0, 0), (1, 0)), mode="symmetric")
    mean, variance = ops.moments(y, axes=[1, 2], keepdims=True)
    y = ops.arctan2((y - mean) / ops.sqrt(variance + 0.1), mean) + ops.exp2(ops.arcsinh(y))
    return ops.prod(y[:, :3, :2], axis=(1, 2)) + ops.mean(ops.erfc(y), axis=(1, 2))


def inverse_functions(x: Any) -> Any:
    y = 0.9 * ops.tanh(x)
    z = ops.arcsin(y) * ops.arccos(y) + ops.arctanh(y) - ops.arccosh(1.5 + ops.square(x))
    return z + ops.numpy.fabs(x) * ops.trunc(3 * x) + ops.cast(ops.isinf(x), "float32")


def remainders(x: Any) -> Any:
    y = ops.mod(5.0 * x, 3.0) + ops.mod(-4.0, 2.0 + ops.square(x)) * ops.mod(x, -ops.exp(x))
    return y + ops.cast(ops.mod(ops.cast(9.0 * x, "int32"), -4), "float32")


def ties(x: Any) -> Any:
    """Where both are equal, which is everywhere or wherever a ReLU is closed, the gradient goes to the first alone."""
    y = ops.relu(x)
    z = ops.maximum(y, 0.0) - 2.0 * ops.minimum(0.0, y) + 3.0 * ops.minimum(y, 0.0) + ops.maximum(0.0, y)
    return z + L.Maximum()([x, 2.0 * x / 2.0]) * L.Minimum()([y, 4.0 * y / 4.0])


def attention_of_few_keys(x: Any) -> Any:
    query = ops.reshape(L.Dense(8)(x), (-1, 11, 4, 2))
    key, value = (ops.reshape(L.Dense(4)(x), (-1, 11, 2, 2)) for _ in range(2))
    mask = ops.reshape(x[:, :, 0] > -0.5, (-1, 1, 1, 11))
    return ops.dot_product_attention(query, key, value, mask=mask, scale=0.3)


def positions(x: Any) -> Any:
    """Single positions, ranges and repetitions of them."""
    y = ops.take(x, [0, 2, -1], axis=1) + ops.take(x, 3, axis=1)[:, None] + ops.unstack(x, axis=1)[2][:, None]
    y = ops.tile(ops.repeat(y, 2, axis=2), (1, 2, 1))
    return ops.tril(y[:, 1:, ..., None][..., 0]) + ops.triu(y[:, :-1], 1)


def comparisons(x: Any) -> Any:
    one = ops.logical_and(x > 0.1, ops.logical_not(x >= x * x))
    other = ops.logical_or(ops.less(x, 0.5), ops.logical_xor(x < 2, ops.not_equal(x, 0)))
    y = ops.where(one, x, 0.0) + ops.cast(other, "float32") * ops.floor_divide(x, 0.3)
    some, each = ops.any(x > 0, axis=1, keepdims=True), ops.all(x > -9, axis=2)[..., None]
    return y + ops.floor_divide(3.0, x) + ops.cast(ops.logical_and(some, each), "float32")


def lengths_and_powers(x: Any) -> Any:
    y = ops.normalize(x, axis=1) / ops.norm(x, axis=-1, keepdims=True) + 2.0 / (x + 9.0) - (1.0 - x) ** 2 + 2.0**x
    return y + ops.var(x, axis=(1, 2), keepdims=True) * ops.cast(ops.argmin(x, axis=2), "float32")[..., None]


def activation_operations(x: Any) -> Any:
    plain = ("relu", "relu6", "sigmoid", "hard_sigmoid", "tanh", "softplus", "softsign", "silu", "hard_silu", "selu")
    y = sum(getattr(ops, name)(x) for name in (*plain, "log_sigmoid", "tanh_shrink", "hard_tanh", "log_softmax"))
    y = y + ops.gelu(x) + ops.gelu(x, approximate=False) + ops.elu(x, 0.5) + ops.celu(x, 0.6) + ops.leaky_relu(x, 0.1)
    return y + ops.hard_shrink(x, 0.2) + ops.soft_shrink(x, 0.3) + L.Softmax()(x, mask=x > 0)


def counted(x: Any) -> Any:
    """Integers, which Keras keeps in 32 bits."""
    signs = ops.cast(ops.sign(x), "int32")
    total = ops.prod(signs, axis=-1) + ops.sum(signs, axis=-1) + ops.cumsum(signs, axis=1)[..., 0]
    return ops.cast(total * 2**30 * 2, "float32") + ops.sum(x, axis=-1)


AUGMENTATIONS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("AugMix", "CutMix", "MixUp", "RandAugment", "RandomColorJitter", "RandomElasticTransform"), ()),
    **dict.fromkeys(("RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomInvert"), ()),
    **dict.fromkeys(("RandomPerspective", "RandomShear"), ()),
    **dict.fromkeys(("RandomBrightness", "RandomColorDegeneration", "RandomContrast", "RandomHue"), (0.3,)),
    **dict.fromkeys(("RandomRotation", "RandomSaturation", "RandomSharpness", "RandomZoom"), (0.3,)),
    "RandomPosterization": (4,),
    "RandomTranslation": (0.2, 0.2),
}


def augmented(x: Any) -> Any:
    for name, arguments in AUGMENTATIONS.items():
        x = getattr(L, name)(*arguments)(x)
    return L.Conv2D(2, 3)(x)


def patches(padding: str, **settings: Any) -> Callable[[Any], Any]:
    return lambda x: L.Dense(3)(ops.image.extract_patches(x, (2, 3), padding=padding, **settings))


def folded(x: Any) -> Any:
    """Columns of overlapping windows and back, in versions of Keras that have it."""
    columns = ops.unfold(x, (2, 3), dilation=(2, 1), padding=(1, 0), stride=(1, 2))
    return ops.fold(ops.tanh(columns), x.shape[2:], (2, 3), (2, 1), (1, 0), (1, 2)) * x


def ones_at_the_largest(x: Any) -> Any:
    return ops.sum(ops.one_hot(ops.argmax(x, axis=-1), 4, axis=1) * ops.moveaxis(x, -1, 1), axis=(2, 3))


class WeightFirst(L.Layer):
    """A weight stands before the tensor."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x: Any) -> Any:
        return self.scale * ops.tanh(x) + (self.scale - x) / (1.0 + ops.square(x))


def shared_layers(x: Any) -> Any:
    conv, norm, relu = L.Conv2D(4, 3, padding="same", name="conv"), L.BatchNormalization(), L.ReLU(name="relu")
    dense = L.Dense(5, activation="relu", name="dense")
    y = relu(norm(conv(relu(norm(conv(x))))))
    return L.Concatenate()([dense(L.Flatten()(x)), dense(L.Flatten()(y))])


def nested_twice(x: Any) -> Any:
    inner = functional(lambda y: L.Add()([y, L.Conv2D(4, 3, padding="same", activation="relu")(y)]), IMAGE)
    block = keras.Sequential([L.Conv2D(4, 3, padding="same"), L.ReLU()], name="block")
    return L.Dense(3, activation="softmax")(L.Flatten()(block(inner(inner(x)))))


CASES: dict[str, Callable[[], Any]] = {
    "conv same": one_layer(IMAGE, lambda: L.Conv2D(6, 3, strides=2, padding="same", activation="relu")),
    "conv dilated": one_layer(IMAGE, lambda: L.Conv2D(6, 3, dilation_rate=2, padding="same", activation="gelu")),
    "conv even kernel": one_layer(IMAGE, lambda: L.Conv2D(6, (2, 4), padding="same", activation="softmax")),
    "conv grouped": one_layer(IMAGE, lambda: L.Conv2D(6, 3, groups=2, use_bias=False)),
    "conv causal": one_layer(SIGNAL, lambda: L.Conv1D(6, 3, padding="causal", dilation_rate=2)),
    "conv volume": one_layer(VOLUME, lambda: L.Conv3D(3, 3, strides=2, padding="same")),
    "depthwise": one_layer(IMAGE, lambda: L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)),
    "depthwise signal": one_layer(SIGNAL, lambda: L.DepthwiseConv1D(4, padding="same", depth_multiplier=2)),
    "separable": one_layer(IMAGE, lambda: L.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, strides=2)),
    "separable signal": one_layer(SIGNAL, lambda: L.SeparableConv1D(5, 3)),
    "transposed same": one_layer(IMAGE, lambda: L.Conv2DTranspose(5, 3, strides=2, padding="same")),
    "transposed cut": one_layer(IMAGE, lambda: L.Conv2DTranspose(5, 4, strides=1, padding="same")),
    "transposed valid": one_layer(IMAGE, lambda: L.Conv2DTranspose(5, 3, strides=2, activation="tanh")),
    "transposed wide": one_layer(IMAGE, lambda: L.Conv2DTranspose(5, 2, strides=3, padding="same")),
    "transposed signal": one_layer(SIGNAL, lambda: L.Conv1DTranspose(5, 5, strides=2, padding="same")),
    "max pool": one_layer(IMAGE, lambda: L.MaxPooling2D(3, 2, padding="same"), lambda: L.MaxPooling2D(2)),
    "max pool wide": one_layer(IMAGE, lambda: L.MaxPooling2D((2, 5), (1, 2), padding="same")),
    "average pool": one_layer(IMAGE, lambda: L.AveragePooling2D(3, 2, padding="same")),
    "average pool wide": one_layer(IMAGE, lambda: L.AveragePooling2D((4, 2), (1, 3), padding="same")),
    "average pool signal": one_layer(SIGNAL, lambda: L.Conv1D(4, 1), lambda: L.AveragePooling1D(4, 3, padding="same")),
    "average pool volume": one_layer(VOLUME, lambda: L.AveragePooling3D(2, padding="same")),
    "global pools": lambda: functional(
        lambda x: L.Concatenate()([L.GlobalAveragePooling2D()(x), L.GlobalMaxPooling2D()(x)]), IMAGE
    ),
    "global pool kept": one_layer(IMAGE, lambda: L.GlobalAveragePooling2D(keepdims=True), lambda: L.Conv2D(3, 1)),
    "pad and crop": one_layer(IMAGE, lambda: L.ZeroPadding2D(((1, 2), (0, 3))), lambda: L.Cropping2D(((2, 1), (1, 1)))),
    "pad signal": one_layer(SIGNAL, lambda: L.ZeroPadding1D((1, 2)), lambda: L.Conv1D(3, 2), lambda: L.Cropping1D(2)),
    "upsampling": one_layer(IMAGE, lambda: L.UpSampling2D((2, 3)), lambda: L.UpSampling2D(2, interpolation="bilinear")),
    "upsampling signal": one_layer(SIGNAL, lambda: L.UpSampling1D(2), lambda: L.Conv1D(3, 2)),
    "adaptive pools": one_layer(
        IMAGE, lambda: L.AdaptiveAveragePooling2D((4, 3)), lambda: L.AdaptiveMaxPooling2D(2), lambda: L.Conv2D(3, 1)
    ),
    "adaptive pools of signals": one_layer(
        SIGNAL, lambda: L.Conv1D(4, 1), lambda: L.AdaptiveMaxPooling1D(4), lambda: L.AdaptiveAveragePooling1D(3)
    ),
    "augmentation": lambda: functional(augmented, (9, 10, 3)),
    "center crop": one_layer(IMAGE, lambda: L.CenterCrop(5, 4), lambda: L.Conv2D(3, 3)),
    "inverse functions": lambda: functional(inverse_functions, IMAGE),
    "remainders": lambda: functional(remainders, IMAGE),
    "ties": lambda: functional(ties, IMAGE),
    "attention of few keys": lambda: functional(attention_of_few_keys, SIGNAL),
    "counted": lambda: functional(counted, IMAGE),
    "rarer operations": lambda: functional(rarer_operations, IMAGE),
    "positions": lambda: functional(positions, SIGNAL),
    "comparisons": lambda: functional(comparisons, SIGNAL),
    "lengths and powers": lambda: functional(lengths_and_powers, SIGNAL),
    "activation operations": lambda: functional(activation_operations, SIGNAL),
    "patches": lambda: functional(patches("valid"), IMAGE),
    "patches that overlap": lambda: functional(patches("same", strides=2), IMAGE),
    "patches with gaps": lambda: functional(patches("valid", strides=1, dilation_rate=2), IMAGE),
    **({"folded": lambda: functional(folded, IMAGE)} if hasattr(ops, "fold") else {}),
    "ones at the largest": lambda: functional(ones_at_the_largest, IMAGE),
    "weight before tensor": one_layer(ROW, lambda: L.Dense(4), lambda: WeightFirst(), lambda: L.Dense(2)),
    "additive attention": lambda: functional(lambda x: L.AdditiveAttention()([L.Dense(5)(x), L.Dense(5)(x)]), SIGNAL),
    "grouped queries": lambda: functional(lambda x: L.GroupQueryAttention(3, 4, 2)(x, x), SIGNAL),
    "grouped queries, causal": lambda: functional(
        lambda x: L.GroupQueryAttention(3, 4, 2)(x, x, use_causal_mask=True), SIGNAL
    ),
    "resizing": one_layer(IMAGE, lambda: L.Resizing(13, 7), lambda: L.Resizing(5, 9, interpolation="nearest")),
    "norms": one_layer(
        IMAGE,
        lambda: L.BatchNormalization(),
        lambda: L.LayerNormalization(),
        lambda: L.GroupNormalization(2),
        lambda: L.BatchNormalization(scale=False, axis=1),
        lambda: L.LayerNormalization(axis=(1, 2, 3), center=False),
        lambda: L.RMSNormalization(),
        lambda: L.RMSNormalization(axis=[2, 3]),
        lambda: L.UnitNormalization(),
    ),
    "norm of rows": one_layer(ROW, lambda: L.Dense(4), lambda: L.BatchNormalization(center=False), lambda: L.Dense(2)),
    "norm of signals": one_layer(SIGNAL, lambda: L.Conv1D(4, 3), lambda: L.BatchNormalization(), lambda: L.LSTM(3)),
    "preprocessing": one_layer(
        IMAGE,
        lambda: L.Rescaling(0.5, offset=-1.0),
        lambda: L.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]),
        lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0]),
        lambda: L.Conv2D(2, 3),
    ),
    "activations": one_layer(
        IMAGE,
        lambda: L.LeakyReLU(0.1),
        lambda: L.PReLU(shared_axes=[1, 2]),
        lambda: L.ELU(0.7),
        lambda: L.ReLU(max_value=2.0),
        lambda: L.Conv2D(4, 1, activation="silu"),
        lambda: L.Conv2D(4, 1, activation="hard_sigmoid"),
        lambda: L.Conv2D(4, 1, activation="softplus"),
        lambda: L.Activation("selu"),
        lambda: L.Activation("mish"),
        lambda: L.Activation("hard_silu"),
        lambda: L.Activation("leaky_relu"),
        lambda: L.Activation("exponential"),
        lambda: L.Conv2D(4, 1, activation=ops.gelu),
        lambda: L.Conv2D(4, 1, activation=lambda x: ops.tanh(x) * 2.0),
        lambda: L.Conv2D(4, 1, activation=L.LeakyReLU(0.3)),
        lambda: L.Softmax(axis=1),
    ),
    "flatten": one_layer(
        IMAGE,
        lambda: L.Conv2D(5, 3, activation="relu"),
        lambda: L.Flatten(),
        lambda: L.Dropout(0.5),
        lambda: L.Dense(7, activation="relu"),
        lambda: L.Dense(3, activation="softmax"),
    ),
    "flatten and norm": one_layer(
        IMAGE, lambda: L.MaxPooling2D(2), lambda: L.Flatten(), lambda: L.BatchNormalization(), lambda: L.Dense(3)
    ),
    "flatten to output": one_layer(IMAGE, lambda: L.Conv2D(5, 3), lambda: L.Flatten()),
    "reshape": one_layer(
        IMAGE, lambda: L.Conv2D(6, 3), lambda: L.Reshape((-1, 3)), lambda: L.Permute((2, 1)), lambda: L.Dense(4)
    ),
    "permute images": one_layer(IMAGE, lambda: L.Permute((3, 1, 2)), lambda: L.Conv2D(3, 3), lambda: L.Flatten()),
    "repeat vector": one_layer(ROW, lambda: L.RepeatVector(3), lambda: L.GRU(4)),
    "dense on maps": one_layer(
        IMAGE, lambda: L.Conv2D(6, 3), lambda: L.Dense(4, activation="relu"), lambda: L.Conv2D(2, 2)
    ),
    "einsum dense": one_layer(SIGNAL, lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")),
    "squeeze and excite": lambda: functional(squeeze_and_excite, IMAGE),
    "merging": lambda: functional(
        lambda a, b: [
            L.Add()([L.Conv2D(4, 1)(a), b]),
            L.Subtract()([a, b]),
            L.Average()([a, b, a]),
            L.Maximum()([a, b]),
            L.Concatenate(axis=1)([a, L.Conv2D(4, 1)(b)]),
            L.Dot(axes=1)([L.Flatten()(a), L.Flatten()(b)]),
            L.Dot(axes=(2, 1), normalize=True)([L.Reshape((3, 120))(a), L.Reshape((120, 3))(b)]),
        ],
        IMAGE,
        IMAGE,
    ),
    "operations": lambda: functional(arithmetic, IMAGE),
    "more operations": lambda: functional(more_operations, IMAGE),
    "shared layers": lambda: functional(shared_layers, IMAGE),
    "nested twice": lambda: functional(nested_twice, IMAGE),
    "custom layer": lambda: functional(lambda x: L.GlobalAveragePooling2D()(Scaled()(L.Conv2D(4, 3)(x))), IMAGE),
    "lambda": one_layer(IMAGE, lambda: L.Lambda(lambda x: ops.relu(x) ** 2), lambda: L.Conv2D(2, 3)),
    "attention": one_layer(SIGNAL, lambda: L.LayerNormalization(), lambda: SelfAttention()),
    "open sizes": lambda: functional(
        lambda x: L.GlobalAveragePooling2D()(L.Conv2D(4, 3, strides=2, padding="same")(x)), (None, None, 3)
    ),
}


class SelfAttention(keras.layers.Layer):
    """A traced layer around one that has a translation of its own."""

    def __init__(self) -> None:
        super().__init__(name="self_attention")
        self.attention = L.MultiHeadAttention(2, 3, name="attention")

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return x + self.attention(x, x)
