"""The functions that convert layers and operations of Keras; importing this package enters them into the table."""

from importlib import import_module
from pkgutil import iter_modules

from cfi_translate.keras_torch.calls import operator

__all__ = ["operator"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
