"""Names of our own translators, as users write them and messages say them."""

KERAS_TORCH = "keras-torch"
ONNX_KERAS = "onnx-keras"
ONNX_TORCH = "onnx-torch"
TORCH_EXPORT = "torch-export"
