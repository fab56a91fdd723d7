"""The fake plugin in place of all installed ones: core is tested without any framework."""

from collections.abc import Iterator

import numpy as np
import pytest

from cfi_core.contract import Axes, MethodRequest, MethodResult
from cfi_core.hookspec import hookimpl
from cfi_core.registry import Registry
from cfi_core.specs import Kind, MethodSpec, Need, Role, ToolsetSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting


@pytest.fixture
def registry() -> Iterator[Registry]:
    with use_plugins(fake) as current:
        yield current


@pytest.fixture
def painting(registry: Registry) -> Painting:
    generator = np.random.default_rng(1)
    return Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)))


@pytest.fixture
def images() -> np.ndarray:
    """RGB and not square, so that no swapped axis goes unnoticed."""
    return np.random.default_rng(2).normal(size=(2, 3, 5, 7))


def omit(request: MethodRequest) -> MethodResult:
    """What the outputs lose when one element is replaced by its baseline."""
    function, held = request.target.function, request.exec_args.get("behind") or ()
    indices = request.target.indices(len(request.inputs[0])) if function is None else ()

    def score(*inputs: np.ndarray) -> np.ndarray:
        if function is not None:
            return np.asarray(function(request.model(*inputs, *held)))
        return np.array([row[index] for row, index in zip(request.model(*inputs, *held), indices, strict=True)])

    values = []
    for position, array in enumerate(request.inputs):
        base = 0 if request.baselines is None else request.baselines[position]
        lost = np.zeros(array.shape)
        for place in np.ndindex(array.shape[1:]):
            changed = list(request.inputs)
            changed[position] = array.copy()
            changed[position][(slice(None), *place)] = np.broadcast_to(base, array.shape)[(slice(None), *place)]
            lost[(slice(None), *place)] = score(*request.inputs) - score(*changed)
        values.append(lost)
    return MethodResult(tuple(values), Axes.INPUT)


class Omission:
    """A toolset for functions of arrays."""

    @staticmethod
    @hookimpl
    def cfi_toolsets() -> list[ToolsetSpec]:
        return [ToolsetSpec(name="omission", framework="numpy")]

    @staticmethod
    @hookimpl
    def cfi_methods() -> list[MethodSpec]:
        return [
            MethodSpec(
                key="omit",
                toolset="omission",
                kind=Kind.ATTRIBUTION,
                needs=frozenset({Need.FORWARD}),
                implementation=f"{__name__}:omit",
                optional=("target", "baselines"),
                exec_args=("behind",),
                roles={"behind": Role.HELD},
            )
        ]


@pytest.fixture
def omission_plugin() -> type[Omission]:
    """A toolset that explains functions of arrays, to be used beside others."""
    return Omission


@pytest.fixture
def omission() -> Iterator[None]:
    """A toolset that explains functions of arrays."""
    with use_plugins(Omission):
        yield
