"""Layers that give tokens, windows or channels last, shown as maps with channels on axis 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cfi_core.framework import Layout, map_structure


def show_map(layer: nn.Module, layout: Layout) -> nn.Identity:
    """A module through which all that a layer gives in space goes, as `(samples, channels, *space)`.

    It is called by a hook of the layer, whose output is then made of what the module gives and of the other positions.
    """
    shown = nn.Identity()

    def go_through(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return map_structure(lambda one: _through(one, shown, layout), output)

    layer.register_forward_hook(go_through)
    return shown


def _through(output: Any, shown: nn.Identity, layout: Layout) -> Any:
    if not isinstance(output, torch.Tensor) or output.ndim <= layout.channel:
        return output
    last = output.movedim(layout.channel, -1)
    flat = last.reshape(last.shape[0] // layout.rows, -1, last.shape[-1])
    order, others, back = (
        torch.tensor(numbers, dtype=torch.long, device=output.device)
        for numbers in (layout.order, layout.others, layout.back)
    )
    cells = flat.index_select(1, order)
    channels = cells.transpose(1, 2).reshape(len(cells), cells.shape[-1], *layout.space)
    cells = shown(channels).flatten(2).transpose(1, 2)
    whole = torch.cat([cells, flat.index_select(1, others)], 1).index_select(1, back)
    return whole.reshape(last.shape).movedim(-1, layout.channel)
