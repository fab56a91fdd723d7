"""Conversions of many models, ours beside the chain of other libraries.

    python benchmarks/zoo.py [torch | keras] [--ours | --theirs] [part of a model's name ...]

For each model: the route, layers of the converted model, seconds for the conversion (without the certificate), relative
L2 differences of outputs and input gradients, layers found again, and the verdict of the certificate.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "zoo"))

from conversion_zoo import HEAD, KERAS_CONVERSIONS, LIBRARIES, TORCH_CONVERSIONS, keras_row, torch_row

SIDES = {"torch": (TORCH_CONVERSIONS, torch_row, "torch"), "keras": (KERAS_CONVERSIONS, keras_row, "tensorflow")}


def main(arguments: list[str]) -> None:
    sides = [one for one in arguments if one in SIDES] or list(SIDES)
    wanted = [one for one in arguments if one not in SIDES and not one.startswith("--")]
    for side in sides:
        cases, row, framework = SIDES[side]
        print(f"\n{side} models\n{HEAD}", flush=True)
        ours, theirs = "--theirs" not in arguments, "--ours" not in arguments
        translators = [*([None] if ours else []), *([LIBRARIES[framework]] if theirs else [])]
        for name in cases:
            if wanted and not any(part in name for part in wanted):
                continue
            for translator in translators:
                found = row(name, translator)
                print(found, flush=True)
                if found.missing:
                    print(f"{'':<26} not found: {', '.join(found.missing)[:200]}", flush=True)
                gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
