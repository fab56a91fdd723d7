"""Keras models as archives that hold no code: only layers and operations of Keras' own, from a list.

Keras' safe mode refuses Lambda layers, and still makes whatever object of Keras' an archive names, some of which read
files or run other programs' graphs. Here an archive is three plain members, its configuration names only what our
conversions are made of, and its weights are numbers that the archive itself holds.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import tensorflow as tf

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = frozenset(("metadata.json", CONFIG, WEIGHTS))
MOST_JSON, _MOST_LISTS = 2**25, 2**18
"""In bytes, and how many lists and objects: the constants of a Swin transformer take eight megabytes there."""

_MOST_OBJECTS = 100_000
"""Groups and weights."""

_MOST_MILLISECONDS = 8_000
"""That making all layers may take: eight hundred convolutions, each with its normalization."""

_MILLISECONDS = {"Bidirectional": 30, "GRU": 12, "LSTM": 12, "SimpleRNN": 12, "MultiHeadAttention": 20}
_OF_A_LAYER, _OF_AN_OPERATION = 5, 0.4
"""That Keras takes to make one, and its variables, as measured on one core of 2026."""

MORE_VARIABLES = 2
"""Variables may hold so many times the numbers of the file: some layers make variables that they do not keep."""

_VALUES = frozenset(("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"))
_CLASSES = {
    "keras": "DTypePolicy",
    "keras.src.models.functional": "Functional",
    "keras.initializers": "GlorotUniform Ones Orthogonal RandomNormal RandomUniform Zeros",
    "keras.layers": """
        Activation Add AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional Concatenate
        Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D Cropping2D Cropping3D Dense
        DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU Embedding Flatten GRU GlobalAveragePooling1D
        GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
        GroupNormalization Identity InputLayer LSTM LayerNormalization LeakyReLU MaxPooling1D MaxPooling2D
        MaxPooling3D Maximum Minimum Multiply PReLU Permute ReLU Reshape SimpleRNN Softmax Subtract UpSampling1D
        UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """,
    "keras.src.ops.core": "Cast ScatterUpdate Slice",
}
_KNOWN = {(module, name) for module, names in _CLASSES.items() for name in names.split()}
OPERATIONS = frozenset(f"keras.src.ops.{name}" for name in ("math", "nn", "numpy"))
"""All operations there compute tensors from tensors and numbers."""


def write(model: Any) -> bytes | None:
    """The archive of a model; None if it would hold more than one from anywhere may."""
    if not isinstance(model, keras.Model):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        data = path.read_bytes()
    try:
        _check(data)
    except ValueError:
        return None
    return data


def read(data: bytes) -> Any:
    """The model in an archive.

    Raises:
        Exception: Of any kind, where it is not what `write` makes.
    """
    numbers = _check(data)
    with tempfile.TemporaryDirectory() as folder:  # of the user's alone
        path = Path(folder) / "model.keras"
        path.write_bytes(data)
        with variables_within(MORE_VARIABLES * numbers):
            return keras.models.load_model(path, compile=False, safe_mode=True)


@contextmanager
def variables_within(most: int) -> Iterator[None]:
    """Refuses, in this thread, a variable before it takes memory if all together hold more numbers than `most`.

    How large a variable is, the layers around it tell. It is made of zeros: the values of the archive take their place.
    """
    left, outlines = most, tf.Graph()

    def create(make: Callable[..., Any], **options: Any) -> Any:
        nonlocal left
        value = options.pop("initial_value")
        with outlines.as_default():  # computes nothing
            outline = value() if callable(value) else tf.constant(value)
            shape, dtype = outline.shape, outline.dtype
        left -= shape.num_elements()
        if left < 0:
            raise ValueError("layers of more weights than the archive holds")
        return make(initial_value=lambda: tf.zeros(shape, dtype), **options)

    with tf.variable_creator_scope(create):
        yield


def _check(data: bytes) -> int:
    """Refuses an archive before anything in it is made; gives how many numbers its weights are."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) != len(MEMBERS) or {one.filename for one in members} != MEMBERS:
            raise ValueError("other members than Keras writes")
        # Keras packs nothing; what is packed can become any size.
        if any(one.compress_type or one.compress_size != one.file_size or one.file_size > len(data) for one in members):
            raise ValueError("a packed member, or one that is larger than the archive")
        if archive.getinfo(CONFIG).file_size > MOST_JSON:
            raise ValueError("a configuration that is too large")
        text = archive.read(CONFIG)
        weights = archive.read(WEIGHTS)
    check_objects(parse(text), _check_object)
    with h5py.File(io.BytesIO(weights), "r") as file:
        return check_weights(file, len(weights))


