"""A store in the layout of ViRelAy (Anders et al., 2021), which shows data sets of attributions in a browser.

ViRelAy is under the AGPL: nothing of it is used here, files are written that it opens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cfi_core import ArgumentError, InputError
from cfi_scale.errors import StoreError
from cfi_scale.samples import Samples
from cfi_scale.sources import open_source
from cfi_scale.store import EXPLAINED, Store, place_of

_BATCH = 64


def to_virelay(
    store: str | os.PathLike[str],
    data: Any,
    folder: str | os.PathLike[str],
    *,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    channel: int | str = "last",
    title: str = "attributions",
) -> Path:
    """Writes a project of ViRelAy: `data.h5`, `attribution.h5`, `label_map.json` and `project.yaml`.

    Samples that could not be explained are left out. Images have their channels first there; maps without channels
    get one.

    Args:
        store: A store of images that is complete.
        data: The images that it was made of, as for `explain_dataset` (not a stream), in the same order.
        folder: Where to write.
        labels: The true class of each sample; None: what was explained of it.
        class_names: Of all classes; None numbers them.
        channel: Where the channel axis of the images is: `"first"`, `"last"` (behind that of the samples), or None of
            it: `"none"`.
        title: Of the project.

    Returns:
        The path of `project.yaml`: `virelay project.yaml` opens it.

    Raises:
        ArgumentError: The store or the data are no images, or `labels` lack some.
        StoreError: The store is not complete.
    """
    try:
        import h5py
    except ImportError:
        raise ArgumentError("ViRelAy's layout is HDF5: pip install 'cfi-scale[hdf5]'.") from None
    opened = Store(place_of(store))
    samples = int(opened.own["samples"])
    if not opened.own.get("complete"):
        raise StoreError(f"{opened.path} is not complete. Finish it with explain_dataset first.")
    places = np.flatnonzero(opened.states() == EXPLAINED)
    source = open_source(data)
    if source.samples != samples:
        raise InputError(f"data have {source.samples} samples, and the store {samples}. Pass what it was made of.")
    targets = _labels(opened, samples, labels)
    names = _class_names(targets, class_names)
    made = Path(folder).expanduser()
    made.mkdir(parents=True, exist_ok=True)
    shape = _first_axes(opened.read("attribution", int(places[0]), int(places[0]) + 1), channel).shape[1:]
    form = _first_axes(np.zeros((1, *source.forms[0].shape)), channel).shape[1:]
    with h5py.File(made / "data.h5", "w") as images, h5py.File(made / "attribution.h5", "w") as values:
        images.create_dataset("data", (len(places), *form), "float32")
        images.create_dataset("label", data=targets[places].astype(np.uint16))
        values.create_dataset("attribution", (len(places), *shape), "float32")
        values.create_dataset("index", data=np.arange(len(places), dtype=np.uint32))
        values.create_dataset("label", data=targets[places].astype(np.uint16))
        values.create_dataset("prediction", data=_predictions(opened, samples, len(names))[places])
        for start in range(0, len(places), _BATCH):
            rows = places[start : start + _BATCH]
            images["data"][start : start + len(rows)] = _first_axes(_read(source, rows), channel)
            found = np.concatenate([opened.read("attribution", int(row), int(row) + 1) for row in rows])
            values["attribution"][start : start + len(rows)] = _first_axes(found, channel)
    _write_texts(made, opened, names, title)
    return made / "project.yaml"


def _labels(store: Store, samples: int, labels: Sequence[int] | None) -> np.ndarray:
    if labels is not None:
        if len(labels) != samples:
            raise ArgumentError(f"There are {samples} samples and {len(labels)} labels. Pass one for each.")
        return np.asarray(labels, np.int64)
    if "target" not in store.variables or store.variables["target"].dtype == "str":
        raise ArgumentError("What was explained is no class. Pass labels=, the class of each sample.")
    return store.read("target", 0, samples)


def _class_names(targets: np.ndarray, names: Sequence[str] | None) -> list[str]:
    found = [str(name) for name in names or ()] or [str(one) for one in range(int(targets.max()) + 1)]
    if len(found) <= int(targets.max()):
        raise ArgumentError(f"There are {len(found)} class_names, and class {int(targets.max())}. Name all classes.")
    return found


def _predictions(store: Store, samples: int, classes: int) -> np.ndarray:
    """A row for each sample, whose largest number ViRelAy takes: 1 for the class predicted; outputs are not kept."""
    if "prediction" not in store.variables:
        return np.zeros((samples, classes), np.float32)
    best = store.read("prediction", 0, samples)
    made = np.zeros((samples, max(classes, int(best.max()) + 1)), np.float32)
    made[np.flatnonzero(best >= 0), best[best >= 0]] = 1
    return made


def _read(source: Any, rows: np.ndarray) -> np.ndarray:
    found: list[Samples] = [source.read(int(row), int(row) + 1) for row in rows]
    return np.concatenate([one.arrays[0] for one in found])


def _first_axes(values: np.ndarray, channel: int | str) -> np.ndarray:
    """Samples, channels, height, width."""
    if values.ndim == 3:
        return values[:, None]
    if values.ndim != 4 or channel not in ("first", "last"):
        raise ArgumentError(f"ViRelAy shows images; these have the shape {values.shape[1:]} (channel={channel!r}).")
    return values if channel == "first" else np.moveaxis(values, -1, 1)


def _write_texts(folder: Path, store: Store, names: Sequence[str], title: str) -> None:
    """The map of labels, and the project, in YAML that JSON is a part of."""
    asked = store.own["question"]
    labels = [{"index": place, "word_net_id": name, "name": name} for place, name in enumerate(names)]
    (folder / "label_map.json").write_text(json.dumps(labels, indent=2, ensure_ascii=False))
    project = {
        "project": {
            "name": title,
            "model": asked["model"][:16],
            "label_map": "label_map.json",
            "dataset": {
                "name": title,
                "type": "hdf5",
                "path": "data.h5",
                "input_width": 0,
                "input_height": 0,
                "down_sampling_method": "none",
                "up_sampling_method": "none",
            },
            "attributions": {
                "attribution_method": asked["method_key"],
                "attribution_strategy": "predicted_label" if asked["target"] == "predicted" else "true_label",
                "sources": ["attribution.h5"],
            },
            "analyses": [],
        }
    }
    (folder / "project.yaml").write_text(json.dumps(project, indent=2, ensure_ascii=False) + "\n")
