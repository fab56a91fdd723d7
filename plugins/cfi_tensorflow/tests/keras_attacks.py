"""Small Keras archives, and what strangers would write into them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def small_model() -> Any:
    """Layers and operations, with a slice and a constant."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 5, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = ops.multiply(x[:, ::2], np.array([1, 2, 3, 4], np.float32))
    return keras.Model(image, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        return {name: held.read(name) for name in held.namelist()}


def packed(held: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as made:
        for name, content in held.items():
            made.writestr(name, content)
    return file.getvalue()


def replaced(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    held = members(data)
    config = json.loads(held[CONFIG])
    change(config)
    return packed({**held, CONFIG: json.dumps(config).encode()})


def planted(module: Any, name: Any, registered: Any = None, **config: Any) -> Callable[[dict[str, Any]], None]:
    """Puts an object in the place of the activation of a layer, where Keras makes whatever stands there."""

    def change(configuration: dict[str, Any]) -> None:
        made = {"module": module, "class_name": name, "config": config, "registered_name": registered}
        configuration["config"]["layers"][1]["config"]["activation"] = made

    return change


def _as_function(configuration: dict[str, Any]) -> None:
    made = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"}
    configuration["config"]["layers"][1]["config"]["activation"] = made


def _compiled(configuration: dict[str, Any]) -> None:
    configuration["config"]["layers"][1]["compile_config"] = {"optimizer": "adam"}


def _old_form(configuration: dict[str, Any]) -> None:
    """Of a Keras that knew no modules, which Keras still reads by other rules."""
    for one in configuration["config"]["layers"]:
        one.pop("module")


def _called_on_numbers(configuration: dict[str, Any]) -> None:
    """Keras would compute it while it reads, here a terabyte of them."""
    (scaled,) = [one for one in configuration["config"]["layers"] if one["class_name"] == "Multiply"]
    scaled["class_name"], scaled["config"], scaled["registered_name"] = "Arange", {"name": "scaled"}, "Arange"
    scaled["inbound_nodes"] = [{"args": [2**38], "kwargs": {}}]


def _repeated(count: int, kind: str) -> Callable[[dict[str, Any]], None]:
    """Layers that nothing calls, and that Keras makes nevertheless."""

    def change(configuration: dict[str, Any]) -> None:
        for number in range(count):
            made = {"module": "keras.layers", "class_name": kind, "config": {}, "registered_name": None}
            configuration["config"]["layers"].append({**made, "name": f"more{number}", "inbound_nodes": []})

    return change


OBJECTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "Lambda": planted("keras.layers", "Lambda", function={"class_name": "__lambda__", "config": {"value": "4wAA"}}),
    "a lambda": planted(None, "__lambda__", value="4wAA"),
    "a layer that reads a file": planted("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
    "a layer that runs a saved graph": planted("keras.layers", "TFSMLayer", filepath="/tmp/saved"),
    "a layer that runs torch": planted("keras.layers", "TorchModuleWrapper", wrapped="…"),
    "a function that downloads": planted("keras.utils", "get_file", origin="http://localhost"),
    "a module that is imported": planted("antigravity", "x"),
    "a module of Keras that is imported": planted("keras.src.wrappers", "SKLearnClassifier", "SKLearnClassifier"),
    "a class of somebody's": planted("somebody", "Own", "somebody>Own"),
    "a class of somebody's under Keras' name": planted("keras.layers", "Dense", "somebody>Own"),
    "an operation that is none": planted("keras.src.ops.numpy", "backend"),
    "an operation of another module": planted("keras.src.ops.numpy", "Operation"),
    "an operation that calls functions": planted("keras.src.ops.core", "Map", "Map"),
    "a type of TensorFlow": planted("tensorflow", "__typespec__"),
    "a class that is no name": planted(["keras.layers"], {"a": 1}),
    "a built-in function": _as_function,
    "something to compile": _compiled,
    "an old form": _old_form,
    "an operation on numbers alone": _called_on_numbers,
    "thousands of layers": _repeated(2_000, "ReLU"),
    "hundreds of slow layers": _repeated(400, "Bidirectional"),
}


def claim_units(configuration: dict[str, Any]) -> None:
    configuration["config"]["layers"][-1]["config"]["units"] = 100_000


def claim_image(configuration: dict[str, Any]) -> None:
    """No setting of a layer with weights is large, but what comes in is."""
    made = configuration["config"]["layers"]
    made[0]["config"]["batch_shape"] = [None, 300, 500, 3]
    made[-1]["build_config"]["input_shape"] = [None, 149 * 498 * 4]


def _with(name: str, content: bytes) -> Callable[[bytes], bytes]:
    return lambda data: packed({**members(data), name: content})


def _twice(data: bytes) -> bytes:
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr(CONFIG, b"{}")
    return file.getvalue()


def _lying_size(data: bytes) -> bytes:
    """The directory at the end says that a member is larger than the file."""
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 20] + b"\xff\xff\xff\x7f" * 2 + data[at + 28 :]


ARCHIVES: dict[str, Callable[[bytes], bytes]] = {
    "packed": lambda data: packed(members(data), zipfile.ZIP_DEFLATED),
    "a bomb": lambda data: packed({**members(data), WEIGHTS: b"\0" * 2**27}, zipfile.ZIP_DEFLATED),
    "a way out of the folder": _with("../../outside", b"x"),
    "an absolute path": _with("/tmp/outside", b"x"),
    "assets": _with("assets/vocabulary.txt", b"x"),
    "other weights": lambda data: packed({**{k: v for k, v in members(data).items() if k != WEIGHTS}, "w.npz": b""}),
    "a member twice": _twice,
    "a member larger than the file": _lying_size,
    "cut off": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
    "nested lists": _with(CONFIG, b"[" * 2**20),
    "a million digits": _with(CONFIG, b"9" * 10**6),
    "a configuration without end": _with(CONFIG, b"[" + b"0," * 2**24 + b"0]"),
    "a million lists": _with(CONFIG, b"[" + b"[]," * 10**6 + b"0]"),
    "no configuration": _with(CONFIG, b"\xff\xfe"),
    "no weights": _with(WEIGHTS, b"no HDF5"),
}


def _external_link(file: h5py.File, secret: Path) -> None:
    file["secret"] = h5py.ExternalLink(str(secret), "/value")


def _soft_link(file: h5py.File, secret: Path) -> None:
    file["secret"] = h5py.SoftLink("/layers")


def _external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("secret", (8,), "u1", external=[(str(secret), 0, 8)])


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((1,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "value", (1,))
    file.create_virtual_dataset("secret", layout)


def _terabytes(file: h5py.File, secret: Path) -> None:
    file.create_dataset("secret", (2**40,), "f4", chunks=(2**10,))


def _packed_numbers(file: h5py.File, secret: Path) -> None:
    file.create_dataset("secret", data=np.zeros(2**20, "f4"), compression="gzip")


def _never_written(file: h5py.File, secret: Path) -> None:
    file.create_dataset("secret", (2**38,), "f4")


def _texts(file: h5py.File, secret: Path) -> None:
    file["secret"] = ["text"]


def _circle(file: h5py.File, secret: Path) -> None:
    group = file.create_group("one")
    group["two"] = group
    group["three"] = group


def _many_times_the_same(file: h5py.File, secret: Path) -> None:
    file["secret"] = np.zeros(2**10, "f4")
    for number in range(200):
        file[f"secret{number}"] = file["secret"]


CONTENTS = (
    *(_external_link, _soft_link, _external_storage, _virtual, _terabytes, _packed_numbers, _never_written, _texts),
    *(_circle, _many_times_the_same),
)
