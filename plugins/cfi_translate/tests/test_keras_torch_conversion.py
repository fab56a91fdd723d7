"""What the converted module is: native, named as in Keras, savable without CFI; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import keras
import numpy as np
import pytest
import torch
from keras import layers as L
from keras import ops
from keras_torch_cases import CASES, IMAGE, Scaled, difference, examples, functional, one_layer, randomised
from torch import nn

from cfi_core.errors import TranslationError
from cfi_translate.keras_torch import convert

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.Hardswish, nn.Hardsigmoid)


def small_network():
    def through(x):
        x = L.Conv2D(6, 3, padding="same", activation="relu", name="first")(x)
        x = L.BatchNormalization(name="norm")(x)
        skip = L.MaxPooling2D(2, name="pool")(x)
        x = L.Activation("relu", name="relu")(L.Conv2D(6, 3, padding="same", name="second")(skip))
        x = L.Add(name="sum")([x, skip])
        x = L.Dense(8, activation="relu", name="hidden")(L.Flatten(name="flat")(x))
        return L.Dense(4, activation="softmax", name="head")(x)

    return randomised(functional(through, (12, 10, 3)))


def converted(model, **sizes):
    return convert(model, tuple(array[:2] for array in examples(model)))


def test_modules_bear_the_names_of_the_layers():
    module = converted(small_network()).model
    kinds = {name: type(one) for name, one in module.named_modules()}
    assert kinds["first"] is nn.Conv2d and kinds["norm"] is nn.BatchNorm2d and kinds["pool"] is nn.MaxPool2d
    assert kinds["first_activation"] is kinds["relu"] is kinds["hidden_activation"] is nn.ReLU
    assert kinds["hidden"] is nn.Linear and kinds["head_activation"] is nn.Softmax
    assert not module.training and "sum" in kinds and "flat" in kinds


def test_every_layer_is_found_with_its_activation():
    model = small_network()
    (array,) = examples(model)
    result = converted(model)
    outputs = {}
    for name, module in result.model.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: outputs.__setitem__(name, output))
    result.model(torch.from_numpy(array.transpose(0, 3, 1, 2).copy()))
    for layer in model.layers[1:]:
        if layer.name == "flat":
            continue
        wanted = keras.Model(model.inputs, layer.output)(array).numpy()
        wanted = wanted.transpose(0, 3, 1, 2) if wanted.ndim == 4 else wanted
        found = outputs.get(f"{layer.name}_activation", outputs[layer.name])
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["squeeze and excite", "shared layers", "nested twice", "activations", "flatten"])
def test_no_activation_is_used_twice_and_nothing_is_transposed_between_convolutions(name):
    module = converted(randomised(CASES[name]())).model
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")
    for target, times in calls.items():
        assert times == 1 or not isinstance(module.get_submodule(target), ACTIVATIONS)
    functions = [node.target for node in module.graph.nodes if node.op == "call_function"]
    if name not in ("activations", "shared layers"):  # there a softmax, and one Linear for two orders of its inputs
        assert torch.permute not in functions
    assert all(type(one).__module__.startswith("torch.") for one in module.modules() if one is not module)


def test_a_shared_layer_keeps_one_module():
    module = converted(randomised(CASES["shared layers"]())).model
    assert sum(isinstance(one, nn.Conv2d) for one in module.modules()) == 1
    assert sum(isinstance(one, nn.ReLU) for one in module.modules()) == 4


LOADING = """
import sys
import builtins
real = builtins.__import__
def guarded(name, *rest, **options):
    if name.split(".")[0].startswith("cfi") or name.split(".")[0] in ("keras", "tensorflow"):
        raise ImportError(name)
    return real(name, *rest, **options)
builtins.__import__ = guarded
import torch
module = torch.load(sys.argv[1], weights_only=False)
state = torch.load(sys.argv[2], weights_only=True)
for parameter in module.parameters():
    parameter.data.zero_()
