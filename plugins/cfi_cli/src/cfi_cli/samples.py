"""INPUT on the command line: pictures, arrays and tables, as a model takes them.

Pictures are turned as their camera held them, made of the model's size and channels, and scaled as `--preprocess` says:
the numbers of a model say nothing about what it was trained on, so that has to be said.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import cfi_core as cfi
from cfi_cli.models import Loaded, find_object
from cfi_cli.terminal import say
from cfi_core.adapters import as_array
from cfi_core.errors import FOREIGN, summary
from cfi_core.registry import registry

ARRAYS, TABLES = (".npy", ".npz"), (".csv", ".tsv")
PRESET_SIZE = 224
_COLOURS, _GREY = 3, 1
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_CAFFE_MEAN = np.array([103.939, 116.779, 123.68])  # of blue, green and red

PRESETS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "imagenet": lambda pixels: (pixels / 255 - _MEAN) / _DEVIATION,
    "caffe": lambda pixels: pixels[..., ::-1] - _CAFFE_MEAN,
    "unit": lambda pixels: pixels / 255,
    "symmetric": lambda pixels: pixels / 127.5 - 1,
    "pixels": lambda pixels: pixels,
}
"""How the values 0 to 255 become what a model takes; of arrays whose last axis holds red, green and blue, or grey.

imagenet: torchvision's; caffe: blue, green, red less their means (keras.applications' VGG and ResNet); unit: 0 to 1;
symmetric: -1 to 1; pixels: as they are.
"""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """On which samples, and how they are made for the model."""

    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT", help="Pictures, .npy, .npz (arrays by name) or .csv.", show_default=False),
    ] = None
    preprocess: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How pictures are scaled: imagenet, caffe, unit (0 to 1), symmetric (-1 to 1), pixels (0 to 255), or "
            "FILE.py:FUNCTION, which gets a PIL image and returns what the model takes of one sample.",
        ),
    ] = None
    size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Of the picture that the model gets; else as it declares.")
    ] = None
    fit: Annotated[str, typer.Option(metavar="HOW", help="crop (the middle) or stretch, where the shape differs.")] = (
        "crop"
    )
    channels: Annotated[
        str | None, typer.Option(metavar="WHERE", help="first or last, where the model does not tell.")
    ] = None
    grey: Annotated[bool, typer.Option("--grey", help="One channel, where the model does not tell.")] = False

    def read(self, loaded: Loaded) -> Samples | None:
        """The samples; None if no file was named.

        Raises:
            CFIError: A file cannot be read, or does not fit the others.
        """
        paths = tuple(self.inputs or ())
        if not paths:
            return None
        if absent := [path for path in paths if not path.is_file()]:
            raise cfi.InputError(f"There is no file {str(absent[0])!r}.")
        kinds = {_kind(path) for path in paths}
        if len(kinds) > 1:
            raise cfi.InputError(f"INPUT mixes {' and '.join(sorted(kinds))}; name files of one kind.")
        kind = kinds.pop()
        if kind != "pictures" and (idle := self._of_pictures()):
            raise cfi.ArgumentError(
                f"{idle} is for pictures, and {paths[0]} holds {kind}, which go to the model as they are: leave it out."
            )
        return _read_pictures(paths, self, loaded) if kind == "pictures" else _READERS[kind](paths)

    def _of_pictures(self) -> str:
        """The options that are given and say how pictures are read."""
        given = {"--preprocess": self.preprocess, "--size": self.size, "--channels": self.channels, "--grey": self.grey}
        return ", ".join(name for name, value in given.items() if value)


@dataclass(frozen=True, eq=False)
class Samples:
    """What a model is explained on.

    Attributes:
        values: What `cfi.attribute` takes as `inputs`.
        names: Of the samples, to tell them apart.
        pictures: The pictures behind them, `(height, width, 3)` of bytes, as the model sees them cut; none otherwise.
        features: Names of the columns of a table.
        told: How they were made, in words.
    """

    values: Any
    names: tuple[str, ...]
    pictures: tuple[np.ndarray, ...] = ()
    features: tuple[str, ...] | None = None
    told: str = ""


@dataclass(frozen=True)
class Layout:
    """What pictures a model takes."""

    height: int | None
    width: int | None
    colours: int
    first: bool  # whether the channel axis is in front of height and width


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "arrays" if suffix in ARRAYS else "tables" if suffix in TABLES else "pictures"


# pictures


def _read_pictures(paths: Sequence[Path], options: DataOptions, loaded: Loaded) -> Samples:
    names, how = _unique_names(paths), options.preprocess
    if how is None:
        known = ", ".join(PRESETS)
        raise cfi.InputError(
            f"It must be said how the model takes pictures: --preprocess with one of {known}, or FILE.py:FUNCTION."
        )
    if ":" in how:
        opened = [open_picture(path) for path in paths]
        made = [_call(how, image) for image in opened]
        shapes = {array.shape for array in made}
        if len(shapes) > 1:
            raise cfi.InputError(
                f"{how} makes samples of several shapes ({', '.join(map(str, shapes))}); it must make one."
            )
        return Samples(np.stack(made), names, tuple(map(np.asarray, opened)), told=f"by {how}")
    if how not in PRESETS:
        raise cfi.ArgumentError(f"--preprocess {how!r} is none of {', '.join(PRESETS)}, and no FILE.py:FUNCTION.")
    layout = _layout(options, loaded)
    cut = [_cut(open_picture(path, layout.colours == _GREY), layout, options.fit) for path in paths]
    if len({image.size for image in cut}) > 1:
        raise cfi.InputError("The pictures are of several sizes, and the model declares none: say --size 224, or HxW.")
    pixels = np.stack([np.asarray(image).reshape(image.height, image.width, layout.colours) for image in cut])
    if how in ("imagenet", "caffe") and layout.colours == _GREY:
        raise cfi.ArgumentError(f"--preprocess {how} is for three colours, and the model takes one channel.")
    values = PRESETS[how](pixels.astype(np.float64)).astype(np.float32)
    if loaded.adapter.declares_integer(loaded.native, 0):
        values = _whole(values, how)
    shown = tuple(np.asarray(image.convert("RGB")) for image in cut)
    told = f"{cut[0].height} x {cut[0].width}, {options.fit}, {how}, channels {'first' if layout.first else 'last'}"
    return Samples(np.moveaxis(values, -1, 1) if layout.first else values, names, shown, told=told)


def _whole(values: np.ndarray, how: str) -> np.ndarray:
    if how != "pixels":
        raise cfi.ArgumentError(f"The model takes whole numbers: --preprocess pixels, not {how}.")
    return values.astype(np.uint8)


def open_picture(path: Path, grey: bool = False) -> Any:
    """A picture in colours or grey, turned upright; transparency is laid on white.

    Raises:
        InputError: It is no picture, or one with more than 8 bits a colour.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (*FOREIGN, Image.DecompressionBombError) as error:
        raise cfi.InputError(f"{path} is no picture that can be read ({summary(error)}).") from error
    if image.mode.startswith(("I", "F")):
        raise cfi.InputError(
            f"{path} has more than 8 bits a colour ({image.mode}); scale it yourself, and pass it as .npy."
        )
    if image.has_transparency_data:
        say(f"note: {path.name} is transparent; it is laid on white")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if grey else "RGB")


