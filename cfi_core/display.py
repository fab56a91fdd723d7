"""How records look: on one line in Python, as small tables in notebooks, and how pictures get into these.

Nothing here imports IPython or matplotlib: a notebook is known by the IPython that runs it, and a figure draws itself.
"""

from __future__ import annotations

import html
import io
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any
from weakref import WeakKeyDictionary

from cfi_core.errors import FOREIGN, summary

MOST_ROWS = 200
"""Of a table in a notebook; what is left out is told."""

_LONGEST = 400  # text in a cell
_ROOM = 60  # for one value in a repr
_TABLE = "border-collapse:collapse;margin:.3em 0;border:none"
_SCROLL = "max-height:30em;overflow:auto"
_CELL = "text-align:left;vertical-align:top;padding:.15em .9em .15em 0;border:none"
_HEAD = f"{_CELL};font-weight:600;opacity:.7;white-space:nowrap"
_TEXT = f"{_CELL};white-space:pre-wrap;overflow-wrap:anywhere;max-width:60em"


# In Python.


def outline(record: Any) -> str:
    """A record on one line, arrays and tensors by their shape: what stands in the place of a dataclass's own repr."""
    shown = ", ".join(f"{one.name}={brief_value(getattr(record, one.name))}" for one in fields(record) if one.repr)
    return f"{type(record).__name__}({shown})"


def brief_value(value: Any) -> str:
    """A value in a few words, whatever it holds."""
    shape = getattr(value, "shape", None)
    if shape is not None and not isinstance(value, type):
        size = tuple(shape) if isinstance(shape, Iterable) else shape
        kind = [type(value).__name__, *([str(value.dtype)] if hasattr(value, "dtype") else [])]
        return f"<{' '.join(kind)} {size}>"
    if isinstance(value, Enum):
        return repr(value.value)
    if isinstance(value, Mapping):
        return _inside("{}", [f"{key!r}: {brief_value(entry)}" for key, entry in list(value.items())[:7]], len(value))
    if isinstance(value, (list, tuple)):
        return _inside("[]" if isinstance(value, list) else "()", list(map(brief_value, value[:7])), len(value))
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, slice, range, PurePath)):
        return _cut(repr(value))
    if is_dataclass(value) and not isinstance(value, type):
        return _cut(repr(value)) if type(value).__repr__ is outline else f"<{type(value).__name__}>"
    return f"<{getattr(value, '__qualname__', None) or type(value).__qualname__}>"


def _inside(brackets: str, shown: Sequence[str], count: int) -> str:
    most = 6
    more = [f"… {count} in all"] if count > most else []
    return brackets[0] + ", ".join([*shown[:most], *more]) + brackets[1]


def _cut(text: str) -> str:
    return text if len(text) <= _ROOM else f"{text[:_ROOM]}…"


# In HTML, which takes its colours from what is around it, so that it goes with light and dark themes.


def escape(value: object) -> str:
    """A text of anybody's as HTML, cut where it is very long."""
    text = _encodable(str(value))
    return html.escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _encodable(text: str) -> str:
    """Without halves of letters, which no page and no message can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def html_facts(title: str, facts: Iterable[tuple[str, object]], note: str = "") -> str:
    """A title over a table of names and values.

    Args:
        title: What it is.
        facts: Name and value of each; those without a value (None, "") are left out.
        note: A line below.
    """
    rows = "".join(
        f'<tr style="background:none"><th style="{_HEAD}">{escape(name)}</th>'
        f'<td style="{_TEXT}">{escape(value)}</td></tr>'
        for name, value in facts
        if value is not None and str(value)
    )
    return _block(title, f'<table style="{_TABLE}"><tbody>{rows}</tbody></table>' if rows else "", note)


def html_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A title over a table with a head; of very many rows the first are shown."""
    top = "".join(f'<th style="{_HEAD}">{escape(one)}</th>' for one in head)
    cells = ("".join(f'<td style="{_TEXT}">{escape(one)}</td>' for one in row) for row in rows[:MOST_ROWS])
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    if len(rows) > MOST_ROWS:
        note = f"{note} … and {len(rows) - MOST_ROWS} more".strip()
    table = f'<table style="{_TABLE}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return _block(title, f'<div style="{_SCROLL}">{table}</div>' if rows else "", note)


def html_picture(picture: bytes, words: str) -> str:
    """A PNG inside of a page, with what it shows for those who do not see it."""
    data = b64encode(picture).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" style="max-width:100%">'


