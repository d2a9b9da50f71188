"""Refining the chosen tokens: fitting them anew to where they were found, as classifiers of places.

Learning draws a token's map to a small Gaussian at its own peak, picture by picture, and a peak that jumps to another
part teaches it as much as one that does not. Here all pictures vote at once. Summed over heads and layers, the logit
of a place is linear in the token's embedding e: features . e. Its softmax over the places of a picture
(attention.place_maps) is fitted by maximum likelihood to where the token was found in the pictures' views, which is
multinomial logistic regression with one class a place: convex, without a starting point or a learning rate. What was
found again and again in the same surroundings stays, stray finds are outvoted; then the pictures are read with the
fitted tokens and they are fitted to that, six times in all (self-training).

Features are taken, here and in detection, under a prompt of one token, the mean of all learned ones: those made under
all of them at once told parts of cluttered pictures less well apart.

Works on features, wherever they come from; knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from . import losses, readout, transforms

ROUNDS = 6
SPOT = 0.04  # sides of the picture: sigma of the target at a place
WINDOW = 2  # places around the highest one whose mean is the peak
PENALTY = 0.03  # of the squared embedding in units of the features' spread, beside the mean log-likelihood
_ENOUGH = 1e-2  # change of the loss, a sum over tokens of some nats each, at which a fit ends
_CHUNK = 1 << 24  # feature values worked on at a time
_OPEN = 128 << 20  # bytes of fp16 features up to which they are kept in fp32 too


class Places:
    """Features of the views of pictures, kept as fp16 on the CPU, and where tokens are on them.

    theta [V, 2, 3]: the views, the same for every picture. Work is done on `device`.
    """

    def __init__(self, theta: torch.Tensor, device: torch.device | str = "cpu"):
        self.theta, self.device = theta, device
        self._features: list[torch.Tensor] = []  # [V, P, D] of each picture
        self._area: list[torch.Tensor] = []  # logarithms [V, P, 1]
        self._open: list[tuple[slice, torch.Tensor]] | None = None  # all chunks, where they are few

    def add(self, features: torch.Tensor, area: torch.Tensor | None = None) -> None:
        """Keep one more picture: features [V, D, G, G]; area [V, 1, G, G] in [0, 1]: how much each place counts."""
        self._features.append(features.flatten(2).transpose(1, 2).contiguous().to("cpu", torch.float16))
        self._open = None
        if area is not None:
            self._area.append(area.flatten(2).transpose(1, 2).clamp(min=1e-6).log().cpu())

    def __len__(self) -> int:
        return len(self._features)

    @property
    def nbytes(self) -> int:
        """Memory of the features."""
        return sum(x.nbytes for x in self._features)

    @property
    def side(self) -> int:
        """G, places along a side."""
        return int(self._features[0].shape[1] ** 0.5)

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return self._features[0].shape[2]

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some whole pictures at a time: which, and the features [s, P, D] of all their views in fp32."""
        if self._open is not None:
            yield from self._open
            return
        step, opened = max(1, _CHUNK // self._features[0].numel()) if len(self) else 1, []
        for start in range(0, len(self), step):
            some = slice(start, start + step)
            chunk = some, torch.cat(self._features[some]).to(self.device, torch.float32)
            if self.nbytes <= _OPEN:
                opened.append(chunk)
            yield chunk
        self._open = opened or None

    def log_likelihood(self, some: slice, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Log-probability of each place [s, P, K] under tokens [K, D] in the views of pictures `some`."""
        logits = features @ tokens.T.to(features)
        if self._area:
            logits = logits + torch.cat(self._area[some]).to(features)
        return logits.log_softmax(1)

    def locate(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where tokens [K, D] are on each picture, both [I, K, 2] in the unit square: the peak of the mean map over the
        views, and the mean position under it as detection reads it."""
        peak, mean = [], []
        for some, features in self.chunks():
            maps = self.log_likelihood(some, features, tokens).exp().transpose(1, 2)  # [s, K, P]
            images = len(maps) // len(self.theta)
            maps = maps.unflatten(-1, (self.side, self.side))
            average = readout.average_views(maps, self.theta.repeat(images, 1, 1).to(maps), images)
            peak.append(readout.read_out(average, "soft", WINDOW)[0].cpu())
            mean.append(readout.place(average)[0].cpu())
        return torch.cat(peak), torch.cat(mean)

    def targets(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[I, V, P, K]: for each view the mean of Gaussians at those of the positions [I, V', K, 2] that lie in it,
        summing to 1; and [I, V, K], the share of positions that do."""
        g, (images, found) = self.side, position.shape[:2]
        targets, weights = [], []
        for theta in transforms.invert_affine(self.theta):
            xy = transforms.view_to_picture(position.flatten(0, 1), theta.expand(images * found, -1, -1))
            inside = ((xy > 0) & (xy < 1)).all(-1)  # [I*V', K]
            spots = losses.gaussian_maps(xy.flip(-1) * g, g, SPOT * g) * inside[..., None, None]  # [I*V', K, G, G]
            targets.append(spots.unflatten(0, (images, found)).sum(1).flatten(2).transpose(1, 2))  # [I, P, K]
            weights.append(inside.float().unflatten(0, (images, found)).mean(1))  # [I, K]
        target = torch.stack(targets, 1)
        return target / target.sum(2, keepdim=True).clamp(min=1e-9), torch.stack(weights, 1)


def neutral_prompt(tokens: torch.Tensor) -> torch.Tensor:
    """[1, D]: the prompt under which the UNet sees pictures when refined tokens are fitted and read; tokens [N, D]: all
    learned ones."""
    return tokens.mean(0, keepdim=True)


def refine(position: torch.Tensor, places: Places, *more: Places) -> torch.Tensor:
    """Embeddings float32 [K, D] fitted to positions [I, V', K, 2] in the unit square: where each of some views found
    each keypoint on the pictures of `places`. On the pictures of `more` the first fit finds them."""
    position = [position]
    groups = [places, *(group for group in more if len(group))]
    spread, tokens = _spread(groups), None
    for _ in range(ROUNDS):
        if tokens is not None:
            position = [group.locate(tokens)[0][:, None] for group in groups]  # [I, 1, K, 2] each
        pairs = [(group, *group.targets(xy)) for group, xy in zip(groups, position, strict=False)]
        tokens = _fit(pairs, spread, tokens)
    return tokens


def _spread(groups: Sequence[Places]) -> torch.Tensor:
    """[D, D], lower triangular: the Cholesky factor of the covariance of the features over all places."""
    width = groups[0].width
    count, mean, square = 0, torch.zeros(width), torch.zeros(width, width)
    for group in groups:
        for _, features in group.chunks():
            x = features.flatten(0, 1)  # [s*P, D]
            count, mean, square = count + len(x), mean + x.sum(0).cpu(), square + (x.T @ x).cpu()
    covariance = square / count - torch.outer(mean, mean) / count**2
    ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
    return torch.linalg.cholesky(covariance + ridge * torch.eye(width))


def _fit(
    pairs: Sequence[tuple[Places, torch.Tensor, torch.Tensor]], spread: torch.Tensor, start: torch.Tensor | None
) -> torch.Tensor:
    """Tokens [K, D] of largest penalised likelihood of (places, targets [I, V, P, K], weights [I, V, K]); L-BFGS in
    coordinates in which the features have unit variance."""
    whole = sum(weight.sum((0, 1)) for _, _, weight in pairs).clamp(min=1e-6)  # [K]
    begin = torch.zeros(len(whole), len(spread)) if start is None else start @ spread
    white = begin.requires_grad_(True)  # [K, D]
    optimizer = torch.optim.LBFGS(
        [white], max_iter=20, tolerance_change=_ENOUGH, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        tokens = _plain(white.detach(), spread)
        loss, gradient = torch.zeros(len(tokens)), torch.zeros_like(tokens)
        for places, targets, weight in pairs:
            for some, features in places.chunks():
                target = targets[some].flatten(0, 1).to(features)  # [s, P, K]
                share = (weight[some].flatten(0, 1) / whole)[:, None].to(features)  # [s, 1, K]
                log = places.log_likelihood(some, features, tokens)
                loss += -((target * log).sum(1, keepdim=True) * share).sum((0, 1)).cpu()
                wrong = (log.exp() - target) * share
                gradient += (wrong.flatten(0, 1).T @ features.flatten(0, 1)).cpu()
        white.grad = torch.linalg.solve_triangular(spread, gradient.T, upper=False).T + 2 * PENALTY * white.detach()
        return loss.sum() + PENALTY * white.detach().square().sum()

    optimizer.step(closure)
    return _plain(white.detach(), spread)


def _plain(white: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Tokens [K, D] from their coordinates in which features have unit variance."""
    return torch.linalg.solve_triangular(spread.T, white.T, upper=True).T.contiguous()
