"""A notebook shows what is going on while a call runs, and keeps nothing of it."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

CELL = """
import sys
{before}
import warnings; warnings.simplefilter("error")
import numpy as np
import cfi_core as cfi
from cfi_core import progress
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Print
progress.DELAY, progress._EVERY = 0.1, 0.05
model = Print(np.ones((4, 3)), np.ones((2, 4)))
with use_plugins(fake, fake.slow_plugin):
    cfi.attribute(
        model, "press_slowly", inputs=np.ones((1, 5, 5, 3)), exec_args={{"passes": 20, "seconds": 0.05}}{asked}
    )
"""


def execute(before: str = "", asked: str = "") -> tuple[str, list[Any]]:
    """What the kernel sends while the cell runs, and what stays in the notebook."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(before=before, asked=asked))])
    client, sent = NotebookClient(notebook, timeout=120, kernel_name="python3"), []
    receive = client.process_message

    def note(message: dict[str, Any], *more: Any) -> Any:
        sent.append(str(message["content"]))
        return receive(message, *more)

    client.process_message = note
    client.execute()
    return "\n".join(sent).replace("\\u2007", " ").replace("\u2007", " "), notebook.cells[0].outputs


def what_stays(outputs: list[Any]) -> str:
    """As text; a line that is begun anew takes the place of what it was before."""
    texts = [one["text"] if one["output_type"] == "stream" else "".join(one["data"].values()) for one in outputs]
    return "".join(texts).rpartition("\r")[2].strip()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
class TestNotebook:
    def test_a_widget_counts_and_goes(self) -> None:
        sent, outputs = execute()
        assert "running press_slowly of press:" in sent
        assert "/20 passes [00:0" in sent
        assert "'max': 20.0" in sent
        assert [one["data"] for one in outputs] == [{}]  # where an empty text would be a line

    def test_without_widgets_it_is_a_line_of_text(self) -> None:
        sent, outputs = execute(before='sys.modules["ipywidgets"] = None')
        assert "/20 passes [00:0" in sent
        assert "comm_id" not in sent
        assert "Warning" not in sent
        assert what_stays(outputs) == ""

    def test_it_can_be_switched_off(self) -> None:
        sent, outputs = execute(asked=", progress=False")
        assert "passes" not in sent.replace('"passes": 20', "")
        assert outputs == []
