"""Features at the spatial positions of images, kept while tokens are refined, and the spatial softmax of tokens.

A refined token has one embedding per captured layer. The logit of a position, summed over heads and layers, is linear
in them: features . embedding. The softmax of the logits over all positions of an image is the probability that the
keypoint is at a position.

Works on features, wherever they come from; knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from ..attention import readout
from ..images import affine
from ..images.ensembling import average_views

SPOT = 0.04  # sides of the image: sigma of the target at a position
WINDOW = 2  # positions: half side of the window around the highest one whose mean position is the peak
COARSE = 16  # positions along a side of coarse features
_CHUNK = 1 << 24  # feature values worked on at a time
_OPEN = 48 << 20  # bytes of fp16 features up to which they are kept in fp32 too


class FeatureStore:
    """The features of the views of images, kept as fp16 on the CPU, and the positions of tokens on them.

    theta: the views [V, 2, 3], the same for every image. device: where the work is done.
    """

    def __init__(self, theta: torch.Tensor, device: torch.device | str = "cpu"):
        self.theta, self.device = theta, device
        self._features: list[torch.Tensor] = []  # [V, D, G, G] of each image
        self._area: list[torch.Tensor] = []  # logarithms [V, P]
        self._open: list[tuple[slice, torch.Tensor]] | None = None  # all chunks, where they are few

    def add(self, features: torch.Tensor, area: torch.Tensor | None = None) -> None:
        """Keep one more image: features [V, D, G, G]; area: how much each position counts, [V, 1, G, G] in [0, 1]."""
        self._features.append(features.half().cpu().contiguous(memory_format=torch.channels_last))
        self._open = None
        if area is not None:
            self._area.append(area.flatten(1).clamp(min=1e-6).log().cpu())

    def pick(self, rows: Sequence[int]) -> FeatureStore:
        """The same of some of the images."""
        out = FeatureStore(self.theta, self.device)
        out._features = [self._features[i] for i in rows if i < len(self)]
        out._area = [self._area[i] for i in rows if i < len(self._area)]
        return out

    def coarse(self) -> FeatureStore:
        """The same features averaged over blocks of positions, `COARSE` along a side where that divides G; faster to
        work on."""
        block = self.side // self.coarse_side if len(self) else 1
        if block < 2:
            return self
        out = FeatureStore(self.theta, self.device)
        out._features = [F.avg_pool2d(x.float(), block).half() for x in self._features]
        out._area = [self._pooled(x, block) for x in self._area]
        return out

    def _pooled(self, values: torch.Tensor, block: int) -> torch.Tensor:
        """Means of values [V, P] over blocks of positions."""
        return F.avg_pool2d(values.unflatten(-1, (self.side, self.side)), block).flatten(1)

    @property
    def features(self) -> list[torch.Tensor]:
        """The features of each image, [V, D, G, G] fp16 on the CPU."""
        return self._features

    def __len__(self) -> int:
        return len(self._features)

    @property
    def nbytes(self) -> int:
        """The size of the features in bytes."""
        return sum(x.nbytes for x in self._features)

    @property
    def side(self) -> int:
        """G, positions along a side."""
        return self._features[0].shape[-1]

    @property
    def coarse_side(self) -> int:
        """Positions along a side of `coarse()`."""
        return COARSE if self.side >= 2 * COARSE and self.side % COARSE == 0 else self.side

    @property
    def width(self) -> int:
        """D, the length of an embedding, all layers together."""
        return self._features[0].shape[1]

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield some images at a time: their indices, and the fp32 features [s, P, D] of all their views."""
        if self._open is not None:
            yield from self._open
            return
        step, opened = max(1, _CHUNK // self._features[0].numel()) if len(self) else 1, []
        for start in range(0, len(self), step):
            some = slice(start, start + step)
            features = torch.cat([x.permute(0, 2, 3, 1) for x in self._features[some]])  # [s, G, G, D]
            chunk = some, features.to(self.device).float().flatten(1, 2)  # half the bytes travel
            if self.nbytes <= _OPEN:
                opened.append(chunk)
            yield chunk
        self._open = opened or None

    def area(self, some: slice) -> torch.Tensor | float:
        """[s, P]: logarithm of how much each position counts in the views of images `some`; 0 where all count."""
        return torch.cat(self._area[some]).to(self.device) if self._area else 0.0

    def logits(self, some: slice, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[K, s, P]: what tokens [K, D] make of each position in the views of images `some`; its softmax over positions
        is how likely they are there."""
        logits = features.flatten(0, 1) @ tokens.T.to(features)  # [s * P, K]; the softmax is faster the other way round
        return logits.T.contiguous().unflatten(1, features.shape[:2]).add_(self.area(some))

    def maps(self, tokens: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the spatial softmax maps [s, K, G, G] of tokens [K, D] in the views of some images at a time."""
        for some, features in self.chunks():
            likely = self.logits(some, features, tokens).softmax(-1)  # [K, s, P]
            yield likely.transpose(0, 1).unflatten(-1, (self.side, self.side))

    def locate(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Locate tokens [K, D] on each image by the average of its maps over the views (Eq. 11): its peak, and its mean
        position as detection reads it, both [I, K, 2] in the unit square of the image."""
        peak, mean = [], []
        for maps in self.maps(tokens):
            images = len(maps) // len(self.theta)
            average = average_views(maps, self.theta.repeat(images, 1, 1).to(maps), images)
            peak.append(readout.read_out(average, "soft", WINDOW)[0].cpu())
            mean.append(readout.spatial_mean(average)[0].cpu())
        return torch.cat(peak), torch.cat(mean)

    def locate_in_views(self, tokens: torch.Tensor) -> torch.Tensor:
        """Locate tokens [K, D] in each view alone: [I, V, K, 2] in the unit square of the image."""
        views = len(self.theta)
        xy = torch.cat([readout.spatial_mean(maps)[0].cpu() for maps in self.maps(tokens)])  # [I*V, K, 2]
        return affine.view_to_image(xy, self.theta.cpu().repeat(len(self), 1, 1)).unflatten(0, (-1, views))

    def targets(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the spatial softmax is fitted to, for positions [I, V', K, 2] in the unit square of the image.

        Returns for each view the mean of Gaussians at those positions that lie in it, [I, V, P, K], summing to 1 over
        P, and the share of positions that do, [I, V, K] in [0, 1].
        """
        g, (images, found) = self.side, position.shape[:2]
        targets, weights = [], []
        for theta in affine.invert_affine(self.theta):
            xy = affine.view_to_image(position.flatten(0, 1), theta.expand(images * found, -1, -1))
            inside = ((xy > 0) & (xy < 1)).all(-1)  # [I*V', K]
            spots = readout.gaussian_maps(xy.flip(-1) * g, g, SPOT * g) * inside[..., None, None]  # [I*V', K, G, G]
            targets.append(spots.unflatten(0, (images, found)).sum(1).flatten(2).transpose(1, 2))  # [I, P, K]
            weights.append(inside.float().unflatten(0, (images, found)).mean(1))  # [I, K]
        target = torch.stack(targets, 1)
        return target / target.sum(2, keepdim=True).clamp(min=1e-9), torch.stack(weights, 1)

    @property
    def positions(self) -> int:
        """How many there are in all views of all images."""
        return len(self) * len(self.theta) * self.side**2 if len(self) else 0

    def sample(self, every: int) -> torch.Tensor:
        """[n, D] fp32 on the CPU: the features of every so many positions of each view, not the same in each image."""
        flat = (x.permute(0, 2, 3, 1).flatten(1, 2) for x in self._features)  # [V, P, D] each
        return torch.cat([x[:, i % every :: every].flatten(0, 1) for i, x in enumerate(flat)]).float()


def seen_positions(position: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Positions [V, N, 2] that views [V, 2, 3] of an image give, in its unit square; where a view cannot see a token,
    by where the first view, the image itself, has it, its peak is a stray one: the mean of those that do takes its
    place."""
    seen = affine.visible(position[:1], theta)[0]  # [V, N]
    seen[0] = True
    weight = seen[..., None].to(position)
    mean = (position * weight).sum(0) / weight.sum(0)  # [N, 2]
    return torch.where(seen[..., None], position, mean)
