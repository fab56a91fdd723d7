"""What core itself brings, through the same hooks as every plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfi_core.hookspec import hookimpl
from cfi_core.specs import FrameworkSpec, MethodSpec, PlotterSpec, WriterSpec

if TYPE_CHECKING:
    from cfi_core.routes import Route


@hookimpl
def cfi_frameworks() -> list[FrameworkSpec]:
    """The frameworks that DESIGN's vocabulary names."""
    return [
        FrameworkSpec(
            name="torch",
            model_types=(("torch.nn", "Module"),),
            tensor_types=(("torch", "Tensor"),),
            adapter="cfi_core.frameworks.torch:TorchAdapter",
            module="torch",
        ),
        FrameworkSpec(
            name="tensorflow",
            model_types=(("keras.src.models.model", "Model"),),
            tensor_types=(("tensorflow.python.framework.tensor", "Tensor"), ("tensorflow", "Variable")),
            adapter="cfi_core.frameworks.tensorflow:TensorFlowAdapter",
            module="tensorflow",
        ),
        FrameworkSpec(
            name="onnx",
            model_types=(("onnx", "ModelProto"),),
            tensor_types=(),
            adapter="cfi_core.frameworks.onnx:OnnxAdapter",
            module="onnx",
            file_suffixes=(".onnx",),
        ),
    ]


@hookimpl
def cfi_plotters() -> list[PlotterSpec]:
    """The matplotlib plotter."""
    return [PlotterSpec(name="matplotlib", implementation="cfi_core.plotting:plot")]


@hookimpl
def cfi_writers() -> list[WriterSpec]:
    """NumPy archives and pictures."""
    return [
        WriterSpec(name="npz", suffixes=(".npz",), implementation="cfi_core.writers:write_npz"),
        WriterSpec(name="png", suffixes=(".png",), implementation="cfi_core.writers:write_png"),
    ]


@hookimpl(trylast=True)
def cfi_choose_route(candidates: tuple[Route, ...], method: MethodSpec | None) -> Route | None:
    """The cheapest route."""
    return candidates[0]
