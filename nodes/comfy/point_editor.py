"""What the editor in the page is given after a run: images and detected points, as files in ComfyUI's temp folder.

The page reads them through ComfyUI's own /view route, one image at a time as they are looked at. Files are named by
their content, so that a run that changes nothing writes nothing and the browser's cache stays good.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import folder_paths
import numpy as np
from PIL import Image

from stablekp_core.drawing.palette import palette
from stablekp_core.files import write_atomically
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.point_edits import figure_numbers, image_keys

_VERSION = 1
_LONGEST_SIDE = 2048  # pixels of an image in the page; points stay in pixels of the image itself


def offer(
    points: Keypoints,
    image: Callable[[int], np.ndarray | None],
    *,
    mode: str,
    threshold: float,
    remarks: Sequence[str] = (),
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, str]:
    """Write the editor's files; returns the description of the main one, as ComfyUI's page knows files.

    points: what is shown before any edit. image: image number -> uint8 RGB, or None where there is none. mode: "edit"
    or "label". threshold: points below this confidence stand out. remarks: sentences for the person. on_image: called
    with how many images are written, so that a long run can be seen and cancelled.
    """
    keys, figures = image_keys(points), figure_numbers(points)
    images, position = [], {}
    for row, number in enumerate(points.image_index.tolist()):
        if number in position:
            continue
        position[number] = len(images)
        size = [int(side) for side in points.sizes[row]]
        name = points.images[row] or str(number)
        images.append({"key": keys[row], "name": name, "size": size, "file": _image_file(image(number))})
        on_image(len(images))
    values = np.concatenate([points.xy, points.confidence[..., None], points.occluded[..., None]], axis=-1)  # [B, K, 4]
    rows = [
        {
            "image": position[int(points.image_index[row])],
            "figure": int(figures[row]),
            "points": [[round(float(value), 3) for value in point] for point in values[row]],
        }
        for row in range(len(points))
    ]
    batch = {
        "version": _VERSION,
        "mode": mode,
        "names": list(points.names),
        "skeleton": [list(edge) for edge in points.skeleton],
        "colors": [list(color) for color in points.colors or palette(points.num_keypoints)],
        "threshold": threshold,
        "note": " ".join(f"{remark[:1].upper()}{remark[1:]}." for remark in remarks),
        "images": images,
        "rows": rows,
    }
    return _temp_file(json.dumps(batch).encode(), "json")


def _image_file(image: np.ndarray | None) -> dict[str, str] | None:
    if image is None:
        return None
    name = _file_name(image.tobytes() + str(image.shape).encode(), "jpg")
    if not (_folder() / name).is_file():
        shown, buffer = Image.fromarray(image), io.BytesIO()
        shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        shown.save(buffer, "JPEG", quality=90)
        write_atomically(_folder() / name, buffer.getvalue())
    return _described(name)


def _temp_file(data: bytes, suffix: str) -> dict[str, str]:
    name = _file_name(data, suffix)
    write_atomically(_folder() / name, data)
    return _described(name)


def _file_name(data: bytes, suffix: str) -> str:
    return f"stablekp_{hashlib.sha1(data, usedforsecurity=False).hexdigest()[:20]}.{suffix}"


def _described(name: str) -> dict[str, str]:
    return {"filename": name, "subfolder": "", "type": "temp"}


def _folder() -> Path:
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
