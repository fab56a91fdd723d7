"""Want of memory is told from other errors."""

from __future__ import annotations

import jax

from cfi_jax.adapter import JaxAdapter


def test_what_jax_says_for_want_of_memory() -> None:
    adapter = JaxAdapter()
    assert adapter.is_out_of_memory(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))
    assert adapter.is_out_of_memory(MemoryError())
    assert not adapter.is_out_of_memory(jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes"))
    assert adapter.is_accelerated(None) == (jax.default_backend() != "cpu")
