"""Features at the spatial positions of images, kept while tokens are refined, and what tokens make of them.

A refined token has one embedding per captured layer. Summed over heads and layers, the logit of a position is linear
in them: features . embedding. The softmax over all positions of an image (a spatial softmax) is where the keypoint is.

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
WINDOW = 2  # positions around the highest one whose mean is the peak
COARSE = 16  # positions along a side of coarse features
_CHUNK = 1 << 24  # feature values worked on at a time
_OPEN = 128 << 20  # bytes of fp16 features up to which they are kept in fp32 too


class FeatureStore:
    """Features of the views of images, kept as fp16 on the CPU, and where tokens are on them.

    theta [V, 2, 3]: the views, the same for every image. Work is done on `device`.
    """

    def __init__(self, theta: torch.Tensor, device: torch.device | str = "cpu"):
        self.theta, self.device = theta, device
        self._features: list[torch.Tensor] = []  # [V, D, G, G] of each image
        self._area: list[torch.Tensor] = []  # logarithms [V, P, 1]
        self._open: list[tuple[slice, torch.Tensor]] | None = None  # all chunks, where they are few

    def add(self, features: torch.Tensor, area: torch.Tensor | None = None) -> None:
        """Keep one more image: features [V, D, G, G]; area [V, 1, G, G] in [0, 1]: how much each position counts."""
        self._features.append(features.half().cpu())
        self._open = None
        if area is not None:
            self._area.append(area.flatten(2).transpose(1, 2).clamp(min=1e-6).log().cpu())

    def pick(self, rows: Sequence[int]) -> FeatureStore:
        """The same of some of the images."""
        out = FeatureStore(self.theta, self.device)
        out._features = [self._features[i] for i in rows if i < len(self)]
        out._area = [self._area[i] for i in rows if i < len(self._area)]
        return out

    def coarse(self) -> FeatureStore:
        """The same with means over blocks of positions, `COARSE` along a side where that divides it; faster to work
        on."""
        block = self.side // self.coarse_side if len(self) else 1
        if block < 2:
            return self
        out = FeatureStore(self.theta, self.device)
        out._features = [F.avg_pool2d(x.float(), block).half() for x in self._features]
        out._area = [self._pooled(x, block) for x in self._area]
        return out

    def _pooled(self, values: torch.Tensor, block: int) -> torch.Tensor:
        """Means of values [V, P, 1] over blocks of positions."""
        square = values.transpose(1, 2).unflatten(-1, (self.side, self.side))
        return F.avg_pool2d(square, block).flatten(2).transpose(1, 2)

    @property
    def features(self) -> list[torch.Tensor]:
        """[V, D, G, G] of each image, fp16 on the CPU."""
        return self._features

    def __len__(self) -> int:
        return len(self._features)

    @property
    def nbytes(self) -> int:
        """Memory of the features."""
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
        """Some whole images at a time: which, and the features [s, P, D] of all their views in fp32."""
        if self._open is not None:
            yield from self._open
            return
        step, opened = max(1, _CHUNK // self._features[0].numel()) if len(self) else 1, []
        for start in range(0, len(self), step):
            some = slice(start, start + step)
            features = torch.cat(self._features[some]).to(self.device).float()  # half the bytes travel
            chunk = some, features.flatten(2).transpose(1, 2).contiguous()
            if self.nbytes <= _OPEN:
                opened.append(chunk)
            yield chunk
        self._open = opened or None

    def log_likelihood(self, some: slice, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Log-probability [s, P, K] of each position under tokens [K, D] in the views of images `some`."""
        logits = features @ tokens.T.to(features)
        if self._area:
            logits = logits + torch.cat(self._area[some]).to(features)
        return logits.log_softmax(1)

    def maps(self, tokens: torch.Tensor) -> Iterator[torch.Tensor]:
        """Maps [s, K, G, G] of tokens [K, D] in the views of some images at a time."""
        for some, features in self.chunks():
            likely = self.log_likelihood(some, features, tokens).exp()  # [s, P, K]
            yield likely.transpose(1, 2).unflatten(-1, (self.side, self.side))

    def locate(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where tokens [K, D] are on each image, both [I, K, 2] in the unit square: the peak of the mean map over the
        views, and the mean position under it as detection reads it."""
        peak, mean = [], []
        for maps in self.maps(tokens):
            images = len(maps) // len(self.theta)
            average = average_views(maps, self.theta.repeat(images, 1, 1).to(maps), images)
            peak.append(readout.read_out(average, "soft", WINDOW)[0].cpu())
            mean.append(readout.spatial_mean(average)[0].cpu())
        return torch.cat(peak), torch.cat(mean)

    def locate_in_views(self, tokens: torch.Tensor) -> torch.Tensor:
        """Where each view alone says that tokens [K, D] are: [I, V, K, 2] in the unit square of the image."""
        views = len(self.theta)
        xy = torch.cat([readout.spatial_mean(maps)[0].cpu() for maps in self.maps(tokens)])  # [I*V, K, 2]
        return affine.view_to_image(xy, self.theta.cpu().repeat(len(self), 1, 1)).unflatten(0, (-1, views))

    def targets(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[I, V, P, K]: for each view the mean of Gaussians at those of the positions [I, V', K, 2] that lie in it,
        summing to 1; and [I, V, K], the share of positions that do."""
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

    def spread(self) -> tuple[int, torch.Tensor, torch.Tensor]:
        """How many positions there are, the sum of their features [D] and of the products of these [D, D]."""
        count, total, square = 0, torch.zeros(self.width), torch.zeros(self.width, self.width)
        for _, features in self.chunks():
            x = features.flatten(0, 1)  # [s*P, D]
            count, total, square = count + len(x), total + x.sum(0).cpu(), square + (x.T @ x).cpu()
        return count, total, square


def seen_positions(position: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Positions [V, N, 2] that views [V, 2, 3] of an image give, in its unit square; where a view cannot see a token,
    by where the first view, the image itself, has it, its peak is a stray one: the mean of those that do takes its
    place."""
    seen = affine.visible(position[:1], theta)[0]  # [V, N]
    seen[0] = True
    weight = seen[..., None].to(position)
    mean = (position * weight).sum(0) / weight.sum(0)  # [N, 2]
    return torch.where(seen[..., None], position, mean)
