"""The visualizations of tf-keras-vis, made to repeat each of their calls through CFI."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any

import numpy as np
from calls import Asked, Benchmark
from tf_keras_vis.activation_maximization import ActivationMaximization
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils import find_layer
from tf_keras_vis.utils.model_modifiers import Conv

import cfi_core as cfi
from cfi_tensorflow.adapter import TensorFlowAdapter

OTHER = "torch"
TESTS = "tests"
KEYS = {
    Saliency: "saliency",
    Gradcam: "grad_cam",
    GradcamPlusPlus: "grad_cam_plus_plus",
    Layercam: "layer_cam",
    Scorecam: "score_cam",
    ActivationMaximization: "activation_maximization",
}


def install(benchmark: Benchmark) -> None:
    """Replaces constructor and call of every class that CFI offers, in this process."""
    for kind in KEYS:
        kind.__init__ = _remembering(kind, kind.__init__)
        kind.__call__ = _repeating(kind, kind.__call__, benchmark)


def _remembering(kind: type, original: Any) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def constructor(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is kind:
            self._cfi_given = dict(list(signature.bind(self, *args, **kwargs).arguments.items())[1:])
        original(self, *args, **kwargs)

    return constructor


def _repeating(kind: type, original: Any, benchmark: Benchmark) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if benchmark.inside or type(self) is not kind:
            return original(self, *args, **kwargs)
        given = dict(list(signature.bind(self, *args, **kwargs).arguments.items())[1:])
        failure = result = None
        try:
            result = original(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the test gets it
            failure = error
        constructor = dict(self._cfi_given)
        key = KEYS[kind]
        if "penultimate_layer" in signature.parameters and given.get("penultimate_layer") is None:
            given["penultimate_layer"] = -1  # what None means in tf-keras-vis
        elsewhere = _sought(self.model, given) if failure is None and "penultimate_layer" in given else {}
        model = constructor.pop("model")
        asked = Asked(model, key, "tf-keras-vis", constructor, given, _values, elsewhere)
        benchmark.repeat(asked, partial(_again, original, self), failure)
        if failure is not None:
            raise failure
        return result

    return call


def _again(original: Any, explainer: Any, words: Mapping[str, Any], double: bool) -> list[Any]:
    """The library's values, in double precision of a copy of the model, if there can be one."""
    precise = TensorFlowAdapter().in_double(explainer.model) if double else None
    if precise is None:
        return _flat(original(explainer, **words))
    explainer = copy(explainer)
    explainer.model = precise
    layer = words.get("penultimate_layer")
    return _flat(
        original(explainer, **{**words, **({"penultimate_layer": layer.name} if hasattr(layer, "name") else {})})
    )


def _sought(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The convolution itself: in a model whose activations are layers of their own, another one would be sought."""
    layer = given["penultimate_layer"]
    if isinstance(layer, int | str):
        layer = model.layers[layer] if isinstance(layer, int) else model.get_layer(layer)
    if given.get("seek_penultimate_conv_layer", True):
        layer = find_layer(model, lambda entry: isinstance(entry, Conv), offset=layer) or layer
    return {"penultimate_layer": layer, "seek_penultimate_conv_layer": False}


def _values(attribution: cfi.Attribution) -> list[Any]:
    return _flat(attribution.values)


def _flat(values: Any) -> list[Any]:
    return [np.asarray(value) for value in (values if isinstance(values, tuple | list) else [values])]
