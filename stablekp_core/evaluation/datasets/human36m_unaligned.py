"""Human3.6M, full frames cut to the pose's box; subject 11 is the test.

The box gets a margin of 100 pixels and a shift of up to 100 pixels, which depends on the seed and the frame's
name alone.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from ...errors import KeypointError
from ...images.files import BrokenImage, load_image
from ..metrics import Roles
from .common import Dataset, Sample, Split
from .human36m import METRICS, SUBJECTS, SWAP, WHERE, actions, image_files
from .sources import file_stamp, missing, optional_module, require, seeded

MARGIN = JITTER = 100  # pixels of the frame


def open_unaligned(root: Path, seed: int = 0, reference: bool = False) -> Dataset:
    """`S*/<action>/imageSequence/<camera>/img_%06d.jpg` and `S*/<action>/annot.h5` under `root`."""
    train, test = (_FrameSplit(root, SUBJECTS[which], seed, reference) for which in ("train", "test"))
    return Dataset(
        "human36m_unaligned",
        train,
        train,
        test,
        keypoints=16,
        metrics=METRICS,
        where=WHERE,
        roles=Roles(swap=SWAP),
        paper={("swap_invariant_128", 16): 5.77},
    )


class _FrameSplit(Split):
    def __init__(self, root: Path, subjects: tuple[int, ...], seed: int, reference: bool):
        optional_module("h5py", "The data set human36m_unaligned")  # said now, not at the first image
        self.seed = seed
        self.paths = [
            path
            for subject in subjects
            for action in actions(root / f"S{subject}", reference)
            for camera in sorted(require(action / "imageSequence", WHERE).iterdir())
            if camera.is_dir()
            for path in image_files(camera)
        ]
        if not self.paths:
            below = Path("<action>", "imageSequence", "<camera>", "img_000001.jpg")
            raise missing(root / f"S{subjects[0]}" / below, WHERE)
        super().__init__(["/".join((p.parts[-5], p.parts[-4], p.parent.name, p.name)) for p in self.paths])

    def sample(self, i: int) -> Sample:
        path, name = self.paths[i], self.names[i]
        poses = _poses(require(path.parents[2] / "annot.h5", WHERE))
        try:
            joints = poses.get((int(path.parent.name), int(path.stem.split("_")[1])))
        except (IndexError, ValueError) as error:
            raise BrokenImage(name, "its path does not end in <camera>/img_<frame>.jpg") from error
        if joints is None:
            raise BrokenImage(name, "annot.h5 has no pose for it")
        image = load_image(path)
        left, top, right, bottom = crop_box(joints, image.shape[1], image.shape[0], seeded("human36m", self.seed, name))
        if min(right - left, bottom - top) < 16:
            raise BrokenImage(name, "hardly any of the pose's box is in the frame")
        crop = np.ascontiguousarray(image[top:bottom, left:right])
        return Sample(crop, joints - [left, top], np.ones(len(joints), bool), {"bbox": (left, top, right, bottom)})

    def stamp(self, i: int) -> str:
        path = self.paths[i]
        return f"{file_stamp(path)} {file_stamp(path.parents[2] / 'annot.h5')} {self.seed}"


@functools.lru_cache(maxsize=8)
def _poses(path: Path) -> dict[tuple[int, int], np.ndarray]:
    """(camera, frame) -> joints [32, 2] in pixels of the frame, of one annot.h5."""
    h5py = optional_module("h5py", "The data set human36m_unaligned")
    try:
        with h5py.File(path, "r") as file:
            joints = np.asarray(file["pose/2d"], np.float64)
            cameras, frames = np.asarray(file["camera"]).astype(int), np.asarray(file["frame"]).astype(int)
    except (OSError, KeyError) as error:
        raise KeypointError(f"{path} has no pose/2d, camera and frame; it comes with {WHERE}.") from error
    return {(int(c), int(f)): joints[i] for i, (c, f) in enumerate(zip(cameras, frames, strict=True))}


def crop_box(joints: np.ndarray, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the square around the pose with margin and shift, as far as it lies in
    the frame.

    joints: [L, 2] pixels. The margin shrinks where the frame has no room for it.
    """
    low, high = joints.min(0), joints.max(0)
    side = float((high - low).max())
    frame = np.array([width, height], np.float64)
    margin = np.clip(frame - side, 0, MARGIN)
    start = (low + high - side) / 2 - margin + rng.integers(-JITTER, JITTER, 2)
    start = np.maximum(0, start)
    end = np.minimum(frame, start + side + 2 * margin)
    left, top, right, bottom = np.floor([*start, *end]).astype(int).tolist()
    return left, top, right, bottom
