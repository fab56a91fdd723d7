"""Conversions that are kept on disk: used by the next process, measured like new ones, never believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from torch import nn

import cfi_core as cfi
from cfi_core.adapters import adapter_for
from cfi_core.registry import registry
from cfi_core.translation import conversion, store


def keras_cnn() -> tuple[Any, np.ndarray, str]:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((9, 8, 3), name="image"),  # or it gets another name each time
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(5, name="dense"),
        ]
    )
    return model, np.random.default_rng(0).normal(size=(3, 9, 8, 3)).astype(np.float32), "torch"


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


def torch_cnn() -> tuple[Any, np.ndarray, str]:
    torch.manual_seed(0)
    return Cnn().eval(), np.random.default_rng(0).normal(size=(3, 3, 9, 8)).astype(np.float32), "tensorflow"


Make = Callable[[], tuple[Any, np.ndarray, str]]
both = pytest.mark.parametrize("make", [keras_cnn, torch_cnn])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    cfi.keep_translations(tmp_path / "kept")
    yield tmp_path / "kept"
    cfi.keep_translations(None)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows with every conversion that is done anew."""
    done: list[Any] = []
    convert = conversion.convert_along

    def counted(route: Any, model: Any, arrays: Any) -> Any:
        done.append(route)
        return convert(route, model, arrays)

    monkeypatch.setattr(conversion, "convert_along", counted)
    return done


def translated(make: Make) -> cfi.Translation:
    model, x, to = make()
    return cfi.translate(model, to, inputs=x)


@both
def test_a_conversion_is_done_once(folder: Path, conversions: list[Any], make: Make):
    first, second = translated(make), translated(make)
    assert len(conversions) == 1 and len(list(folder.iterdir())) == 1
    assert second.model is not first.model and isinstance(second.model, nn.Module | keras.Model)
    assert second.certificate.faithful and second.certificate.measurements[0].samples_of == "your inputs"
    assert dict(second.layer_map.matches) == dict(first.layer_map.matches) and len(second.layer_map)
    assert (second.input_axes, second.output_axes) == (first.input_axes, first.output_axes)
    _, x, to = make()
    adapter = adapter_for(registry(), to)
    results = [
        adapter.outputs(one.model, [adapter.tensor(np.transpose(x, one.input_axes[0]), one.model)])
        for one in (first, second)
    ]
    np.testing.assert_array_equal(*results)


@both
def test_attribute_takes_it_and_gives_the_same(folder: Path, conversions: list[Any], make: Make):
    model, x, to = make()
    toolset = "captum" if to == "torch" else "tf-keras-vis"

    def explained() -> cfi.Attribution:
        cfi.forget_translations()  # as a new process would not know it
        found = cfi.attribute(model, "saliency", toolset, inputs=x, target=1, translator="conversion")
        assert isinstance(found, cfi.Attribution)
        return found

    np.testing.assert_allclose(explained().values, explained().values, rtol=1e-6)
    assert len(conversions) == 1


@both
def test_a_changed_weight_is_noticed(folder: Path, conversions: list[Any], make: Make):
    translated(make)
    model, x, to = make()
    weight = model.head.weight if to == "tensorflow" else model.get_layer("dense").kernel
    if to == "tensorflow":
        with torch.no_grad():
            weight[0, 0] += 0.5
    else:
        weight.assign(weight + 0.5)
    cfi.translate(model, to, inputs=x)
    assert len(conversions) == 2 and len(list(folder.iterdir())) == 2


@both
def test_damaged_files_are_replaced(folder: Path, conversions: list[Any], make: Make):
    translated(make)
    names = [path.name for path in folder.glob("*/*")]
    assert sorted(names) in (
        ["graph.json", "translation.json", "weights.safetensors"],
        ["model.keras", "translation.json"],
    )
    for name in names:
        assert len(list(folder.iterdir())) == 1
        path = next(folder.glob(f"*/{name}"))
        path.write_bytes(path.read_bytes()[:50])
        translated(make)
    assert len(conversions) == 1 + len(names)
    translated(make)
    assert len(conversions) == 1 + len(names)


