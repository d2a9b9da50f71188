"""Refining the chosen tokens: fitting them anew to where they were found, as classifiers of places.

Learning draws a token's map to a small Gaussian at its own peak, picture by picture, and a peak that jumps to another
part teaches it as much as one that does not. Here all pictures vote at once. Summed over heads and layers, the logit
of a place is linear in the token's embedding e: features . e. Its softmax over the places of a picture
(attention.place_maps) is fitted by maximum likelihood to where the token was found in the pictures' views, which is
multinomial logistic regression with one class a place: convex, without a starting point or a learning rate. What was
found again and again in the same surroundings stays, stray finds are outvoted; then the pictures are read with the
fitted tokens and they are fitted to that, three times in all (self-training).

Works on features, wherever they come from; knows nothing of models or files.
"""

from __future__ import annotations

import torch

from . import losses, readout, transforms

ROUNDS = 3
SPOT = 0.04  # sides of the picture: sigma of the target at a place
WINDOW = 2  # places around the highest one whose mean is the peak
PENALTY = 0.01  # of the squared embedding in units of the features' spread, beside the mean log-likelihood
BYTES = 512 << 20  # of features that are kept; pictures beyond are left out
_CHUNK = 1 << 24  # feature values worked on at a time


class Places:
    """Features of the views of pictures, kept as fp16 on the CPU, and the fit of tokens to positions on them.

    theta [V, 2, 3]: the views, the same for every picture.
    """

    def __init__(self, theta: torch.Tensor, device: torch.device | str = "cpu"):
        self.theta, self.device = theta, device
        self._features: list[torch.Tensor] = []
        self._area: list[torch.Tensor] = []

    def add(self, features: torch.Tensor, area: torch.Tensor | None = None) -> None:
        """Keep one more picture: features [V, D, G, G]; area [V, 1, G, G] in [0, 1]: how much each place counts."""
        if self._features and (len(self) + 1) * self._features[0].numel() * 2 > BYTES:
            return
        self._features.append(features.flatten(2).transpose(1, 2).contiguous().to("cpu", torch.float16))  # [V, P, D]
        if area is not None:
            self._area.append(area.flatten(2).transpose(1, 2).clamp(min=1e-6).log().cpu())  # [V, P, 1]

    def __len__(self) -> int:
        return len(self._features)

    @property
    def side(self) -> int:
        """G, places along a side."""
        return int(self._features[0].shape[1] ** 0.5)

    def refine(self, position: torch.Tensor) -> torch.Tensor:
        """Embeddings float32 [K, D] fitted to positions [I, V, K, 2] (unit square of each picture): where each view
        found each keypoint. Only the first pictures count when fewer are kept."""
        position = position[: len(self)]
        spread = self._spread()
        tokens = None
        for _ in range(ROUNDS):
            targets, weight = self._targets(position)
            tokens = self._fit(targets, weight, spread, tokens)
            position = self.locate(tokens)[0][:, None]  # [I, 1, K, 2]
        return tokens

    def locate(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where tokens [K, D] are on each picture, both [I, K, 2] in the unit square: the peak of the mean map over the
        views, and the mean position under it as detection reads it."""
        peak, mean, views = [], [], len(self.theta)
        for rows in self._chunks(views):
            maps = self._log_likelihood(self._rows(rows), tokens, rows).exp()  # [s, P, K]
            maps = maps.transpose(1, 2).unflatten(-1, (self.side, self.side))
            images = len(maps) // views
            average = readout.average_views(maps, self.theta.repeat(images, 1, 1).to(maps), images)
            peak.append(readout.read_out(average, "soft", WINDOW)[0])
            mean.append(readout.place(average)[0])
        return torch.cat(peak).cpu(), torch.cat(mean).cpu()

    def _chunks(self, multiple: int = 1):
        """Slices of all views [I*V], each of whole pictures."""
        views, size = len(self.theta), self._features[0][0].numel()
        step = max(views, _CHUNK // size // views * views)
        return (slice(i, i + step) for i in range(0, len(self) * views, step))

    def _rows(self, rows: slice) -> torch.Tensor:
        """Features [s, P, D] of some views."""
        return _views(self._features, rows).to(self.device, torch.float32)

    def _log_likelihood(self, features: torch.Tensor, tokens: torch.Tensor, rows: slice) -> torch.Tensor:
        """Log-probability of each place [s, P, K] under tokens [K, D] in views `rows` with features [s, P, D]."""
        logits = features @ tokens.T.to(features)
        if self._area:
            logits = logits + _views(self._area, rows).to(features)
        return logits.log_softmax(1)

    def _targets(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[I*V, P, K]: for each view the mean of Gaussians at the positions [I, V', K, 2] that lie in it, summing to 1;
        and [I*V, K], the share of positions that do."""
        inverse, g = transforms.invert_affine(self.theta), self.side
        targets, weights = [], []
        for theta in inverse:
            xy = transforms.view_to_picture(position.flatten(0, 1), theta.expand(position.shape[:2].numel(), -1, -1))
            inside = ((xy > 0) & (xy < 1)).all(-1)  # [I*V', K]
            spots = losses.gaussian_maps(xy.flip(-1) * g, g, SPOT * g) * inside[..., None, None]  # [I*V', K, G, G]
            targets.append(spots.unflatten(0, position.shape[:2]).sum(1).flatten(2))  # [I, K, P]
            weights.append(inside.float().unflatten(0, position.shape[:2]).mean(1))  # [I, K]
        target = torch.stack(targets, 1).flatten(0, 1).transpose(1, 2).contiguous()
        return target / target.sum(1, keepdim=True).clamp(min=1e-9), torch.stack(weights, 1).flatten(0, 1)

    def _spread(self) -> torch.Tensor:
        """[D, D], lower triangular: the Cholesky factor of the covariance of the features over all places."""
        width = self._features[0].shape[2]
        count, mean, square = 0, torch.zeros(width), torch.zeros(width, width)
        for rows in self._chunks():
            x = self._rows(rows).flatten(0, 1)  # [s*P, D]
            count, mean, square = count + len(x), mean + x.sum(0).cpu(), square + (x.T @ x).cpu()
        covariance = square / count - torch.outer(mean, mean) / count**2
        ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
        return torch.linalg.cholesky(covariance + ridge * torch.eye(width))

    def _fit(
        self, targets: torch.Tensor, weight: torch.Tensor, spread: torch.Tensor, start: torch.Tensor | None
    ) -> torch.Tensor:
        """Tokens [K, D] of largest likelihood; L-BFGS in coordinates in which the features have unit variance."""
        whole = weight.sum(0).clamp(min=1e-6)  # [K]
        begin = torch.zeros(targets.shape[2], len(spread)) if start is None else start @ spread
        white = begin.requires_grad_(True)  # [K, D]
        optimizer = torch.optim.LBFGS(
            [white], max_iter=40, tolerance_change=1e-3, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            tokens = _plain(white.detach(), spread)
            loss, gradient = torch.zeros(len(tokens)), torch.zeros_like(tokens)
            for rows in self._chunks():
                target, share = targets[rows].to(self.device), (weight[rows] / whole)[:, None].to(self.device)
                features = self._rows(rows)
                log = self._log_likelihood(features, tokens, rows)  # [s, P, K]
                loss += -((target * log).sum(1, keepdim=True) * share).sum((0, 1)).cpu()
                wrong = (log.exp() - target) * share
                gradient += (wrong.flatten(0, 1).T @ features.flatten(0, 1)).cpu()
            white.grad = torch.linalg.solve_triangular(spread, gradient.T, upper=False).T + 2 * PENALTY * white.detach()
            return loss.sum() + PENALTY * white.detach().square().sum()

        optimizer.step(closure)
        return _plain(white.detach(), spread)


def _views(parts: list[torch.Tensor], rows: slice) -> torch.Tensor:
    """Views `rows` of those of all pictures, parts [V, ...] each; whole pictures."""
    views = len(parts[0])
    return torch.cat(parts[rows.start // views : -(-rows.stop // views)])


def _plain(white: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Tokens [K, D] from their coordinates in which features have unit variance."""
    return torch.linalg.solve_triangular(spread.T, white.T, upper=True).T.contiguous()
