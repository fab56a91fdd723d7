"""Makes the pictures of docs/gallery.md: runs the page's blocks of code, in their order, in an empty folder.

python tools/gallery.py

What they save is put into docs/images/gallery, in 256 colours and no wider than a page, so that each takes less than
100 kB. Everything that the page speaks of must be installed (the environment `all`).
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"
FOLDER = ROOT / "docs" / "images" / "gallery"
WIDEST = 900
MOST_BYTES = 100_000


def main() -> None:
    """Runs the page and keeps its pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        names: dict[str, object] = {"__name__": "__main__"}
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
            exec(compile(block, str(PAGE), "exec"), names)
        for path in sorted(Path(name).glob("*.png")):
            print(f"{path.name}: {shrink(path, FOLDER / path.name):,} bytes")
        os.chdir(ROOT)


def shrink(path: Path, to: Path) -> int:
    """Writes a picture smaller, and says how many bytes it has."""
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    for width in range(picture.width, 300, -60):
        smaller = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
        smaller.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(to, optimize=True)
        if to.stat().st_size < MOST_BYTES:
            break
    return to.stat().st_size


if __name__ == "__main__":
    main()
