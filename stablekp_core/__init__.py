"""Stable Keypoints: keypoints of any kind of object, learned without labels from a frozen Stable Diffusion 1.5.

    from stablekp_core import KeypointDetector, load_backbone, train

    result = train(load_backbone("v1-5-pruned-emaonly.safetensors"), "birds")
    result.tokens.save("bird.safetensors")
    detector = KeypointDetector.from_pretrained("bird.safetensors", model="v1-5-pruned-emaonly.safetensors")
    detector("one.jpg").keypoints.xy         # float32 [1, K, 2], pixels of the image, x right, y down

Coordinates: pixel (0, 0) covers [0, 1) x [0, 1), its centre is (0.5, 0.5). Importing this package loads no torch; the
names below load their modules when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbone.backbone import Backbone
    from .backbone.loading import load_backbone
    from .config import DetectConfig, GuideConfig, TrainConfig
    from .detection.detector import Detection, Detector, detect
    from .detection.keypoint_detector import KeypointDetector
    from .errors import KeypointError
    from .guidance.fitting import fit_guidance
    from .guidance.generation import generate, open_generator
    from .guidance.readers import KeypointGuidance
    from .images.files import load_image
    from .images.image_set import ImageSet, as_image_set, load_files, load_folder
    from .keypoints.keypoints import Keypoints
    from .keypoints.tokens import KeypointTokens
    from .training.step import training_step
    from .training.train import TrainResult, train

__version__ = "0.1.0"

#: public name -> the module it lives in
_HOME = {
    "Backbone": "backbone.backbone",
    "DetectConfig": "config",
    "Detection": "detection.detector",
    "Detector": "detection.detector",
    "GuideConfig": "config",
    "ImageSet": "images.image_set",
    "KeypointDetector": "detection.keypoint_detector",
    "KeypointError": "errors",
    "KeypointGuidance": "guidance.readers",
    "KeypointTokens": "keypoints.tokens",
    "Keypoints": "keypoints.keypoints",
    "TrainConfig": "config",
    "TrainResult": "training.train",
    "as_image_set": "images.image_set",
    "detect": "detection.detector",
    "fit_guidance": "guidance.fitting",
    "generate": "guidance.generation",
    "load_backbone": "backbone.loading",
    "load_files": "images.image_set",
    "load_folder": "images.image_set",
    "load_image": "images.files",
    "open_generator": "guidance.generation",
    "train": "training.train",
    "training_step": "training.step",
}
__all__ = [
    "Backbone",
    "DetectConfig",
    "Detection",
    "Detector",
    "GuideConfig",
    "ImageSet",
    "KeypointDetector",
    "KeypointError",
    "KeypointGuidance",
    "KeypointTokens",
    "Keypoints",
    "TrainConfig",
    "TrainResult",
    "__version__",
    "as_image_set",
    "detect",
    "fit_guidance",
    "generate",
    "load_backbone",
    "load_files",
    "load_folder",
    "load_image",
    "open_generator",
    "train",
    "training_step",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
