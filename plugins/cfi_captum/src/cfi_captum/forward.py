"""The forward function that captum differentiates or perturbs, and the target in captum's form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from cfi_core.contract import Target
from cfi_torchgraph.scores import choose, one_per_sample, select

CaptumTarget = int | tuple[int, ...] | list[int] | list[tuple[int, ...]] | None


class Explained(nn.Module):
    """The model followed by the choice of what is explained.

    The model stays a child, so that layers and modules are found where they were.

    Attributes:
        model: Model or callable.
        output: Position, key or attribute of the chosen output; None for the whole output.
        function: Maps the chosen output to one value per sample; None for the output itself.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        output: int | str | None = None,
        function: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.function = function

    def forward(self, *args: Any) -> Any:
        """The chosen output, or the function's value of it, for the model's own arguments."""
        output = choose(self.model(*args), self.output)
        if self.function is None:
            return output
        samples = next((len(arg) for arg in args if isinstance(arg, Tensor) and arg.dim() > 0), None)
        return one_per_sample(self.function(output), samples)


def make_forward(
    model: Callable[..., Any], target: Target | None, *, inside: bool, as_child: bool
) -> tuple[Callable[..., Any], CaptumTarget]:
    """The forward function for captum and the target that captum selects from its output.

    Args:
        model: Module or callable.
        target: What is explained; None for methods without target.
        inside: Let the forward function itself give one value per sample and leave captum no target.
        as_child: The model must be a child of the result.

    Returns:
        The model itself where nothing has to be added to it.
    """
    if target is None:
        return (Explained(model) if as_child else model), None
    function = target.function
    index: CaptumTarget = captum_target(target)
    if inside and function is None:
        function, index = (partial(select, target=target) if target.index else _as_it_is), None
    if target.output is None and function is None and not as_child:
        return model, index
    return Explained(model, target.output, function), index


def captum_target(target: Target) -> CaptumTarget:
    """An index target in the form that captum's `target` argument has."""
    if not target.index:
        return None
    if target.per_sample:
        rows: list[tuple[int, ...]] = list(target.index)  # type: ignore[arg-type]
        if all(len(row) == 1 for row in rows):
            return [row[0] for row in rows]
        return rows
    index: tuple[int, ...] = target.index  # type: ignore[assignment]
    return index[0] if len(index) == 1 else index


def _as_it_is(output: Any) -> Any:
    return output
