"""Hashes what a model holds: settings, arrays, functions and all that they refer to, the code of classes."""

from __future__ import annotations

import sys
import sysconfig
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cache, partial
from itertools import chain, count
from operator import attrgetter
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NoReturn

import numpy as np
import xxhash

from cfi_core.turns import Lock

_WORDS = (int, float, complex, str, bytes, type(None), type(...))
_ARRAYS, _CONTAINERS = (np.ndarray, np.generic), (list, tuple, dict)
_FREE = (np.dtype, np.ufunc, type(str.join), type(object.__init__))
_DESCRIPTORS = ("__func__", "fget", "fset", "func", "__wrapped__")
_OF_EVERY_CLASS = frozenset(("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"))
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = frozenset({"site-packages", "dist-packages"})  # may lie inside the standard library's folder
_MOST_HELD = 256
_unseen = count()
_numbered: dict[int, tuple[Callable[[], Any], int]] = {}
"""Objects by their addresses: what gives them, and their numbers."""
_held: deque[int] = deque()
_lock = Lock()
_name_of = cache(str)  # of a type of arrays, which is slow for one of thousands

Parts = Iterable[Any]


class UnseenError(Exception):
    """Something whose content cannot be read."""


def refuse(value: Any) -> NoReturn:
    """For a hash that is the same in every process.

    Raises:
        UnseenError: Always.
    """
    raise UnseenError(type(value).__qualname__)


def identity(value: Any) -> str:
    """For a hash that notices another object in its place, and no change inside of it.

    By a number that no other object gets: an address is another one's as soon as the object is gone.
    """
    key = id(value)
    with _lock:
        hold, number = _numbered.get(key, (None, 0))
        if hold is None or hold() is not value:
            hold, number = _hold(value, key), next(_unseen)
            _numbered[key] = hold, number
    return f"{type(value).__qualname__}@{number}"


def _hold(value: Any, key: int) -> Callable[[], Any]:
    """What gives the object as long as it is there; of what cannot be watched, it stays there for a while."""

    def forget(gone: Any) -> None:
        if _numbered.get(key, (None, 0))[0] is gone:
            _numbered.pop(key, None)

    with suppress(TypeError):
        return weakref.ref(value, forget)
    _held.append(key)
    if len(_held) > _MOST_HELD:
        _numbered.pop(_held.popleft(), None)
    return lambda: value


def always_new(value: Any) -> str:
    """For a hash that is another one each time, so that nothing is taken for unchanged which may have changed."""
    return f"unseen {next(_unseen)}"


