"""Importing and listing load no framework, and none of the steps of a call."""

import subprocess
import sys

HEAVY = ("torch", "tensorflow", "keras", "onnx", "captum", "tf_keras_vis", "matplotlib.pyplot", "scipy", "xarray")


def test_importing_and_listing_import_no_framework():
    script = (
        "import sys, cfi_core as cfi\n"
        "cfi.methods(); cfi.toolsets(); cfi.translators(); cfi.plugins()\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), 'cfi_core.api' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[] False"


def test_listing_loads_nothing_of_what_a_call_makes():
    """Records of results and what measures them take longer to load than what is listed."""
    script = (
        "import sys, cfi_core as cfi\n"
        "cfi.methods()\n"
        "print([name for name in ('attribution', 'certificate', 'distance', 'layer_map', 'tokens')"
        " if f'cfi_core.{name}' in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
