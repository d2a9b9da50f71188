"""The pack, loaded without ComfyUI (tests/fake_comfy.py stands in for the few calls it makes)."""

from __future__ import annotations

import fake_comfy
import pytest


@pytest.fixture()
def pack(tmp_path):
    yield fake_comfy.install(tmp_path)
    fake_comfy.remove()
