"""`.npz` files: what is written comes back as it was, numpy alone reads it, and what is no such file is refused."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.archive import FREE_SIZE, MOST_METADATA, write_npz
from cfi_core.attribution import Attribution
from cfi_core.certificate import Certificate, Divergence, Measurement
from cfi_core.distance import Apart, Sizes
from cfi_core.exact import Encoder, decode
from cfi_core.specs import Kind
from cfi_core.testing import fake, use_plugins

VALUES = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
DIMS = ("sample", "height", "width")
PROVENANCE = {
    "seed": 7,
    "kind": Kind.LAYER,
    "seconds": np.float32(0.1),
    "shape": (1, 2),
    "nested": {"on": True, "off": None, 3: b"x", "pair": [(), {"$tuple": "mine"}]},
    "ends": {math.inf, -math.inf},
    "per sample": np.array([0.25, np.nan]),
}


def attribution(**facts: Any) -> Attribution:
    return Attribution(**({"values": VALUES, "dims": DIMS, "method_key": "saliency", "toolset": "press"} | facts))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays.pop("metadata")))


def back(tmp_path: Path, **facts: Any) -> Attribution:
    return cfi.load(attribution(**facts).save(tmp_path / "a.npz"))


# for numpy


def test_numpy_alone_reads_what_is_written(tmp_path: Path) -> None:
    extras = {"delta": np.array([0.25]), "ratio": 0.5, "made by": len, "figure": object, "note": "µ"}
    inputs = {"inputs": (VALUES + 1,), "input_dims": (DIMS,)}
    write_npz(
        attribution(target=np.array([1, 2]), layer="conv", route=("there", "back"), extras=extras, **inputs),
        tmp_path / "a.npz",
    )
    arrays, metadata = read(tmp_path / "a.npz")
    assert arrays["values"].dtype == np.float32
    np.testing.assert_array_equal(arrays.pop("values"), VALUES)
    np.testing.assert_array_equal(arrays.pop("inputs_0"), VALUES + 1)
    np.testing.assert_array_equal(arrays.pop("extras_delta"), [0.25])
    np.testing.assert_array_equal(arrays.pop("target"), [1, 2])
    assert not arrays
    assert metadata == {
        "format": "cfi attribution",
        "version": 2,
        "method_key": "saliency",
        "toolset": "press",
        "route": ["there", "back"],
        "layer": "conv",
        "dims": list(DIMS),
        "input_dims": [list(DIMS)],
        "feature_names": None,
        "values": {"$array": "values"},
        "inputs": {"$tuple": [{"$array": "inputs_0"}]},
        "target": {"$array": "target"},
        "extras": {
            "delta": {"$array": "extras_delta"},
            "ratio": 0.5,
            "made by": {"$repr": "<built-in function len>"},
            "note": "µ",
        },
        "provenance": {},
        "certificate": None,
    }


def test_the_path_is_taken_as_it_is(tmp_path: Path) -> None:
    write_npz(attribution(), tmp_path / "A.NPZ")
    assert [path.name for path in tmp_path.iterdir()] == ["A.NPZ"]
    np.testing.assert_array_equal(cfi.load(tmp_path / "A.NPZ").values, VALUES)


def test_an_array_that_no_file_holds_is_refused_before_there_is_one(tmp_path: Path) -> None:
    rows = np.zeros(2, [("a", int)])
    with pytest.raises(cfi.PlotError, match=r"a\.npz: extras_rows is an array of .*, for which there is no place"):
        attribution(extras={"rows": rows}).save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_read_back_however_well_it_is_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfi_core.archive.FREE_SIZE", 1000)
    zeros = np.zeros((1, 1000, 1000), np.float32)
    path = attribution(values=zeros).save(tmp_path / "a.npz")
    assert path.stat().st_size > zeros.nbytes and not cfi.load(path).values.any()


def test_more_names_than_are_read_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfi_core.archive.MOST_METADATA", 1000)
    with pytest.raises(cfi.PlotError, match=r"at most 1,000 are read back\. Write fewer samples"):
        attribution(feature_names=("name" * 100,) * 3).save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


# and back


def same(one: Any, other: Any) -> None:
    """Of the same types too."""
    if isinstance(other, str):
        assert one == other
        return
    assert type(one) is type(other)
    np.testing.assert_equal(one, other)


def test_everything_comes_back(tmp_path: Path) -> None:
    extras = {"delta": np.array([0.25]), "ratio": 0.5, "table": {"a": np.arange(3)}, "both": (VALUES, VALUES[0])}
    found = back(
        tmp_path,
        target=[1, "cat"],
        layer=("conv", "head"),
        route=("there",),
        provenance=PROVENANCE,
        extras=extras,
        inputs=(VALUES, np.array([["a", None, 1.5, date(2026, 1, 2), datetime(2026, 1, 2, 3)]], object)),
        input_dims=(DIMS, ("sample", "feature")),
        feature_names=(("a", "b", "c"), ("d", "e", "f")),
    )
    assert found.values.dtype == np.float32 and found.dims == DIMS and found.target == [1, "cat"]
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.layer == ("conv", "head") and found.route == ("there",) and found.method_key == "saliency"
    assert found.provenance.keys() == PROVENANCE.keys() and found.extras.keys() == extras.keys()
    for name, value in [*PROVENANCE.items(), *extras.items()]:
        same({**found.provenance, **found.extras}[name], value)
    assert found.provenance["seconds"].dtype == np.float32 and type(found.provenance["shape"]) is tuple
    np.testing.assert_array_equal(found.inputs[0], VALUES)
    assert found.inputs[1].tolist() == [["a", None, 1.5, date(2026, 1, 2), datetime(2026, 1, 2, 3)]]
    assert found.input_dims == (DIMS, ("sample", "feature"))
    assert found.feature_names == (("a", "b", "c"), ("d", "e", "f")) and repr(found).endswith(
        "a b c and other samples>"
    )


def test_several_arrays_come_back_by_place_or_name(tmp_path: Path) -> None:
    pair = back(tmp_path, values=(VALUES, VALUES[0]), dims=(DIMS, DIMS[1:]), feature_names=(("a", "b", "c"), None))
    assert isinstance(pair.values, tuple) and pair.dims == (DIMS, DIMS[1:]) and pair.part_names[1] is None
    np.testing.assert_array_equal(pair.values[1], VALUES[0])
    assert set(read(tmp_path / "a.npz")[0]) == {"values_0", "values_1"}
    named = {"x/y": VALUES, "x_y": VALUES + 1, "file": VALUES[0]}
    found = back(tmp_path, values=named, dims={"x/y": DIMS, "x_y": DIMS, "file": DIMS[1:]})
    assert list(found.values) == list(named) and found.dims["file"] == DIMS[1:]
    for name, values in named.items():
        np.testing.assert_array_equal(found.values[name], values)


@pytest.mark.parametrize(
    "target",
    [
        None,
        3,
        "cat",
        (0, slice(1, 3, None), 2),
        np.array([1, 2]),
        cfi.targets.class_("cat"),
        cfi.targets.difference("cat", 3),
        cfi.targets.mask(np.eye(3, dtype=bool), "road"),
        cfi.targets.box(iou_with=(0.0, 0.0, 2.0, 3.0), label=1),
        cfi.targets.token(-1, 7),
        cfi.targets.mean(),
    ],
)
def test_targets_come_back(tmp_path: Path, target: Any) -> None:
    found = back(tmp_path, target=target).target
    assert type(found) is type(target) and repr(found) == repr(target)
    np.testing.assert_equal(found, target)


def test_what_no_file_holds_prints_as_it_did(tmp_path: Path) -> None:
    found = back(tmp_path, target=len, extras={"made by": [len]})
    assert repr(found.target) == "<built-in function len>" and repr(found.extras["made by"]) == f"[{len!r}]"
    again = cfi.load(found.save(tmp_path / "b.npz"))
    assert again.target == found.target


def test_a_certificate_prints_the_same(tmp_path: Path) -> None:
    measured = Measurement("your inputs", 3, 1e-7 / 3, np.float64(2e-7), 0.1, 1.0, None, None)
    certificate = Certificate(
        (measured, Measurement("random inputs", 2, math.inf, math.nan, 0.1, 1.0, 0.25, 1 / 3)),
        gradient_floor=1e-6 / 7,
        in_double=(measured,),
        faults=("outputs differ",),
        notes=("a note",),
        layers_found=3,
        layers_total=np.int64(4),
        divergence=Divergence("conv", "conv_1", 0.5),
        floor=Apart(1e-7, 2e-7, 3e-7),
        in_single=True,
        sizes=Sizes((), (), ()),
    )
    found = back(tmp_path, certificate=certificate).certificate
    assert str(found) == str(certificate) and found.report() == certificate.report()
    assert found.floor == certificate.floor and found.measurements[0] == measured and found.sizes is None


def test_a_call_comes_back(tmp_path: Path, painting: Any, images: np.ndarray) -> None:
    made = cfi.attribute(painting, "press_gradient", inputs=images, target=[3, 1], seed=0)
    found = cfi.load(made.save(tmp_path / "a.npz"))
    np.testing.assert_equal(dict(found.provenance), dict(made.provenance))
    np.testing.assert_array_equal(found.values, made.values)
    np.testing.assert_array_equal(found.inputs[0], made.inputs[0])
    assert str(found.certificate) == str(made.certificate) and repr(found) == repr(made)
    assert found.metadata == made.metadata and json.loads(json.dumps(found.metadata)) == found.metadata


def test_a_loaded_one_goes_where_what_is_installed_leads(tmp_path: Path) -> None:
    with use_plugins(fake):
        found = back(tmp_path)
        with pytest.raises(cfi.PlotError, match="pip install cfi-matplotlib"):
            found.plot()
        assert cfi.load(found.save(tmp_path / "b.npz")).values.shape == VALUES.shape


@pytest.mark.parametrize(
    "value", [2**70, 1 + 2j, b"\0\xff", range(1, 7, 2), np.datetime64("2026-01-02"), frozenset("ab")]
)
def test_values_of_other_types(value: Any) -> None:
    encoder = Encoder()
    found = decode(json.loads(json.dumps(encoder.encode({"x": value}, "x"))), encoder.arrays)["x"]
    assert type(found) is type(value) and found == value


def test_times_of_pandas_come_back_or_print_alike() -> None:
    pandas = pytest.importorskip("pandas")
    encoder = Encoder()
    times = [
        "2026-01-02",
        "2026-01-02T03:04:05.678901",
        "2026-01-02T03:04:05.678901234",
        None,
        "2026-01-02T03:04+02:00",
    ]
    cells = [pandas.Timestamp(time) for time in times]
    found = decode(json.loads(json.dumps(encoder.encode(cells, "x"))), encoder.arrays)
    assert [found[place] == cells[place] for place in (0, 1, 4)] == [True] * 3
    assert repr(found[2]) == repr(cells[2]) and repr(found[3]) == "NaT"


# from strangers


def packed(path: Path, arrays: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data, **options)
    return path


def as_npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(shape: str, descr: str = "<f4", version: int = 1) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + b"\n"


def good(**changes: Any) -> dict[str, bytes]:
    encoder = Encoder()
    metadata: dict[str, Any] = {
        "format": "cfi attribution",
        "version": 2,
        "method_key": "m",
        "toolset": "t",
        "route": [],
    }
    metadata |= {"layer": None, "dims": list(DIMS), "input_dims": [], "feature_names": None, "target": None}
    metadata |= {"values": encoder.encode(VALUES, "values"), "inputs": {"$tuple": []}, "extras": {}, "provenance": {}}
    metadata |= {"certificate": None} | changes
    metadata = {name: value for name, value in metadata.items() if value is not ...}
    return {"metadata": as_npy(np.array(json.dumps(metadata))), "values": as_npy(VALUES)}


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


LONG = MOST_METADATA // 4 + 1
MEASURED = {
    "samples_of": "x",
    "samples": 1,
    "output_difference": "1e9",
    "column_difference": 0,
    "largest_difference": 0,
}

HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "objects": (lambda path: packed(path, {**good(), "values": as_npy(np.array([Evil()], object))}), "holds object"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(Evil())), "no file that Attribution.save wrote"),
    "text": (lambda path: path.write_text("values = 3"), "damaged, or no file"),
    "empty": (lambda path: path.write_bytes(b""), "damaged, or no file"),
    "one array": (lambda path: path.write_bytes(as_npy(VALUES)), "damaged, or no file"),
    "foreign": (lambda path: packed(path, {"x": as_npy(VALUES)}), "holds no attribution; numpy.load reads"),
    "foreign metadata": (
        lambda path: packed(path, {"metadata": as_npy(np.array('{"a": 1}'))}),
        "version None, and this is a CFI that reads version 2",
    ),
    "numbers as metadata": (lambda path: packed(path, {"metadata": as_npy(np.zeros(3))}), "holds no attribution"),
    "another format": (lambda path: packed(path, good(format="png")), "holds no attribution"),
    "earlier": (lambda path: packed(path, good(format=..., version=...)), "an earlier version of CFI wrote it"),
    "later": (lambda path: packed(path, good(version=3)), "its format is version 3, and .*: update it"),
    "version in words": (lambda path: packed(path, good(version="two")), "version 'two'"),
    "no values": (lambda path: packed(path, {"metadata": good()["metadata"]}), "KeyError: 'values'"),
    "no dims": (lambda path: packed(path, good(dims=...)), "KeyError: 'dims'"),
    "no provenance": (lambda path: packed(path, good(provenance=...)), "KeyError: 'provenance'"),
    "two axes of three": (lambda path: packed(path, good(dims=["sample", "width"])), "are not those of its values"),
    "axes that are numbers": (lambda path: packed(path, good(dims=[1, 2, 3])), "are not those of its values"),
    "values in words": (lambda path: packed(path, good(values="many")), "are not those of its values"),
    "a mapping beside a tuple": (lambda path: packed(path, good(values={"a": {"$array": "values"}})), "values are not"),
    "names that are numbers": (lambda path: packed(path, good(feature_names=[1, 2])), "feature_names are not"),
    "no names": (lambda path: packed(path, good(feature_names=[])), "feature_names are not"),
    "names of other arrays": (lambda path: packed(path, good(feature_names={"x": ["a"]})), "feature_names are not"),
    "names in part": (lambda path: packed(path, good(feature_names=[["a"], "b"])), "feature_names are not"),
    "a certificate in words": (lambda path: packed(path, good(certificate="faithful")), "certificate are not"),
    "a certificate of words": (
        lambda path: packed(path, good(certificate={"$Certificate": {"measurements": {"$tuple": ["faithful"]}}})),
        "measurements of a Certificate is tuple",
    ),
    "a measurement in words": (
        lambda path: packed(path, good(certificate={"$Measurement": MEASURED})),
        "output_difference of a Measurement is str",
    ),
    "an unknown type": (lambda path: packed(path, good(extras={"x": {"$Popen": "ls"}})), "holds a 'Popen'"),
    "a type of objects": (
        lambda path: packed(path, good(target={"$scalar": ["|O", 1]})),
        "object is no type of numbers",
    ),
    "cells that are missing": (
        lambda path: packed(path, good(target={"$objects": [[10**9], []]})),
        "no table of shape",
    ),
    "a shape beyond the file": (
        lambda path: packed(path, {**good(), "values": header("(10**12,)")}),
        "cannot be loaded",
    ),
    "a large shape": (lambda path: packed(path, {**good(), "values": header("(1000000000000,)")}), "holds 0 bytes"),
    "a negative shape": (lambda path: packed(path, {**good(), "values": header("(-1, -4)") + b"x" * 16}), "says shape"),
    "no bytes an element": (lambda path: packed(path, {**good(), "values": header("(9999999,)", "|V0")}), "holds .V0"),
    "wide text": (lambda path: packed(path, {**good(), "values": header("(1,)", "<U99999999")}), "holds 0 bytes"),
    "a header of version 3": (lambda path: packed(path, {**good(), "values": b"\x93NUMPY\x03\0"}), "unknown format"),
    "a header that is long": (
        lambda path: packed(path, {**good(), "values": header(f"({'1,' * 9000})", version=2)}),
        "cannot be loaded",
    ),
    "a header that is code": (lambda path: packed(path, {**good(), "values": header("print(1)")}), "cannot be loaded"),
    "deep metadata": (
        lambda path: packed(path, {**good(), "metadata": as_npy(np.array("[" * 200_000))}),
        "RecursionError",
    ),
    "a number of many digits": (
        lambda path: packed(path, {**good(), "metadata": as_npy(np.array("1" * 100_000))}),
        "cannot be loaded",
    ),
    "broken metadata": (lambda path: packed(path, {**good(), "metadata": as_npy(np.array('{"format'))}), "JSONDecode"),
    "names twice": (lambda path: twice(path), "arrays, of"),
    "flipped bits": (lambda path: flipped(path), "damaged, or no file"),
    "truncated": (lambda path: path.write_bytes(packed(path, good()).read_bytes()[:-400]), "damaged, or no file"),
    "half of it": (lambda path: path.write_bytes(packed(path, good()).read_bytes()[:200]), "damaged, or no file"),
    "an unknown compression": (lambda path: compressed_otherwise(path), "does not write"),
    "a slow compression": (lambda path: packed(path, good(), compress_type=zipfile.ZIP_LZMA), "does not write"),
    "a bomb": (lambda path: bomb(path, FREE_SIZE + 2**20), "bytes unpacked, and .* are the most"),
    "a bomb that says it is small": (lambda path: lying_bomb(path), "cannot be loaded"),
    "long metadata": (
        lambda path: packed(
            path, {**good(), "metadata": header("()", f"<U{MOST_METADATA}") + bytes(4 * MOST_METADATA)}
        ),
        "unpacked|metadata take",
    ),
}


def twice(path: Path) -> None:
    data = packed(path, {**good(), "valued": good()["values"]}).read_bytes()
    path.write_bytes(data.replace(b"valued.npy", b"values.npy"))


def flipped(path: Path) -> None:
    data = bytearray(packed(path, good()).read_bytes())
    for place in range(120, 400):
        data[place] ^= 0x55
    path.write_bytes(data)


def compressed_otherwise(path: Path) -> None:
    data = packed(path, good()).read_bytes()
    path.write_bytes(data.replace(b"\x08\0", b"\x63\0"))


def bomb(path: Path, size: int) -> None:
    """Zeros, which take a thousandth of their room."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.npy", good()["metadata"])
        with archive.open("values.npy", "w") as file:
            file.write(header(f"({size // 4},)"))
            for _ in range(size // 2**20):
                file.write(bytes(2**20))


def lying_bomb(path: Path) -> None:
    """The directory says that there are few bytes."""
    bomb(path, 2**26)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2") + 24
    data[place : place + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_attribution_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, reason = HOSTILE[kind]
    make(tmp_path / "a.npz")
    tracemalloc.start()
    try:
        with pytest.raises(cfi.ArgumentError, match=r"(?s)^'a\.npz' cannot be loaded: ") as error:
            cfi.load("a.npz")
        assert tracemalloc.get_traced_memory()[1] < FREE_SIZE
    finally:
        tracemalloc.stop()
    assert error.match(reason) and len(str(error.value)) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_the_file_that_the_hostile_ones_are_made_of_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(cfi.load(packed(tmp_path / "a.npz", good())).values, VALUES)
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    assert zlib.crc32(damaged) != 0


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.html", "a.txt", "a"])
def test_pictures_hold_no_values(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG")
    with pytest.raises(cfi.ArgumentError, match=r"hold no values: write the attribution with save\('a\.npz'\)"):
        cfi.load(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cfi.load(tmp_path / "a.npz")
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(cfi.ArgumentError, match="is no file"):
        cfi.load(tmp_path / "b.npz")
