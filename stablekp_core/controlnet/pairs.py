"""One pair of a ControlNet data set: an image at the size to train at, and the hint drawn at that size."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..config import HINT_FITS, HINT_STYLES
from ..errors import KeypointError
from ..files import write_atomically
from ..keypoints.keypoints import Keypoints
from ..keypoints.sizes import fit_to_image
from ..pose.writing import POSE_THRESHOLD

STYLES, FITS = HINT_STYLES, HINT_FITS


@dataclass(frozen=True)
class ExportSettings:
    """The form of the images of a data set, the same for all of a folder.

    style: "scribble" (white skeleton on black), "openpose", "ap10k", or "keypoints" (coloured dots and lines
    on black). size: side of the images in pixels, the resolution to train at; hints are drawn at this size.
    fit: "crop" cuts a square around the figures, "keep" keeps the aspect ratio with the shorter side at
    `size`. threshold: confidence from which a point is drawn. line_width: of scribble and keypoints, pixels.
    validation: share of the images set aside. seed: of that choice. image_format: of the images, png or jpg;
    hints are png.
    """

    style: str = "scribble"
    size: int = 512
    fit: str = "crop"
    threshold: float = POSE_THRESHOLD
    line_width: int = 4
    validation: float = 0.1
    seed: int = 0
    image_format: str = "png"

    def __post_init__(self) -> None:
        for name, allowed in (("style", STYLES), ("fit", FITS), ("image_format", ("png", "jpg"))):
            if getattr(self, name) not in allowed:
                raise KeypointError(f"{name} is {getattr(self, name)!r}, but it must be one of {', '.join(allowed)}.")
        for name, low, high in (
            ("size", 64, 4096),
            ("threshold", 0, 1),
            ("line_width", 1, 100),
            ("validation", 0, 0.9),
        ):
            if not low <= getattr(self, name) <= high:
                raise KeypointError(f"{name} is {getattr(self, name)}, but it must be from {low} to {high}.")
        if self.size % 8:
            raise KeypointError(f"size is {self.size}, but ControlNet training needs a multiple of 8, such as 512.")


def draw_hint(
    xy: np.ndarray,
    confidence: np.ndarray,
    settings: ExportSettings,
    size: tuple[int, int],
    skeleton=(),
    colors=(),
) -> np.ndarray:
    """The hint image, uint8 RGB on black, of figures xy [P, K, 2], pixels of a canvas of `size` (w, h)."""
    from ..drawing.hints import draw_ap10k, draw_openpose, draw_scribble
    from ..drawing.overlay import draw_keypoints

    there = (confidence >= settings.threshold) & (confidence > 0)
    if settings.style in ("openpose", "ap10k"):
        points = np.concatenate([xy, there[..., None]], axis=-1)
        return (draw_openpose if settings.style == "openpose" else draw_ap10k)(points, *size)
    if settings.style == "scribble":
        return draw_scribble(xy, skeleton, *size, settings.line_width, confidence=there.astype(float))
    return draw_keypoints(
        None,
        xy,
        there.astype(float),
        canvas="black",
        numbers=False,
        skeleton=skeleton,
        colors=colors,
        width=settings.line_width,
        outline=False,
        size=size,
    )


def pair_key(name: str, image: np.ndarray, person: Keypoints, settings: ExportSettings) -> str:
    """The file name of a pair: a digest of all that its images depend on, so that equal names mean equal pairs.

    image: uint8 RGB [H, W, 3]. person: the figures on it. A digest also hides words such as "test" in image names,
    which readers of data sets take for the name of a split.
    """
    digest = hashlib.sha256(json.dumps([name, image.shape, asdict(settings), person.skeleton, person.colors]).encode())
    for array in (person.xy, person.confidence):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:20]


def write_pair(folder: Path, key: str, image: np.ndarray, person: Keypoints, settings: ExportSettings) -> bool:
    """Write the files of a pair that are missing; whether any was. Arguments as for `pair_key`."""
    target, hint = folder / f"{key}.{settings.image_format}", folder / "hints" / f"{key}.png"
    if target.is_file() and hint.is_file():
        return False
    hint.parent.mkdir(parents=True, exist_ok=True)
    fitted, xy = _fit(image, person, settings)
    drawn = draw_hint(xy, person.confidence, settings, fitted.size, person.skeleton, person.colors)
    write_atomically(hint, _encoded(Image.fromarray(drawn), "png"))
    write_atomically(target, _encoded(fitted, settings.image_format))
    return True


def _fit(image: np.ndarray, person: Keypoints, settings: ExportSettings) -> tuple[Image.Image, np.ndarray]:
    """The image at the size of the data set, and the points [P, K, 2] in its pixels."""
    height, width = image.shape[:2]
    person = fit_to_image(person, (width, height))
    left = top = 0
    box_width, box_height = width, height
    if settings.fit == "crop":
        box_width = box_height = min(width, height)
        there = (person.confidence >= settings.threshold) & (person.confidence > 0)
        low, high = person.xy[there].min(axis=0), person.xy[there].max(axis=0)
        middle = (low + high) / 2 - box_width / 2
        left, top = (int(v) for v in np.clip(np.rint(middle), 0, (width - box_width, height - box_height)))
    scale = settings.size / min(box_width, box_height)
    size = (max(1, round(box_width * scale)), max(1, round(box_height * scale)))
    piece = Image.fromarray(image[top : top + box_height, left : left + box_width])
    xy = (person.xy - (left, top)) * (size[0] / box_width, size[1] / box_height)
    return piece.resize(size, Image.Resampling.LANCZOS), xy


def _encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "png":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()
