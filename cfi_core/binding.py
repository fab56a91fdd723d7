"""Arguments that a call does not have: what they are called there, with the call written as it must be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from cfi_core.errors import ArgumentError
from cfi_core.lookup import check_toolset, describe_unknown
from cfi_core.registry import Registry, registry
from cfi_core.specs import UNIFORM_ARGUMENTS, MethodSpec, Role
from cfi_core.spelling import UNIFORM_WORDS, nearest, nearest_methods

_P = ParamSpec("_P")
_R = TypeVar("_R")
_MEANS = {Role.ONE_OR_SEVERAL: "inputs", **{Role(name): name for name in UNIFORM_ARGUMENTS}}
_LONGEST = 40


def explain_unknown_arguments(call: Callable[_P, _R]) -> Callable[_P, _R]:
    """Lets a call say what to write in place of an argument that it does not have.

    Every other `TypeError` that a wrong number of arguments makes stays as it is.

    Raises:
        ArgumentError: By the call that is made of it, for an argument by a name that it does not take.
    """
    signature = inspect.signature(call)

    @wraps(call)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        unknown = [name for name in kwargs if name not in signature.parameters]
        if unknown:
            known = {name: value for name, value in kwargs.items() if name not in unknown}
            given = signature.bind_partial(*args, **known).arguments
            given.pop("self", None)
            name = call.__qualname__.removesuffix(".__init__")
            raise ArgumentError(_Correction(registry(), name, signature, given, kwargs, unknown).text)
        return call(*args, **kwargs)

    return checked


class _Correction:
    """A call with arguments that it does not have, and what it should have been."""

    def __init__(
        self,
        current: Registry,
        call: str,
        signature: inspect.Signature,
        given: Mapping[str, Any],
        kwargs: Mapping[str, Any],
        unknown: Sequence[str],
    ) -> None:
        self.registry, self.call, self.parameters = current, call, signature.parameters
        self.values = {name: kwargs[name] for name in unknown}
        self.words = {name: _show(value) for name, value in given.items()}
        self.own: dict[str, dict[str, str]] = {where: {} for where in ("init_args", "exec_args")}
        for where, held in self.own.items():
            if isinstance(value := given.get(where), Mapping):
                held.update({name: _show(part) for name, part in value.items()})
        default = signature.parameters["method_key"].default
        self.key = given.get("method_key", default if isinstance(default, str) else None)
        self.toolset = given.get("toolset")
        if not isinstance(self.toolset, str | None):  # the inputs, most likely
            self.toolset = None
            self.words["inputs"] = self.words.pop("toolset")

    @property
    def text(self) -> str:
        """What is wrong, and the call as it must be."""
        said = [self._name_method(), *(self._place(name) for name in self.values)]
        return " ".join(filter(None, (*said, f"Write: {self._write()}")))

    def _name_method(self) -> str:
        """What is wrong with the method or toolset beside, put right as well."""
        if not isinstance(self.key, str):
            return ""
        said = ""
        if isinstance(self.toolset, str) and self.toolset not in self.registry.toolsets:
            said = _message(check_toolset, self.registry, self.toolset)
            near = nearest(self.toolset, self.registry.toolsets)
            self.toolset = near[0] if near else None
            self._put("toolset", self.toolset)
        keys = [key for key, _ in self.registry.methods]
        if self.key not in keys:
            near = nearest_methods(self.key, keys)
            said += (" " if said else "") + describe_unknown(self.registry, self.key)
            self.key = near[0] if near else self.key
            self._put("method_key", self.key)
        return said

    def _put(self, name: str, value: str | None) -> None:
        if value is None:
            self.words.pop(name, None)
        else:
            self.words[name] = repr(value)

    def _place(self, name: str) -> str:
        """Puts one argument where it belongs; what is said of it."""
        shown = _show(self.values[name])
        for spec in self._specs():
            for where in ("exec_args", "init_args"):
                if name in getattr(spec, where):
                    return self._place_own(name, shown, where, spec)
        if word := self._means(name):
            self._fill(word, name)
            return f"cfi.{self.call} takes no {name!r}: it is called {word}= here, for every toolset."
        if near := nearest(name, self._own_names()):
            (where, spec), known = self._own_names()[near[0]], near[0]
            self.own[where][known] = shown
            return f"cfi.{self.call} takes no {name!r}; {spec.key} of {spec.toolset} has {known!r}."
        others = sorted({spec.key for spec in self.registry.methods.values() if name in _names(spec)})
        if others and isinstance(self.key, str):
            some = ", ".join(others[:4]) + (" and others" if len(others) > 4 else "")
            who = " or ".join(f"{spec.key} of {spec.toolset}" for spec in self._specs()) or repr(self.key)
            return f"{who} has no argument {name!r}; it is one of {some}. cfi.methods({self.key!r}) shows what it has."
        takes = ", ".join(f"{one}=" for one in self.parameters if one not in ("model", "method_key", "toolset"))
        return (
            f"cfi.{self.call} takes no {name!r}. It takes {takes}; the toolset's own arguments, which "
            f"cfi.methods({self.key!r}) shows, go into init_args= and exec_args=."
        )

    def _place_own(self, name: str, shown: str, where: str, spec: MethodSpec) -> str:
        role = spec.roles.get(name)
        word = _MEANS.get(role) if role else None
        if role is Role.OWN_TARGET and shown != "…":  # an index, where the toolset wants a score function
            word = "target"
        if word:
            self._fill(word, name)
            return f"{name!r} is {spec.toolset}'s word for {word}=, which is the same for every toolset."
        self.own[where][name] = shown
        what = "call" if where == "exec_args" else "constructor"
        said = f"{name!r} is an argument of {spec.toolset}'s own {what}, so it goes into {where}=."
        with_it = {one.toolset for one in self._specs() if name in getattr(one, where)}
        if self.toolset is None and len({one.toolset for one in self._specs()}) > len(with_it):
            self.words["toolset"] = repr(spec.toolset)
            said += f" Of the toolsets that offer {spec.key!r}, only {' and '.join(sorted(with_it))} know it."
        return said

    def _fill(self, word: str, name: str) -> None:
        """Gives a uniform argument what was given by another name; a list of one layer is that layer."""
        value = self.values[name]
        if word == "layer" and isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        self.words.setdefault(word, _show(value))

    def _specs(self) -> list[MethodSpec]:
        """The methods that may be meant."""
        return [
            spec
            for _, spec in sorted(self.registry.methods.items())
            if self.key == spec.key and self.toolset in (None, spec.toolset)
        ]

    def _own_names(self) -> dict[str, tuple[str, MethodSpec]]:
        specs = [(spec, where) for spec in self._specs() for where in ("exec_args", "init_args")]
        return {name: (where, spec) for spec, where in specs for name in getattr(spec, where) if name not in spec.roles}

    def _means(self, name: str) -> str | None:
        word = UNIFORM_WORDS.get(name)
        if word is None:
            word = next(iter(nearest(name, self.parameters)), None) if self._is_slip(name) else None
        return word if word in self.parameters else None

    def _is_slip(self, name: str) -> bool:
        """Whether it is one of the call's own arguments but for a letter or two, rather than one of the toolset."""
        return bool(nearest(name, self.parameters, cutoff=0.75))

    def _write(self) -> str:
        """The call as it must be."""
        self.words |= {
            where: "{" + ", ".join(f'"{name}": {text}' for name, text in held.items()) + "}"
            for where, held in self.own.items()
            if held
        }
        return f"cfi.{self.call}({', '.join(self._parts())})"

    def _parts(self) -> Iterator[str]:
        yield "model"
        positional = True
        for name in list(self.parameters)[1:]:
            positional = positional and name in self.words and name in ("method_key", "toolset")
            if name in self.words:
                text = self.words[name].replace("'", '"') if name in ("method_key", "toolset") else self.words[name]
                yield text if positional else f"{name}={text}"


def _message(refuse: Callable[[Registry, str], None], current: Registry, name: str) -> str:
    try:
        refuse(current, name)
    except Exception as error:  # noqa: BLE001 - it is made for its message
        return str(error)
    return ""


def _names(spec: MethodSpec) -> set[str]:
    return {*spec.init_args, *spec.exec_args}


def _show(value: Any) -> str:
    """A value as it may be written; an ellipsis for what would be long or no Python."""
    plain = isinstance(value, bool | int | float | str | None) or (
        isinstance(value, tuple | list) and all(isinstance(one, bool | int | float | str | None) for one in value)
    )
    return text if plain and len(text := repr(value)) <= _LONGEST else "…"
