"""Faults of the libraries, and how the translators get round them: all of it is here.

`tests/test_translate_workarounds.py` fails when one of them is no longer needed.

- onnx2keras changes Keras's image format and leaves it changed after an error; it warns through `logging`.
- onnx2keras makes Lambda layers (Softmax, Flatten, GlobalAveragePool, grouped Conv, arithmetic with constants), which
  neither clone nor save; takes the axis of a flat tensor for one of an image (BatchNormalization, Softmax, Concat);
  ignores `ceil_mode`, `dilations`, `auto_pad`, alpha and beta of Gemm, alpha and gamma of SELU, the axis of Flatten;
  pads max pooling with zeros and average pooling on one side. Its converters for these operators are replaced.
- tf2onnx and Keras's patch of it set `numpy.object`, which numpy removed, and it logs through its own handlers.
- tf2onnx folds a scale into the convolution before it (by grappler, and in its own transpose optimizer), so that a
  Keras BatchNormalization and the convolution's own output are gone; and it loses a convolution's name with its bias.
- onnx2torch fails with a KeyError where a node has the name of a constant.
- Keras's export leaves attributes on the layers of the model.
- torch's exporter prints its whole graph to the standard output when it fails, whatever its `verbose` says.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cfi_core.silence import without_output, without_warnings
from cfi_core.turns import Lock

# What is changed here is global to the process, so conversions run one at a time.
_converting = Lock()


@contextlib.contextmanager
def patch_onnx2keras() -> Iterator[None]:
    """Runs onnx2keras with our converters; Keras's settings and all logging are as before afterwards."""
    import keras
    import onnx2keras.converter as library
    from onnx2keras.layers import AVAILABLE_CONVERTERS

    from cfi_translate.keras_converters import OWN_CONVERTERS_OF_ONNX2KERAS, clone_channels_last, converters

    with _converting, quiet("onnx2keras"):
        image_format, policy = keras.config.image_data_format(), keras.config.dtype_policy()
        clone = library._clone_layer_channels_last
        library.AVAILABLE_CONVERTERS = {
            **{name: AVAILABLE_CONVERTERS[name] for name in OWN_CONVERTERS_OF_ONNX2KERAS},
            **converters(),
        }
        library._clone_layer_channels_last = clone_channels_last(clone)
        try:
            keras.config.set_dtype_policy("float32")
            yield
        finally:
            library.AVAILABLE_CONVERTERS = AVAILABLE_CONVERTERS
            library._clone_layer_channels_last = clone
            keras.config.set_image_data_format(image_format)
            keras.config.set_dtype_policy(policy)


@contextlib.contextmanager
def patch_tf2onnx() -> Iterator[dict[str, str]]:
    """Runs tf2onnx; numpy, logging and the environment are as before afterwards.

    Yields:
        Filled while it runs: the names of nodes that tf2onnx makes up, and the operations that they stand for.
    """
    names: dict[str, str] = {}
    had_object = "object" in vars(np)
    with _converting, keep_environment(), _keep_loggers("", "absl", "tensorflow"):
        import tf2onnx.tf_loader as loader
        from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

        optimize = loader.tf_optimize_grappler
        multiply, add = TransposeOptimizer._mul_handler, TransposeOptimizer._add_handler
        loader.tf_optimize_grappler = _keep_convolutions(optimize)
        TransposeOptimizer._mul_handler = _keep_scales(multiply)
        TransposeOptimizer._add_handler = _note_names(add, names)
        try:
            with quiet("tf2onnx"):
                if not had_object:
                    np.object = object  # type: ignore[attr-defined]
                yield names
        finally:
            TransposeOptimizer._mul_handler, TransposeOptimizer._add_handler = multiply, add
            loader.tf_optimize_grappler = optimize
            if not had_object and "object" in vars(np):
                del np.object  # type: ignore[attr-defined]


_KEPT_OPERATIONS = {"Conv2D", "DepthwiseConv2dNative", "Conv3D", "MatMul", "BiasAdd"}


