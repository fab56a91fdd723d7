"""Baselines of tokens for methods that compare each sample with all baselines, and for such as take groups."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Kind, MethodSpec, Need, Role, ToolsetSpec
from cfi_core.testing import use_plugins

TOKENS = np.array([[1, 5, 4, 2], [1, 3, 2, 0]])
WEIGHTS = np.array([0.0, 1.0, 3.0, -2.0, 5.0, 7.0])
TOKENIZER = SimpleNamespace(pad_token_id=0, cls_token_id=1, sep_token_id=2, convert_ids_to_tokens=str)
seen: list[MethodRequest] = []


def model(tokens: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
    """The sum of a weight for each token, and of numbers beside them."""
    more = 0.0 if x is None else x.sum(1, keepdims=True)
    return WEIGHTS[tokens.astype(int)].sum(1, keepdims=True) + more


def contrast(request: MethodRequest) -> MethodResult:
    """What the outputs lose, on average over all baselines: in closed form, as the model is a sum."""
    seen.append(request)
    assert request.baselines is not None
    lost = [WEIGHTS[request.inputs[0]] - WEIGHTS[np.asarray(request.baselines[0])].mean(0)]
    lost += [x - np.mean(base) for x, base in zip(request.inputs[1:], request.baselines[1:], strict=True)]
    return MethodResult(tuple(lost), Axes.INPUT)


def group(request: MethodRequest) -> MethodResult:
    """The same for groups of tokens: each has what its whole group loses."""
    seen.append(request)
    assert request.baselines is not None
    lost = WEIGHTS[request.inputs[0]] - WEIGHTS[np.asarray(request.baselines[0])]
    groups = request.exec_args["feature_mask"]
    return MethodResult((np.where(groups[:, :, None] == groups[:, None], lost[:, None], 0).sum(2),), Axes.INPUT)


class Contrasts:
    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="contrasts", framework="numpy")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        shared: dict[str, Any] = {
            "toolset": "contrasts",
            "kind": Kind.ATTRIBUTION,
            "needs": frozenset({Need.FORWARD}),
            "exec_args": ("feature_mask",),
            "roles": {"feature_mask": Role.LIKE_INPUTS},
        }
        of_all = MethodSpec(
            key="contrast",
            implementation=f"{__name__}:contrast",
            required=("inputs", "baselines"),
            optional=("target",),
            **shared,
        )
        of_groups = MethodSpec(
            key="group", implementation=f"{__name__}:group", optional=("target", "baselines"), **shared
        )
        return [of_all, of_groups]


@pytest.fixture(autouse=True)
def toolset() -> Iterator[None]:
    seen.clear()
    with use_plugins(Contrasts):
        yield


def explain(baselines: Any, inputs: Any = TOKENS, key: str = "contrast", **arguments: Any) -> cfi.Attribution:
    given = {"inputs": inputs, "baselines": baselines, "target": 0, "feature_names": TOKENIZER, **arguments}
    return cfi.attribute(model, key, **given)


@pytest.mark.parametrize("given", ["pad", cfi.TokenBaseline(0), np.array([[0, 0, 0, 0]])], ids=["name", "kind", "row"])
def test_one_baseline_for_all_samples(given):
    found = explain(given)
    np.testing.assert_allclose(found.values, WEIGHTS[TOKENS])
    assert np.shape(seen[-1].baselines[0]) == (1, 4)


def test_a_distribution_of_tokens_stays_one():
    found = explain(np.array([[0, 0, 0, 0], [5, 4, 3, 3], [1, 1, 2, 2]]))
    expected = WEIGHTS[TOKENS] - np.array([0 + 7 + 1, 0 + 5 + 1, 0 - 2 + 3, 0 - 2 + 3]) / 3
    np.testing.assert_allclose(found.values, expected)


def test_tokens_beside_numbers():
    x = np.array([[1.0, 2.0], [3.0, 5.0]])
    found = explain(("pad", 0.5), (TOKENS, x))
    np.testing.assert_allclose(found.values[0], WEIGHTS[TOKENS])
    np.testing.assert_allclose(found.values[1], x - 0.5)
    with pytest.raises(cfi.ArgumentError, match="contrast compares every sample with all baselines, and tokens that"):
        explain((cfi.TokenBaseline(0, keep="special"), np.zeros((3, 2))), (TOKENS, x))


def test_kept_tokens_make_a_baseline_of_its_own_for_each_sample():
    found = explain(cfi.TokenBaseline(4, keep=("special", "padding")))
    np.testing.assert_allclose(found.values, np.where(TOKENS > 2, WEIGHTS[TOKENS] - WEIGHTS[4], 0))
    assert [request.place for request in seen] == [(0, 2), (1, 2)]
    np.testing.assert_array_equal([request.baselines[0][0] for request in seen], np.where(TOKENS > 2, 4, TOKENS))


def test_samples_of_which_nothing_would_be_left_are_told():
    with pytest.raises(cfi.ArgumentError, match="All tokens of sample 1 would be kept, which leaves nothing"):
        explain(cfi.TokenBaseline(3, keep=("special", "padding")), np.array([[1, 5, 4, 2], [1, 2, 0, 0]]))


def test_kept_tokens_leave_no_group():
    """Those that are explained are numbered in each sample; a kept one shares the first number, and loses nothing."""
    found = explain(cfi.TokenBaseline(4, keep=("special", "padding")), key="group")
    np.testing.assert_array_equal(seen[-1].exec_args["feature_mask"], [[0, 0, 1, 0], [0, 0, 0, 0]])
    lost = np.where(TOKENS > 2, WEIGHTS[TOKENS] - WEIGHTS[4], 0)
    np.testing.assert_allclose(found.values, lost)
    own = np.array([[0, 1, 1, 0], [0, 1, 0, 0]])
    explain(cfi.TokenBaseline(4, keep="special"), key="group", exec_args={"feature_mask": own})
    np.testing.assert_array_equal(seen[-1].exec_args["feature_mask"], own)
