"""What the tests of the nodes start from: a node's module by name, keypoints, tokens."""

from __future__ import annotations

import importlib

import fake_comfy
import numpy as np
import torch

from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.synthetic.figures import landmark_names
from stablekp_core.synthetic.generator import render

SIDE, COUNT = 64, 12


def part(name: str):
    """The module `nodes.<name>` of the pack that `fake_comfy.install` put up."""
    return importlib.import_module(f"{fake_comfy.PACK}.nodes.{name}")


def points(sizes=((64, 48), (64, 48)), count: int = 3, **more) -> Keypoints:
    rows = len(sizes)
    xy = np.arange(rows * count * 2, dtype=np.float32).reshape(rows, count, 2) * 3 + 5
    confidence = np.linspace(0.2, 1.0, rows * count, dtype=np.float32).reshape(rows, count)
    return Keypoints(xy=xy, confidence=confidence, sizes=np.array(sizes), **more)


def dolls(count: int = COUNT, names=(), images: bool = True) -> Keypoints:
    xy = np.stack([render("dolls", seed, SIDE, "plain").joints for seed in range(count)])
    files = tuple(f"{number}.png" for number in range(count)) if images else ()
    return Keypoints(xy, np.ones(xy.shape[:2]), np.full((count, 2), SIDE), names, images=files)


def named(count: int = COUNT) -> Keypoints:
    return dolls(count, landmark_names("dolls"))


def tokens(count: int = 3) -> KeypointTokens:
    return KeypointTokens(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), tuple(range(count)))
