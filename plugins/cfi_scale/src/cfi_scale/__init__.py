"""Data sets explained into a store that grows, on one machine or a cluster.

import cfi_scale

explainer = cfi.Explainer(model, "saliency", "captum", target="predicted")
dataset = cfi_scale.explain_dataset(explainer, images, "saliency.zarr", executor="dask")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfi_scale.dataset import explain_dataset, open_store
    from cfi_scale.errors import RunError, StoreError
    from cfi_scale.images import ImageFolder
    from cfi_scale.on_dask import Dask
    from cfi_scale.on_ray import Ray
    from cfi_scale.state import Status, status
    from cfi_scale.virelay import to_virelay
    from cfi_scale.work import Worker

__all__ = ["explain_dataset", "open_store", "status", "Status", "ImageFolder", "to_virelay"]
__all__ += ["Dask", "Ray", "Worker", "RunError", "StoreError"]

_PLACES = {
    **dict.fromkeys(("explain_dataset", "open_store"), "dataset"),
    **dict.fromkeys(("RunError", "StoreError"), "errors"),
    **dict.fromkeys(("status", "Status"), "state"),
    "ImageFolder": "images",
    "to_virelay": "virelay",
    "Dask": "on_dask",
    "Ray": "on_ray",
    "Worker": "work",
}


def __getattr__(name: str) -> Any:
    """What it takes is imported when it is used."""
    if name not in _PLACES:
        raise AttributeError(f"module 'cfi_scale' has no attribute {name!r}")
    return getattr(import_module(f"cfi_scale.{_PLACES[name]}"), name)
