"""Train Keypoint Tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
from comfy_api.latest import io

from stablekp_core.config import DetectConfig, TrainConfig

from .comfy import folders, sockets
from .comfy.batches import image_batches, single_images
from .comfy.runtime import Progress, gradients_allowed, stop_if_cancelled
from .train_settings import advanced_widgets, main_widgets, train_config

#: Images on the live preview and on the final contact sheet.
_PREVIEW_IMAGES = 4
_SHEET_IMAGES = 12
_PREVIEW = DetectConfig(views=0)
_SHEET = DetectConfig(views=4)


class TrainKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPTrain",
            display_name="Train Keypoint Tokens",
            description="Learns tokens whose attention marks the same places on every image. The "
            "images need no "
            "labels. Cancel keeps what was learned so far in output/keypoint_tokens.",
            search_aliases=["stable keypoints", "learn keypoints", "train"],
            is_input_list=True,
            inputs=[
                sockets.Backbone.Input(
                    "backbone", tooltip="From Load Keypoint Backbone or Keypoint Backbone from MODEL."
                ),
                io.Image.Input(
                    "images",
                    tooltip="20 to 100 images of one kind of thing, as a batch or as the list "
                    "of Load Image Set. No labels are needed.",
                ),
                *main_widgets(),
                sockets.Tokens.Input(
                    "continue_from",
                    optional=True,
                    tooltip="Tokens to start from instead of random ones; the number of tokens must be "
                    "the same. The steps here come on top of theirs.",
                ),
                *advanced_widgets(),
            ],
            outputs=[
                sockets.Tokens.Output(display_name="tokens", tooltip="For Detect Keypoints and Save Keypoint Tokens."),
                sockets.LossMap.Output(display_name="loss", tooltip="For ComfyUI's Plot Loss Graph node."),
                io.Image.Output(
                    display_name="contact_sheet",
                    tooltip="The keypoints found on some of the images after training.",
                ),
            ],
        )

    @classmethod
    def execute(cls, backbone, images, continue_from=None, **settings) -> io.NodeOutput:
        from stablekp_core.images.image_set import ImageSet

        # is_input_list: everything arrives as a list, single values too.
        config = train_config({name: value[0] for name, value in settings.items()})
        arrays = ImageSet.from_arrays(single_images(images, "Train Keypoint Tokens (images)"))
        start = continue_from[0] if continue_from else None
        with gradients_allowed(), backbone[0].open(config.batch_size) as model:
            result = _train(model, arrays, config, start)
            sheet = keypoint_sheet(model, result.tokens, arrays, _SHEET_IMAGES, _SHEET)
        return io.NodeOutput(
            result.tokens, loss_map([total for total, _, _ in result.losses]), image_batches([sheet])[0]
        )


def loss_map(losses: Sequence[float]) -> dict[str, list[float]]:
    """LOSS_MAP of the losses. ComfyUI's Loss Graph divides by their range, so it is never nothing."""
    values = [float(value) for value in losses] or [0.0]
    if max(values) == min(values):
        values = [values[0] + 1e-6 * max(1.0, abs(values[0])), *values]
    return {"loss": values}


def keypoint_sheet(model, tokens, arrays, count: int, config: DetectConfig) -> np.ndarray:
    """Contact sheet, uint8 RGB [H, W, 3], of the keypoints on up to `count` images spread over the set."""
    from stablekp_core.detection.detector import detect
    from stablekp_core.drawing.sheets import contact_sheet
    from stablekp_core.images.image_set import ImageSet

    chosen = np.unique(np.linspace(0, len(arrays) - 1, min(count, len(arrays))).round().astype(int))
    arrays = [arrays[int(i)] for i in chosen]
    points = detect(model, tokens, ImageSet.from_arrays(arrays), config).keypoints
    return contact_sheet(
        arrays, list(points.xy), list(points.confidence), skeleton=tokens.skeleton, colors=tokens.colors
    )


def _train(model, arrays, config: TrainConfig, start):
    """The core's training with ComfyUI's progress bar, preview and Cancel around it."""
    from stablekp_core.training.trainer import TrainingDiverged, train

    progress, last = Progress(config.steps), None

    def on_step(info) -> None:
        nonlocal last
        last = info
        progress.step(info.step, lambda: _preview(model, arrays, info))

    def on_choosing(done: int, of: int) -> None:
        stop_if_cancelled()

    try:
        return train(model, arrays, config, start=start, on_step=on_step, notice=_log, on_choosing=on_choosing)
    except TrainingDiverged as error:
        if error.tokens is not None:
            _rescue(error.tokens, "the loss stopped being a number")
        raise
    except BaseException:  # Cancel is a BaseException in newer versions of ComfyUI and an Exception in older ones
        if last is not None:
            _rescue(last.snapshot(), f"training stopped at step {last.step} of {last.steps}")
        raise


def _rescue(tokens, why: str) -> None:
    """Keep what was learned: the next run can start from this file."""
    path = folders.free_path(folders.rescue_folder() / time.strftime("interrupted_%Y-%m-%d_%H-%M-%S.safetensors"))
    _log(f"{why}; what was learned is in {tokens.save(path)} (Load Keypoint Tokens lists it)")


def _preview(model, arrays, info) -> np.ndarray:
    """Keypoints as of now on a few images, and the loss so far below them."""
    import torch

    from stablekp_core.drawing.plots import loss_plot

    with torch.no_grad():
        sheet = keypoint_sheet(model, info.snapshot(), arrays, _PREVIEW_IMAGES, _PREVIEW)
    plot = loss_plot({"loss": info.history}, width=max(160, sheet.shape[1]), height=200)
    rows = np.full((sheet.shape[0] + plot.shape[0], plot.shape[1], 3), 255, dtype=np.uint8)
    rows[: sheet.shape[0], : sheet.shape[1]] = sheet
    rows[sheet.shape[0] :] = plot
    return rows


def _log(message: str) -> None:
    logging.info("[Stable Keypoints] %s", message)
