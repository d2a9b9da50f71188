"""Every knob of training and detection, with its unit, its default and the three presets.

Presets: `default` (the combination that measured best, docs/results.md), `reference` (what the authors' code does) and
`paper` (what the paper's text says where the two differ).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import KeypointError

# Choices that the command line and nodes show, kept here because this module imports nothing heavy.
SMOOTHING_METHODS = ("savitzky-golay", "one-euro", "none")
LANDMARK_MODES = ("figure", "affine", "linear")
HINT_STYLES = ("scribble", "openpose", "ap10k", "keypoints")
HINT_FITS = ("crop", "keep")
DTYPE_CHOICES = ("auto", "fp32", "bf16", "fp16")
PRESETS = ("default", "reference", "paper")
#: What the presets `reference` and `paper` leave out of `default`.
_AS_PUBLISHED = dict(
    resize="squash", coverage_mask=False, selection="votes", refine_images=0, check_share=0.0, stop="fixed"
)


def _knob(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


class _Config:
    """Reading, checking and changing shared by both configurations."""

    _choices: dict[str, tuple[str, ...]] = {}
    _presets: dict[str, dict[str, Any]] = {}

    @classmethod
    def preset(cls, name: str = "default", **changes):
        """The preset `name`, with some fields changed. Raises KeypointError for unknown presets and fields."""
        if name not in PRESETS:
            raise KeypointError(f"There is no preset {name!r}; the presets are {', '.join(PRESETS)}.")
        return cls.from_dict({**cls._presets.get(name, {}), **changes})

    @classmethod
    def from_dict(cls, values: dict[str, Any]):
        """A configuration from plain values; lists become tuples. Raises KeypointError for an unknown key."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise KeypointError(
                f"{cls.__name__} has no setting {unknown[0]!r}; its settings are {', '.join(sorted(known))}."
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def replace(self, **changes):
        """A copy with some fields changed."""
        return type(self).from_dict({**self.to_dict(), **changes})

    def _check(self, rules: dict[str, tuple[float, float]]) -> None:
        for name, allowed in self._choices.items():
            if getattr(self, name) not in allowed:
                raise KeypointError(f"{name} is {getattr(self, name)!r}, but it must be one of {', '.join(allowed)}.")
        defaults = {f.name: f.default for f in fields(self)}
        for name, (low, high) in rules.items():
            value, whole = getattr(self, name), isinstance(defaults[name], int)
            kind = int if whole else (int, float)
            if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
                raise KeypointError(
                    f"{name} is {value!r}, but it must be a {'whole ' if whole else ''}number from {low:g} to {high:g}."
                )
        for name, default in defaults.items():
            if isinstance(default, bool) and not isinstance(getattr(self, name), bool):
                raise KeypointError(f"{name} is {getattr(self, name)!r}, but it must be true or false.")


