"""What this plugin offers. Importing it imports neither jax nor flax."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec


@hookimpl
def cfi_frameworks() -> Iterable[FrameworkSpec]:
    """JAX: its functions, jitted or not, and the modules of Flax and Equinox."""
    return [
        FrameworkSpec(
            name="jax",
            models="a function of JAX arrays, a Flax or Equinox module, a Keras 3 model on JAX",
            model_types=(
                ("jaxlib._jax", "PjitFunction"),
                ("flax.nnx", "Module"),
                ("flax.linen", "Module"),
                ("equinox", "Module"),
                ("keras.src.backend.jax.layer", "JaxLayer"),
            ),
            tensor_types=(("jax", "Array"),),
            adapter="cfi_jax.adapter:JaxAdapter",
            module="jax",
            takes_functions=True,
        )
    ]