def _keep_convolutions(optimize: Callable[..., Any]) -> Callable[..., Any]:
    """Grappler does not touch what is fetched, so the results of the layers are declared as fetched."""

    def optimize_graph(input_names: list[str], output_names: list[str], graph_def: Any) -> Any:
        kept = [f"{node.name}:0" for node in graph_def.node if node.op in _KEPT_OPERATIONS]
        return optimize(input_names, [*output_names, *kept], graph_def)

    return optimize_graph


def _keep_scales(handler: Callable[..., bool]) -> Callable[..., bool]:
    """tf2onnx folds a factor into a convolution that nothing else reads: let it find none."""

    def handle(optimizer: Any, transpose: Any, node: Any) -> bool:
        single = optimizer._nodes_has_single_consumer_node
        optimizer._nodes_has_single_consumer_node = lambda nodes: (
            all(one.type != "Conv" for one in nodes) and single(nodes)
        )
        try:
            return handler(optimizer, transpose, node)
        finally:
            del optimizer._nodes_has_single_consumer_node

    return handle


def _note_names(handler: Callable[..., bool], names: dict[str, str]) -> Callable[..., bool]:
    """The convolution that takes over a bias gets a made-up name: note which operation it now ends with."""

    def handle(optimizer: Any, transpose: Any, node: Any) -> bool:
        source, bias = transpose.inputs[0].name, node.name
        handled = handler(optimizer, transpose, node)
        if handled and optimizer._g.get_node_by_name(source) is None:
            names[transpose.inputs[0].name] = bias
        return handled

    return handle


@contextlib.contextmanager
def patch_torch_exporter() -> Iterator[None]:
    """Runs torch's exporter without warnings and prints."""
    import torch

    # The exporter asks for the truth of this function instead of calling it, and so always switches its log on.
    is_enabled = torch._C._jit_is_onnx_log_enabled
    enabled = is_enabled()
    with quiet("torch.onnx"), without_output("stdout"), keep_environment():
        torch._C._jit_is_onnx_log_enabled = False
        torch._C._jit_set_onnx_log_enabled(False)  # an earlier export by anyone has left it on
        try:
            yield
        finally:
            torch._C._jit_is_onnx_log_enabled = is_enabled
            torch._C._jit_set_onnx_log_enabled(enabled)


@contextlib.contextmanager
def quiet(library: str) -> Iterator[None]:
    """Silences this thread's warnings and one library's log, whose loggers have levels of their own."""
    names = {library, *(name for name in logging.root.manager.loggerDict if name.startswith(f"{library}."))}
    with _keep_loggers(*names), without_warnings():
        for name in names:
            logging.getLogger(name).disabled = True
        logging.getLogger(library).setLevel(logging.CRITICAL)  # for those that are made meanwhile
        yield


@contextlib.contextmanager
def _keep_loggers(*names: str) -> Iterator[None]:
    """Restores them; the root logger bears no name."""
    loggers = [logging.getLogger(name) for name in names]
    former = [(one, one.level, one.disabled, one.propagate, list(one.handlers)) for one in loggers]
    try:
        yield
    finally:
        for logger, level, disabled, propagate, handlers in former:
            logger.setLevel(level)
            logger.disabled, logger.propagate, logger.handlers[:] = disabled, propagate, handlers


_OF_LIBRARIES = ("TF", "TORCH", "KERAS", "ONNX", "XLA", "TPU", "CUDA")


@contextlib.contextmanager
def keep_environment() -> Iterator[None]:
    """Takes out of the environment again what a library puts there; other variables may be another thread's."""
    former = {name: value for name, value in os.environ.items() if name.startswith(_OF_LIBRARIES)}
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith(_OF_LIBRARIES) and name not in former]:
            del os.environ[name]
        os.environ.update(former)


@contextlib.contextmanager
def remove_marks(model: Any) -> Iterator[None]:
    """Takes away what Keras's export leaves on every layer: places for functions that only a model has."""
    layers = model._flatten_layers(include_self=False)
    former = [(vars(layer), set(vars(layer))) for layer in layers]
    try:
        yield
    finally:
        for attributes, names in former:
            for name in set(attributes) - names:
                del attributes[name]
