"""Images as the model wants them: decoded, made square, encoded to latents, with bounded caches.

Whatever the number of images, at most `CACHE_BYTES` of decoded squares and as much of latents are kept; images that
turn out to be broken are left out and named by the image set.
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
from .masks import Masks
from .preprocessing import input_mask, to_model_input

CACHE_BYTES = 256 << 20


class Recent:
    """A dictionary of tensors that forgets the least recently used ones beyond a number of bytes."""

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
        """The tensors of all names, stacked; those that are not kept come from `compute`, which is given the positions
        in `names` of at most `at_once` at a time, and are kept."""
        found = {name: self.get(name) for name in names}
        missing = list({name: j for j, name in enumerate(names) if found[name] is None}.values())
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            for j, value in zip(some, compute(some), strict=True):
                found[names[j]] = self.put(names[j], value.clone())
        return torch.stack([found[name] for name in names])


def images_per_pass(device: torch.device) -> int:
    """Images per pass when filling a cache. One at a time on a CPU: rounding depends on the size of the batch, and
    which images are missing from the cache depends on when a run was resumed."""
    return 1 if device.type == "cpu" else 8


class LatentSource:
    """Random access to an image set as squares, latents and latents of affine views."""

    def __init__(
        self,
        backbone: Backbone,
        images: ImageSet,
        image_size: int = 0,
        resize: str = "squash",
        masks: Masks | None = None,
    ):
        self.backbone, self.images, self.resize, self.mask_of = backbone, images, resize, masks
        self.side = backbone.input_side(image_size)
        self._squares, self._latents = Recent(CACHE_BYTES), Recent(CACHE_BYTES)
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.images)

    def pick(self, indices: Sequence[int]) -> LatentSource:
        """Some of the images as a source of their own."""
        out = copy(self)
        out.images, out._broken = self.images.pick(list(indices)), set()
        out._squares, out._latents = Recent(CACHE_BYTES), Recent(CACHE_BYTES)
        return out

    def usable(self, index: int) -> int:
        """`index`, or the next image that can be read."""
        for offset in range(len(self)):
            candidate = (index + offset) % len(self)
            if candidate in self._broken:
                continue
            try:
                self.square(candidate)
                return candidate
            except BrokenImage as error:
                self._broken.add(candidate)
                if (self.images.names[candidate], error.reason) not in self.images.skipped:
                    self.images.skip(candidate, error.reason)
        raise BrokenImage(self.images.names[index], "no image of the set can be read")

    def square(self, index: int) -> torch.Tensor:
        """uint8 [3, S, S]."""
        return self._square(index)[:3]

    def _square(self, index: int) -> torch.Tensor:
        """uint8 [4, S, S]: the image and where it counts."""
        found = self._squares.get(index)
        if found is None:
            square, way = to_model_input(self.images[index], self.side, self.resize)
            mask = self.mask_of(self.images.names[index]) if self.mask_of else None
            both = torch.cat([square, input_mask(way, self.side, mask)])
            found = self._squares.put(index, both.mul(255).round().to(torch.uint8))
        return found

    def batch(self, indices: list[int]) -> torch.Tensor:
        """float32 [B, 3, S, S] in [0, 1]."""
        return torch.stack([self.square(i) for i in indices]).float() / 255

    def area(self, indices: list[int], theta: torch.Tensor, size: int) -> torch.Tensor | None:
        """float32 [B, 1, size, size]: how much each pixel counts, for images seen through theta [B, 2, 3]; None when
        everything does (no masks were given and no bars pad the images)."""
        if self.mask_of is None and self.resize == "squash":
            return None
        masks = torch.stack([self._square(i)[3:] for i in indices]).float() / 255
        return F.interpolate(affine.warp(masks, theta), (size, size), mode="area").to(self.backbone.device)

    def latents(self, indices: list[int]) -> torch.Tensor:
        """Latents [B, 4, h, w] of whole images, each encoded once."""
        return self._cached([(i, None) for i in indices], indices, affine.identity_affine(len(indices)), False)

    def view_latents(self, indices: list[int], theta: torch.Tensor, slots: list[int] | None = None) -> torch.Tensor:
        """Latents of the images seen through theta [B, 2, 3]; with `slots` they are kept under (image, slot)."""
        if slots is None:
            return self.backbone.encode(affine.warp(self.batch(indices), theta))
        return self._cached(list(zip(indices, slots, strict=True)), indices, theta, True)

    def _cached(self, names: list[tuple], indices: list[int], theta: torch.Tensor, turned: bool) -> torch.Tensor:
        def compute(some: list[int]) -> torch.Tensor:
            images = self.batch([indices[j] for j in some])
            return self.backbone.encode(affine.warp(images, theta[some]) if turned else images).cpu()

        return self._latents.gather(names, compute, images_per_pass(self.backbone.device)).to(self.backbone.device)
