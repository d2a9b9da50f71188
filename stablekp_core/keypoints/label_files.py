"""Opening label files: text in any usual encoding, JSON, and a hint where the file is another tool's own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import KeypointError
from ..files import read_text

# Suffix -> whose files these are, and the export that can be read.
_FOREIGN = {
    ".csv": "a table (such as DeepLabCut's); export COCO keypoints (DeepLabCut: deeplabcut2coco or the napari plugin)",
    ".h5": "an HDF5 file (DeepLabCut's or SLEAP's); export COCO keypoints (SLEAP: sleap-io's save_coco)",
    ".hdf5": "an HDF5 file (DeepLabCut's or SLEAP's); export COCO keypoints",
    ".slp": "a SLEAP project; export COCO keypoints (sleap-io: save_coco)",
    ".xml": "XML (such as CVAT for images); export COCO Keypoints 1.0 instead",
    ".txt": "a text file (such as YOLO's); export COCO keypoints instead",
    ".zip": "an archive; unpack it and give the .json file of COCO keypoints in it",
}
WANTED = "a COCO keypoint JSON file"


def load_json(path: str | Path, wanted: str = WANTED) -> Any:
    """What a JSON file holds; NaN and null stay what they are. Raises KeypointError, naming the file."""
    path = Path(path)
    hint = _FOREIGN.get(path.suffix.lower())
    if hint and path.is_file():
        raise KeypointError(f"{path.name} is {hint}.")
    return parse_json(read_text(path, wanted), path.name, wanted)


def parse_json(text: str, name: str, wanted: str = WANTED) -> Any:
    """The value of JSON text; `name` is what the message of a KeypointError calls it."""
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise KeypointError(f"{name} is not JSON ({error}); give {wanted}.") from error
    tasks = data if isinstance(data, list) else [data]
    if tasks and all(isinstance(task, dict) and "data" in task and "annotations" in task for task in tasks):
        raise KeypointError(f"{name} is Label Studio's own JSON; export the project as COCO (with keypoints) instead.")
    return data
