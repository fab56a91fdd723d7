"""Models and weights of torch from files: strictly loaded, and nothing that stands in a file is run without trust."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import cfi_core as cfi
from cfi_core.testing.conformance import ModelFileConformance, assert_refused


def make() -> nn.Module:
    """A network with buffers; new weights each time."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 7))


def narrow() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 7))


def unmade() -> nn.Module:
    with torch.device("meta"):
        return make()


@pytest.fixture(autouse=True)
def _factories(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch_factories")
    vars(module).update(make=make, narrow=narrow, unmade=unmade, function=lambda: lambda x: x)
    monkeypatch.setitem(sys.modules, "torch_factories", module)


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in a file has run"


class _OfModules(ModelFileConformance):
    framework = "torch"

    def make_model(self) -> nn.Module:
        torch.manual_seed(3)
        return make().eval()

    def make_inputs(self) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(2, 3, 5, 6)).astype(np.float32)


class TestScripts(_OfModules):
    format, suffix = "TorchScript", ".pt"

    def write(self, model: Any, path: Path) -> None:
        torch.jit.trace(model, torch.zeros(2, 3, 5, 6)).save(path)


class TestPrograms(_OfModules):
    format, suffix = "an exported program", ".pt2"

    def write(self, model: Any, path: Path) -> None:
        torch.export.save(torch.export.export(model, (torch.zeros(2, 3, 5, 6),)), path)


class TestOldFiles(_OfModules):
    format, suffix = "what torch before 1.6 wrote", ".pth"

    def write(self, model: Any, path: Path) -> None:
        torch.save(model, path, _use_new_zipfile_serialization=False)


def saved(path: Path, held: Any) -> Path:
    torch.save(held, path)
    return path


def packed(path: Path, model: nn.Module) -> Path:
    safetensors.torch.save_file(model.state_dict(), path)
    return path


# weights


WRITERS: dict[str, Callable[[Path, nn.Module], Path]] = {
    "state.pt": lambda path, model: saved(path, model.state_dict()),
    "checkpoint.ckpt": lambda path, model: saved(path, {"epoch": 3, "lr": [1e-3], "state_dict": model.state_dict()}),
    "unnamed": lambda path, model: saved(path, model.state_dict()),
    "half.pth": lambda path, model: saved(
        path, {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    ),
    "safe.safetensors": packed,
}


@pytest.mark.parametrize("factory", ["make", "unmade"])
@pytest.mark.parametrize("name", WRITERS)
def test_weights_are_those_of_the_file_and_the_model_is_in_evaluation_mode(tmp_path, name, factory):
    model = make().half().float() if name.startswith("half") else make()
    path = WRITERS[name](tmp_path / name, model)
    found = cfi.load_model(f"torch_factories:{factory}", weights=path)
    assert not found.training and type(found) is nn.Sequential
    for key, value in model.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key].to(value.dtype), value, rtol=0, atol=0)