@both
def test_an_entry_that_computes_something_else_is_not_used(folder: Path, conversions: list[Any], make: Make):
    translated(make)
    entry = next(folder.iterdir())
    model, x, to = make()
    others = [value * 1.01 for value in (model.get_weights() if to == "torch" else model.state_dict().values())]
    if to == "torch":
        model.set_weights(others)
    else:
        model.load_state_dict(dict(zip(model.state_dict(), others, strict=True)))
    cfi.translate(model, to, inputs=x)
    other = next(one for one in folder.iterdir() if one != entry)
    shutil.rmtree(entry)
    other.replace(entry)
    assert translated(make).certificate.faithful
    assert len(conversions) == 3


class Evil:
    """Shows that it was unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def pickled(marker: Path, protocol: str) -> bytes:
    """A pickle that torch's, Python's or numpy's way of loading runs."""
    file = io.BytesIO()
    if protocol == "torch":
        torch.save(Evil(marker), file)
    elif protocol == "numpy":
        np.save(file, np.array([Evil(marker)], object), allow_pickle=True)
    else:
        pickle.dump(Evil(marker), file)
    return file.getvalue()


@both
@pytest.mark.parametrize("protocol", ["torch", "pickle", "numpy"])
def test_a_pickle_under_any_name_is_never_run(
    folder: Path, conversions: list[Any], tmp_path: Path, make: Make, protocol
):
    translated(make)
    names = {path.name for path in folder.glob("*/*")}
    for name in sorted(names | {"model", "model.pt", "weights.safetensors", "graph.json", "model.keras", "data.pkl"}):
        count = len(conversions)
        entry = next(folder.iterdir())
        (entry / name).write_bytes(pickled(tmp_path / "ran", protocol))
        if name != "translation.json":
            held = {one: (entry / one).read_bytes() for one in names - {"translation.json"}}
            notes = json.loads((entry / "translation.json").read_text())
            notes["of"] = store._seal(entry.name, held)  # by somebody who knows how
            (entry / "translation.json").write_text(json.dumps(notes))
        assert translated(make).certificate.faithful
        assert not (tmp_path / "ran").exists()
        assert len(conversions) == count + (name in names), name


@both
def test_weights_that_were_changed_are_refused_by_what_they_compute(
    folder: Path, conversions: list[Any], make: Make, tmp_path: Path
):
    first = translated(make)
    _, _, to = make()
    adapter, entry = adapter_for(registry(), to), next(folder.iterdir())
    if to == "torch":
        with torch.no_grad():
            next(first.model.parameters()).mul_(1.01)
    else:
        first.model.set_weights([one * 1.01 for one in first.model.get_weights()])
    for name, data in adapter.save(first.model).items():
        (entry / name).write_bytes(data)
    notes = json.loads((entry / "translation.json").read_text())
    notes["of"] = store._seal(entry.name, adapter.save(first.model))
    (entry / "translation.json").write_text(json.dumps(notes))
    assert translated(make).certificate.faithful and len(conversions) == 2, "read, measured, refused, made anew"
    translated(make)
    assert len(conversions) == 2


def _enlarge(name: str, data: bytes) -> bytes:
    """A layer of the graph is to have a hundred million outputs."""
    if name == "graph.json":
        form = json.loads(data)
        settings = next(one["settings"] for one in form["modules"] if one["kind"] == "Linear")
        settings["out_features"] = 10**8
        return json.dumps(form).encode()
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            if member == "config.json":
                config = json.loads(content)
                dense = next(one for one in config["config"]["layers"] if "units" in one["config"])
                dense["config"]["units"] = 10**8
                content = json.dumps(config).encode()
            new.writestr(member, content)
    return changed.getvalue()


@both
def test_an_entry_that_says_to_be_huge_is_made_anew_at_once(folder: Path, conversions: list[Any], make: Make):
    translated(make)
    _, _, to = make()
    entry = next(folder.iterdir())
    held = {path.name: path.read_bytes() for path in entry.iterdir() if path.name != "translation.json"}
    held = {name: data if name.startswith("weights") else _enlarge(name, data) for name, data in held.items()}
    for name, data in held.items():
        (entry / name).write_bytes(data)
    notes = json.loads((entry / "translation.json").read_text())
    (entry / "translation.json").write_text(json.dumps({**notes, "of": store._seal(entry.name, held)}))
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = store.current_store()
    assert kept is not None and kept.get(entry.name, adapter_for(registry(), to)) is None
    assert time.process_time() - start < 10, "seconds of the processor, whatever else runs"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20 / 2, "half a gigabyte, in kilobytes"
    assert translated(make).certificate.faithful and len(conversions) == 2