def _call(how: str, image: Any) -> np.ndarray:
    """One sample, as the user's function makes it."""
    function = find_object(how)
    try:
        made = function(image)
    except FOREIGN as error:
        raise cfi.InputError(f"{how} failed on a picture ({summary(error)}).") from error
    return as_array(registry(), made, f"what {how} returns")


def _layout(options: DataOptions, loaded: Loaded) -> Layout:
    size = _parse_size(options.size)
    declared = loaded.input_shapes
    if declared is not None and len(declared) != 1:
        raise cfi.InputError(f"The model takes {len(declared)} inputs; pass them by name, as arrays of an .npz file.")
    if declared is not None and len(declared[0]) != 4:
        raise cfi.InputError(
            f"The model takes inputs of shape {declared[0]}, which are no pictures: pass .npy or .csv."
        )
    shape = declared[0] if declared else None
    first = _channels_first(options, loaded, shape)
    colours, height, width = (_GREY if options.grey else _COLOURS), None, None
    if shape is not None:
        channel, height, width = (shape[1], *shape[2:]) if first else (shape[3], *shape[1:3])
        colours = channel or colours
    if colours not in (_GREY, _COLOURS):
        raise cfi.InputError(f"The model takes {colours} channels, which no picture has: pass .npy.")
    if (
        size is not None
        and shape is not None
        and any(one not in (None, own) for one, own in zip((height, width), size, strict=True))
    ):
        raise cfi.InputError(f"--size {options.size}: the model takes {height} x {width}.")
    height, width = size or (height, width)
    if height is None and options.preprocess in ("imagenet", "caffe"):
        height = width = PRESET_SIZE
    return Layout(height, width, colours, first)


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise cfi.ArgumentError(f"--size {text!r} is neither a number nor HEIGHTxWIDTH.")
    return int(parts[0]), int(parts[-1])


def _channels_first(options: DataOptions, loaded: Loaded, shape: tuple[int | None, ...] | None) -> bool:
    """Whether channels come in front of height and width, as the user, the model or its framework says."""
    if options.channels is not None:
        if options.channels not in ("first", "last"):
            raise cfi.ArgumentError(f"--channels {options.channels!r} is neither first nor last.")
        return options.channels == "first"
    if shape is not None:
        return loaded.adapter.channel_axis(loaded.native, shape) == 1
    sides = (PRESET_SIZE, PRESET_SIZE)
    as_first = loaded.adapter.channel_axis(loaded.native, (1, _COLOURS, *sides)) == 1
    as_last = loaded.adapter.channel_axis(loaded.native, (1, *sides, _COLOURS)) == 3
    if as_first == as_last:
        raise cfi.InputError(
            "Nothing tells whether the model takes channels first or last: say --channels first, or last."
        )
    return as_first


