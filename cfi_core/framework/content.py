"""Hashes what a model holds: settings, arrays, functions, the code of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache, partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import xxhash

_WORDS = (int, float, complex, str, bytes, type(None), type(...))
_LIBRARIES = frozenset(("abc", "builtins", "functools", "math", "numpy", "operator", "typing"))
_DESCRIPTORS = ("__func__", "fget", "fset", "func", "__wrapped__")
_OF_EVERY_CLASS = frozenset(("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"))
_DEPTH = 60


Known = Callable[[Any], tuple[str, np.ndarray | None] | None]


class UnseenError(Exception):
    """Something whose content cannot be read."""


class Content:
    """A hash that grows.

    Functions and classes of libraries are known by their names; those of others by their code, what they hold and (in
    functions) what stands around them. Functions that are called by name are not followed.
    """

    def __init__(
        self, *, lasting: bool, follow: bool = True, known: Known = lambda value: None, libraries: Iterable[str] = ()
    ) -> None:
        """Begins with nothing.

        Args:
            lasting: The same in every process, so that what cannot be read is an `UnseenError`. Otherwise another
                object in its place is noticed, by its identity.
            follow: Look into functions and objects; otherwise they are known by their identity.
            known: For the framework's own values words for them and, of a tensor, its bytes; None for anything else.
            libraries: Packages, besides Python's and numpy, whose functions and classes are known by their names.
        """
        self._digest = xxhash.xxh3_128()
        self._lasting, self._follow, self._known = lasting, follow, known
        self._libraries = _LIBRARIES.union(libraries)
        self._above: list[int] = []
        self._classes: dict[type, str] = {}

    def hexdigest(self) -> str:
        """The hash of all that was added."""
        return str(self._digest.hexdigest())

    def write(self, text: str) -> None:
        """Adds words."""
        self._digest.update(f"{text};".encode())

    def add(self, value: Any) -> None:
        """Adds a value.

        Raises:
            UnseenError: It, or something in it, cannot be read, and the hash is to last.
        """
        if isinstance(value, _WORDS):
            self.write(repr(value))
        elif id(value) in self._above or len(self._above) > _DEPTH:
            self._add_unseen(value)
        else:
            self._above.append(id(value))
            try:
                self._add(value)
            finally:
                self._above.pop()

    def _add(self, value: Any) -> None:
        if isinstance(value, list | tuple):
            self.write(f"{type(value).__name__}[{len(value)}]")
            for entry in value:
                self.add(entry)
        elif isinstance(value, Mapping):
            self.write(f"{type(value).__name__}[{len(value)}]")
            for key, entry in value.items():
                self.add(key)
                self.add(entry)
        elif (known := self._known(value)) is not None:
            self.write(known[0])
            if known[1] is not None:
                self._digest.update(known[1].data)
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self.write(f"array {_name_of(value.dtype)}{value.shape}")
            self._digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif isinstance(value, Enum):
            self.write(f"{type(value).__qualname__}.{value.name}")
        elif isinstance(value, set | frozenset):
            self.write(f"{type(value).__name__}{sorted(self._of(entry, self._above) for entry in value)}")
        elif self._follow:
            self._add_code(value)
        else:
            self._add_unseen(value)

    def _add_code(self, value: Any) -> None:
        if isinstance(value, type):
            self.write(self.of_class(value))
        elif isinstance(value, ModuleType):
            self.write(value.__name__)
        elif isinstance(value, CodeType):
            self.write(f"{value.co_code.hex()}{value.co_names}{value.co_varnames}")
            self.add(value.co_consts)
        elif isinstance(value, FunctionType) and not self._is_of_library(value):
            cells = [_inside(cell) for cell in value.__closure__ or ()]
            self.add([value.__code__, value.__defaults__, value.__kwdefaults__, cells])
        elif isinstance(value, partial):
            self.add([value.func, value.args, value.keywords])
        elif isinstance(value, MethodType):
            self.add([value.__func__, value.__self__])
        elif isinstance(value, FunctionType) or _is_free_builtin(value) or isinstance(value, np.dtype | np.ufunc):
            self.write(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}")
        elif hasattr(type(value), "__get__"):
            self.add([getattr(value, name, None) for name in _DESCRIPTORS])
        elif callable(getattr(value, "get_config", None)):
            self._add_configured(value)
        else:
            self._add_unseen(value)

    def _add_configured(self, value: Any) -> None:
        self.write(type(value).__qualname__)
        try:
            configuration = value.get_config()
        except Exception:  # noqa: BLE001 - a class of the user's may refuse in any way
            self._add_unseen(value)
        else:
            self.add(configuration)

    def _add_unseen(self, value: Any) -> None:
        if self._lasting:
            raise UnseenError(type(value).__qualname__)
        self.write(f"{type(value).__qualname__}@{id(value)}")

    def _of(self, value: Any, above: list[int]) -> str:
        part = Content(lasting=self._lasting, follow=self._follow, known=self._known, libraries=self._libraries)
        part._classes = self._classes
        part._above = above
        part.add(value)
        return part.hexdigest()

    def _is_of_library(self, value: Any) -> bool:
        return (getattr(value, "__module__", None) or "").partition(".")[0] in self._libraries

    def of_class(self, kind: type) -> str:
        """Name, code and values of a class and of those that it is made of, as far as they are no library's."""
        if kind not in self._classes:
            self._classes[kind] = f"{kind.__module__}.{kind.__qualname__}"  # for a class that speaks of itself
            said = [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]
            for base in kind.__mro__:
                if not self._is_of_library(base):
                    own = {key: value for key, value in vars(base).items() if key not in _OF_EVERY_CLASS}
                    said.append(self._of({key: own[key] for key in sorted(own)}, []))  # its functions speak of it
            self._classes[kind] = ";".join(said)
        return self._classes[kind]


@cache
def _name_of(dtype: np.dtype) -> str:
    return str(dtype)  # is slow for one of thousands


def _inside(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _is_free_builtin(value: Any) -> bool:
    """Whether it is a function written in C that is bound to no object."""
    if not isinstance(value, BuiltinFunctionType):
        return type(value).__name__ in ("wrapper_descriptor", "method_descriptor")
    return value.__self__ is None or isinstance(value.__self__, ModuleType)
