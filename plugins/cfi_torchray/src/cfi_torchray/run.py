"""Runs one of TorchRay's methods."""

from __future__ import annotations

from dataclasses import replace

from cfi_core.contract import MethodRequest, MethodResult
from cfi_torchray import gradients, perturbation
from cfi_torchray.licence import LICENCE, tell_licence

_RUNS = {
    "contrastive_excitation_backprop": gradients.run_contrastive,
    "rise": perturbation.run_rise,
    "extremal_perturbation": perturbation.run_extremal,
}


def run(request: MethodRequest) -> MethodResult:
    """Runs the method that the request names.

    Raises:
        ArgumentError: An argument is missing or does not fit (also InputError, LayerError, TargetError).
        MethodError: The method's rules would not reach all of the model, or TorchRay failed.

    Warns:
        LicenceWarning: Once per process.
    """
    tell_licence()
    result = _RUNS.get(request.method.key, gradients.run)(request)
    return replace(result, applied={**result.applied, "licence": LICENCE})
