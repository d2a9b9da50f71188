"""Stable Keypoints: keypoints of any kind of object, learned without labels from a frozen Stable Diffusion 1.5.

    from stablekp_core import load_backbone, load_folder, train, detect, TrainConfig, DetectConfig

    backbone = load_backbone("v1-5-pruned-emaonly.safetensors")
    result = train(backbone, load_folder("images"), TrainConfig(keypoints=10, steps=500))
    found = detect(backbone, result.tokens, load_folder("more_images"))
    found.keypoints.xy                       # [B, K, 2] pixels of each image, x right, y down

Coordinates: pixel (0, 0) covers [0, 1) x [0, 1), its centre is (0.5, 0.5). Importing this package loads no torch; the
names below load their modules when they are first used.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "KeypointError": "errors",
    "TrainConfig": "config",
    "DetectConfig": "config",
    "Backbone": "backbone.backbone",
    "load_backbone": "backbone.loading",
    "train": "training.trainer",
    "training_step": "training.step",
    "Detector": "detection.detector",
    "detect": "detection.detector",
    "KeypointTokens": "keypoints.tokens",
    "Keypoints": "keypoints.keypoints",
    "load_folder": "images.image_set",
    "load_files": "images.image_set",
    "load_image": "images.image_set",
    "ImageSet": "images.image_set",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
