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
    """A node's progress bar whose steps also check for Cancel and now and then show a picture."""

    def __init__(self, total: int):
        self._bar = comfy.utils.ProgressBar(max(total, 1))
        self._total = max(total, 1)
        self._last_picture = time.monotonic()

    def step(self, done: int, picture: Callable[[], np.ndarray | None] | None = None) -> None:
        """`done` of the total are finished. `picture` is only called when the last one is a few seconds
        old.
        """
        stop_if_cancelled()
        preview = None
        if picture is not None and time.monotonic() - self._last_picture >= PREVIEW_SECONDS:
            preview = _as_preview(picture())
            # Counted from the end: a slow picture must not eat the time of the steps.
            self._last_picture = time.monotonic()
        self._bar.update_absolute(done, self._total, preview)


def _as_preview(picture: np.ndarray | None):
    if picture is None:
        return None
    from PIL import Image

    return "JPEG", Image.fromarray(picture), PREVIEW_SIDE
