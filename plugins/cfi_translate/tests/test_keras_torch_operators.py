"""Each kind of Keras layer, against Keras itself."""

from __future__ import annotations

import pytest
from keras_torch_cases import CASES, difference, examples, randomised


@pytest.mark.parametrize("name", CASES)
def test_layer_computes_what_keras_computes(name):
    model = randomised(CASES[name]())
    inputs = examples(model, (12, 15, 3)) if name == "open sizes" else examples(model)
    measured = difference(model, inputs)
    assert measured.outputs < 5e-6 and measured.gradients < 5e-5
