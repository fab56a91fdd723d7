"""What the plugin registers, and that listing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

from cfi_bridge.plugin import cfi_translators
from cfi_core.specs import ANY, RUNNABLE, resolve


def test_one_bridge_into_each_framework_with_toolsets() -> None:
    specs = {spec.name: spec for spec in cfi_translators()}
    assert {name: spec.target for name, spec in specs.items()} == {
        "bridge-to-torch": "torch",
        "bridge-to-keras": "tensorflow",
    }
    for spec in specs.values():
        assert (spec.source, spec.kind, spec.preserves) == (ANY, "bridge", RUNNABLE)
        assert callable(resolve(spec.implementation))


def test_listing_imports_no_framework() -> None:
    code = "import sys, cfi_bridge.plugin; sys.exit(bool({'torch', 'tensorflow', 'keras', 'jax'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
