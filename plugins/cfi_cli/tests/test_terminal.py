"""`cfi` as a program: in a pseudo-terminal and in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")

PROGRAM = [sys.executable, "-m", "cfi_cli"]
ESCAPE = "\x1b["


def piped(*arguments: object, **more) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **more)


def typed(*arguments: object, width: int = 80, **more):
    """The program in a terminal of its own."""
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": str(width)}
    environment.pop("NO_COLOR")
    return pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], *map(str, arguments)],
        encoding="utf-8",
        dimensions=(40, width),
        timeout=120,
        env=environment,
        **more,
    )


def test_the_command_is_announced():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="cfi")
    assert script.value == "cfi_cli.app:main"


def test_a_pipe_gets_plain_text_and_a_terminal_colours():
    ran = piped("toolsets")
    assert ran.returncode == 0 and ran.stderr == "" and ESCAPE not in ran.stdout
    shown = typed("frameworks")
    seen = shown.read()
    shown.close()
    assert shown.exitstatus == 0 and ESCAPE in seen and "numpy" in seen


def test_no_color_is_respected():
    shown = pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], "frameworks"],
        encoding="utf-8",
        timeout=120,
        env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1"},
    )
    assert "\x1b[36" not in shown.read()


def test_json_in_a_terminal_is_json_too():
    shown = typed("frameworks", "--json")
    assert "numpy" in {one["name"] for one in json.loads(shown.read())}


def test_an_error_is_two_lines_in_a_terminal():
    shown = typed("layers", "nothing.onnx")
    lines = shown.read().strip().splitlines()
    shown.close()
    assert shown.exitstatus == 3 and len(lines) == 2 and lines[0].startswith("error: ")


def test_an_interrupt_ends_it_with_130_and_no_traceback(shop: Path):
    (shop / "slow.py").write_text("import time\ndef model():\n    print('begun', flush=True)\n    time.sleep(60)\n")
    shown = typed("layers", "slow:model", cwd=str(shop))
    shown.expect("begun")
    shown.sendintr()
    rest = shown.read()
    shown.close()
    assert shown.exitstatus == 130 and "Traceback" not in rest and "interrupted" in rest


def test_a_signal_in_a_pipe(shop: Path):
    (shop / "slow.py").write_text("import time\ndef model():\n    print('begun', flush=True)\n    time.sleep(60)\n")
    with subprocess.Popen(
        [*PROGRAM, "layers", "slow:model"], cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr.readline().strip() == "begun"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "") and "Traceback" not in err


def test_who_reads_no_further_gets_no_error():
    command = f"{' '.join(PROGRAM)} frameworks | head -1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_what_compiled_code_prints_is_no_part_of_the_answer(shop: Path):
    ran = piped("layers", "shop:noisy", "--json", cwd=shop)
    assert json.loads(ran.stdout) == []  # to this process its model is a function, which has no layers
    assert "loading the weights" in ran.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&-"])
def test_streams_that_are_closed(closed):
    command = f"{' '.join(PROGRAM)} layers nothing.onnx {closed}"
    assert subprocess.run(["bash", "-c", command], check=False, timeout=120).returncode == 3


def test_letters_that_the_terminal_has_not():
    ran = piped("frameworks", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ran.returncode == 0 and "numpy" in ran.stdout
    told = piped("layers", "×.onnx", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert told.returncode == 3 and "\\xd7.onnx" in told.stderr


def test_completion_knows_the_commands():
    # The shell is otherwise the one that has called, whatever that is.
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ran = piped("--show-completion", "bash", env=named)
    assert ran.returncode == 0 and "complete" in ran.stdout
    asked = {**os.environ, "_CFI_COMPLETE": "complete_bash", "COMP_WORDS": "cfi ver", "COMP_CWORD": "1"}
    assert "verify" in piped(env=asked).stdout.split()


@pytest.mark.parametrize("asked", ["--help", "methods"])
def test_help_and_lists_import_neither_rich_nor_pictures_nor_any_framework(asked):
    script = (
        f"import sys; from cfi_cli.app import run; run([{asked!r}]);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"rich", "matplotlib", "jinja2", "PIL", "torch", "tensorflow", "keras", "jax", "onnx", "pandas", "xarray"}
    assert not heavy & set(ran.stderr.split())
