"""Models of Keras 2 (`tf_keras`): modules of TensorFlow with layers of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from cfi_tensorflow.functions import FunctionView
from cfi_tensorflow.keras import LayerView
from cfi_tensorflow.logits import TracedLogits, traced_logits
from cfi_tensorflow.outputs import order


class LegacyView(LayerView):
    """What the adapter does with such a model: a function whose layers have names, inner ones `outer/inner`."""

    def __init__(self, model: Any) -> None:
        self.model, self._function = model, FunctionView(model)

    def __getattr__(self, name: str) -> Any:
        """All that has nothing to do with its layers."""
        if name == "_function":
            raise AttributeError(name)
        return getattr(self._function, name)

    def named_layers(self) -> list[tuple[str, Any]]:
        """Every layer once, under the name of the first place where it lies."""
        first: dict[int, tuple[str, Any]] = {}
        for name, layer in _layers(self.model):
            first.setdefault(id(layer), (name, layer))
        return list(first.values())

    def run(self, inputs: Sequence[Any]) -> Any:
        """Forward pass in inference mode."""
        is_graph = bool(getattr(self.model, "_is_graph_network", False))
        given = (inputs[0] if len(inputs) == 1 else list(inputs),) if is_graph else inputs
        return order(self.model(*given, training=False))

    def without_softmax(self, inputs: Sequence[Any]) -> TracedLogits | None:
        """The traced graph without the softmax, open at the layers; None if there is none, or no graph."""
        names = [name for name, _ in self.named_layers()]
        return traced_logits(self, inputs, self._trace(inputs, names, snapshot=True) if inputs else None)


def is_legacy(model: Any) -> bool:
    """Whether it is a model of Keras 2."""
    kind = getattr(sys.modules.get("tf_keras"), "Model", None)
    return kind is not None and isinstance(model, kind)


def _layers(outer: Any, prefix: str = "", around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every place at which a layer lies inside the model, with its name there."""
    seen = {id(outer), *around}
    own = [*getattr(outer, "layers", ()), *outer._flatten_layers(recursive=False, include_self=False)]
    for layer in {id(one): one for one in own}.values():
        if id(layer) not in seen:
            yield prefix + layer.name, layer
            yield from _layers(layer, f"{prefix}{layer.name}/", tuple(seen))
