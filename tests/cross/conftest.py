"""The small CNN that exists in both frameworks, without and with a softmax."""

import pytest
from shared_cnn import Twins, make_twins


@pytest.fixture(scope="session")
def twins() -> Twins:
    return make_twins(softmax=False)


@pytest.fixture(scope="session")
def softmax_twins() -> Twins:
    return make_twins(softmax=True)
