"""What `mkdocs build` does besides: pages for files outside of docs/ that pages link to, and the API reference.

The pages of docs/ are read on code hosts too, where `../SECURITY.md` or `../examples/demo.py` are links to files of the
repository. The project has no public address that such links could lead to from the site, so each of these files
becomes a page of its own there (texts as they are, code in a block), and links between them are turned accordingly.
The API reference has a page for each row of the tables in docs/api.md, so that no public name is forgotten.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "repository"  # the folder of the site in which files from outside of docs/ stand
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(?=[)#])")
FENCED = re.compile(r"^(```+).*?^\1\s*$", re.M | re.S)
Row = tuple[str, list[str]]  # the title of a page of the reference, and the names on it
LANGUAGES = {
    "": "text",
    ".py": "python",
    ".txt": "text",
    ".toml": "toml",
    ".ini": "ini",
    ".yml": "yaml",
    ".cff": "yaml",
}


# What mkdocs calls


def on_config(config: MkDocsConfig) -> None:
    """Lists the pages in the navigation that stand in no list of mkdocs.yml: those of the reference and of methods."""
    assert config.nav is not None
    for entry in config.nav:
        for pages in entry.values():
            if pages[0] == "reference/index.md":
                users, authors = reference_rows()
                pages.append({"For users": [page_at(kind) for kind, _ in users]})
                pages.append({"For authors of plugins": [page_at(module) for module, _ in authors]})
            elif pages[0] == "methods/index.md":
                names = sorted(path.name for path in ROOT.glob("docs/methods/*.md"))
                pages.extend(f"methods/{name}" for name in names if name != "index.md")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds a page for each file that a page links to and that does not stand in docs/, and the API reference."""
    from mkdocs.structure.files import File

    for path in sorted(linked_from_docs()):
        files.append(File.generated(config, place(path), content=page_of(path)))
    for name, text in reference_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files outside of docs/ into links to their pages."""
    at = page.file.src_uri
    return turn_links(markdown, source(at), at)


# Files outside of docs/


def linked_from_docs() -> set[str]:
    """Files of the repository outside of docs/ to which pages lead, directly or by way of each other."""
    found: set[str] = set()
    ahead = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")]
    while ahead:
        path = ahead.pop()
        new = {link for link in links(path) if not link.startswith("docs/")} - found
        found |= new
        ahead += [link for link in new if link.endswith(".md")]
    return found


def links(path: str) -> Iterator[str]:
    """Files of the repository that a page leads to; a folder stands for its README."""
    for link in LINK.findall(FENCED.sub("", (ROOT / path).read_text())):
        if (to := resolve(link, path)) is not None:
            yield to


def resolve(link: str, at: str) -> str | None:
    """The file of the repository that a link of the page `at` leads to; None where there is none."""
    to = posixpath.normpath(posixpath.join(posixpath.dirname(at), link))
    if (ROOT / to).is_dir():
        to = posixpath.join(to, "README.md")
    return to if not to.startswith("..") and (ROOT / to).is_file() else None


def place(path: str) -> str:
    """Where a file of the repository stands in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{OUTSIDE}/{path}" + (".md" if PurePosixPath(path).suffix in LANGUAGES else "")


def source(uri: str) -> str:
    """The file of the repository that stands at a place of the site; the inverse of `place`."""
    if not uri.startswith(f"{OUTSIDE}/"):
        return f"docs/{uri}"
    path = uri.removeprefix(f"{OUTSIDE}/")
    return path if (ROOT / path).is_file() else path.removesuffix(".md")


def page_of(path: str) -> str | bytes:
    """A text as it is, code in a block under its name; pictures, notebooks and all else as bytes."""
    kind = PurePosixPath(path).suffix
    if kind not in (".md", *LANGUAGES):
        return (ROOT / path).read_bytes()
    text = (ROOT / path).read_text()
    if kind == ".md":
        return text
    return f"---\nsearch:\n  exclude: true\n---\n# `{path}`\n\n~~~~{LANGUAGES[kind]}\n{text}~~~~\n"


def turn_links(markdown: str, path: str, at: str) -> str:
    """Links that lead out of docs/, or from outside into it, lead to where these files stand in the site."""

    def turn(link: re.Match[str]) -> str:
        to = resolve(link[0], path)
        return link[0] if to is None else posixpath.relpath(place(to), posixpath.dirname(at) or ".")

    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [LINK.sub(turn, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(turn, markdown[end:])])


# The API reference


def reference_pages() -> dict[str, str]:
    """The pages of the reference by their places, and one that lists them."""
    users, authors = reference_rows()
    pages = {page_at(kind): users_page(kind, names) for kind, names in users}
    pages |= {page_at(module): authors_page(module, names) for module, names in authors}
    return {**pages, "reference/index.md": contents(users, authors)}


def reference_rows() -> tuple[list[Row], list[Row]]:
    """What docs/api.md names for users, and for authors of plugins."""
    text = (ROOT / "docs" / "api.md").read_text().partition("\n## Versions")[0]
    _, users, authors = re.split(r"^## For .*$", text, flags=re.M)
    return list(rows(users)), list(rows(authors))


def page_at(title: str) -> str:
    """Where the page of a kind of names or of a module stands."""
    return f"reference/{title.replace(' ', '-')}.md"


def rows(table: str) -> Iterator[Row]:
    """First cell and the names in the second of each row."""
    for first, second in re.findall(r"^\| (.*?) \| (.*) \|$", table, re.M)[2:]:
        yield first.strip("`"), re.findall(r"`(\w+)`", second)


def users_page(kind: str, names: list[str]) -> str:
    """Names of `cfi`, each where it is defined."""
    cfi = import_module("cfi_core")
    body = [f"::: {definition(cfi, name)}" for name in names]
    return "\n\n".join([f"# {kind.capitalize()}", "Names of `cfi`, after `import cfi_core as cfi`.", *body]) + "\n"


def definition(module: ModuleType, name: str) -> str:
    """Where a name of a module is defined, read without what loads it."""
    value = getattr(module, name)
    return value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__name__}"


def authors_page(module: str, names: list[str]) -> str:
    """What a module of the core offers to plugins."""
    body = [f"::: {at}" for name in names if (at := place_of(module, name))]
    return "\n\n".join([f"# `{module}`", *body]) + "\n"


def place_of(module: str, name: str) -> str:
    """Where the code defines a name of a public module: in it, or where it takes it from."""
    value = getattr(import_module(module), name)
    made_in = getattr(value, "__module__", None)
    if isinstance(made_in, str) and made_in.startswith("cfi_core") and hasattr(value, "__name__"):
        return f"{made_in}.{value.__name__}"
    return f"{module}.{name}"


def contents(users: list[Row], authors: list[Row]) -> str:
    """The first page of the reference."""

    def listed(rows: list[Row]) -> str:
        named = ((title, " ".join(f"`{name}`" for name in names)) for title, names in rows)
        lines = (f"| [{title}]({posixpath.basename(page_at(title))}) | {names} |" for title, names in named)
        return "\n".join(["| page | names |", "| --- | --- |", *lines])

    return (
        "# API reference\n\nWhat stands here is public, and written from the docstrings; [what may change when]"
        f"(../api.md).\n\n## For users\n\n{listed(users)}\n\n## For authors of plugins\n\n{listed(authors)}\n"
    )
