"""One training inside ComfyUI: progress, previews and status text while it runs, and what is kept when it stops."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.keypoints.self_check import report
from stablekp_core.progress import CHECKING, CHOOSING, DETECTING, EXTRACTING, OCCLUSION, REFINING, duration

from .comfy import folders
from .comfy.kept import KeptTraining
from .comfy.messages import Status, leave_note, short_path, show_text
from .comfy.runtime import Progress, stop_if_cancelled

#: Images on the live preview and on the final contact sheet.
_PREVIEW_IMAGES = 4
_SHEET_IMAGES = 12
_PREVIEW = DetectConfig(views=0)
_SHEET = DetectConfig(views=4)
#: The bar's parts in percent: training takes most of the time, then the tokens are chosen and refined.
_TRAINED = 75
_PARTS = {
    EXTRACTING: (75, 85),
    CHOOSING: (85, 88),
    REFINING: (88, 93),
    OCCLUSION: (93, 94),
    CHECKING: (94, 97),
    DETECTING: (97, 100),
}


class TrainingRun:
    """A training with ComfyUI's progress bar, preview and Cancel around it.

    model: an open Backbone. images: ImageSet. kept: where the run's state and its result go.
    """

    def __init__(self, model, images, config: TrainConfig, kept: KeptTraining):
        self.model, self.images, self.config, self.kept = model, images, config, kept
        self.progress, self.status, self.last = Progress(100), Status(), None
        self._first = None  # (step, moment) of the first step of this run

    def run(self, start=None):
        """(tokens, contact sheet uint8 [H, W, 3]). Goes on from a state of the same training where there is one."""
        from stablekp_core.training.train import train
        from stablekp_core.training.trainer import TrainingDiverged

        self.status.show("reading the images", now=True)
        self.kept.state.parent.mkdir(parents=True, exist_ok=True)
        try:
            result = train(
                self.model,
                self.images,
                self.config,
                start=start,
                on_step=self._on_step,
                notice=lambda text: self.status.show(text, now=True),
                on_progress=self._on_progress,
                checkpoint=self.kept.state,
                resume=True,
            )
            self.status.show("drawing the contact sheet", now=True)
            sheet = self._result_sheet(result.tokens)
        except TrainingDiverged as error:
            self.kept.forget_state()
            if error.tokens is not None:
                path = _rescue(error.tokens)
                leave_note("Training stopped", f"{error} They are in {short_path(path)}.", "warn")
            raise
        except BaseException:  # Cancel is a BaseException in newer versions of ComfyUI and an Exception in older ones
            self._keep_what_was_learned()
            raise
        self.progress.show(100, sheet)
        self.kept.save(result.tokens, sheet)
        if result.tokens.check is not None:
            show_text(report(result.tokens.check, result.tokens.config))
        return result.tokens, sheet

    def _result_sheet(self, tokens) -> np.ndarray:
        """Contact sheet of the images left out of training, where there are any, with the verdict above."""
        check, images, heading = tokens.check, self.images, ""
        if check is not None:
            left_out = check.indices(images.names)
            images, heading = images.pick(left_out) if left_out else images, check.heading(left_out)
        return keypoint_sheet(self.model, tokens, images, _SHEET_IMAGES, _SHEET, heading, self._on_progress)

    def _on_step(self, info) -> None:
        self.last = info
        if self._first is None:
            self._first = info.step, time.monotonic()
        self.status.show(self._step_text)
        self.progress.step(_TRAINED * info.step / info.steps, self._preview)

    def _on_progress(self, phase: str, done: int, total: int) -> None:
        if phase not in _PARTS:  # the steps tell more by themselves; before and between them a round may be judged
            if not done:
                self.status.show(f"step 0 of {total}{self._skipped()}", now=True)
            stop_if_cancelled()
            return
        what = "drawing the contact sheet" if phase == DETECTING else phase
        self.status.show(f"{what}: {100 * done // max(total, 1)} %{self._skipped()}")
        first, last = _PARTS[phase]
        self.progress.step(first + (last - first) * done / max(total, 1))

    def _step_text(self) -> str:
        info, (first, began) = self.last, self._first
        left = ""
        if first < info.step < info.steps:
            each = (time.monotonic() - began) / (info.step - first)
            left = f", {duration(each * (info.steps - info.step))} of training left"
        return f"step {info.step} of {info.steps}, loss {info.loss:.4g}{left}{self._skipped()}"

    def _skipped(self) -> str:
        names = [name for name, _ in self.images.skipped]
        return f"\nskipped: {', '.join(names)}" if names else ""

    def _preview(self) -> np.ndarray:
        """Keypoints as of now on a few images, and the loss so far below them; uint8 [H, W, 3]."""
        import torch

        from stablekp_core.drawing.plots import loss_plot

        with torch.no_grad():
            sheet = keypoint_sheet(self.model, self.last.snapshot(), self.images, _PREVIEW_IMAGES, _PREVIEW)
        plot = loss_plot({"loss": self.last.history}, width=max(160, sheet.shape[1]), height=200)
        rows = np.full((sheet.shape[0] + plot.shape[0], plot.shape[1], 3), 255, dtype=np.uint8)
        rows[: sheet.shape[0], : sheet.shape[1]] = sheet
        rows[sheet.shape[0] :] = plot
        return rows

    def _keep_what_was_learned(self) -> None:
        if self.last is None:
            return
        path = _rescue(self.last.snapshot())
        where = f"step {self.last.step} of {self.last.steps}"
        text = (
            f"Stopped at {where}. Run again with the same settings to go on from there. What was learned so far is "
            f"also in {short_path(path)}, which Load Keypoint Tokens lists."
        )
        self.status.show(text, now=True)
        leave_note("Training stopped", text)


def _rescue(tokens) -> Path:
    """Keep tokens of a run that did not finish where Load Keypoint Tokens finds them."""
    path = folders.free_path(folders.rescue_folder() / time.strftime("interrupted_%Y-%m-%d_%H-%M-%S.safetensors"))
    return tokens.save(path)


def keypoint_sheet(
    model, tokens, images, count: int, config: DetectConfig, heading: str = "", on_progress=None
) -> np.ndarray:
    """Contact sheet, uint8 RGB [H, W, 3], of the keypoints on up to `count` images spread over the set."""
    from stablekp_core.detection.detector import detect
    from stablekp_core.images.image_set import ImageSet

    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    arrays = [images[int(i)] for i in chosen]
    points = detect(model, tokens, ImageSet.from_arrays(arrays), config, on_progress=on_progress).keypoints
    return points.contact_sheet(arrays, heading=heading)