@dataclass(frozen=True)
class TrainConfig(_Config):
    """How tokens are learned. Symbols are the paper's; lengths on the map are pixels of the R x R grid."""

    keypoints: int = _knob(10, "K, chosen keypoints")
    tokens: int = _knob(500, "N, learned tokens")
    candidates: int = _knob(0, "kappa, most Gaussian-like tokens per image (Eq. 9); 0 = 25, or K where that is more")
    steps: int = _knob(500, "optimiser steps; with stop auto the most it may take")
    learning_rate: float = _knob(5e-3, "Adam, no schedule")
    batch_size: int = _knob(4, "images per step")
    micro_batch: int = _knob(0, "images per pass, gradients added up; 0 = the whole batch at once")
    seed: int = _knob(0, "of tokens, image order, views and noise")
    image_size: int = _knob(0, "side of the model input in pixels; 0 = what the model was made for")
    resize: str = _knob(
        "auto",
        "how an image is fitted to the model input: squash, pad (aspect ratio kept), or auto by the images' shapes",
    )
    timestep: int = _knob(0, "in 0..999; how much noise is added to the latents")
    map_size: int = _knob(128, "R, side of the token maps in pixels")
    sigma: float = _knob(2.0, "of the target Gaussian, in pixels of the map (Eq. 8)")
    equivariance_weight: float = _knob(1000.0, "weight of the equivariance loss (Eq. 5)")
    localization_weight: float = _knob(100.0, "weight of the localisation loss (Eq. 6)")
    rotation: float = _knob(15.0, "views: degrees, uniform in +-")
    scale: tuple[float, float] = _knob((0.8, 1.0), "views: side of the visible window, share of the image's")
    translation: float = _knob(0.25, "views: uniform in +-, in half image sides")
    loss_tokens: str = _knob("spread", "spread = K of the kappa by farthest points in the view; all = all kappa")
    closeness: str = _knob("softmax", "KL of the Gaussian to the map's spatial softmax, or to the normalized map")
    border: str = _knob("neutral", "penalized = a Gaussian cut off by the border ranks lower (reference)")
    coverage_mask: bool = _knob(True, "equivariance only where the view shows the image")
    upsample: str = _knob("logits", "where resolution is raised: logits (= queries, exact), or finished maps")
    selection: str = _knob("prediction", "how the K tokens are picked: votes (reference), or prediction of all others")
    selection_images: int = _knob(100, "training images used to pick them")
    selection_views: int = _knob(3, "views per image, besides itself, for prediction")
    refine_images: int = _knob(250, "training images that the chosen tokens are refined on; 0 = no refinement")
    occluded_views: int = _knob(
        4, "views of each of these images under pasted shapes, to find what is occluded; 0 = none"
    )
    stop: str = _knob("auto", "auto = training ends when two rounds of steps bring nothing; fixed = after all steps")
    check_share: float = _knob(
        0.1, "share of the images, at least 4, left out to judge the result by; 0 = none, it is judged on images seen"
    )
    gradient: str = _knob("exact", "exact, or cached (features are constants of a fixed prompt)")
    view_pool: int = _knob(0, "views kept per image as latents; 0 = fresh ones every step")

    _choices = {
        "resize": ("auto", "squash", "pad"),
        "loss_tokens": ("spread", "all"),
        "closeness": ("softmax", "normalized"),
        "border": ("neutral", "penalized"),
        "upsample": ("logits", "maps"),
        "selection": ("votes", "prediction"),
        "gradient": ("exact", "cached"),
        "stop": ("auto", "fixed"),
    }
    _presets = {
        "reference": dict(_AS_PUBLISHED, border="penalized"),
        "paper": dict(_AS_PUBLISHED, loss_tokens="all", closeness="normalized", scale=(1 / 1.2, 1.0), translation=0.5),
    }

    def __post_init__(self) -> None:
        self._check(
            {
                "keypoints": (2, 1000),
                "tokens": (2, 100_000),
                "candidates": (0, 100_000),
                "steps": (0, 10_000_000),
                "learning_rate": (0, 100),
                "batch_size": (1, 4096),
                "micro_batch": (0, 4096),
                "seed": (0, 2**31 - 1),
                "image_size": (0, 2048),
                "timestep": (0, 999),
                "map_size": (8, 1024),
                "sigma": (0.1, 100),
                "equivariance_weight": (0, 1e9),
                "localization_weight": (0, 1e9),
                "rotation": (0, 180),
                "translation": (0, 1),
                "selection_images": (1, 1_000_000),
                "selection_views": (1, 100),
                "refine_images": (0, 1_000_000),
                "occluded_views": (0, 100),
                "check_share": (0, 0.5),
                "view_pool": (0, 1000),
            }
        )
        scale = self.scale
        if not (
            isinstance(scale, tuple)
            and len(scale) == 2
            and all(isinstance(x, (int, float)) for x in scale)
            and 0.1 <= scale[0] <= scale[1] <= 4
        ):
            raise KeypointError(f"scale is {scale!r}, but it must be two numbers, low and high, from 0.1 to 4.")
        if self.candidates == 0:
            object.__setattr__(self, "candidates", min(max(25, self.keypoints), self.tokens))
        if not self.keypoints <= self.candidates <= self.tokens:
            raise KeypointError(
                f"{self.keypoints} keypoints out of {self.candidates} candidates out of {self.tokens} "
                "tokens cannot be: it takes keypoints <= candidates <= tokens, so raise the latter."
            )


@dataclass(frozen=True)
class DetectConfig(_Config):
    """How keypoints are found on an image."""

    views: int = _knob(10, "random affine views averaged (test-time augmentation); 0 = the image alone")
    identity: bool = _knob(True, "the image itself is one more view")
    read: str = _knob(
        "auto", "which tokens are read: refined, learned, or auto = those that the training's self-check found better"
    )
    readout: str = _knob(
        "soft", "argmax = highest pixel; soft = mean of the map around it, widely for refined tokens, else in a window"
    )
    window: float = _knob(2.0, "soft read-out of learned tokens: half side of the window, in sigma of the training")
    map_size: int = _knob(0, "side of the averaged maps; 0 = R of the training")
    batch_size: int = _knob(8, "views per pass")
    seed: int = _knob(0, "of views and noise; the same for every image")

    _choices = {"readout": ("argmax", "soft"), "read": ("auto", "refined", "learned")}
    _presets = {
        "reference": dict(identity=False, read="learned", readout="argmax", map_size=512),
        "paper": dict(identity=False, read="learned", readout="argmax"),
    }

    def __post_init__(self) -> None:
        self._check(
            {
                "views": (0, 1000),
                "window": (0.5, 50),
                "map_size": (0, 2048),
                "batch_size": (1, 4096),
                "seed": (0, 2**31 - 1),
            }
        )
        if not self.views and not self.identity:
            raise KeypointError(
                "0 views without the image itself leave no map to average; raise views or set identity."
            )


@dataclass(frozen=True)
class GuideConfig(_Config):
    """How sampling is steered into a pose (docs/guidance.md). Lengths are shares of the image's longer side."""

    strength: float = _knob(1.0, "length of the steps towards the pose; 0 = none")
    start: float = _knob(0.0, "from this share of the noise schedule on")
    end: float = _knob(0.75, "up to this share; the rest only sharpens")
    gradient_steps: int = _knob(1, "steps towards the pose per sampling step")
    sigma_start: float = _knob(1 / 8, "width of the target Gaussian at `start`")
    sigma_end: float = _knob(1 / 32, "and at `end`")
    batch_size: int = _knob(4, "images per gradient pass; lowered when memory runs out")

    def __post_init__(self) -> None:
        self._check(
            {
                "strength": (0, 100),
                "start": (0, 1),
                "end": (0, 1),
                "gradient_steps": (1, 100),
                "sigma_start": (0.001, 10),
                "sigma_end": (0.001, 10),
                "batch_size": (1, 4096),
            }
        )
        if self.start >= self.end:
            raise KeypointError(f"start is {self.start:g} and end is {self.end:g}, but start must be below end.")
