"""What a model holds, as a short text that changes with it."""

from __future__ import annotations

import sys
from typing import Any

import jax

from cfi_core.framework import Content, always_new, identity
from cfi_jax.programs import JITTED, is_linen, is_nnx, without_jit

_LIBRARIES = ("jax", "flax", "equinox", "optax", "scipy")


def fingerprint(model: Any) -> str:
    """Hash of weights, structure, settings and code.

    A function shows what it refers to: variables of the functions around it, globals that it names, arguments of a
    `partial`, the object of a method. Where that is an object which does not show its content, every call gives
    another fingerprint, so that nothing is taken for unchanged which may have changed.
    """
    held = Content(always_new, parts=_parts, follow_global=lambda function, value: True, libraries=_LIBRARIES)
    held.add(without_jit(model))
    return held.hexdigest()


def _parts(value: Any) -> list[Any] | None:
    if isinstance(value, JITTED):
        return [without_jit(value)]
    if isinstance(value, jax.Array):
        is_key = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
        return [str(value.dtype), jax.device_get(jax.random.key_data(value) if is_key else value)]
    if isinstance(value, type) or getattr(jax.numpy, str(getattr(value, "__name__", "")), None) is value:
        return [f"{value!r}{identity(value)}"]
    if is_nnx(value):
        structure, state = sys.modules["flax.nnx"].split(value)
        return [_structure(structure, value), *jax.tree.leaves(state)]
    if is_linen(value):
        module, variables = (value, {}) if value.scope is None else value.unbind()
        return [_structure(module, value), variables]
    # Whatever else JAX can take apart into arrays and numbers.
    leaves, structure = jax.tree.flatten(value, is_leaf=lambda entry: entry is not value and is_nnx(entry))
    return None if leaves and leaves[0] is value else [str(structure), *leaves]


def _structure(structure: Any, module: Any) -> str:
    try:
        return f"{hash(structure)}:{identity(type(module).__call__)}"
    except TypeError:  # a setting that cannot be hashed
        return always_new(structure)
