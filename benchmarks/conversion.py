"""What a conversion costs at full size: python benchmarks/conversion.py [--ours] [keras | torch] [pixels]

VGG16 and ResNet-50 at 224×224 (or other) pixels in both directions, ours beside the chain of other libraries: seconds
of the conversion (without the certificate) and of processor time, and peak memory above the loaded frameworks and
model, as a multiple of the weights. Each conversion runs in a process of its own, in which only a model of one layer
was converted before, to load all that the libraries load when they are first used. The chains run with protobuf's
implementation in Python: the one in C keeps what a graph no longer holds, so that tf2onnx takes three times as long
with it and three times the memory (more than 24 GB for VGG16 at 224 pixels).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PIXELS = "224"
MODELS = {"keras": ("VGG16", "ResNet50"), "torch": ("vgg16", "resnet50")}
CHAINS = {"keras": ("tf2onnx", "onnx2torch"), "torch": ("torch-onnx", "onnx2keras")}
OURS = {"keras": ("keras-torch",), "torch": ("torch-export", "onnx-keras")}
MB = 2**20


def convert(side: str, name: str, size: str, *translators: str) -> None:
    """One conversion in this process."""
    pixels = int(size)
    from cfi_core.coexistence import load_safely

    load_safely()

    import keras
    import numpy as np
    import torch
    import torchvision

    from cfi_core.records import Route
    from cfi_core.registry import registry
    from cfi_core.translation.conversion import convert_along

    route = Route(tuple(registry().translators[one] for one in translators))
    small: Any = (
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]) if side == "keras" else torch.nn.Linear(3, 2)
    )
    convert_along(route, small, (np.zeros((2, 3), np.float32),))
    if side == "keras":
        model = getattr(keras.applications, name)(weights=None, input_shape=(pixels, pixels, 3))
        batch, weights = np.zeros((2, pixels, pixels, 3), np.float32), model.count_params() * 4
        model(batch)
    else:
        model = getattr(torchvision.models, name)(weights=None).eval()
        batch = np.zeros((2, 3, pixels, pixels), np.float32)
        weights = sum(value.numel() for value in model.state_dict().values()) * 4
        with torch.no_grad():
            model(torch.from_numpy(batch))
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    start, used = perf_counter(), process_time()
    convert_along(route, model, (batch,))
    seconds, used = perf_counter() - start, process_time() - used
    print(json.dumps([seconds, used, (_memory("VmHWM") - before) * 1024 / MB, weights / MB]))


def _memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def measured(side: str, name: str, size: str, translators: tuple[str, ...]) -> list[float] | None:
    """Seconds, processor seconds, peak memory and weights (MB); None if the model could not be converted."""
    command = [sys.executable, __file__, "one", side, name, size, *translators]
    favour = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"} if translators in CHAINS.values() else {}
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | favour)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        print(
            f"{side + ' ' + name:<18} {', '.join(translators):<28} failed ({result.returncode}): {last[:150]}",
            flush=True,
        )
        return None
    found: list[float] = json.loads(result.stdout.strip().splitlines()[-1])
    return found


def main(arguments: list[str]) -> None:
    print(f"{'model':<18} {'route':<28} {'seconds':>8} {'of processor':>12} {'memory (MB)':>11} {'of weights':>10}")
    size = next((one for one in arguments if one.isdigit()), PIXELS)
    for side in [one for one in arguments if one in MODELS] or MODELS:
        for name in MODELS[side]:
            times: list[Any] = []
            for translators in (OURS[side],) if "--ours" in arguments else (OURS[side], CHAINS[side]):
                found = measured(side, name, size, translators)
                if found is not None:
                    seconds, used, memory, weights = found
                    times.append(seconds)
                    print(
                        f"{side + ' ' + name:<18} {', '.join(translators):<28} {seconds:8.1f} {used:12.1f} "
                        f"{memory:11.0f} {memory / weights:10.2f}",
                        flush=True,
                    )
            if len(times) == 2:
                print(f"{'':<18} {'ours / theirs':<28} {times[0] / times[1]:8.3f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        convert(*sys.argv[2:])
    else:
        main(sys.argv[1:])