def _cut(image: Any, layout: Layout, fit: str) -> Any:
    """The picture in the size of the model."""
    from PIL import Image, ImageOps

    if fit not in ("crop", "stretch"):
        raise cfi.ArgumentError(f"--fit {fit!r} is neither crop nor stretch.")
    size = (layout.width or image.width, layout.height or image.height)
    if image.size == size:
        return image
    scale = Image.Resampling.BICUBIC
    return image.resize(size, scale) if fit == "stretch" else ImageOps.fit(image, size, scale)


# arrays and tables


def _read_arrays(paths: Sequence[Path]) -> Samples:
    if any(path.suffix.lower() == ".npz" for path in paths):
        if len(paths) > 1:
            raise cfi.InputError("Of .npz files one can be named, which holds all inputs and samples.")
        return _read_npz(paths[0])
    arrays = [_load(path) for path in paths]
    if len({array.shape[1:] for array in arrays}) > 1 or any(array.ndim == 0 for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise cfi.InputError(
            f"The arrays do not fit each other ({shapes}): all axes but the first, the samples, must be the same."
        )
    names = [
        path.stem if len(array) == 1 else f"{path.stem}[{number}]"
        for path, array in zip(paths, arrays, strict=True)
        for number in range(len(array))
    ]
    return Samples(np.concatenate(arrays), tuple(names))


def _load(path: Path) -> Any:
    """What numpy reads; never objects, which are pickles."""
    try:
        return np.load(path, allow_pickle=False)
    except FOREIGN as error:
        raise cfi.InputError(f"{path} cannot be read as arrays ({summary(error)}).") from error


def _read_npz(path: Path) -> Samples:
    with _load(path) as archive:
        try:
            arrays = {name: archive[name] for name in archive.files}
        except FOREIGN as error:
            raise cfi.InputError(f"{path} cannot be read as arrays ({summary(error)}).") from error
    if not arrays or any(array.ndim == 0 for array in arrays.values()):
        raise cfi.InputError(
            f"{path} must hold arrays whose first axis is the samples, under the names of the model's inputs."
        )
    count = len(next(iter(arrays.values())))
    names = tuple(f"{path.stem}[{number}]" for number in range(count))
    return Samples(arrays if len(arrays) > 1 else next(iter(arrays.values())), names)


def _read_tables(paths: Sequence[Path]) -> Samples:
    if len(paths) > 1:
        raise cfi.InputError("Of tables one can be named.")
    return _read_table(paths[0])


def _read_table(path: Path) -> Samples:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise cfi.InputError(f"{path} is no table in UTF-8 ({summary(error)}).") from error
    header, cells = (rows[0], rows[1:]) if rows else ([], [])
    if not cells or any(len(row) != len(header) for row in cells):
        raise cfi.InputError(f"{path} must have a line of names, and below it rows of as many cells.")
    names = tuple(f"row {number}" for number in range(1, len(cells) + 1))
    try:
        return Samples(np.array(cells, np.float64), names, features=tuple(header))
    except ValueError:  # words, dates, empty cells: for models that take frames
        return Samples(_frame(path), names, features=tuple(header))


def read_values(path: Path) -> Any:
    """What one file of arrays or one table holds.

    Raises:
        InputError: It cannot be read.
    """
    if not path.is_file():
        raise cfi.InputError(f"There is no file {str(path)!r}.")
    return (_read_table(path) if path.suffix.lower() in TABLES else _read_arrays([path])).values


def _frame(path: Path) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise cfi.InputError(f"{path} holds more than numbers, which needs pandas: pip install pandas.") from error
    return pandas.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",")


def _unique_names(paths: Sequence[Path]) -> tuple[str, ...]:
    stems = [path.stem for path in paths]
    return tuple(stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True))


_READERS = {"arrays": _read_arrays, "tables": _read_tables}


def draw_samples(loaded: Loaded, samples: int, shape: str | None) -> Samples:
    """Random samples of the shape that the model declares, or that is given, always the same ones.

    Args:
        loaded: The model.
        samples: How many, where the model does not say.
        shape: `"3,224,224"` without the axis of the samples.

    Raises:
        InputError: The model declares no shape, and none is given.
    """
    declared = loaded.input_shapes
    if shape is not None:
        if not all(part.strip().isdigit() and int(part) for part in shape.split(",")):
            raise cfi.ArgumentError(f"--shape {shape!r} is no list of sizes, such as 3,224,224.")
        declared = ((None, *map(int, shape.split(","))),)
    if declared is None or any(size is None for one in declared for size in one[1:]):
        raise cfi.InputError(
            "The model does not declare the shape of its inputs: name files of samples, or say --shape 3,224,224 "
            "(without the samples' axis) to draw some."
        )
    generator = np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    for position, sizes in enumerate(declared):
        wanted = (sizes[0] or samples, *(size or 1 for size in sizes[1:]))  # none of these is open, as was seen above
        if loaded.adapter.declares_integer(loaded.native, position):
            arrays.append(generator.integers(0, 2, wanted))
        else:
            arrays.append(generator.standard_normal(wanted).astype(np.float32))
    names = tuple(f"random {number}" for number in range(1, len(arrays[0]) + 1))
    return Samples(arrays[0] if len(arrays) == 1 else tuple(arrays), names, told="drawn at random (seed 0)")
