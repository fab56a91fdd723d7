"""Without the extra of cfi-translate, what only another library could serve is refused with the line to install it."""

import subprocess
import sys

SCRIPT = """
from cfi_core import requirements

found = requirements.version_of
absent = ("onnx2keras", "onnx2torch", "tf2onnx", "torchvision")
requirements.version_of = lambda name: "" if name in absent else found(name)

import numpy as np
import tensorflow as tf
import cfi_core as cfi

weights = tf.constant(np.random.default_rng(0).normal(size=(6, 3)), tf.float32)
function = tf.function(lambda x: tf.nn.relu(x @ weights))
rows = np.random.default_rng(1).normal(size=(2, 6)).astype("float32")
calls = [
    lambda: cfi.translate(function, "torch", inputs=rows),
    lambda: cfi.translate(function, "torch", inputs=rows, translator="tf2onnx"),
    lambda: cfi.attribute(function, "deep_lift", "captum", inputs=rows, target=0, baselines=0),
]
for call in calls:
    try:
        call()
    except cfi.CFIError as error:
        print(type(error).__name__, "|", error)
print([one.name for one in cfi.translators() if not one.usable])
# What a bridge and our own converters serve needs none of them.
print(cfi.attribute(function, "saliency", "captum", inputs=rows, target=0).route)
"""


def test_a_function_of_tensorflow_to_torch_names_the_line():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *refusals, unusable, route = done.stdout.strip().splitlines()
    assert [line.partition(" | ")[0] for line in refusals] == ["TranslationError", "RouteError", "TranslationError"]
    for line in refusals:
        assert "tf2onnx" in line and "pip install 'cfi-translate[libraries]'" in line
    assert unusable == "['keras-onnx-export', 'onnx2keras', 'onnx2torch', 'tf2onnx']"
    assert route == "('bridge-to-torch',)"
