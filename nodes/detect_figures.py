"""Several figures in one image: the boxes and masks that Detect Keypoints takes."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io

from stablekp_core.errors import KeypointError
from stablekp_core.images.crops import ISOLATE, crop_instances, read_boxes

from .comfy import sockets


def figure_inputs() -> list:
    """Inputs that came after the others: saved workflows keep their widgets' order."""
    d, more = sockets.defaults_of(crop_instances), {"optional": True, "extra_dict": sockets.ADVANCED}
    return [
        sockets.AnyBoxes.Input(
            "boxes",
            optional=True,
            extra_dict={"forceInput": True},  # else newer pages make it a widget, whose box is always there
            tooltip="Boxes around the figures, for images with several: one list for each image, or one "
            "list for all of them. Each figure is cut out and looked at on its own.",
        ),
        io.Mask.Input(
            "masks",
            optional=True,
            tooltip="In place of boxes, a mask for each figure: one MASK batch for each image. For a batch of "
            "images, a batch of as many masks is one figure in each.",
        ),
        io.Float.Input(
            "crop_margin",
            default=d.margin,
            min=0.0,
            max=10.0,
            step=0.01,
            **more,
            tooltip="With boxes or masks: room around a figure, as a share of its longer side.",
        ),
        io.Combo.Input(
            "isolate",
            options=list(ISOLATE),
            default=d.isolate,
            **more,
            tooltip="With masks: grey out the other figures, or all but the figure.",
        ),
    ]


class Figures:
    """Cuts the figures out of the images and puts what was found on them back into the images' pixels.

    boxes, masks: as they arrive at a node that takes lists; None when nothing is connected.
    """

    def __init__(self, boxes, masks, margin: float, isolate: str):
        self.boxes = [box for box in boxes or [] if box is not None]
        self.masks = [mask for mask in masks or [] if mask is not None]
        self.settings = {"margin": margin, "isolate": isolate}
        if self.boxes and self.masks:
            raise KeypointError("Detect Keypoints got boxes and masks; connect only one of them.")

    @property
    def given(self) -> bool:
        """Whether boxes or masks are connected."""
        return bool(self.boxes or self.masks)

    def cut(self, arrays):
        """(an ImageSet of the cut-outs, where they lie); the images themselves when nothing is connected."""
        if not self.given:
            return arrays, None
        from stablekp_core.images.image_set import ImageSet

        images = [arrays[i] for i in range(len(arrays))]  # uint8 [H, W, 3] each
        boxes = boxes_per_image(self.boxes, len(images)) if self.boxes else None
        masks = masks_per_image(self.masks, len(images)) if self.masks else None
        parts, crops = crop_instances(images, boxes, masks, names=arrays.names, **self.settings)
        if not parts:
            raise KeypointError(
                "there is no box in any image, so Detect Keypoints has nothing to look at; disconnect boxes to "
                "look at whole images."
            )
        self.names, self.sizes = arrays.names, [(image.shape[1], image.shape[0]) for image in images]
        return ImageSet.from_arrays(parts), crops

    def put_back(self, found, crops):
        if crops is None:
            return found
        from stablekp_core.images.crops import to_full_image

        return to_full_image(found, crops, self.sizes, self.names)


def boxes_per_image(boxes: list, images: int) -> list:
    """Boxes of each image, from a list of what the wire carried: one value for all images, or one for each.

    As in ComfyUI's own nodes, one value is a box or a list of boxes, which count for every image, or a list of such
    lists, one for each image (a single one again for all).
    """
    value = boxes[0] if len(boxes) == 1 else boxes
    if len(boxes) == 1 and images > 1:
        if isinstance(value, dict) or value and all(isinstance(box, dict) for box in value):
            value = [[value] if isinstance(value, dict) else value] * images
        elif len(value) == 1:
            value = list(value) * images
    return read_boxes(value, images)


def masks_per_image(masks: list, images: int) -> list[np.ndarray]:
    """Masks [M, H, W] of each image, from a list of MASK batches."""
    batches = [mask.detach().cpu().numpy() for mask in masks]
    batches = [mask[None] if mask.ndim == 2 else mask for mask in batches]
    if len(batches) == images:
        return batches
    if len(batches) == 1 and len(batches[0]) == images:
        return [mask[None] for mask in batches[0]]
    raise KeypointError(
        f"{len(batches)} MASK batches are connected to Detect Keypoints for {images} images; give one batch of "
        "masks for each image, or one mask for each."
    )
