"""What this plugin offers. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Iterable

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, ModelFormat

_ZIP = "50 4b 03 04"
_SAFE = (
    "What is safe: torch.save(model.state_dict(), …), and then cfi.load_model('package.module:factory', weights=…), "
    "with the function or class that makes the model."
)
_SCRIPT = "its graph can call any operator of torch, those that read and write files among them"
_PICKLE = "unpickling runs whatever its writer put there"
_OLD = "80 02 8a 0a 6c fc 9c 46 f9 20 6a a8 50 19 2e"
_FORMATS = (
    ModelFormat(
        name="what torch.save writes",  # of a state dict and of a whole module: the function tells
        suffixes=(".pt", ".pth", ".bin", ".ckpt"),
        begins=(_ZIP,),
        members=("*/data.pkl", "*/version"),
        model="cfi_torch.loading:read_archive",
        weights="cfi_torch.loading:load_state",
        requirements=("torch>=2.13",),  # before 2.10, weights_only ran code
    ),
    ModelFormat(
        name="TorchScript",
        suffixes=(".pt", ".pth", ".ts"),
        begins=(_ZIP,),
        members=("*/data.pkl", "*/constants.pkl", "*/version"),
        model="cfi_torch.loading:read_script",
        runs_code=_SCRIPT,
        instead=_SAFE,
    ),
    ModelFormat(
        name="an exported program",
        suffixes=(".pt2",),
        begins=(_ZIP,),
        members=("*/archive_format", "*/models/*.json"),
        model="cfi_torch.loading:read_program",
        runs_code="it holds pickles, and a graph that names functions to call",
        instead=_SAFE,
    ),
    ModelFormat(
        name="what torch before 1.6 wrote",
        suffixes=(".pt", ".pth", ".bin", ".ckpt"),
        begins=(_OLD,),
        model="cfi_torch.loading:read_archive",
        runs_code=_PICKLE,
        instead="Write it anew: torch.save(torch.load(path, weights_only=True), path).",
    ),
    ModelFormat(
        name="weights in safetensors",
        suffixes=(".safetensors",),
        begins=("?? ?? ?? ?? ?? 00 00 00 7b",),
        weights="cfi_torch.loading:load_safetensors",
        instead="Pass the function or class that makes the model as well: "
        "cfi.load_model('package.module:factory', weights=…).",
    ),
)


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
            formats=_FORMATS,
            before_use="cfi_torch.coexistence:load_triton",
        )
    ]
