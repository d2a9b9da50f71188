"""The widgets of Train Keypoint Tokens, and the core's settings from their values."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.config import TrainConfig

from .comfy import sockets


def train_config(settings: dict) -> TrainConfig:
    """The core's settings from the node's widgets: the same names, but the zoom range is two widgets."""
    values = dict(settings)
    low = values.pop("scale_min", TrainConfig.scale[0])
    high = values.pop("scale_max", TrainConfig.scale[1])
    return TrainConfig.from_dict({**values, "scale": (low, high)})


#: What Train Keypoint Tokens does when the same training was begun before.
CONTINUE, ANEW = "use or continue", "train anew"


def earlier_run_widget():
    """The last widget, as saved workflows keep the order of those before it."""
    return io.Combo.Input(
        "earlier_run",
        options=[CONTINUE, ANEW],
        default=CONTINUE,
        optional=True,
        tooltip="When the same training (images, model, settings) was done before: use its result, or continue where "
        "it was cancelled. train anew: start over.",
    )


def main_widgets() -> list:
    d = TrainConfig
    return [
        io.Int.Input("keypoints", default=d.keypoints, min=2, max=200, tooltip="How many keypoints to find (K)."),
        io.Int.Input(
            "steps",
            default=d.steps,
            min=1,
            max=1_000_000,
            tooltip="Optimiser steps. 500 for people and faces, up to 10000 for hard sets.",
        ),
        io.Int.Input(
            "tokens",
            default=d.tokens,
            min=2,
            max=10_000,
            tooltip="Tokens that are learned (N); the best of them become the keypoints. Fewer is "
            "faster, but "
            "leaves the background nowhere to go.",
        ),
        io.Float.Input(
            "learning_rate",
            default=d.learning_rate,
            min=1e-6,
            max=1.0,
            step=1e-4,
            round=1e-6,
            tooltip="Of the Adam optimiser. 0.005 for Stable Diffusion, 0.05 for the demo model.",
        ),
        io.Int.Input(
            "batch_size",
            default=d.batch_size,
            min=1,
            max=256,
            tooltip="Images per step. If memory runs out, they are worked on in smaller pieces, with the same result.",
        ),
        sockets.seed_input("Decides the first tokens, the order of images, the views and the noise.", d.seed),
    ]


def advanced_widgets() -> list:
    d = TrainConfig
    more = {"optional": True, "extra_dict": sockets.ADVANCED}
    return [
        io.Int.Input(
            "candidates",
            default=d.candidates,
            min=0,
            max=10_000,
            **more,
            tooltip="The most point-like tokens of each image, which take part in the loss (kappa). 0: 25, or as "
            "many as keypoints.",
        ),
        io.Float.Input(
            "sigma",
            default=d.sigma,
            min=0.1,
            max=100.0,
            step=0.1,
            **more,
            tooltip="Width of the spot a token's attention is drawn to, in pixels of the attention map.",
        ),
        io.Float.Input(
            "equivariance_weight",
            default=d.equivariance_weight,
            min=0.0,
            max=1e9,
            step=10.0,
            **more,
            tooltip="Weight of: the same place, however the image is turned and shifted.",
        ),
        io.Float.Input(
            "localization_weight",
            default=d.localization_weight,
            min=0.0,
            max=1e9,
            step=10.0,
            **more,
            tooltip="Weight of: one small spot, not a smear. What counts is the ratio of the two.",
        ),
        io.Float.Input(
            "rotation",
            default=d.rotation,
            min=0.0,
            max=180.0,
            step=1.0,
            **more,
            tooltip="Random views for training turn the image by up to this many degrees.",
        ),
        io.Float.Input(
            "scale_min",
            default=d.scale[0],
            min=0.1,
            max=4.0,
            step=0.01,
            **more,
            tooltip="Random views show a window of at least this share of the image's side.",
        ),
        io.Float.Input(
            "scale_max",
            default=d.scale[1],
            min=0.1,
            max=4.0,
            step=0.01,
            **more,
            tooltip="… and at most this share.",
        ),
        io.Float.Input(
            "translation",
            default=d.translation,
            min=0.0,
            max=1.0,
            step=0.01,
            **more,
            tooltip="Random views move the window by up to this many halves of the image side.",
        ),
        io.Int.Input(
            "timestep",
            default=d.timestep,
            min=0,
            max=999,
            **more,
            tooltip="How much noise the model sees, of 1000.",
        ),
        io.Combo.Input(
            "resize",
            options=list(d._choices["resize"]),
            default=d.resize,
            **more,
            tooltip="How an image becomes square: squash it, or pad it and keep its aspect ratio. auto: by the images.",
        ),
        io.Int.Input(
            "image_size",
            default=d.image_size,
            min=0,
            max=2048,
            step=8,
            **more,
            tooltip="Side of the square the model sees, in pixels. 0: what the model was made for (512).",
        ),
        io.Int.Input(
            "map_size",
            default=d.map_size,
            min=8,
            max=1024,
            step=8,
            **more,
            tooltip="Side of the attention maps (R). Sigma is measured on it.",
        ),
        io.Int.Input(
            "micro_batch",
            default=d.micro_batch,
            min=0,
            max=256,
            **more,
            tooltip="Images that are worked on at once, to save memory; the result is the same. 0: the whole batch.",
        ),
        io.Combo.Input(
            "gradient",
            options=list(d._choices["gradient"]),
            default=d.gradient,
            **more,
            tooltip="exact: the method as published. cached skips the model's backward pass: much faster, but other "
            "tokens come out.",
        ),
    ]
