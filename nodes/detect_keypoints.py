"""Detect Keypoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from comfy_api.latest import io

from stablekp_core.config import DetectConfig
from stablekp_core.errors import KeypointError

from .comfy import sockets
from .comfy.batches import mask_batches, single_images
from .comfy.messages import EXCERPT, show_text
from .comfy.runtime import Progress, plain_tensors
from .comfy.videos import VideoFrames
from .detect_figures import Figures, figure_inputs

_MAPS_SMALL, _MAPS_IMAGE, _MAPS_OFF = "as computed", "image size", "off"


class DetectKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPDetect",
            display_name="Detect Keypoints",
            category="detect",
            description="Finds the learned keypoints on images, in pixels of the images as they are.",
            search_aliases=["find keypoints", "pose", "pose estimation", "landmarks", "stable keypoints"],
            is_input_list=True,
            inputs=_inputs(),
            outputs=[
                sockets.Points.Output(display_name="keypoints", tooltip="Of all images, in order."),
                io.Mask.Output(
                    display_name="heat_maps",
                    is_output_list=True,
                    tooltip="For each image, one map for each keypoint.",
                ),
                io.String.Output(
                    display_name="confidence", tooltip="How sure each keypoint of each image is, as text."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, backbone, tokens, images=None, names=None, boxes=None, masks=None, video=None, **settings
    ) -> io.NodeOutput:
        options = {name: value[0] for name, value in settings.items()}
        figures = Figures(boxes, masks, options.pop("crop_margin", 0.15), options.pop("isolate", "none"))
        heat, config = options.pop("heat_maps", _MAPS_SMALL), detect_config(options)
        if video:
            if images or figures.given:
                raise KeypointError(
                    "Detect Keypoints got a video and also images, boxes or masks; connect the video alone, or take "
                    "its frames as images with Get Video Components."
                )
            arrays, crops, heat = VideoFrames(video[0]), None, _MAPS_OFF
        else:
            arrays, crops = figures.cut(image_set(single_images(images, "Detect Keypoints (images)"), names))
        progress = Progress(len(arrays))
        with plain_tensors(), backbone[0].open(config.batch_size) as model:
            found, heat_maps = _detect(model, tokens[0], arrays, config, heat, progress)
            other_model = bool(tokens[0].model_hash) and tokens[0].model_hash != model.hash
        found = figures.put_back(found, crops)
        text = confidence_text(found, tokens[0].model_name if other_model else "")
        show_text(text, EXCERPT)
        return io.NodeOutput(found, heat_maps, text)


def _inputs() -> list:
    d, more = DetectConfig, {"optional": True, "extra_dict": sockets.ADVANCED}
    return [
        sockets.Backbone.Input("backbone", tooltip="The model the tokens were trained with, or a fine-tune of it."),
        sockets.Tokens.Input("tokens", tooltip="From Train Keypoint Tokens or Load Keypoint Tokens."),
        io.Image.Input(
            "images", optional=True, tooltip="A batch, or a list of images of different sizes. Or connect a video."
        ),
        io.Int.Input(
            "views",
            default=d.views,
            min=0,
            max=100,
            tooltip="Randomly turned and shifted views of each image that are averaged with the image "
            "itself. "
            "More is steadier and slower; 0 looks once.",
        ),
        io.Int.Input(
            "batch_size",
            default=d.batch_size,
            min=1,
            max=256,
            tooltip="Views that go through the model at once. Lower it when memory is short.",
        ),
        io.Boolean.Input(
            "sub_pixel",
            default=d.readout == "soft",
            tooltip="On: the mean position under the map. Off: its highest pixel, as published.",
        ),
        io.Combo.Input(
            "heat_maps",
            options=[_MAPS_SMALL, _MAPS_IMAGE, _MAPS_OFF],
            default=_MAPS_SMALL,
            optional=True,
            tooltip="as computed: small squares, as the model sees the image. image size: laid over the "
            "image. off: for long videos, where they would fill the memory.",
        ),
        io.String.Input(
            "names",
            optional=True,
            force_input=True,
            tooltip="File names of the images, from Load Image Set, for the COCO output.",
        ),
        io.Int.Input(
            "view_seed",
            default=d.seed,
            min=0,
            max=2**31 - 1,
            **more,
            tooltip="Decides the random views and the noise; the same for every image.",
        ),
        *figure_inputs(),
        io.Video.Input(
            "video",
            optional=True,
            tooltip="In place of images: a video, whose frames are read one at a time, so that its length does not "
            "matter. There are no heat maps of it, and no boxes or masks.",
        ),
    ]


def detect_config(options: dict) -> DetectConfig:
    """The core's settings from the node's widgets."""
    values = dict(options)
    return DetectConfig.from_dict(
        {
            "readout": "soft" if values.pop("sub_pixel", True) else "argmax",
            "seed": values.pop("view_seed", 0),
            **values,
        }
    )


def image_set(arrays: Sequence, names: Sequence[str] | None):
    """A core ImageSet of the images, under the names that are connected, if any are."""
    from stablekp_core.images.image_set import ImageSet

    if names and len(names) != len(arrays):
        raise KeypointError(
            f"{len(names)} names are connected to Detect Keypoints for {len(arrays)} images; connect "
            "images and names of the same Load Image Set, or no names."
        )
    return ImageSet.from_arrays(arrays, list(names) if names else None)


def _detect(model, tokens, arrays, config: DetectConfig, heat: str, progress: Progress):
    """(Keypoints of all images, MASK list). Images pass one by one, so only points and masks stay."""
    from stablekp_core.detection.detector import Detector, maps_on_image
    from stablekp_core.keypoints.keypoints import Keypoints

    detector, parts, masks = Detector(model, tokens, config), [], []
    for part in detector.stream(arrays, keep_maps=heat != _MAPS_OFF):
        parts.append(part.keypoints)
        if heat != _MAPS_OFF:
            maps = (part.maps[0] / detector.reference[:, None, None]).clamp(0, 1)  # [K, R, R]
            if heat != _MAPS_SMALL:
                transform = detector.model_input(arrays[len(parts) - 1])[1]
                maps = maps_on_image(maps, transform, (transform.width, transform.height))  # [K, H, W]
            masks.append(maps.numpy())
        progress.step(len(parts))
    return Keypoints.concat(parts), mask_batches(masks) if masks else [_blocked()]


def _blocked():
    """In place of maps that were not asked for: whatever they are wired to does not run, and says why."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(
        "heat maps are off; set heat_maps on Detect Keypoints to get them (of images, not of a video)."
    )


def confidence_text(points, other_model: str = "") -> str:
    """One line for each image: its mean confidence, the keypoints under half, lowest first, and those that something
    in front probably hides."""
    lines = []
    if other_model:
        lines.append(f"Note: the tokens were trained with other weights ({other_model}); the keypoints may be worse.")
    for row in range(len(points)):
        confidence = points.confidence[row]
        doubtful = [k for k in np.argsort(confidence, kind="stable") if confidence[k] < 0.5]
        tail = ", ".join(f"{points.names[k]} {confidence[k]:.2f}" for k in doubtful)
        image = int(points.image_index[row])
        name = points.images[row] or f"image {image}"
        if (points.image_index == image).sum() > 1:
            name += f", figure {int((points.image_index[:row] == image).sum())}"
        line = f"{name}: mean {confidence.mean():.2f}" + (f"; unsure: {tail}" if tail else "")
        hidden = [f"{points.names[k]} {points.occluded[row, k]:.2f}" for k in np.flatnonzero(points.is_occluded[row])]
        lines.append(line + (f"; hidden: {', '.join(hidden)}" if hidden else ""))
    return "\n".join(lines)
