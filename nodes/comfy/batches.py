"""ComfyUI's IMAGE and MASK tensors to the core's arrays and back."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management as model_management
import numpy as np
import torch

from stablekp_core.errors import KeypointError


def single_images(batches: Sequence[torch.Tensor] | torch.Tensor, where: str) -> list[torch.Tensor]:
    """The images of one IMAGE batch or of a list of them, in order, each [H, W, C].

    Raises KeypointError in words of the graph for no images, a mask or a latent; `where` names the input.
    """
    if not isinstance(batches, (list, tuple)):
        batches = [batches]
    arrays = []
    for batch in batches:
        if batch is None:
            continue
        if isinstance(batch, dict):
            raise KeypointError(f"{where} got a latent, but images are needed; put a VAE Decode node in between.")
        if not isinstance(batch, torch.Tensor) or batch.ndim not in (3, 4):
            raise KeypointError(f"{where} got a {type(batch).__name__}, but images are needed; connect an IMAGE.")
        if batch.ndim == 3 or batch.shape[-1] not in (1, 3, 4):
            raise KeypointError(
                f"{where} got a mask of shape {list(batch.shape)}, but images are needed; connect the "
                "IMAGE output instead (or a Convert Mask to Image node)."
            )
        arrays.extend(batch)
    if not arrays:
        raise KeypointError(f"{where} got no images; connect at least one image.")
    return arrays


def size_like(value) -> tuple[int, int]:
    """(width, height) in pixels of an IMAGE, or of the image that a LATENT stands for."""
    if isinstance(value, dict):
        samples, factor = value["samples"], int(value.get("downscale_ratio_spacial") or 8)
        return samples.shape[-1] * factor, samples.shape[-2] * factor
    return value.shape[-2], value.shape[-3]


def images_of(points, images: Sequence[torch.Tensor], node: str):
    """The images that `points` (core Keypoints) were found on, as a core ImageSet; KeypointError for too few.

    node: the node's name, for messages.
    """
    from stablekp_core.images.image_set import ImageSet

    found = ImageSet.from_arrays(single_images(images, f"{node} (images)"))
    wanted = int(points.image_index.max()) + 1 if len(points) else 0
    if len(found) < wanted:
        raise KeypointError(
            f"{len(found)} images are connected to {node}, but the keypoints are those of {wanted}; connect the images "
            "they were detected on."
        )
    return found


def image_batches(arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """uint8 [H, W, 3] images as IMAGE tensors in [0, 1]: one batch if all have one size, else one
    batch each.
    """
    if len({array.shape for array in arrays}) == 1:
        return [image_tensor(np.stack(arrays))]
    return [image_tensor(array[None]) for array in arrays]


def mask_batches(masks: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Float [n, H, W] groups as MASK tensors: one batch if all groups have one size, else one batch each."""
    groups = [torch.from_numpy(np.ascontiguousarray(group, dtype=np.float32)) for group in masks]
    if len({tuple(group.shape[1:]) for group in groups}) == 1:
        groups = [torch.cat(groups)]
    return [_between_nodes(group) for group in groups]


def image_tensor(batch: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> IMAGE [B, H, W, 3] in [0, 1], where and in the number format in which ComfyUI keeps what
    passes between nodes.
    """
    # An array that is a view of a file or of another program's memory may not be written to: torch wants a copy.
    batch = torch.from_numpy(batch if batch.flags.writeable else batch.copy())
    return _between_nodes(batch.to(model_management.intermediate_device()).float().div_(255.0))


def _between_nodes(tensor: torch.Tensor) -> torch.Tensor:
    # Versions before 0.19 know no other format than float32.
    dtype = getattr(model_management, "intermediate_dtype", lambda: torch.float32)()
    return tensor.to(model_management.intermediate_device(), dtype)
