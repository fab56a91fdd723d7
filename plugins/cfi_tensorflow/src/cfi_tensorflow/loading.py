"""Models and weights of Keras and TensorFlow from files: nothing that stands in them is run unless it is trusted.

Keras' safe mode refuses Lambda layers; it still makes layers that read files, and what an archive says is as large as
it says. So an archive is looked through before: it names layers and operations of Keras' own alone, none of which runs
code or reads files, and its weights are plain numbers that it holds itself.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import tensorflow as tf

from cfi_core.errors import ModelFileError, UntrustedFileError, brief
from cfi_core.file_contents import open_archive
from cfi_core.turns import keep_random
from cfi_tensorflow import archive as archives

_MODULES = frozenset(f"keras.{name}" for name in ("constraints", "initializers", "layers", "regularizers"))
_BASES = (keras.Layer, keras.initializers.Initializer, keras.regularizers.Regularizer, keras.constraints.Constraint)
_OTHERS = frozenset(
    (
        ("keras", "DTypePolicy"),
        ("keras", "Functional"),
        ("keras", "Sequential"),
        ("keras.src.models.functional", "Functional"),
        ("keras.src.models.sequential", "Sequential"),
        *(("keras.src.ops.core", name) for name in ("Cast", "ScatterUpdate", "Slice")),
    )
)
_OWN_CODE = frozenset(
    (
        *("FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"),  # hold code or graphs
        *("IntegerLookup", "StringLookup", "TextVectorization"),  # read files of words
        # Compute while they are made, as much as they are told.
        *("AugMix", "MelSpectrogram", "RandAugment", "STFT", "STFTInitializer", "STFTSpectrogram"),
    )
)
_SHOWN = 5
_SAFE = (
    "Else pass the function that builds the model, which is code of yours: cfi.load_model('package.module:factory', "
    "weights='….weights.h5')."
)


def read_archive(path: Path, trust: bool) -> Any:
    """The model in a `.keras` file, not compiled."""
    if trust:
        return _load_trusted(path, ".keras")
    if keras.backend.backend() != "tensorflow":
        raise UntrustedFileError(
            f"{_shown(path)} is not read: what it makes is bounded on Keras' TensorFlow backend only, and this one is "
            f"{keras.backend.backend()}. If you trust where it came from, pass trust=True."
        )
    with _checked_copy(path) as (copy, most), keep_random(), archives.variables_within(most):
        return keras.models.load_model(copy, compile=False, safe_mode=True)


def read_h5(path: Path, trust: bool) -> Any:
    """The model in an `.h5` file, not compiled."""
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ModelFileError(f"{_shown(path)} holds weights, which are no model yet. {_SAFE}")
    return _load_trusted(path, ".h5")


def _load_trusted(path: Path, suffix: str) -> Any:
    """Keras knows its formats by their suffixes alone."""
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix != suffix:
            path = Path(shutil.copyfile(path, Path(folder, f"model{suffix}")))
        return keras.models.load_model(path, compile=False, safe_mode=False)


def read_saved_model(path: Path, trust: bool) -> Any:
    """What a saved model serves: the signature of that name, or the only one."""
    loaded = tf.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None or (name != "serving_default" and len(signatures) > 1):
        names = ", ".join(map(repr, signatures)) or "none"
        raise ModelFileError(
            f"{_shown(path)} has no signature 'serving_default' (there are: {names}). Load it with "
            f"tf.saved_model.load and pass the function that you mean."
        )
    function = signatures[name]
    function.cfi_owner = loaded  # its variables live as long as this object, which nothing else holds
    return function


def load_weights(model: Any, path: Path) -> None:
    """Loads a `.weights.h5` file, as `model.save_weights` writes it, into all weights of the model."""
    if not isinstance(model, keras.Model):
        raise ModelFileError(f"{_shown(path)} holds weights of a Keras model, and the model is {type(model)}.")
    if not model.built:
        raise ModelFileError(
            f"The model {model.name!r} has no weights before it knows the shape of its inputs: begin it with "
            f"keras.Input, or call its build in the factory."
        )
    try:
        with h5py.File(path, "r") as file:
            archives.check_weights(file, path.stat().st_size)
            held = _weights(file)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{_shown(path)} is not read: it is broken, or holds {brief(str(error))}.") from error
    _check_fits(held, _own_weights(model), path)
    model.load_weights(path)


# an archive


@contextmanager
def _checked_copy(path: Path) -> Iterator[tuple[Path, int]]:
    """A copy of an archive that holds what was looked at alone, and how many numbers its variables may be."""
    with open_archive(path) as archive, tempfile.TemporaryDirectory() as folder:
        try:
            _check_members(archive, path.stat().st_size)
            configuration = archives.parse(archive.read(archives.CONFIG))
            archives.check_objects(_without_training(configuration), lambda one: _check_object(one, path))
            weights = Path(folder) / archives.WEIGHTS
            with archive.open(archives.WEIGHTS) as held, weights.open("wb") as file:
                shutil.copyfileobj(held, file)
            with h5py.File(weights, "r") as file:
                most = archives.MORE_VARIABLES * archives.check_weights(file, weights.stat().st_size)
        except (ValueError, OSError, RecursionError, AttributeError, TypeError) as error:
            raise ModelFileError(
                f"{_shown(path)} is no archive that Keras wrote: it has {brief(str(error))}."
            ) from error
        copy = Path(folder) / "model.keras"
        with zipfile.ZipFile(copy, "w") as made:
            made.writestr("metadata.json", archive.read("metadata.json"))
            made.writestr(archives.CONFIG, json.dumps(configuration))
            made.write(weights, archives.WEIGHTS)
        weights.unlink()
        yield copy, most


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    names = {one.filename for one in members}
    if more := sorted(names - archives.MEMBERS):
        raise ValueError(f"the member {more[0]!r}, which a model of Keras' own layers does not need")
    if missing := sorted(archives.MEMBERS - names):
        raise ValueError(f"no member {missing[0]!r}")
    if any(one.compress_type or one.file_size > size for one in members):
        raise ValueError("a packed member, which Keras does not write")
    if any(one.file_size > archives.MOST_JSON for one in members if one.filename != archives.WEIGHTS):
        raise ValueError("a configuration that is too large")


def _without_training(configuration: Any) -> Any:
    """The configuration, from which losses, metrics and optimizers are taken: nothing here is trained."""
    held = [configuration]
    while held:
        one = held.pop()
        if isinstance(one, dict):
            one.pop("compile_config", None)
            held.extend(one.values())
        elif isinstance(one, list):
            held.extend(one)
    return configuration


def _check_object(config: dict[str, Any], path: Path) -> None:
    module, name, registered = config.get("module"), config.get("class_name"), config.get("registered_name")
    if archives.is_value(config):
        return
    own = (module, name) in _OTHERS or archives.is_operation(module, name) or _is_of_keras(module, name)
    if not own or registered not in (None, name):
        what = "a function" if name == "function" else f"{module}.{name}"
        label = f" ({config.get('config')})" if name == "function" else ""
        raise UntrustedFileError(
            f"{_shown(path)} names {brief(what + label)!r}, which is none of the layers of Keras' own that run no code "
            f"and read no files. If you trust where it came from, pass trust=True"
            f"{', after importing the module that registers it' if registered not in (None, name) else ''}. {_SAFE}"
        )
    if name == "Normalization" and not _is_as_large_as_its_mean(config.get("config")):
        raise ValueError("a Normalization whose mean is stretched over its input")


def _is_of_keras(module: Any, name: Any) -> bool:
    if module not in _MODULES or name in _OWN_CODE:
        return False
    kind = getattr(getattr(keras, module.partition(".")[2]), str(name), None)
    return isinstance(kind, type) and issubclass(kind, _BASES) and kind.__module__.startswith("keras.src.")


def _is_as_large_as_its_mean(settings: Any) -> bool:
    """A mean that is given is made as large as the input at once, which can be of any size."""
    mean, axis = settings.get("mean"), settings.get("axis")
    alone = not isinstance(axis, list) or len(axis) == 1
    return mean is None or axis is None or (alone and isinstance(mean, list) and len(mean) > 1)


# weights


def _own_weights(model: Any) -> dict[str, tuple[int, ...]]:
    """The weights of a model as a file of them would have them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.weights.h5"
        model.save_weights(path)
        with h5py.File(path, "r") as file:
            return _weights(file)


def _weights(file: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes; what an optimizer keeps is none of the model's."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, held: Any) -> None:
        if isinstance(held, h5py.Dataset) and not name.startswith("optimizer/"):
            found[name] = held.shape

    file.visititems(note)
    return found


def _check_fits(held: dict[str, Any], own: dict[str, Any], path: Path) -> None:
    reasons = [f"the file lacks {_listed([name for name in own if name not in held])}"] * bool(own.keys() - held)
    reasons += [f"the model has no {_listed([name for name in held if name not in own])}"] * bool(held.keys() - own)
    reasons += [
        f"{name!r} is {shape} in the model and {held[name]} in the file"
        for name, shape in own.items()
        if held.get(name, shape) != shape
    ][:_SHOWN]
    if reasons:
        raise ModelFileError(f"The weights in {_shown(path)} are not those of the model: {'; '.join(reasons)}.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(brief(name)) for name in names[:_SHOWN]) + more


def _shown(path: Path) -> str:
    return repr(brief(str(path)))
