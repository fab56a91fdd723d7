"""Models on a device are converted, and certified, as they are on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from captum_models import IMAGE, SmallCNN

import cfi_core as cfi


def test_to_onnx_and_back(device: torch.device) -> None:
    model, x = SmallCNN().eval().to(device), torch.randn(2, *IMAGE)
    there = cfi.translate(model, "onnx", inputs=x)
    assert there.certificate.faithful, str(there.certificate)
    back = cfi.translate(there.model, "torch", inputs=x.numpy())
    assert back.certificate.faithful, str(back.certificate)
    with torch.no_grad():
        expected, found = model(x.to(device)).cpu().numpy(), back.model(x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert next(model.parameters()).device.type == device.type


def test_lrp_of_an_onnx_model_that_came_from_the_device(device: torch.device) -> None:
    model, x = SmallCNN(bias=False, flatten_by_function=True).eval().to(device), torch.randn(2, *IMAGE)
    graph = cfi.translate(model, "onnx", inputs=x).model
    found = cfi.attribute(graph, "lrp", "captum", inputs=x.numpy(), target=1)
    expected = cfi.attribute(model, "lrp", "captum", inputs=x, target=1)
    scale = np.abs(expected.values).max()
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-3, atol=1e-4 * scale)
