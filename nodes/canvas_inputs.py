"""The inputs of nodes that bring keypoints to the size of another image."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.drawing.canvas_fit import FITS

from .comfy import sockets


def canvas_inputs(fit: str) -> list:
    """How keypoints come to another size, and whose size. fit: the default."""
    return [
        io.Combo.Input(
            "fit",
            options=list(FITS),
            default=fit,
            optional=True,
            tooltip="When the result has another shape. contain: all of the image, with bars beside it. crop: its "
            "middle fills the result, as ComfyUI's video nodes cut start images. stretch: its shape changes.",
        ),
        sockets.ImageOrLatent.Input(
            "size_from",
            optional=True,
            tooltip="An image or latent whose size the result gets, in place of the numbers: connect what is "
            "generated, so that both always agree.",
        ),
    ]
