"""A real ComfyUI for the tests in this folder; they are skipped where COMFYUI_DIR does not name a
checkout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from comfy_models import write_models
from comfy_server import ComfyServer

_TIMES: list[str] = []


def pytest_collection_modifyitems(items) -> None:
    here = Path(__file__).parent
    skip = pytest.mark.skip(reason="COMFYUI_DIR does not name a ComfyUI checkout (make test-comfyui COMFYUI_DIR=...)")
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.comfyui)
            if not os.environ.get("COMFYUI_DIR"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> ComfyServer:
    """ComfyUI with random-weight models; COMFYUI_PYTHON is the interpreter it runs in (default: this one)."""
    checkout = Path(os.environ["COMFYUI_DIR"]).expanduser()
    base = tmp_path_factory.mktemp("comfyui")
    write_models(base / "models")
    running = ComfyServer(checkout, os.environ.get("COMFYUI_PYTHON", sys.executable), base)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def stopwatch(server):
    """Called with a workflow's name and processor seconds; the table for docs/comfyui.md is printed at the end."""
    version = server.get("/system_stats")["system"]["comfyui_version"]

    def note(name: str, seconds: float) -> None:
        _TIMES.append(f"| {version} | {name} | {seconds:.1f} s |")

    return note


def pytest_terminal_summary(terminalreporter) -> None:
    if _TIMES:
        terminalreporter.section("processor seconds in ComfyUI")
        for line in _TIMES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def object_info(server) -> dict:
    return server.get("/object_info")
