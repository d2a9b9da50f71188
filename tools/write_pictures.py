"""Write the images that ship with the package: 64 to train on and 64 held out, of each generated class.

    python tools/write_images.py stablekp_core/assets/images

Each folder gets JPEG files and `joints.json`, COCO keypoints. Seeds 0-63 are for training, 64-127 are held out; the
embedded model was trained on other seeds (10 000 000 and up).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.synthetic import (
    figures,
    generator,
)


def write(folder: Path, kind: str, seeds: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    samples, names = [generator.render(kind, seed) for seed in seeds], []
    for seed, sample in zip(seeds, samples, strict=True):
        names.append(f"{kind}_{seed:03d}.jpg")
        Image.fromarray(sample.image).save(folder / names[-1], quality=95)
    size = samples[0].image.shape[1::-1]
    joints = Keypoints(
        xy=np.stack([s.joints for s in samples]),
        confidence=np.stack([s.visible for s in samples]).astype(np.float32),
        sizes=np.array([size] * len(samples)),
        names=figures.landmark_names(kind),
        skeleton=figures.landmark_skeleton(kind),
        images=tuple(names),
    )
    (folder / "joints.json").write_text(joints.to_json() + "\n")


if __name__ == "__main__":
    for kind in figures.KINDS:
        write(Path(sys.argv[1]) / kind / "train", kind, range(0, 64))
        write(Path(sys.argv[1]) / kind / "test", kind, range(64, 128))
