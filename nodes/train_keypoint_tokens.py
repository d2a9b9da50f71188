"""Train Keypoint Tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence

from comfy_api.latest import io

from stablekp_core.keypoints.self_check import report

from .comfy import sockets
from .comfy.batches import image_batches, single_images
from .comfy.kept import KeptTraining
from .comfy.messages import show_text
from .comfy.runtime import gradients_allowed
from .train_run import TrainingRun
from .train_settings import ANEW, advanced_widgets, earlier_run_widget, main_widgets, train_config


class TrainKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPTrain",
            display_name="Train Keypoint Tokens",
            category="train",
            description="Learns tokens whose attention marks the same places on every image. The "
            "images need no "
            "labels. Cancel keeps what was learned so far; run again to go on.",
            search_aliases=["learn keypoints", "train", "landmarks", "unsupervised keypoints", "stable keypoints"],
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
                earlier_run_widget(),
            ],
            outputs=[
                sockets.Tokens.Output(display_name="tokens", tooltip="For Detect Keypoints and Save Keypoint Tokens."),
                sockets.LossMap.Output(display_name="loss", tooltip="For ComfyUI's Plot Loss Graph node."),
                io.Image.Output(
                    display_name="contact_sheet",
                    tooltip="The keypoints found on images left out of training, with the self-check's verdict.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, keypoints, tokens, candidates=None) -> bool | str:
        # Values on the node come in a list, as this node takes lists; None comes over a wire.
        values = {"keypoints": keypoints, "tokens": tokens, "candidates": candidates}
        values = {name: value[0] if isinstance(value, list) else value for name, value in values.items()}
        known = {name: value for name, value in values.items() if value is not None}
        return sockets.verdict(train_config, known)

    @classmethod
    def execute(cls, backbone, images, continue_from=None, earlier_run=None, **settings) -> io.NodeOutput:
        from stablekp_core.images.image_set import ImageSet

        # is_input_list: everything arrives as a list, single values too.
        config = train_config({name: value[0] for name, value in settings.items()})
        arrays = ImageSet.from_arrays(single_images(images, "Train Keypoint Tokens (images)"))
        start = continue_from[0] if continue_from else None
        with gradients_allowed(), backbone[0].open(config.batch_size) as model:
            kept = KeptTraining.of(model, arrays, config, start)
            anew = earlier_run is not None and earlier_run[0] == ANEW
            tokens, sheet = _finished(kept, anew) or TrainingRun(model, arrays, config, kept).run(start)
        return io.NodeOutput(tokens, loss_map(tokens.losses), image_batches([sheet])[0])


def _finished(kept: KeptTraining, anew: bool):
    """(tokens, sheet) of the same training where it was finished earlier, unless it is to be done anew."""
    if anew:
        kept.forget_state()
        return None
    found = kept.load()
    if found is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.sheet.stat().st_mtime))
        check = found[0].check
        show_text(
            f"Trained earlier ({when}) on the same images with the same model and settings: {len(found[0].losses)} "
            f"steps. Set earlier_run to {ANEW!r} to train again."
            + (f"\n{report(check, found[0].config)}" if check is not None else "")
        )
    return found


def loss_map(losses: Sequence[float]) -> dict[str, list[float]]:
    """LOSS_MAP of the losses. ComfyUI's Loss Graph divides by their range, so it is never nothing."""
    values = [float(value) for value in losses] or [0.0]
    if max(values) == min(values):
        values = [values[0] + 1e-6 * max(1.0, abs(values[0])), *values]
    return {"loss": values}
