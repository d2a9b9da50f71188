"""Load Image Set: a folder of images as an IMAGE list."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from comfy_api.latest import io

from .comfy import folders, sockets
from .comfy.batches import image_tensor
from .comfy.messages import show_text
from .comfy.runtime import Progress

#: The image sets that come with the pack, as folders of the core's assets.
BUILT_IN = {
    "built in: cartoon faces, to learn from": "faces/train",
    "built in: cartoon faces, unseen": "faces/test",
    "built in: paper dolls, to learn from": "dolls/train",
    "built in: paper dolls, unseen": "dolls/test",
}
_ORDERS = ("by name", "shuffled")


def folder_choices() -> list[str]:
    """Sub-folders of input/, then the image sets that come with the pack (so the list is never empty)."""
    return [*folders.input_subfolders(), *BUILT_IN]


class LoadImageSet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPLoadImageSet",
            display_name="Load Image Set",
            category="files",
            description="All images of a sub-folder of ComfyUI's input folder, as a list (sizes may "
            "differ). Files "
            "that cannot be read are skipped and named in the log.",
            search_aliases=["load images", "image folder", "stable keypoints"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=folder_choices(),
                    default=next(iter(BUILT_IN)),
                    tooltip="A sub-folder of ComfyUI's input folder, or a set that comes with the pack. "
                    "20 to 100 images of one kind of thing are a good training set.",
                ),
                io.Int.Input(
                    "max_images",
                    default=100,
                    min=1,
                    max=10000,
                    tooltip="At most this many images are loaded.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(_ORDERS),
                    default="by name",
                    tooltip="by name: frame2 comes before frame10. shuffled: a random choice that the "
                    "seed below decides.",
                ),
                io.Int.Input(
                    "shuffle_seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    optional=True,
                    tooltip="Which random order; the same number gives the same order. Unused by name.",
                ),
                io.String.Input(
                    "other_path",
                    default="",
                    optional=True,
                    extra_dict=sockets.ADVANCED,
                    tooltip="A folder elsewhere on the server. Only works where the server's owner has "
                    f"set {folders.ANY_PATH_VARIABLE}=1.",
                ),
                io.Int.Input(
                    "max_side",
                    default=1024,
                    min=0,
                    max=16384,
                    step=8,
                    optional=True,
                    tooltip="Larger images are made smaller until their longer side has this many pixels, and "
                    "keypoints are found in pixels of the smaller image. A hundred photos of 12 megapixels take 14 GB "
                    "of memory as they are, and 0.9 GB with 1024. 0: as they are.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True, tooltip="One entry per image."),
                io.String.Output(
                    display_name="names",
                    is_output_list=True,
                    tooltip="File name of each image, for Detect Keypoints' COCO output.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder) -> bool | str:
        # With other_path as a second argument, ComfyUI would tell of a missing folder twice, once for each.
        return sockets.verdict(_source, folder)

    @classmethod
    def fingerprint_inputs(cls, folder, max_images, order, shuffle_seed=0, other_path="", max_side=0) -> str:
        from stablekp_core.images.files import fingerprint

        return fingerprint(_source(folder, other_path))

    @classmethod
    def execute(cls, folder, max_images, order, shuffle_seed=0, other_path="", max_side=0) -> io.NodeOutput:
        from stablekp_core.images.image_set import load_folder

        seed = shuffle_seed if order == "shuffled" else None
        arrays = load_folder(_source(folder, other_path), max_images, seed)
        images, names, smaller, progress = [], [], 0, Progress(len(arrays))
        for name, array in arrays:
            fitting = at_most(array, max_side)
            smaller += fitting is not array
            images.append(image_tensor(fitting[None]))
            names.append(name)
            progress.step(len(names))
        # The label file beside the built-in images is no news to anyone.
        skipped = [] if folder in BUILT_IN and not other_path.strip() else arrays.skipped
        for name, reason in skipped:
            logging.warning("[Stable Keypoints] Load Image Set skipped %s: %s", name, reason)
        made = f"\n{smaller} made smaller, to {max_side} pixels" if smaller else ""
        left = "".join(f"\nskipped {name}: {reason}" for name, reason in skipped)
        show_text(f"{len(images)} images{made}{left}")
        return io.NodeOutput(images, names)


def at_most(array: np.ndarray, side: int) -> np.ndarray:
    """An image uint8 [H, W, 3] whose longer side has at most `side` pixels (0: any number); the same one if it fits."""
    if not side or max(array.shape[:2]) <= side:
        return array
    from PIL import Image

    scale = side / max(array.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in array.shape[1::-1])
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.LANCZOS))


def _source(folder: str, other_path: str = "") -> Path:
    """The folder on the disk behind the node's two fields."""
    if folder in BUILT_IN and not other_path.strip():
        import stablekp_core

        return Path(stablekp_core.__file__).parent / "assets" / "pictures" / BUILT_IN[folder]
    return folders.image_folder(folder, other_path)