def test_views_of_one_storage_are_loaded_as_they_are(tmp_path):
    """Transposed, expanded and tied weights share what the file holds."""
    base, state = torch.randn(48, 7), make().state_dict()
    state["4.weight"], state["0.bias"] = base.T, torch.randn(1).expand(4)
    found = cfi.load_model("torch_factories:make", weights=saved(tmp_path / "a.pt", state)).state_dict()
    torch.testing.assert_close(found["4.weight"], base.T, rtol=0, atol=0)
    torch.testing.assert_close(found["0.bias"], state["0.bias"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "write", [lambda path, state: saved(path, state), lambda path, state: safetensors.torch.save_file(state, path)]
)
def test_every_weight_must_be_there_and_of_the_models_shape_before_any_is_loaded(tmp_path, write):
    path = tmp_path / "weights"
    model = make()

    def refused(change: Callable[[dict[str, torch.Tensor]], Any]) -> str:
        state = dict(model.state_dict())
        change(state)
        write(path, state)
        return str(assert_refused("torch_factories:make", weights=path))

    assert "the file lacks '0.bias'" in refused(lambda state: state.pop("0.bias"))
    assert "the model has no 'more'" in refused(lambda state: state.update(more=torch.zeros(2)))
    text = refused(lambda state: state.update({"4.weight": torch.zeros(7, 40)}))
    assert "'4.weight' is (7, 48) in the model and (7, 40) in the file" in text
    text = refused(lambda state: state.update({"0.bias": torch.zeros(4, dtype=torch.int8)}))
    assert "'0.bias' is torch.float32 in the model and torch.int8 in the file" in text
    text = refused(lambda state: [state.update({f"module.{key}": state.pop(key)}) for key in list(state)])
    assert "All names in the file begin with 'module.'" in text


def test_a_refusal_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    sys.modules["torch_factories"].ready = model
    assert_refused("torch_factories:ready", weights=saved(tmp_path / "a.pt", narrow().state_dict()))
    assert model.training
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_what_holds_no_weights_or_several_is_told(tmp_path):
    state = make().state_dict()
    two = str(assert_refused("torch_factories:make", weights=saved(tmp_path / "a.pt", {"model": state, "ema": state})))
    assert "'model', 'ema'" in two
    assert "none" in str(assert_refused("torch_factories:make", weights=saved(tmp_path / "b.pt", {"epoch": 3})))
    assert "none" in str(assert_refused("torch_factories:make", weights=saved(tmp_path / "c.pt", torch.zeros(3))))
    whole = str(assert_refused("torch_factories:make", weights=saved(tmp_path / "d.pt", make())))
    assert "torch.nn.modules.container.Sequential" in whole and "state_dict()" in whole
    text = str(assert_refused("torch_factories:function", weights=saved(tmp_path / "e.pt", state)))
    assert "Let the factory load them" in text


def test_weights_without_a_model_say_what_is_missing(tmp_path):
    state = make().state_dict()
    for path in (saved(tmp_path / "a.pt", state), saved(tmp_path / "b.pt", {"state_dict": state})):
        for trust in (False, True):
            text = str(assert_refused(path, trust=trust))
            assert "a state dict" in text and "'package.module:factory', weights=" in text
    text = str(assert_refused(packed(tmp_path / "c.safetensors", make())))
    assert "no model" in text and "package.module:factory" in text


def test_a_whole_module_is_read_by_those_who_trust_it(tmp_path):
    model = make().eval()
    path = saved(tmp_path / "a.pt", model)
    error = assert_refused(path)
    assert isinstance(error, cfi.UntrustedFileError)
    assert "torch.nn.modules.container.Sequential" in str(error) and "trust=True" in str(error)
    found = cfi.load_model(path, trust=True)
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(found(x), model(x), rtol=0, atol=0)


def test_what_is_loaded_is_explained(tmp_path):
    model = cfi.load_model("torch_factories:make", weights=saved(tmp_path / "a.pt", make().state_dict()))
    assert [layer.name for layer in cfi.layers(model)] == ["0", "1", "2", "3", "4"]


# files from strangers


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], how: int = zipfile.ZIP_STORED) -> Path:
    """A state dict as torch writes it, with other members."""
    made = io.BytesIO()
    torch.save(make().state_dict(), made)
    with zipfile.ZipFile(made) as held:
        members = {name: held.read(name) for name in held.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def with_pickle(data: bytes) -> Callable[[Path, Path], Path]:
    return lambda path, canary: repacked(path, lambda members: members.update({"archive/data.pkl": data}))


def op(*parts: bytes | str) -> bytes:
    return b"\x80\x02" + b"".join(part.encode() if isinstance(part, str) else part for part in parts) + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, key: str = "0") -> bytes:
    reference = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(4) + b"tQ"
    given = reference + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + given + b"tR"


def state(**tensors: bytes) -> bytes:
    return op(b"}(", *(part for name, value in tensors.items() for part in (text(name), value)), b"u")


def bomb(name: str) -> Callable[[Path, Path], Path]:
    """A call of something in the pickle, with a command to write the canary."""

    def write(path: Path, canary: Path) -> Path:
        module, _, function = name.partition(":")
        command = f"open({str(canary)!r}, 'w').close()" if function in ("exec", "eval") else f"touch {canary}"
        data = op(f"c{module}\n{function}\n", text(command), b"\x85R")
        return with_pickle(data)(path, canary)

    return write


def deep_key(path: Path, canary: Path) -> Path:
    """A tuple of tuples whose hash takes 2^100 steps, as a key."""
    nested = b")q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(100))
    return with_pickle(op(b"}", nested, b"h\x00K\x01s"))(path, canary)


def old(path: Path, canary: Path) -> Path:
    """The form before torch 1.6, in which a pickle comes first."""

    class Bomb:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(canary)!r}, 'w').close()",)

    torch.save(Bomb(), path, _use_new_zipfile_serialization=False)
    return path


def plain_pickle(path: Path, canary: Path) -> Path:
    path.write_bytes(op("cposix\nsystem\n", text(f"touch {canary}"), b"\x85R"))
    return path


def script(path: Path, canary: Path) -> Path:
    """TorchScript, whose operators write files."""

    class Saves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.script(Saves()).save(path)
    return path


def with_header(header: Any, length: int | None = None, body: bytes = b"") -> Callable[[Path, Path], Path]:
    def write(path: Path, canary: Path) -> Path:
        data = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes((len(data) if length is None else length).to_bytes(8, "little") + data + body)
        return path

    return write


