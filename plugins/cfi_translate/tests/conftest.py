"""Set-up of the tests of cfi-translate."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.adapters import adapter_for
from cfi_core.coexistence import load_safely
from cfi_core.registry import registry

# Before pytest collects anything that imports tensorflow and then torch's compiler.
load_safely()
# The shared models lie beside the tests, and pytest may run in an import mode that does not look there.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _torch_graphs_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever our converters to torch make in any of the tests can be written to files without code."""
    from cfi_translate.torch_graph import TorchGraph

    finish, adapter = TorchGraph.finish, adapter_for(registry(), "torch")

    def finish_and_save(self: TorchGraph, outputs: Any) -> Any:
        made = finish(self, outputs)
        assert adapter.save(made) is not None, f"a file cannot tell of something in\n{made.code}"
        return made

    monkeypatch.setattr(TorchGraph, "finish", finish_and_save)
