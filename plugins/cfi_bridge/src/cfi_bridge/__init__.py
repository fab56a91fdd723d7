"""Models of any framework, run inside PyTorch and Keras."""
