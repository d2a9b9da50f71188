"""Runs the tests of the editor's state logic with Node's own test runner, where Node is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE = shutil.which("node")


@pytest.mark.skipif(not NODE, reason="Node.js is not installed: the tests of the editor's state logic did not run")
def test_state_logic():
    done = subprocess.run([NODE, "--test", str(HERE)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "# pass 0" not in done.stdout, done.stdout


def test_the_editor_stays_small_and_needs_nothing_from_elsewhere():
    pages = HERE.parents[1] / "web" / "js"
    files = [pages / "point_editor.js", *sorted((pages / "editor").iterdir())]
    text = {file: file.read_text(encoding="utf-8") for file in files}
    assert sum(len(lines.splitlines()) for lines in text.values()) < 1000
    for file, lines in text.items():
        assert "http://" not in lines and "https://" not in lines, file
