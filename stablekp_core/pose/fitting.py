"""From unnamed keypoints to named landmarks: a linear map learned from a few labelled images.

The map is the regression that unsupervised keypoints are evaluated with (the paper, Sec. 4.1). With ridge, few
components and a leave-one-out choice between three kinds of map it can be fitted to as few as five labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import KeypointError
from ..keypoints.keypoints import Keypoints
from ..keypoints.procrustes import figure_size, mean_shape, reference_confidence, trust
from .landmark_map import MODES, LandmarkMap, keypoint_features
from .matching import label_scales, pair_rows
from .ridge import fit_ridge

__all__ = ["MIN_LABELLED", "MODES", "LandmarkMap", "apply_landmark_map", "fit_landmark_map", "pair_rows"]

MIN_LABELLED = 3
_ALPHAS = (1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)
_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def apply_landmark_map(keypoints: Keypoints, landmarks: LandmarkMap) -> Keypoints:
    """The named landmarks of keypoints; see `LandmarkMap.apply`."""
    return landmarks.apply(keypoints)


def fit_landmark_map(
    keypoints: Keypoints,
    labels: Keypoints,
    *,
    mode: str = "auto",
    ridge: float | None = None,
    rank: int | None = None,
    use_confidence: bool = True,
) -> LandmarkMap:
    """Fit the map from `keypoints` to the landmarks of `labels` on the same images.

    keypoints may cover more images than labels; these contribute to the mean shape and the components. Rows are paired
    by image name, or by order when neither side has names (see `pair_rows`). Label confidence is visibility: 0 means
    not labelled. mode: "linear" (every landmark coordinate is a sum of all
    keypoint coordinates; without bias, as in the paper), "affine" (with a bias), "figure" (each landmark is a
    weighted mean of keypoints, so it moves, turns and grows with the figure; best for few labels), or "auto".
    ridge: None to choose it, 0 for plain least squares, else its strength. rank: None to choose how many
    components of the keypoints' movement to use, 0 for all. Everything that is chosen is chosen by the
    leave-one-out error. use_confidence: keypoints of low confidence count less, and are moved towards their
    expected positions given the others.

    Raises KeypointError when there are too few labelled images, saying how many there are and are needed.
    """
    modes = MODES if mode == "auto" else (mode,)
    if mode not in (*MODES, "auto"):
        raise KeypointError(f"mode is {mode!r}, but it must be one of {', '.join((*MODES, 'auto'))}.")
    if ridge is not None and not ridge >= 0 or rank is not None and rank < 0:
        raise KeypointError(f"ridge is {ridge} and rank {rank}, but both must be 0 or more, or left out.")
    data = _Data.make(keypoints, labels, use_confidence)
    if ridge == 0:
        modes = data.solvable(modes, rank or 0)
    best = None
    for candidate in modes:
        for components in data.ranks(candidate, rank):
            for alpha in _ALPHAS if ridge is None else (float(ridge),):
                trial = data.fit(candidate, components, alpha)
                if best is None or trial.score < best.score:
                    best = trial
    error = np.where(data.fitted, best.error, np.nan)
    return LandmarkMap(
        weights=best.weights,
        bias=best.bias,
        shape=data.shape,
        trusted=data.trusted,
        fitted=data.fitted,
        error=error,
        labelled=data.labelled,
        keypoints=keypoints.names,
        names=labels.names,
        skeleton=labels.skeleton,
        mode=best.mode,
        ridge=best.ridge,
        rank=best.rank,
        images=data.images,
    )


@dataclass(frozen=True, eq=False)
class _Trial:
    """One fitted candidate and its leave-one-out error: mean over labels, and percent for each landmark."""

    mode: str
    rank: int
    ridge: float
    weights: np.ndarray
    bias: np.ndarray
    error: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class _Data:
    """Training data: features of all images [A, 2K], of the B labelled ones, their targets and weights."""

    everything: np.ndarray  # [A, 2K]
    features: np.ndarray  # [B, 2K]
    targets: np.ndarray  # [B, 2L]
    weights: np.ndarray  # [B, L]
    sides: np.ndarray  # [B, 2], image sides, the longer one = 1
    shape: np.ndarray
    trusted: np.ndarray
    fitted: np.ndarray
    labelled: np.ndarray
    images: int
    _bases: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def make(cls, keypoints: Keypoints, labels: Keypoints, use_confidence: bool) -> _Data:
        rows, label_rows = pair_rows(keypoints, labels)
        trusted = reference_confidence(keypoints.confidence) if use_confidence else np.zeros(keypoints.num_keypoints)
        seen = trust(keypoints.confidence, trusted)
        isotropic = keypoints.xy / keypoints.sizes.max(axis=1)[:, None, None]
        sizes = figure_size(isotropic, seen)
        shape = mean_shape(isotropic, seen) * (float(np.median(sizes)) if len(sizes) else 1.0)
        everything = keypoint_features(keypoints, shape, trusted)
        label_sizes = labels.sizes[label_rows]
        label_scales(keypoints.sizes[rows], labels, label_rows)  # refuses labels of another shape
        targets = labels.xy[label_rows] / label_sizes[:, None, :] - 0.5
        weights = labels.confidence[label_rows] * seen[rows].mean(axis=1, keepdims=True)
        labelled = (weights > 0).sum(axis=0)
        fitted = labelled >= MIN_LABELLED
        if not fitted.any():
            most = int(labelled.max()) if len(labelled) else 0
            raise KeypointError(
                f"a landmark map needs at least {MIN_LABELLED} labelled images (5 or more to be any good), "
                f"but no landmark is labelled on more than {most}; label {MIN_LABELLED - most} more."
            )
        sides = keypoints.sizes[rows] / keypoints.sizes[rows].max(axis=1, keepdims=True)
        used = int((weights[:, fitted] > 0).any(axis=1).sum())
        return cls(
            everything,
            everything[rows],
            targets.reshape(len(rows), -1),
            weights * fitted,
            sides,
            shape,
            trusted,
            fitted,
            labelled,
            used,
        )

    def solvable(self, modes: tuple[str, ...], rank: int) -> tuple[str, ...]:
        """Modes whose coefficients the labels determine without ridge; raises KeypointError when none is."""
        fewest = int(self.labelled[self.fitted].min())
        coordinates = self.features.shape[1]
        needed = {}
        for mode in modes:
            unknown = coordinates // 2 - 1 if mode == "figure" else coordinates
            unknown = min(rank or unknown, unknown)
            needed[mode] = -(-unknown // 2) if mode == "figure" else unknown + (mode == "affine")
        possible = tuple(mode for mode in modes if needed[mode] <= fewest)
        if not possible:
            wanted = min(needed.values())
            raise KeypointError(
                f"without ridge this map needs at least {wanted} labelled images, but a landmark has only "
                f"{fewest}; label {wanted - fewest} more, or let the ridge be chosen."
            )
        return possible

    def basis(self, mode: str) -> np.ndarray:
        """Directions [F, r] in which the keypoints of all images move, the strongest first."""
        if mode not in self._bases:
            features = self._centred(self.everything) if mode == "figure" else self.everything
            if mode == "affine":
                features = features - features.mean(axis=0)
            _, values, right = np.linalg.svd(features, full_matrices=False)
            self._bases[mode] = right[values > values[0] * 1e-9].T
        return self._bases[mode]

    def ranks(self, mode: str, rank: int | None) -> list[int]:
        full = self.basis(mode).shape[1]
        if rank is None:
            return [r for r in _RANKS if r < full] + [0]
        return [rank if 0 < rank < full else 0]

    def fit(self, mode: str, rank: int, alpha: float) -> _Trial:
        basis = self.basis(mode)[:, : rank or None]
        count = self.weights.shape[1]
        if mode == "figure":
            centre = self._centre(self.features)  # [B, 2]
            features = self._centred(self.features) @ basis
            targets = (self.targets.reshape(-1, count, 2) - centre[:, None]).transpose(0, 2, 1).reshape(-1, count)
            fit = fit_ridge(features, targets, np.repeat(self.weights, 2, axis=0), alpha, block=2)
            share = basis @ fit.coefficients  # [K, L]
            share = share + (1.0 - share.sum(axis=0)) / len(share)  # the centre is the mean of all keypoints
            weights = np.einsum("kl,ij->kilj", share, np.eye(2)).reshape(2 * len(share), 2 * count)
            bias = np.zeros(2 * count)
            wrong = fit.residuals.reshape(-1, 2, count).transpose(0, 2, 1)
        else:
            weight = np.repeat(self.weights, 2, axis=1)
            fit = fit_ridge(self.features @ basis, self.targets, weight, alpha, intercept=mode == "affine")
            weights, bias = basis @ fit.coefficients, fit.intercept
            wrong = fit.residuals.reshape(-1, count, 2)
        return self._trial(mode, rank, alpha, weights, bias, wrong)

    def _trial(self, mode, rank, alpha, weights, bias, wrong) -> _Trial:
        distance = np.sqrt(((wrong * self.sides[:, None, :]) ** 2).sum(axis=-1))  # [B, L]
        known = self.weights > 0
        # A label that cannot be left out (nothing else determines its fit) rules a candidate out.
        score = float(distance[known].mean()) if known.any() else np.inf
        total = np.where(known, np.nan_to_num(distance), 0.0).sum(axis=0)
        error = 100.0 * total / np.maximum(known.sum(axis=0), 1)
        error = np.where((known & np.isnan(distance)).any(axis=0), np.nan, error)
        return _Trial(mode, rank, alpha, weights, bias, error, np.inf if np.isnan(score) else score)

    @staticmethod
    def _centre(features: np.ndarray) -> np.ndarray:
        return features.reshape(len(features), -1, 2).mean(axis=1)

    @classmethod
    def _centred(cls, features: np.ndarray) -> np.ndarray:
        """[B, 2K] -> [2B, K], coordinates from the figure's centre; rows x, y of one image follow each
        other.
        """
        points = features.reshape(len(features), -1, 2) - cls._centre(features)[:, None]
        return points.transpose(0, 2, 1).reshape(2 * len(features), -1)