def _block(title: str, body: str, note: str) -> str:
    below = f'<div style="opacity:.7;font-size:.9em">{escape(note)}</div>' if note else ""
    above = f'<div style="font-weight:600;overflow-wrap:anywhere">{escape(title)}</div>' if title else ""
    return f'<div style="margin:.2em 0">{above}{body}{below}</div>'


# In notebooks.


@dataclass(eq=False)
class ShownFigure:
    """What a figure is asked for when it is a cell's value: shown again only in another cell, or if it has changed."""

    figure: Any
    cell: int

    def __call__(self) -> None:
        """Called by IPython, which goes on to other ways where this one is not implemented."""
        if _shell() is None:
            raise NotImplementedError
        if self.cell != _cell() or self.figure.stale:
            show_figure(self.figure)


_cells: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Records whose picture has been shown, and in which cell."""


def shows_pictures() -> bool:
    """Whether this process runs in a notebook, or in another place where IPython shows pictures."""
    return _shell() is not None


def show_figure(figure: Any, of: Any = None) -> None:
    """Shows a figure where the call stands in a cell; nothing happens where nobody would see it.

    Args:
        figure: A matplotlib figure, or another that writes itself with `savefig`.
        of: The record that it is a picture of, which is then not drawn again as the value of this cell.
    """
    if _shell() is None or not hasattr(figure, "savefig"):
        return
    _publish({"image/png": draw_png(figure), "text/plain": repr(figure)})
    offer_figure(figure, _cell())
    if of is not None:
        _cells[of] = _cell()


def offer_figure(figure: Any, cell: int = -1) -> None:
    """Lets a notebook show a figure that is a cell's value, also where matplotlib has not told it how.

    Args:
        figure: A matplotlib figure; any other is left to itself.
        cell: Where it has been shown.
    """
    if _shell() is not None and hasattr(figure, "stale"):
        figure.stale = False  # so that a change is seen
        figure._ipython_display_ = ShownFigure(figure, cell)


def show_record(record: Any, draw: Callable[[], Any], caption: Callable[[str], str]) -> None:
    """Shows a record that is a cell's value: its picture, unless this cell has one of it, and a caption.

    Args:
        record: What is shown.
        draw: Makes the figure.
        caption: Makes the caption, in HTML, from a note on what could not be drawn.

    Raises:
        NotImplementedError: Nobody would see it, so that IPython goes on to the next way.
    """
    if _shell() is None:
        raise NotImplementedError
    note = ""
    if _cells.get(record) != _cell():
        figure, note = draw_or_tell(draw)
        show_figure(figure, record)
    _publish({"text/html": caption(note), "text/plain": _encodable(repr(record))})


def html_record(record: Any, draw: Callable[[], Any], caption: Callable[[str], str]) -> str:
    """The same as one piece of HTML, for what knows nothing else."""
    figure, note = draw_or_tell(draw)
    picture = "" if figure is None else html_picture(draw_png(figure), repr(record))
    return f"<div>{picture}{caption(note)}</div>"


def draw_or_tell(draw: Callable[[], Any]) -> tuple[Any, str]:
    """A figure, or None and why there is none: what a record says must not be lost with its picture."""
    try:
        figure = draw()
    except FOREIGN as error:
        return None, f"No picture: {summary(error)}"
    return (figure, "") if hasattr(figure, "savefig") else (None, "")


def draw_png(figure: Any) -> bytes:
    """The figure as a PNG in the size that it has."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=getattr(figure, "dpi", 100), bbox_inches=bounds_of(figure))
    return file.getvalue()


def bounds_of(figure: Any) -> Any:
    """What `savefig` takes as `bbox_inches`, so that nothing is cut off; a figure with a layout stays as it is."""
    if not hasattr(figure, "get_tightbbox") or figure.get_layout_engine() is not None:
        return None
    needed, given = figure.get_tightbbox(), figure.bbox_inches
    is_cut = needed.x0 < given.x0 or needed.y0 < given.y0 or needed.x1 > given.x1 or needed.y1 > given.y1
    return "tight" if is_cut else None


def _shell() -> Any:
    """IPython's, if it shows pictures; None in scripts and terminals."""
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python is not None and hasattr(python, "get_ipython") else None
    formatter = getattr(shell, "display_formatter", None)
    return shell if "image/png" in getattr(formatter, "active_types", ()) else None


def _cell() -> int:
    return int(getattr(_shell(), "execution_count", 0))


def _publish(data: Mapping[str, Any]) -> None:
    sys.modules["IPython"].display.display(dict(data), raw=True)
