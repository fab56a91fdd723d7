"""Torch models that hold inputs, and from the output of their embedding on."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cfi_core.errors import InputError
from cfi_torch.adapter import TorchAdapter

ADAPTER = TorchAdapter()
TOKENS = torch.tensor([[5, 2, 9, 4], [1, 1, 7, 3]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1]])


class Text(nn.Module):
    """Shares one embedding between two inputs, and has positions of its own."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(12, 6), nn.Embedding(4, 6), nn.Linear(6, 3)
        self.softmax = softmax

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        hidden = torch.tanh(self.words(tokens) + self.places(torch.arange(4).expand_as(tokens))) * mask[..., None]
        if other is not None:
            hidden = hidden * self.words(other)
        output = self.head(hidden.mean(1))
        return output.softmax(1) if self.softmax else output


def apart(model: Any, inputs: list[Any], expected: Any) -> float:
    return float(np.abs(ADAPTER.outputs(ADAPTER.twin(model), inputs) - ADAPTER.to_numpy(expected)).max())


@pytest.mark.parametrize("other", [[], [TOKENS.flip(1)]])
def test_the_call_on_the_tokens_counts(other: list[torch.Tensor]) -> None:
    model = Text().eval()
    inputs = [TOKENS, MASK, *other]
    found = ADAPTER.split_embedding(model, inputs)
    assert found is not None and found.layer == "words"
    np.testing.assert_array_equal(found.activation, model.words(TOKENS).detach())
    vectors = torch.randn(2, 4, 6)
    hidden = torch.tanh(vectors + model.places(torch.arange(4))) * MASK[..., None]
    hidden = hidden * model.words(other[0]) if other else hidden
    assert apart(found.model, [vectors, *inputs], model.head(hidden.mean(1))) < 1e-6
    assert ADAPTER.channel_axis(found.model, (2, 4, 6)) == 2


def test_positions_that_look_like_the_tokens() -> None:
    """Other tokens tell them apart."""
    found = ADAPTER.split_embedding(Text().eval(), [torch.arange(4).repeat(2, 1), MASK])
    assert found is not None and found.layer == "words"


def test_the_layer_may_be_known() -> None:
    found = ADAPTER.split_embedding(Text().eval(), [torch.arange(4).repeat(2, 1), MASK], "places")
    assert found is not None and found.layer == "places"
    assert ADAPTER.split_embedding(nn.Sequential(nn.Linear(2, 2)), [torch.ones(2, 2)]) is None


@pytest.mark.parametrize("softmax", [False, True])
def test_a_bound_model_and_its_copies(softmax: bool) -> None:
    model = Text(softmax).eval()
    twin = ADAPTER.twin(model)
    if softmax:
        twin = ADAPTER.without_softmax(twin, [TOKENS, MASK])
    bound = ADAPTER.bind(twin, [MASK[1:]])
    expected = Text.forward(model, TOKENS, MASK[1:].expand(2, -1))
    expected = expected.log() if softmax else expected
    for one in (bound, copy.deepcopy(bound), ADAPTER.twin(bound)):
        given = one(TOKENS)
        if softmax:  # logits are known up to a constant
            given, expected = given - given.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True)
        assert torch.allclose(given, expected, atol=1e-6)
        assert one.get_submodule("head") is dict(one.named_modules())["head"]
    assert not isinstance(model, type(bound)) and ADAPTER.outputs(model, [TOKENS, MASK]) is not None


def test_a_scripted_module_is_bound_by_a_function() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return x * scale

    bound = ADAPTER.bind(torch.jit.script(Scaled()), [torch.tensor([[2.0]])])
    assert torch.equal(bound(torch.ones(3, 2)), torch.full((3, 2), 2.0))


def test_from_the_embedding_another_pass_must_go_the_same_way() -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(12, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.words(tokens if len(tokens) < 3 else tokens.clamp(max=1)).sum(1)

    found = ADAPTER.split_embedding(Choosy().eval(), [TOKENS])
    assert found is not None
    with pytest.raises(InputError, match="does not give its tokens to 'words'"):
        found.model(torch.ones(4, 4, 3), TOKENS.repeat(2, 1))
