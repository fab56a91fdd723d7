"""The operators of ONNX, by kind; importing this package enters them into the table."""

from importlib import import_module
from pkgutil import iter_modules

from cfi_translate.onnx_torch.table import operator

__all__ = ["operator"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
