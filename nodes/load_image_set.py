"""Load Image Set: a folder of images as an IMAGE list."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.model_management as model_management
import torch
from comfy_api.latest import io

from .comfy import folders, sockets
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
    def validate_inputs(cls, folder, other_path="") -> bool | str:
        return sockets.verdict(_source, folder, other_path)

    @classmethod
    def fingerprint_inputs(cls, folder, max_images, order, shuffle_seed=0, other_path="") -> str:
        from stablekp_core.images.image_set import fingerprint

        return fingerprint(_source(folder, other_path))

    @classmethod
    def execute(cls, folder, max_images, order, shuffle_seed=0, other_path="") -> io.NodeOutput:
        from stablekp_core.images.image_set import load_folder

        seed = shuffle_seed if order == "shuffled" else None
        # The label file beside the built-in images is no news to anyone.
        tell = None if folder in BUILT_IN and not other_path.strip() else _log_skipped
        arrays = load_folder(_source(folder, other_path), max_images, seed, on_skip=tell)
        images, names, progress = [], [], Progress(len(arrays))
        for name, array in arrays:
            tensor = torch.from_numpy(array)[None].float().div_(255.0)  # [1, H, W, 3]
            images.append(tensor.to(model_management.intermediate_device()))
            names.append(name)
            progress.step(len(names))
        return io.NodeOutput(images, names)


def _source(folder: str, other_path: str = "") -> Path:
    """The folder on the disk behind the node's two fields."""
    if folder in BUILT_IN and not other_path.strip():
        import stablekp_core

        return Path(stablekp_core.__file__).parent / "assets" / "pictures" / BUILT_IN[folder]
    return folders.image_folder(folder, other_path)


def _log_skipped(name: str, reason: str) -> None:
    logging.warning("[Stable Keypoints] Load Image Set skipped %s: %s", name, reason)