module.load_state_dict(state)
x, y = torch.load(sys.argv[3], weights_only=True)
assert torch.equal(module(x), y) and not module.training
print("loaded")
"""


def test_is_loaded_without_cfi(tmp_path):
    model = randomised(functional(lambda x: L.Dense(3)(L.Flatten()(Scaled()(small_block(x)))), IMAGE))
    module = converted(model).model
    x = torch.randn(5, 4, *IMAGE[:2])
    files = [str(tmp_path / name) for name in ("module.pt", "state.pt", "pair.pt")]
    torch.save(module, files[0])
    torch.save(module.state_dict(), files[1])
    torch.save((x, module(x).detach()), files[2])
    done = subprocess.run([sys.executable, "-c", LOADING, *files], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "loaded", done.stderr


def small_block(x):
    inner = functional(lambda y: L.Add()([y, L.Conv2D(4, 3, padding="same", activation="relu")(y)]), IMAGE)
    return L.BatchNormalization()(inner(L.AveragePooling2D(3, 1, padding="same")(x)))


def test_the_keras_model_is_left_as_it_was():
    model = randomised(functional(lambda x: L.Flatten()(Scaled()(x)), IMAGE))
    inner = model.get_layer("scaled").inner
    before = [len(inner._inbound_nodes), len(inner._outbound_nodes), [w.numpy().copy() for w in model.weights]]
    result = converted(model)
    with torch.no_grad():
        for parameter in result.model.parameters():
            parameter.zero_()
    after = [len(inner._inbound_nodes), len(inner._outbound_nodes), [w.numpy() for w in model.weights]]
    assert before[:2] == after[:2]
    assert all(np.array_equal(one, other) for one, other in zip(before[2], after[2], strict=True))


def test_double_precision_stays():
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("float64")
        model = randomised(functional(lambda x: L.Dense(3)(L.Flatten()(L.Conv2D(4, 3)(x))), IMAGE, dtype="float64"))
    finally:
        keras.config.set_dtype_policy(policy)
    array = np.random.default_rng(0).standard_normal((3, *IMAGE))
    result = convert(model, (array[:2],))
    ours = result.model(torch.from_numpy(array.transpose(0, 3, 1, 2).copy())).detach().numpy()
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, model(array).numpy(), rtol=1e-12)


def test_single_precision_layers_cast_a_double_input():
    model = randomised(functional(lambda x: L.Dense(3)(L.Flatten()(L.Conv2D(4, 3)(x))), IMAGE, dtype="float64"))
    array = np.random.default_rng(0).standard_normal((3, *IMAGE))
    ours = convert(model, (array[:2],)).model(torch.from_numpy(array.transpose(0, 3, 1, 2).copy()))
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.detach().numpy(), model(array).numpy(), rtol=1e-4, atol=1e-5)


def test_outputs_come_as_core_has_them():
    image, row = (8, 7, 3), (6,)

    def through(x, y):
        joint = L.Concatenate()([L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="conv")(x)), L.Dense(3)(y)])
        return {"value": L.Dense(1)(joint), "classes": L.Dense(5)(joint)}

    model = randomised(functional(through, image, row))
    result = converted(model)
    assert result.input_axes == ((0, 3, 1, 2), None) and result.output_axes == (None, None)
    measured = difference(model, examples(model), result)
    assert measured.outputs < 5e-6 and measured.gradients < 5e-5


def test_sequential_subclassed_and_shared_whole_models():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.stem = L.Conv2D(6, 3, padding="same", name="stem")
            self.head = L.Dense(4, name="head")

        def call(self, image, training=False):
            x = self.stem(image)
            return self.head(ops.mean(x + ops.relu(x), axis=(1, 2)))

    own = Own()
    own(np.zeros((1, *IMAGE), "float32"))
    sequential = keras.Sequential([L.Conv2D(3, 3), L.Flatten(), L.Dense(2)])
    sequential.build((None, *IMAGE))
    array = np.random.default_rng(0).standard_normal((3, *IMAGE)).astype("float32")
    for model in (own, sequential):
        randomised(model)
        measured = difference(model, (array,))
        assert measured.outputs < 5e-6 and measured.gradients < 5e-5
    assert isinstance(convert(own, (array,)).model.stem, nn.Conv2d)


def test_other_sizes_than_the_examples_are_refused_where_keras_leaves_them_open():
    model = randomised(CASES["open sizes"]())
    module = convert(model, examples(model, (12, 15, 3))).model
    assert module(torch.zeros(4, 3, 12, 15)).shape == (4, 4)
    with pytest.raises(AssertionError, match="must have size 12"):
        module(torch.zeros(4, 3, 13, 15))


class Random(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="random")
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal((4,), seed=self.generator)


class InTensorFlow(keras.layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.nn.relu(x)


REFUSED = {
    "Random": (lambda: Random(), "random numbers"),
    "InTensorFlow": (lambda: InTensorFlow(), "cannot be traced"),
    "Conv2D": (lambda: L.Conv2D(3, 3, dtype="mixed_bfloat16"), "computes in bfloat16"),
    "PReLU": (lambda: L.PReLU(), "slopes"),
    "UpSampling2D": (lambda: L.UpSampling2D(2, interpolation="bicubic"), "coefficients"),
    "Resizing": (lambda: L.Resizing(4, 4, antialias=True), "aliasing"),
    "ReLU": (lambda: L.ReLU(threshold=0.5, negative_slope=0.1), "settings together"),
    "Lambda": (lambda: L.Lambda(lambda x: ops.reshape(x, (-1, 4))), "mixes samples"),
    "LayerNormalization": (lambda: L.LayerNormalization(axis=[-1, 2]), "axes are not the last"),
    "Sparsemax": (lambda: L.Activation("sparsemax"), "cannot be traced"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_come_out_right_is_refused_by_name(kind):
    layer, reason = REFUSED[kind]
    model = one_layer(IMAGE, layer)()
    with pytest.raises(TranslationError, match=reason):
        convert(model, examples(model))
