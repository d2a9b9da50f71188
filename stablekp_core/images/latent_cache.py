"""Model inputs and latents of the images of a set, in caches of bounded size.

Whatever the number of images, at most `CACHE_BYTES` of model inputs and as much of latents are kept; images that turn
out to be broken are left out and named by the image set.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from copy import copy

import torch
import torch.nn.functional as F

from ..backbone.backbone import Backbone
from . import affine
from .files import BrokenImage
from .image_set import ImageSet
from .masks import Masks, checked_masks, mask_of
from .preprocessing import input_mask, to_model_input

CACHE_BYTES = 256 << 20


class Recent:
    """A dictionary of tensors of any shape that drops the least recently used ones beyond `limit` bytes."""

    def __init__(self, limit: int):
        self.limit, self.size, self.items = limit, 0, OrderedDict()

    def get(self, key):
        """The tensor kept under `key`, now the most recently used one, or None."""
        if key in self.items:
            self.items.move_to_end(key)
        return self.items.get(key)

    def put(self, key, value: torch.Tensor) -> torch.Tensor:
        """Keep `value` under `key` and return it; the least recently used tensors beyond the limit are dropped."""
        self.items[key] = value
        self.size += value.nbytes
        while self.size > self.limit and len(self.items) > 1:
            self.size -= self.items.popitem(last=False)[1].nbytes
        return value

    def gather(self, names: list, compute: Callable[[list[int]], Iterable[torch.Tensor]], at_once: int) -> torch.Tensor:
        """The tensors of all names, stacked. Those that are not kept are computed and then kept: `compute` gets the
        indices into `names` of at most `at_once` of them at a time."""
        found = {name: self.get(name) for name in names}
        missing = list({name: j for j, name in enumerate(names) if found[name] is None}.values())
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            for j, value in zip(some, compute(some), strict=True):
                found[names[j]] = self.put(names[j], value.clone())
        return torch.stack([found[name] for name in names])


def images_per_pass(device: torch.device) -> int:
    """Images per pass when filling a cache. One on a CPU: there rounding depends on the size of the batch, and which
    images are missing from the cache depends on when a run was resumed."""
    return 1 if device.type == "cpu" else 8


class LatentSource:
    """Random access to the images of a set as model inputs, latents, and latents of affine views.

    image_size: side S of the model input in pixels, 0 for the size that the model was made for. resize: "squash" or
    "pad" (see `to_model_input`). masks: by the name of the image. Raises KeypointError for an image_size that does not
    fit the model.
    """

    def __init__(
        self,
        backbone: Backbone,
        images: ImageSet,
        image_size: int = 0,
        resize: str = "squash",
        masks: Masks | None = None,
    ):
        self.backbone, self.images, self.resize, self.given_masks = backbone, images, resize, checked_masks(masks)
        self.side = backbone.input_side(image_size)
        self._inputs, self._latents = Recent(CACHE_BYTES), Recent(CACHE_BYTES)
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.images)

    def pick(self, indices: Sequence[int]) -> LatentSource:
        """Some of the images as a source of their own."""
        out = copy(self)
        out.images, out._broken = self.images.pick(list(indices)), set()
        out._inputs, out._latents = Recent(CACHE_BYTES), Recent(CACHE_BYTES)
        return out

    def usable(self, index: int) -> int:
        """`index`, or the index of the next image that can be read; others are recorded as skipped. Raises BrokenImage
        when no image can be read."""
        for offset in range(len(self)):
            candidate = (index + offset) % len(self)
            if candidate in self._broken:
                continue
            try:
                self.model_input(candidate)
                return candidate
            except BrokenImage as error:
                self._broken.add(candidate)
                if (self.images.names[candidate], error.reason) not in self.images.skipped:
                    self.images.skip(candidate, error.reason)
        raise BrokenImage(self.images.names[index], "no image of the set can be read")

    def model_input(self, index: int) -> torch.Tensor:
        """The model input of image `index`: uint8 RGB [3, S, S]. Raises BrokenImage."""
        return self._input(index)[:3]

    def _input(self, index: int) -> torch.Tensor:
        """The model input and, in its last channel, how much each pixel counts: uint8 [4, S, S]."""
        found = self._inputs.get(index)
        if found is None:
            image, transform = to_model_input(self.images[index], self.side, self.resize)
            mask = mask_of(self.given_masks, self.images.names[index])
            both = torch.cat([image, input_mask(transform, self.side, mask)])
            found = self._inputs.put(index, both.mul(255).round().to(torch.uint8))
        return found

    def batch(self, indices: list[int]) -> torch.Tensor:
        """The model inputs of some images: float32 [B, 3, S, S] in [0, 1]."""
        return torch.stack([self.model_input(i) for i in indices]).float() / 255

    def area(self, indices: list[int], theta: torch.Tensor, size: int) -> torch.Tensor | None:
        """How much each pixel of the views theta [B, 2, 3] of some images counts: float32 [B, 1, size, size] in [0, 1];
        None when all of them do (no masks were given and no bars pad the images)."""
        if self.given_masks is None and self.resize == "squash":
            return None
        masks = torch.stack([self._input(i)[3:] for i in indices]).float() / 255
        return F.interpolate(affine.warp(masks, theta), (size, size), mode="area").to(self.backbone.device)

    def latents(self, indices: list[int]) -> torch.Tensor:
        """The latents of some images: float32 [B, 4, S/f, S/f], each image encoded once while it is kept."""
        return self._cached([(i, None) for i in indices], indices, affine.identity_affine(len(indices)), False)

    def view_latents(self, indices: list[int], theta: torch.Tensor, slots: list[int] | None = None) -> torch.Tensor:
        """The latents of the views theta [B, 2, 3] of some images: float32 [B, 4, S/f, S/f].

        slots: with them the latents are kept under (image, slot).
        """
        if slots is None:
            return self.backbone.encode(affine.warp(self.batch(indices), theta))
        return self._cached(list(zip(indices, slots, strict=True)), indices, theta, True)

    def _cached(self, names: list[tuple], indices: list[int], theta: torch.Tensor, turned: bool) -> torch.Tensor:
        def compute(some: list[int]) -> torch.Tensor:
            images = self.batch([indices[j] for j in some])
            return self.backbone.encode(affine.warp(images, theta[some]) if turned else images).cpu()

        return self._latents.gather(names, compute, images_per_pass(self.backbone.device)).to(self.backbone.device)