def test_what_another_library_made_is_made_anew(folder: Path, conversions: list[Any]):
    """Modules of onnx2torch's own classes have no form without code."""
    exported = io.BytesIO()
    torch.onnx.export(Doubled().eval(), torch.zeros(1, 3, 9, 8), exported, dynamo=False, opset_version=13)
    graph = onnx.load_from_string(exported.getvalue())
    x = np.random.default_rng(0).normal(size=(1, 3, 9, 8)).astype(np.float32)
    for _ in range(2):
        assert cfi.translate(graph, "torch", inputs=x, translator="onnx2torch").certificate.faithful
    assert len(conversions) == 2 and not list(folder.iterdir())


def test_a_model_that_holds_what_cannot_be_read_is_not_kept(folder: Path):
    model, x, to = torch_cnn()
    model.other = object()
    assert cfi.translate(model, to, inputs=x).certificate.faithful
    assert not list(folder.iterdir())
    keras_model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=lambda x: x * 2)])
    assert cfi.translate(keras_model, "torch", inputs=np.ones((2, 4), np.float32)).certificate.faithful
    assert not list(folder.iterdir())


class Doubled(Cnn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def test_the_code_of_a_module_is_part_of_its_content():
    adapter = adapter_for(registry(), "torch")
    model = torch_cnn()[0]
    other = Doubled().eval()
    other.load_state_dict(model.state_dict())
    other.__class__.__qualname__, name = model.__class__.__qualname__, other.__class__.__qualname__
    try:
        assert adapter.content(model) != adapter.content(other)
    finally:
        Doubled.__qualname__ = name


@pytest.mark.parametrize("change", ["default", "attribute", "property", "held"])
def test_so_is_what_its_code_holds(change: str):
    adapter = adapter_for(registry(), "torch")

    def made(number: int) -> nn.Module:
        class Scaled(Cnn):
            factor = number if change == "attribute" else 0
            twice = property((lambda self: number) if change == "property" else (lambda self: 0))

            def forward(self, x: torch.Tensor, by: int = number if change == "default" else 0) -> torch.Tensor:
                return super().forward(x) * by

        model = Scaled()
        model.load_state_dict(torch_cnn()[0].state_dict())
        if change == "held":
            model.scale = lambda x: x * number
        return model.eval()

    assert adapter.content(made(2)) == adapter.content(made(2)) != adapter.content(made(3))


def test_content_of_keras_graphs_tells_them_apart():
    adapter = adapter_for(registry(), "tensorflow")

    def made(kind: str, name: str, first: int = 0) -> Any:
        inputs = [keras.Input((4,), name="a"), keras.Input((4,), name="b")]
        made = keras.layers.Subtract(name="minus")([inputs[first], inputs[1 - first]])
        return keras.Model(inputs, keras.layers.Activation(kind, name="act")(made), name=name)

    contents = [adapter.content(one) for one in (made("relu", "relu"), made("tanh", "tanh"), made("relu", "relu", 1))]
    assert None not in contents and len(set(contents)) == 3
    assert adapter.content(made("relu", "another name")) == contents[0]


_CONTENT = """
import torchvision, torch, warnings
warnings.simplefilter("ignore")
import cfi_core
from cfi_core.adapters import adapter_for
from cfi_core.registry import registry
torch.manual_seed(3)
for name in ("mobilenet_v3_small", "vit_b_16"):
    print(adapter_for(registry(), "torch").content(getattr(torchvision.models, name)()))
"""


def test_content_is_the_same_in_every_process():
    found = [
        subprocess.run(
            [sys.executable, "-c", _CONTENT],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert found[0] == found[1] and len(set(found[0])) == 2 and "None" not in found[0]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(cfi.ArgumentError, match="others may write"):
        cfi.keep_translations(shared)
    (tmp_path / "file").write_text("")
    with pytest.raises(cfi.ArgumentError, match="cannot be a folder"):
        cfi.keep_translations(tmp_path / "file")
    assert store.current_store() is None


def test_what_cannot_be_written_is_told_and_harms_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(type(adapter_for(registry(), "torch")), "save", refuse)
    with pytest.warns(cfi.TranslationWarning, match="No space left"):
        assert translated(keras_cnn).certificate.faithful
    assert not list(folder.iterdir())


def test_the_environment_may_name_the_folder(tmp_path: Path):
    code = "from cfi_core.translation import store; print(store.current_store().folder)"
    environment = {**os.environ, "CFI_TRANSLATIONS": str(tmp_path / "kept")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(tmp_path / "kept")
