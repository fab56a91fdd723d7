"""What a model holds, as a short text that changes with it."""

from __future__ import annotations

import itertools
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np
import xxhash

from cfi_jax.programs import is_linen, is_nnx, unjitted

_LIBRARIES = frozenset({"jax", "flax", "equinox", "optax", "numpy", "scipy"})
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = frozenset({"site-packages", "dist-packages"})  # may lie inside the standard library's folder
_unseen = itertools.count()


def fingerprint(model: Any) -> str:
    """Hash of weights, structure, settings and code.

    A function shows what it refers to: variables of the functions around it, globals that it names, arguments of a
    `partial`, the object of a method. Where that is an object which does not show its content, every call gives
    another fingerprint, so that nothing is taken for unchanged which may have changed.
    """
    return _Digest().add(model).hexdigest()


class _Digest:
    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._known: dict[int, Any] = {}  # holds on to the objects, so that no identity is given out twice

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> _Digest:
        value = unjitted(value)
        self._write(f";{type(value).__module__}.{type(value).__qualname__}:")
        if value is None or isinstance(value, int | float | complex | str | bytes | bool):
            self._write(repr(value))
        elif id(value) in self._known:
            self._write(f"number {list(self._known).index(id(value))}")
        else:
            self._known[id(value)] = value
            self._add_object(value)
        return self

    def _add_object(self, value: Any) -> None:
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            self._add_array(value)
        elif isinstance(value, CodeType):
            self._write(value.co_code.hex() + repr(value.co_names))
            self._add_all(value.co_consts)
        elif isinstance(value, ModuleType):
            self._add_fixed(value) if _is_library(value) else self._add_unseen()
        elif isinstance(value, type | BuiltinFunctionType | np.ufunc | np.dtype) or _is_library_function(value):
            self._add_fixed(value)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(value, MethodType):
            self._add_all([value.__func__, value.__self__])
        elif isinstance(value, partial):
            self._add_all([value.func, value.args, value.keywords])
        elif is_nnx(value):
            structure, state = sys.modules["flax.nnx"].split(value)
            self._add_structure(structure, value)
            self._add_all(jax.tree.leaves(state))
        elif is_linen(value):
            module, variables = (value, {}) if value.scope is None else value.unbind()
            self._add_structure(module, value)
            self.add(variables)
        else:
            self._add_tree(value)

    def _add_function(self, function: FunctionType) -> None:
        around = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        named = {name: function.__globals__[name] for name in _names(function.__code__) & set(function.__globals__)}
        self._add_all([function.__code__, function.__defaults__, function.__kwdefaults__, around])
        for name in sorted(named):
            self.add(name).add(named[name])

    def _add_tree(self, value: Any) -> None:
        """Containers, and whatever else JAX can take apart into arrays and numbers."""
        if isinstance(value, set | frozenset):
            value = sorted(value, key=repr)
        leaves, structure = jax.tree.flatten(value, is_leaf=lambda entry: entry is not value and is_nnx(entry))
        if leaves and leaves[0] is value:
            self._add_unseen()
        else:
            self._write(str(structure))
            self._add_all(leaves)

    def _add_structure(self, structure: Any, module: Any) -> None:
        try:
            self._write(f"{hash(structure)}:{id(type(module).__call__)}")
        except TypeError:  # a setting that cannot be hashed
            self._add_unseen()

    def _add_array(self, value: Any) -> None:
        self._write(f"{value.dtype}{value.shape}")
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        if array.dtype == object:
            self._add_unseen()
        else:
            self._hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _add_all(self, values: Any) -> None:
        for value in values:
            self.add(value)

    def _add_fixed(self, value: Any) -> None:
        """What does not change while a program runs."""
        self._write(f"{value!r}@{id(value)}")

    def _add_unseen(self) -> None:
        self._write(f"unseen {next(_unseen)}")

    def _write(self, text: str) -> None:
        self._hash.update(text.encode())


def _names(code: CodeType) -> set[str]:
    """Every name that the code, or code inside it, may look up outside."""
    return {name for inner in _codes(code) for name in inner.co_names}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_library(module: ModuleType | None) -> bool:
    """Whether it belongs to JAX and its relatives, or to the standard library.

    The latter by its file: `test`, `code` or `profile` are names that users give to modules of their own, too.
    """
    name = getattr(module, "__name__", "")
    if module is None or name == "__main__":
        return False
    if name.partition(".")[0] in _LIBRARIES or name in sys.builtin_module_names:
        return True
    file = getattr(module, "__file__", None)
    return file is not None and _is_standard(file)


@cache
def _is_standard(file: str) -> bool:
    path = Path(file).resolve()
    return path.is_relative_to(_STANDARD) and not _INSTALLED & set(path.relative_to(_STANDARD).parts)


def _is_library_function(value: Any) -> bool:
    """Whether it is a function of a library, also one that JAX has put into an object of its own."""
    if getattr(jax.numpy, str(getattr(value, "__name__", "")), None) is value:
        return True
    if not callable(value) or not hasattr(value, "__qualname__"):
        return False
    return _is_library(sys.modules.get(getattr(value, "__module__", None) or ""))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - a variable that is not assigned yet has none
    except ValueError:
        return False
    return True
