"""What certificates cost: python benchmarks/certificate.py [keras | torch] [pixels] [calls]

Integrated gradients of 20 steps on 4 images (96 pixels, if not told) over a conversion of ResNet-50: seconds of the run
itself, of the certificate before it and of the comparison after it, in the first call and in later ones, whose inputs
are new; as shares of the run. Besides, what else a call measures: the function check with the model's first pass, and
the sum of the values. One line for each call, in seconds by the clock; the shares also in seconds of the processors,
which other work on the machine changes less.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MEASURED = ("certificate", "layers", "comparison")
PARTS = (
    ("cfi_core.explainer", "check", "function"),
    ("cfi_core.homecoming", "measure_completeness", "sum"),
    ("cfi_core.translation.conversion", "_certify", "certificate"),
    ("cfi_core.translation.conversion", "find_layers", "layers"),
    ("cfi_core.explainer", "confirm_run", "comparison"),
    ("cfi_core.running", "run_method", "run"),
)


CLOCKS = (perf_counter, process_time)


def watch(spent: dict[str, list[float]]) -> None:
    """Counts the seconds that the parts of a call take.

    Raises:
        AttributeError: The tree at hand has a part at another place, and its share would be missing.
    """
    from importlib import import_module

    def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = [clock() for clock in CLOCKS]
            try:
                return function(*args, **kwargs)
            finally:
                taken = [clock() - before for clock, before in zip(CLOCKS, start, strict=True)]
                spent[name] = [one + more for one, more in zip(spent.get(name, (0.0, 0.0)), taken, strict=True)]

        return call

    for module, name, part in PARTS:
        found = import_module(module)
        setattr(found, name, timed(getattr(found, name), part))


def share(spent: dict[str, list[float]], parts: Iterable[str]) -> str:
    """Of the run, by either clock."""
    both = [sum(spent[part][i] for part in parts if part in spent) / spent["run"][i] for i in range(len(CLOCKS))]
    return " / ".join(format(one, ".2f") for one in both)


def main(side: str = "keras", size: str = "96", count: str = "9") -> None:
    """Prints one line for each call."""
    from cfi_core.coexistence import load_safely

    load_safely()
    import keras
    import numpy as np
    import torch
    import torchvision

    import cfi_core as cfi

    warnings.simplefilter("ignore")
    pixels, spent = int(size), dict[str, list[float]]()
    watch(spent)
    generator = np.random.default_rng(0)
    if side == "keras":
        keras.utils.set_random_seed(0)
        model: Any = keras.applications.ResNet50(weights=None, input_shape=(pixels, pixels, 3))
        shape, how = (4, pixels, pixels, 3), ("integrated_gradients", "captum", {"exec_args": {"n_steps": 20}})
    else:
        torch.manual_seed(0)
        model = torchvision.models.resnet50(weights=None).eval()
        shape, how = (4, 3, pixels, pixels), ("smooth_grad", "tf-keras-vis", {"exec_args": {"smooth_samples": 20}})
    method, toolset, arguments = how
    for call in range(1, int(count) + 1):
        spent.clear()
        images, verdict = generator.normal(size=shape).astype(np.float32), ""
        try:
            cfi.attribute(model, method, toolset, inputs=images, target=1, translator="conversion", seed=0, **arguments)
        except cfi.UnfaithfulTranslationError:
            verdict = " (refused)"
        parts = ", ".join(f"{part} {seconds:.2f} s" for part, (seconds, _) in sorted(spent.items()))
        shares = f"certificate {share(spent, MEASURED)} of the run, all {share(spent, {*spent} - {'run'})}"
        print(f"call {call}: {parts}; {shares}{verdict}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
