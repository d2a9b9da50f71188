"""Progress and previews."""

from __future__ import annotations

import fake_comfy
import numpy as np
from node_data import part


def test_progress_shows_an_image_only_now_and_then(pack, monkeypatch):
    runtime = part("comfy.runtime")
    now = [100.0]
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    fake_comfy.ProgressBar.calls.clear()
    progress, drawn = runtime.Progress(10), []
    for step in range(1, 11):
        now[0] += 1.0
        progress.step(step, lambda step=step: drawn.append(step) or np.zeros((4, 4, 3), np.uint8))
    assert drawn == [3, 6, 9]
    assert [value for value, _, _ in fake_comfy.ProgressBar.calls] == list(range(1, 11))
    kind, image, _ = fake_comfy.ProgressBar.calls[2][2]
    assert kind == "JPEG" and image.size == (4, 4)
