"""Detection in two lines: open tokens and model once, then call the detector with images of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backbone.backbone import Backbone
from ..backbone.loading import load_backbone
from ..config import DetectConfig
from ..errors import check_type
from ..images.image_set import as_image_set
from ..images.masks import Masks
from ..keypoints.tokens import KeypointTokens
from ..progress import Progress
from .detector import Detection, Detector, collect


class KeypointDetector:
    """Learned tokens and a frozen model that detect keypoints.

        detector = KeypointDetector.from_pretrained("bird.safetensors", model="sd15.safetensors")
        result = detector("one.jpg")
        result.keypoints.xy                  # float32 [1, K, 2], pixels of the image, x right, y down

    The model and the tokens are held between calls, images are not.
    """

    def __init__(self, backbone: Backbone, tokens: KeypointTokens, config: DetectConfig | None = None):
        """Raises KeypointError for tokens of another width than the model's, and for arguments of a wrong type."""
        hint = "use KeypointDetector.from_pretrained(tokens, model=...) to open files"
        check_type("backbone", backbone, Backbone, hint)
        check_type("tokens", tokens, KeypointTokens, hint)
        self.tokens = tokens
        self._detector = Detector(backbone, tokens, config)

    @classmethod
    def from_pretrained(
        cls,
        tokens: str | Path | KeypointTokens,
        model: str | Path | Backbone = "demo",
        *,
        dtype: str = "auto",
        device: str = "auto",
        config: DetectConfig | None = None,
    ) -> KeypointDetector:
        """Open a tokens file and the model that it was trained with.

        tokens: path of the file, or tokens in memory. model: a Stable Diffusion 1.4/1.5 .safetensors file, a diffusers
        folder, a hub id, "demo" (the small built-in model), or a `Backbone`. dtype: auto, fp32, bf16 or fp16. device:
        auto, cpu, cuda, cuda:1 or mps. config: the preset `default` when left out. Raises KeypointError when one of
        them cannot be opened, or when they do not fit each other.
        """
        tokens = tokens if isinstance(tokens, KeypointTokens) else KeypointTokens.load(tokens)
        backbone = model if isinstance(model, Backbone) else load_backbone(str(model), dtype, device)
        return cls(backbone, tokens, config)

    def __call__(
        self,
        images: Any,
        *,
        keep_maps: bool = False,
        masks: Masks | None = None,
        on_progress: Progress | None = None,
    ) -> Detection:
        """Detect the keypoints on images.

        images: the path of an image or of a folder, a PIL image, an array [H, W, C] or a batch [B, H, W, C] (uint8 in
        0..255 or float in [0, 1]), a list of any of these, (name, array) pairs, or an ImageSet. keep_maps: return the
        maps [B, K, R, R] too. masks: where the object is on each image, by its name. on_progress: see progress.py.
        Raises KeypointError when no image can be read.
        """
        images = as_image_set(images)
        return collect(self._detector.stream(images, keep_maps, masks), keep_maps, len(images), on_progress)
