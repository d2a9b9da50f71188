"""The parts of ComfyUI's running prompt that the nodes talk to: device, memory, Cancel, progress and
previews.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager

import comfy.model_management as model_management
import comfy.utils
import numpy as np
import torch

#: Longest side, in pixels, of the previews that are sent to the browser while a node runs.
PREVIEW_SIDE = 768
PREVIEW_SECONDS = 3.0
#: Most of a node's time that its previews may take.
PREVIEW_SHARE = 0.1


def stop_if_cancelled() -> None:
    """Raise ComfyUI's own exception when the user pressed Cancel.

    Asked at every step: the progress bar's own check is throttled in newer versions. Which base class the
    exception has differs between versions, so nothing in the pack catches it without raising it again.
    """
    model_management.throw_exception_if_processing_interrupted()


@contextmanager
def gradients_allowed():
    """Leave the `inference_mode` that ComfyUI runs a prompt in; needed in the thread that runs backward."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def plain_tensors():
    """Without gradients, but with ordinary tensors: weights moved in inference mode could never be
    trained with.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


class PreviewBudget:
    """Decides when a preview may be made: not more often than every few seconds, and never more than a tenth of the
    time in all, whatever a preview and a step cost here.
    """

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._spent, self._cost, self._steps = 0.0, None, 0

    def allows(self) -> bool:
        """Asked once after each step. The first preview is expected to cost two steps of average length."""
        now, self._steps = time.monotonic(), self._steps + 1
        expected = 2 * (now - self._start) / self._steps if self._cost is None else self._cost
        enough = self._spent + expected <= PREVIEW_SHARE * (now - self._start)
        return enough and now - self._last >= PREVIEW_SECONDS

    def make(self, preview: Callable[[], np.ndarray | None]) -> np.ndarray | None:
        """The preview; its time is counted."""
        start = time.monotonic()
        image = preview()
        self._last = time.monotonic()
        self._cost = self._last - start
        self._spent += self._cost
        return image


class Progress:
    """A node's progress bar whose steps also check for Cancel and now and then show an image."""

    def __init__(self, total: int):
        self._bar = comfy.utils.ProgressBar(max(total, 1))
        self._total = max(total, 1)
        self._previews = PreviewBudget()

    def step(self, done: float, preview: Callable[[], np.ndarray | None] | None = None) -> None:
        """`done` of the total are finished. `preview` makes an image [H, W, 3] uint8; it is called when it is due."""
        stop_if_cancelled()
        image = None
        if preview is not None and self._previews.allows():
            image = _as_preview(self._previews.make(preview))
        self._bar.update_absolute(done, self._total, image)

    def show(self, done: float, image: np.ndarray) -> None:
        """`done` of the total are finished; an image [H, W, 3] uint8 that is there anyway is shown."""
        self._bar.update_absolute(done, self._total, _as_preview(image))


def _as_preview(array: np.ndarray | None):
    if array is None:
        return None
    from PIL import Image

    return "JPEG", Image.fromarray(array), PREVIEW_SIDE
