"""The rows of benchmarks/models.py, by kind; importing them imports no framework."""

from importlib import import_module

from model_rows.frame import ROWS

for _name in (
    "torch_wrappers",
    "transformers_text",
    "transformers_vision",
    "pipelines",
    "torch_vision",
    "keras_models",
    "keras_backends",
    "jax_models",
    "tables",
):
    import_module(f"model_rows.{_name}")

__all__ = ["ROWS"]
