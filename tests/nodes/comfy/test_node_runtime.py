"""Progress and previews."""

from __future__ import annotations

import fake_comfy
import numpy as np
import pytest
from node_data import part


def run(runtime, monkeypatch, steps: int, step: float, preview: float) -> tuple[list[int], float, float]:
    """(steps with a preview, seconds of all previews, seconds of all) of a run on a clock of its own."""
    now, drawn = [100.0], []
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    fake_comfy.ProgressBar.calls.clear()
    progress = runtime.Progress(steps)

    def draw(number):
        drawn.append(number)
        now[0] += preview
        return np.zeros((4, 4, 3), np.uint8)

    for number in range(1, steps + 1):
        now[0] += step
        progress.step(number, lambda number=number: draw(number))
    return drawn, len(drawn) * preview, now[0] - 100.0


@pytest.mark.parametrize("step", [0.05, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("cost", [0.1, 0.5, 1.9])
def test_previews_take_at_most_a_tenth_whatever_a_step_costs(pack, monkeypatch, step, cost):
    """cost: of a preview, in steps. A run of half an hour gets some, a run of any length never too many."""
    runtime, preview = part("comfy.runtime"), cost * step
    for seconds in (10, 100, 1800):
        drawn, spent, whole = run(runtime, monkeypatch, int(seconds / step), step, preview)
        assert spent <= runtime.PREVIEW_SHARE * whole + 1e-6
    assert drawn


def test_previews_come_every_few_seconds_where_they_cost_little(pack, monkeypatch):
    drawn, _, _ = run(part("comfy.runtime"), monkeypatch, 100, 1.0, 0.01)
    assert drawn[0] == 20 and {b - a for a, b in zip(drawn, drawn[1:], strict=False)} == {3}
    assert [value for value, _, _ in fake_comfy.ProgressBar.calls] == list(range(1, 101))
    kind, image, _ = fake_comfy.ProgressBar.calls[19][2]
    assert kind == "JPEG" and image.size == (4, 4)
