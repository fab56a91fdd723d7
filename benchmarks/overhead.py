"""What CFI itself costs: importing, listing, and attribute() against calling captum directly.

    python benchmarks/overhead.py

Promised: import under 0.2 s of its own, listing with all plugins under 0.5 s, attribute() at most 1.05 times captum.
Ratios are measured in pairs in one process, because machines are noisy.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter

RUNS = 7


def import_seconds() -> float:
    """Self time of all modules of cfi_core, from `-X importtime`."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import cfi_core"], capture_output=True, text=True, check=True
    )
    rows = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", result.stderr)
    return sum(int(micro) for micro, name in rows if name.split(".")[0] == "cfi_core") / 1e6


def cumulative_import_seconds() -> float:
    """Time until `import cfi_core` is done, with numpy and all other dependencies, without the interpreter's start."""
    code = "import time; t = time.perf_counter(); import cfi_core; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def listing_seconds() -> float:
    """Time of import and `cfi.methods()` in a new process, without the interpreter's start."""
    code = "import time; t = time.perf_counter(); import cfi_core; cfi_core.methods(); print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def command_seconds(*arguments: str) -> float:
    """Time of a whole process of the command, the interpreter's start included."""
    start = perf_counter()
    subprocess.run([sys.executable, "-m", "cfi_cli", *arguments], capture_output=True, check=True)
    return perf_counter() - start


def listing_process_seconds() -> float:
    """Time of a whole process that prints all methods without the command."""
    start = perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import cfi_core; print(cfi_core.methods())"], capture_output=True, check=True
    )
    return perf_counter() - start


def overhead() -> tuple[float, list[float], float]:
    """attribute() over captum: IntegratedGradients, ResNet-18, 96×96, batch 8, 20 steps."""
    import torch
    from captum.attr import IntegratedGradients
    from torchvision.models import resnet18

    import cfi_core as cfi

    torch.manual_seed(0)
    model = resnet18(weights=None).eval()
    inputs = torch.randn(8, 3, 96, 96)
    target = list(range(8))

    def directly() -> torch.Tensor:
        return IntegratedGradients(model).attribute(inputs.clone(), target=torch.tensor(target), n_steps=20)

    def by_cfi() -> cfi.Attribution | cfi.PendingLayer:
        return cfi.attribute(
            model, "integrated_gradients", "captum", inputs=inputs, target=target, exec_args={"n_steps": 20}
        )

    result, reference = by_cfi(), directly()
    assert isinstance(result, cfi.Attribution)
    apart = float(abs(result.values - reference.detach().numpy()).max() / abs(reference).max())
    ratios, direct = [], []
    for run in range(RUNS):
        pair = (by_cfi, directly) if run % 2 else (directly, by_cfi)
        seconds = {function: timed(function) for function in pair}
        ratios.append(seconds[by_cfi] / seconds[directly])
        direct.append(seconds[directly])
    return apart, ratios, statistics.median(direct)


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    function()
    return perf_counter() - start


def row(name: str, value: str, promised: str) -> None:
    """One line of the table."""
    print(f"{name:<52} {value:<28} {promised}")


def main() -> None:
    """Prints the table."""
    row("measured", f"median (min – max) of {RUNS}", "promised")
    for name, function, promised in (
        ("import cfi_core, its own modules", import_seconds, "< 0.2 s"),
        ("import cfi_core, with numpy and all dependencies", cumulative_import_seconds, ""),
        ("import and list all methods", listing_seconds, "< 0.5 s"),
        ("a process that prints all methods", listing_process_seconds, ""),
        ("cfi methods", lambda: command_seconds("methods"), "≤ 0.3 s more"),
        ("cfi --help", lambda: command_seconds("--help"), "≤ 0.5 s"),
    ):
        values = [function() for _ in range(RUNS)]
        row(name, f"{statistics.median(values):.3f} s ({min(values):.3f} – {max(values):.3f})", promised)
    apart, ratios, direct = overhead()
    median = f"{statistics.median(ratios):.3f} × ({min(ratios):.3f} – {max(ratios):.3f})"
    row("attribute() over captum, IntegratedGradients", median, "≤ 1.05 ×")
    print(f"(captum alone {direct:.2f} s; values differ by {apart:.1e} of the largest)")


if __name__ == "__main__":
    main()
