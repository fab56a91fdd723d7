"""Conversions of models between PyTorch, ONNX and Keras."""
