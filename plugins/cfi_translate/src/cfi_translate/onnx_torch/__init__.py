"""ONNX to torch, operator by operator, as modules and functions of torch alone."""

from cfi_translate.onnx_torch.conversion import convert

__all__ = ["convert"]
