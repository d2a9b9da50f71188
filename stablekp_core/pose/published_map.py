"""The regressor that the authors of the paper publish beside their tokens, as a landmark map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import KeypointError
from ..keypoints.published_tokens import read_tensor
from .formats import COCO17
from .landmark_map import LandmarkMap

_CUB = (
    "back beak belly breast crown forehead left_eye left_leg left_wing nape right_eye right_leg right_wing tail throat"
)
_CELEBA = "left_eye right_eye nose left_mouth right_mouth"
#: Data set -> what its landmarks are called, in the order of its files; others are called landmark0, landmark1, ...
NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("celeba_aligned", "celeba_wild"), tuple(_CELEBA.split())),
    **dict.fromkeys(("cub_aligned", "cub_001", "cub_002", "cub_003", "cub_all"), tuple(_CUB.split())),
    "deepfashion": COCO17.joints,
}
#: Data sets whose landmarks the authors' code leaves as (x, y); it turns others, and the keypoints, to (row, column).
XY_ORDER = ("cub_aligned", "human36m")


def read_published_map(path: str | Path, keypoints: Sequence[str], dataset: str | None = None) -> LandmarkMap:
    """The map from `keypoints` (names of the tokens it came with) to the data set's landmarks.

    path: `regressor.pt`, float32 [2K, 2L], from keypoints minus 0.5 to landmarks minus 0.5 in the unit square of the
    image, points as (row, column). dataset: which one it was fitted on; without it landmarks are taken as (row, column)
    too. Raises KeypointError when it does not fit the keypoints.
    """
    path, count = Path(path), len(keypoints)
    matrix = read_tensor(path, "[2 x keypoints, 2 x landmarks]").to("cpu").double().numpy()
    if matrix.ndim != 2 or matrix.shape[0] != 2 * count or matrix.shape[1] % 2 or not matrix.shape[1]:
        raise KeypointError(
            f"{path.name} holds {list(matrix.shape)} numbers, but a regressor of {count} keypoints is "
            f"[{2 * count}, 2 x landmarks]; give the regressor.pt of the same training."
        )
    landmarks = matrix.shape[1] // 2
    blocks = matrix.reshape(count, 2, landmarks, 2)[:, ::-1]  # keypoints as (x, y)
    if dataset not in XY_ORDER:
        blocks = blocks[..., ::-1]
    names = NAMES.get(dataset or "", ())
    if len(names) != landmarks:
        names = tuple(f"landmark{i}" for i in range(landmarks))
    return LandmarkMap(
        weights=np.ascontiguousarray(blocks).reshape(matrix.shape),
        bias=np.zeros(2 * landmarks),
        shape=np.zeros((count, 2)),
        trusted=np.zeros(count),  # every keypoint counts as it was found, as in the authors' code
        fitted=np.ones(landmarks, bool),
        error=np.full(landmarks, np.nan),
        labelled=np.zeros(landmarks, np.int64),
        keypoints=tuple(keypoints),
        names=names,
        mode="linear",
    )