def parse(text: bytes) -> Any:
    """A configuration, if it is of bounded size."""
    if text.count(b"[") + text.count(b"{") > _MOST_LISTS:
        raise ValueError("a configuration of too many parts")
    return json.loads(text)


def check_objects(configuration: Any, check: Callable[[dict[str, Any]], None]) -> None:
    """Refuses a configuration of which an object is refused, which takes long to be made, or computes meanwhile."""
    milliseconds = 0.0
    for one in objects_in(configuration):
        check(one)
        milliseconds += _check_calls(one)
    if milliseconds > _MOST_MILLISECONDS:
        raise ValueError("a model of too many layers")


def objects_in(configuration: Any) -> Iterator[dict[str, Any]]:
    """All that Keras would make, at any depth."""
    held = [configuration]
    while held:
        one = held.pop()
        if isinstance(one, dict):
            if "class_name" in one or one.get("compile_config"):
                yield one
            held.extend(one.values())
        elif isinstance(one, list):
            held.extend(one)


def _check_object(config: dict[str, Any]) -> None:
    module, name = config.get("module"), config.get("class_name")
    if config.get("compile_config"):
        raise ValueError("something to compile")
    if is_value(config):
        return
    # Anything else under that name would be an object of somebody's who registered it.
    is_own = config.get("registered_name") in (None, name)
    if not is_own or not ((module, name) in _KNOWN or is_operation(module, name)):
        raise ValueError(f"{module}.{name}")


def is_value(config: dict[str, Any]) -> bool:
    """Whether it is an array, a tensor of the graph or the like, and no object that anything is called of."""
    return (config.get("module"), config.get("registered_name")) == (None, None) and config.get("class_name") in _VALUES


def is_operation(module: Any, name: Any) -> bool:
    """Whether that is an operation of Keras' on tensors."""
    kind = getattr(sys.modules.get(module), str(name), None) if module in OPERATIONS else None
    return isinstance(kind, type) and issubclass(kind, keras.Operation) and kind.__module__ == module


def _check_calls(config: dict[str, Any]) -> float:
    """How many milliseconds an object takes to be made.

    Nothing of a graph may be computed meanwhile: what is called on no tensor of the graph gives its result at once, of
    any size.
    """
    for call in config.get("inbound_nodes") or ():
        if not any(one["class_name"] == "__keras_tensor__" for one in objects_in(call)):
            raise ValueError("a layer that is called on nothing")
    module, name = config.get("module"), str(config.get("class_name"))
    if module in OPERATIONS or module == "keras.src.ops.core":
        return _OF_AN_OPERATION
    return _MILLISECONDS.get(name, _OF_A_LAYER) if module == "keras.layers" else 0


def check_weights(file: h5py.File, most: int) -> int:
    """Groups and numbers in the file itself, as many as there are bytes: no links, filters, or parts left out."""
    held, number, numbers = [file["/"]], 0, 0
    while held:
        group = held.pop()
        for name in group:
            number += 1
            if number > _MOST_OBJECTS or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError("a link, or too many objects")
            one = group[name]
            if h5py.h5o.get_info(one.id).rc != 1:
                raise ValueError("a link, as the object has two names")
            if isinstance(one, h5py.Group):
                held.append(one)
            elif not isinstance(one, h5py.Dataset) or not _is_plain(one):
                raise ValueError("something else than plain numbers")
            else:
                most, numbers = most - one.nbytes, numbers + one.size
    if most < 0:
        raise ValueError("more numbers than the file has bytes")
    return numbers


def _is_plain(held: h5py.Dataset) -> bool:
    is_here = not held.is_virtual and held.external is None and held.chunks is None
    return is_here and held.dtype.kind in "biufV" and held.id.get_storage_size() == held.nbytes
