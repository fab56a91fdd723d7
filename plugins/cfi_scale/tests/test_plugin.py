"""What the plugin offers, and that it is light."""

from __future__ import annotations

import subprocess
import sys

from cfi_core.testing.conformance import PluginConformance
from cfi_scale import plugin


class TestPlugin(PluginConformance):
    plugin = plugin


def test_importing_it_imports_none_of_what_it_uses():
    heavy = "{'zarr', 'xarray', 'distributed', 'ray', 'typer', 'h5py', 'PIL'}"
    code = f"import sys, cfi_scale, cfi_scale.plugin; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    import cfi_scale

    code = "import cfi_scale; [getattr(cfi_scale, name) for name in cfi_scale.__all__]"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert {"explain_dataset", "status"} <= set(cfi_scale.__all__)
