"""What one forward pass shows of a model's layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from cfi_core.errors import LayerError
from cfi_core.framework.structure import flatten, map_structure


class LayerCalls:
    """The calls of layers, each of which may be read, and replaced, where it gives one tensor.

    Attributes:
        kinds: Names of the layers' classes, as far as they are known.
        counts: How often each layer was called.
        widths: How many values each gave, of those that gave anything but one tensor.
        hidden: Of layers whose values can neither be read nor replaced, what they do instead ('runs inside a …').
    """

    def __init__(self, tensor: type, kinds: dict[str, str], function: Callable[[str, Any], Any | None]) -> None:
        """Begins with no calls.

        Args:
            tensor: Type of the framework's tensors.
            kinds: Names of the layers' classes, as far as they are known.
            function: Gets a layer's name and its tensor; what it returns, if anything, goes on instead.
        """
        self.kinds = kinds
        self.counts: Counter[str] = Counter()
        self.widths: dict[str, int] = {}
        self.hidden: dict[str, str] = {}
        self._tensor, self._function = tensor, function

    def see(self, name: str, output: Any) -> Any:
        """Notes a call. What goes on from the layer: its output, or a structure like it with another tensor."""
        self.counts[name] += 1
        leaves = flatten(output)
        if len(leaves) != 1 or not isinstance(leaves[0], self._tensor):
            self.widths[name] = len(leaves)
            return output
        other = self._function(name, leaves[0])
        return output if other is None else map_structure(lambda _: other, output)

    def is_single(self, name: str) -> bool:
        """Whether the layer was called once, and gave one tensor."""
        return self.counts[name] == 1 and name not in self.widths and name not in self.hidden

    def check(self, name: str) -> None:
        """Refuses a layer that has no single activation.

        Raises:
            LayerError: It says which of the reasons it is.
        """
        if self.is_single(name):
            return
        if name in self.hidden:
            reason = self.hidden[name]
        elif not self.counts[name]:
            reason = "is not called in this forward pass (not reached with these inputs, or used by its weights alone)"
        elif self.counts[name] > 1:
            reason = f"is called {self.counts[name]} times in one forward pass (it is shared, or lies inside a loop)"
        else:
            reason = f"gives {self.widths[name]} values, where one tensor is needed"
        kind = f"({self.kinds[name]}) " if name in self.kinds else ""
        single = [one for one in self.counts if self.is_single(one)]
        near = ", ".join(get_close_matches(name, single, n=3, cutoff=0.4) or single[:12])
        raise LayerError(
            f"Layer {name!r} {kind}{reason}, so it has no single activation. Choose a layer that is called once and "
            f"gives one tensor{near and f', such as {near}'}: cfi.layers(model, inputs) shows an output shape for each."
        )
