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


class Progress:
    """A node's progress bar whose steps also check for Cancel and now and then show an image."""

    def __init__(self, total: int):
        self._bar = comfy.utils.ProgressBar(max(total, 1))
        self._total = max(total, 1)
        self._last_preview = time.monotonic()

    def step(self, done: int, preview: Callable[[], np.ndarray | None] | None = None) -> None:
        """`done` of the total are finished. `preview` makes it, and is only called when the last one is a few seconds
        old.
        """
        stop_if_cancelled()
        image = None
        if preview is not None and time.monotonic() - self._last_preview >= PREVIEW_SECONDS:
            image = _as_preview(preview())
            # Counted from the end: a slow preview must not eat the time of the steps.
            self._last_preview = time.monotonic()
        self._bar.update_absolute(done, self._total, image)


def _as_preview(array: np.ndarray | None):
    if array is None:
        return None
    from PIL import Image

    return "JPEG", Image.fromarray(array), PREVIEW_SIDE
