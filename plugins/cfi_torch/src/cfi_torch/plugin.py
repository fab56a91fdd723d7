"""What this plugin offers. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec


@hookimpl
def cfi_frameworks() -> Iterable[FrameworkSpec]:
    """PyTorch: its modules, and functions of its tensors."""
    return [
        FrameworkSpec(
            name="torch",
            models="a torch.nn.Module, a torch.export.ExportedProgram, a function of torch tensors",
            model_types=(("torch.nn", "Module"), ("torch.export", "ExportedProgram")),
            tensor_types=(("torch", "Tensor"),),
            adapter="cfi_torch.adapter:TorchAdapter",
            module="torch",
            takes_functions=True,
            before_use="cfi_torch.coexistence:load_triton",
        )
    ]
