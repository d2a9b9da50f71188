"""A real ComfyUI with a source of keypoints, and Chromium; skipped where COMFYUI_DIR or Playwright are missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "comfyui")]
SHOTS = os.environ.get("STABLEKP_SHOTS")  # a folder for screenshots of what the tests see


def _missing() -> str:
    if not os.environ.get("COMFYUI_DIR"):
        return "COMFYUI_DIR does not name a ComfyUI checkout (make test-browser COMFYUI_DIR=...)"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "Playwright is not installed (pip install playwright)"
    from comfy_page import CHROMIUM

    return "" if Path(CHROMIUM).is_file() else f"{CHROMIUM} is not there; name a Chromium by the variable CHROMIUM"


def pytest_collection_modifyitems(items) -> None:
    reason = _missing()
    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.browser)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    from comfy_server import ComfyServer

    base = tmp_path_factory.mktemp("comfyui_browser")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "doll_source").symlink_to(HERE / "doll_source", target_is_directory=True)
    checkout = Path(os.environ["COMFYUI_DIR"]).expanduser()
    running = ComfyServer(checkout, os.environ.get("COMFYUI_PYTHON", sys.executable), base)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def browser(server):
    from comfy_page import launch
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture()
def open_page(server, browser):
    """Called with the options of ComfyPage; pages are closed, and errors of their scripts fail the test."""
    from comfy_page import ComfyPage

    pages = []

    def open_one(**options):
        pages.append(ComfyPage(browser, server.port, **options))
        return pages[-1]

    yield open_one
    for page in pages:
        page.context.close()
        assert not [error for error in page.errors if "stable" in error.lower()], page.errors


@pytest.fixture()
def shot():
    """Called with a page and a name: a screenshot, where STABLEKP_SHOTS names a folder."""

    def take(page, name: str) -> None:
        if SHOTS:
            page.shot(Path(SHOTS) / f"{name}.jpg")

    return take