def claimed(shape: list[int], end: int) -> dict[str, Any]:
    return {
        name: {"dtype": "F32", "shape": list(value.shape), "data_offsets": [0, end]}
        for name, value in make().state_dict().items()
    } | {"0.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


STRANGERS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "calls os.system": (bomb("posix:system"), "posix.system"),
    "calls exec": (bomb("builtins:exec"), "builtins.exec"),
    "calls eval, by its old name": (bomb("__builtin__:eval"), "__builtin__.eval"),
    "calls torch.hub.load": (bomb("torch.hub:load"), "torch.hub.load"),
    "calls getattr": (bomb("builtins:getattr"), "builtins.getattr"),
    "imports a module": (bomb("no_such_module_to_import:run"), "no_such_module_to_import.run"),
    "builds an object": (with_pickle(op(b"cpathlib\nPath\n)\x81}b")), "pathlib.Path"),
    "an instruction that torch does not write": (with_pickle(op("(ios\nsystem\n")), "INST"),
    "a name from the stack": (with_pickle(op(text("posix"), text("system"), b"\x93")), "STACK_GLOBAL"),
    "a registered extension": (with_pickle(op(b"\x82\x01")), "EXT1"),
    "a pickle that is cut off": (with_pickle(b"\x80\x02}"), "broken|no end"),
    "a pickle of nothing": (with_pickle(b""), "broken|no end"),
    "a stack that is empty": (with_pickle(op(b"R")), "broken|way of its own|holds"),
    "a mark that is missing": (with_pickle(op(b"t")), "broken"),
    "a memo that is missing": (with_pickle(op(b"h\x07")), "broken"),
    "a memo of billions": (with_pickle(op(b"}r\xff\xff\xff\xff")), "none|no model"),
    "a key of 2^100 parts": (deep_key, "key"),
    "a text of gigabytes": (with_pickle(b"\x80\x02X\xff\xff\xff\xffabc."), "broken"),
    "millions of values": (with_pickle(op(b"]" + b"(NNNNe" * 1_000_000)), "millions"),
    "a tensor larger than its values": (with_pickle(state(x=tensor((10**12,), (1,)))), "larger than its values"),
    "a tensor of negative size": (with_pickle(state(x=tensor((-4,), (1,)))), "no shape"),
    "a tensor of negative strides": (with_pickle(state(x=tensor((4,), (-(10**9),)))), "no shape"),
    "a tensor beyond its values": (with_pickle(state(x=tensor((4,), (1,), offset=10**15))), "larger than its values"),
    "a tensor of a terabyte from one value": (with_pickle(state(x=tensor((10**12,), (0,)))), "lacks|a state dict"),
    "a storage that is not there": (with_pickle(state(x=tensor((4,), (1,), key="../../etc/passwd"))), "not in it"),
    "two pickles": (
        lambda path, canary: repacked(path, lambda members: members.update({"other/data.pkl": b"\x80\x02N."})),
        "several pickles",
    ),
    "packed members": (lambda path, canary: repacked(path, lambda members: None, zipfile.ZIP_DEFLATED), "packed"),
    "a bomb of zeros": (
        lambda path, canary: repacked(
            path, lambda members: members.update({"archive/data/0": bytes(2**28)}), zipfile.ZIP_DEFLATED
        ),
        "packed",
    ),
    "a pickle alone": (plain_pickle, "a pickle"),
    "a pickle as before torch 1.6": (old, "before 1.6"),
    "TorchScript": (script, "TorchScript"),
    "a header of gigabytes": (with_header(b'{"a":1}', length=2**34), "header|is named like|no model"),
    "a header longer than the file": (with_header(b'{"a":1}', length=2**20), "claims a header|no model"),
    "a header of many parts": (with_header(b'{"a":' + b"[" * 2_000_000), "too many parts|no model"),
    "a header that is deep": (with_header(b'{"a":' + b"[" * 200_000), "says no weights|no model"),
    "a header of numbers": (with_header(b'{"a": 1, "b": 2}'), "says no weights|no model"),
    "weights of a terabyte": (with_header(claimed([10**12], 4 * 10**12)), "in the file|no model"),
    "weights that are not there": (with_header(claimed([4, 3, 3, 3], 432)), "cannot be read|no model"),
    "weights in each other's place": (
        with_header(claimed([4, 3, 3, 3], 432), body=bytes(432)),
        "cannot be read|no model",
    ),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_files_from_strangers_are_refused_as_models_and_as_weights(tmp_path, canary, kind):
    make_file, words = STRANGERS[kind]
    (tmp_path / "a").mkdir()
    path = make_file(tmp_path / "a" / "stranger", canary)
    for suffix in ("", ".pt", ".safetensors", ".keras"):
        named = path.rename(path.with_suffix(suffix))
        modules = {*sys.modules}
        texts = [str(assert_refused(named)), str(assert_refused("torch_factories:make", weights=named))]
        if suffix == "":
            assert all(cfi_words(words, one) for one in texts), texts
        assert all(len(one) < 2_000 for one in texts)
        assert "no_such_module_to_import" not in sys.modules
        assert not {
            name for name in {*sys.modules} - modules if "." not in name and name not in sys.stdlib_module_names
        }
        path = named


def cfi_words(words: str, text: str) -> bool:
    return any(word in text for word in (*words.split("|"), "holds no weights for a model of torch"))


def test_the_files_above_would_run_code_if_they_were_unpickled(tmp_path):
    """So that the tests above see what would have run."""
    done = tmp_path / "done"
    with zipfile.ZipFile(bomb("builtins:exec")(tmp_path / "a.pt", done)) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert done.exists()