class Content:
    """A hash that grows.

    Functions and classes of libraries are known by their names (and what a function holds); those of others by their
    code, what they hold and (in functions) what stands around them. Whatever is met again is the same, so circles end.
    """

    def __init__(
        self,
        unseen: Callable[[Any], str],
        *,
        follow: bool = True,
        parts: Callable[[Any], Parts | None] = lambda value: None,
        follow_global: Callable[[FunctionType, Any], bool] = lambda function, value: False,
        libraries: Iterable[str] = (),
    ) -> None:
        """Begins with nothing.

        Args:
            unseen: Words for what cannot be read: `refuse`, `identity` or `always_new`.
            follow: Look into functions and objects; otherwise they count as what cannot be read.
            parts: What one of the framework's own values consists of: words, arrays, whatever can be added; None for
                any other value, which counts as what it is to Python.
            follow_global: Whether to follow the value of a global variable that a function (no library's) names.
            libraries: Packages, besides Python's and numpy, whose functions and classes are known by their names.
        """
        self._digest = xxhash.xxh3_128()
        self._unseen, self._follow, self._parts, self._follow_global = unseen, follow, parts, follow_global
        self._libraries = frozenset(("numpy", *libraries))
        self._met: list[Any] = []  # holds on to the objects, so that no identity is given out twice
        self._numbers: dict[int, int] = {}
        self._told = 0

    def hexdigest(self) -> str:
        """The hash of all that was added."""
        return str(self._digest.hexdigest())

    def write(self, text: str) -> None:
        """Adds words."""
        self._digest.update(f"{text};".encode())

    def add(self, value: Any) -> None:
        """Adds a value, and all that it refers to.

        Raises:
            UnseenError: It, or something in it, cannot be read, and is to be refused.
        """
        self._refer_to(value)
        while self._told < len(self._met):  # no recursion, whose depth is limited
            met, self._told = self._met[self._told], self._told + 1
            self.write(type(met).__qualname__)
            if (parts := self._inside(met)) is None:
                self.write(self._unseen(met))
            else:
                for part in parts:
                    self._refer_to(part)
                self.write("end")

    def _refer_to(self, value: Any) -> None:
        if isinstance(value, _WORDS):
            self.write(repr(value))
        elif isinstance(value, _CONTAINERS) and not value:
            self.write(f"no {type(value).__qualname__}")  # modules have many
        elif isinstance(value, _ARRAYS) and not value.dtype.hasobject:
            self.write(f"array {_name_of(value.dtype)}{value.shape}")
            self._digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif id(value) in self._numbers:
            self.write(f"number {self._numbers[id(value)]}")
        else:
            self._numbers[id(value)] = len(self._met)
            self._met.append(value)
            self.write("new")

    def _inside(self, value: Any) -> Parts | None:
        """What a value consists of; None where that cannot be read."""
        if isinstance(value, list | tuple):
            return value
        if isinstance(value, Mapping):
            return chain.from_iterable(value.items())
        if isinstance(value, set | frozenset):
            return sorted(value, key=repr)
        if (own := self._parts(value)) is not None:
            return own
        if isinstance(value, np.ndarray):
            return value.shape, value.tolist()
        if isinstance(value, Enum):
            return (value.name,)
        return self._of_code(value) if self._follow else None

    def _of_code(self, value: Any) -> Parts | None:
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, ModuleType):
            return (value.__name__,) if self._is_library(vars(value)) else None
        if isinstance(value, CodeType):
            return value.co_code, f"{value.co_names}{value.co_varnames}", *value.co_consts
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, partial):
            return value.func, value.args, value.keywords
        if isinstance(value, MethodType):
            return value.__func__, value.__self__
        if self._is_known_by_name(value):
            return (_full_name(value),)
        if isinstance(value, BuiltinFunctionType):
            return value.__name__, value.__self__
        if hasattr(type(value), "__get__"):
            return [getattr(value, name, None) for name in _DESCRIPTORS]
        return _read(lambda one: (one.get_config(),), value) if callable(getattr(value, "get_config", None)) else None

    def _of_function(self, function: FunctionType) -> Parts:
        around = [_read(attrgetter("cell_contents"), cell) for cell in function.__closure__ or ()]
        if self._is_library(function.__globals__):
            return _full_name(function), *around
        names = {name for code in _codes(function.__code__) for name in code.co_names if name in function.__globals__}
        named = [(name, function.__globals__[name]) for name in sorted(names)]
        followed = chain.from_iterable(pair for pair in named if self._follow_global(function, pair[1]))
        return function.__code__, function.__defaults__, function.__kwdefaults__, *around, *followed

    def _of_class(self, kind: type) -> Parts:
        """Name, code and values of a class and of those that it is made of, as far as they are no library's."""
        for base in kind.__mro__:
            yield _full_name(base)
            if not self._is_of_library(base):
                for key in sorted(vars(base).keys() - _OF_EVERY_CLASS):
                    yield from (key, vars(base)[key])

    def _is_known_by_name(self, value: Any) -> bool:
        """Whether it is written in C and bound to no object, or a library's function in an object of its own."""
        if isinstance(value, BuiltinFunctionType):
            return value.__self__ is None or isinstance(value.__self__, ModuleType | type)
        is_named = callable(value) and hasattr(value, "__qualname__")
        return isinstance(value, _FREE) or (is_named and self._is_of_library(value))

    def _is_of_library(self, value: Any) -> bool:
        module = sys.modules.get(getattr(value, "__module__", None) or "")
        return self._is_library(getattr(module, "__dict__", {}))

    def _is_library(self, names: Mapping[str, Any]) -> bool:
        """Whether these are the names of a module of a library's: of Python's own by its file.

        `test`, `code` or `profile` are names that users give to modules of their own, too.
        """
        name, file = names.get("__name__", ""), names.get("__file__")
        if name.partition(".")[0] in self._libraries or name in sys.builtin_module_names:
            return True
        return file is not None and name != "__main__" and _is_standard(file)


@cache
def _is_standard(file: str) -> bool:
    path = Path(file).resolve()
    return path.is_relative_to(_STANDARD) and not _INSTALLED & set(path.relative_to(_STANDARD).parts)


def _full_name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"


def _read(get: Callable[[Any], Any], value: Any) -> Any | None:
    try:
        return get(value)
    except Exception:  # noqa: BLE001 - a variable may have no value yet, a class of the user's refuse in any way
        return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code, and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
