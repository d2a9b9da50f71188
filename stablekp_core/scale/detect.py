"""Detection on many images by several processes at once: what `detect` does, spread over workers by Ray Data.

    found = detect_parallel("model.safetensors", tokens, load_folder("images"), workers=8)

For data sets whose keypoints do not fit into memory, see dataset.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..backbone.backbone import Backbone
from ..config import DetectConfig
from ..detection.detector import Detection, Detector
from ..errors import KeypointError
from ..images.image_set import ImageSet, as_image_set
from ..keypoints.keypoints import POINT_FIELDS, Keypoints
from ..keypoints.tokens import KeypointTokens
from ..progress import DETECTING, Progress, silent
from .cluster import Pool, cluster
from .engine import Job, everywhere, find_rows, read_ahead, run_pieces


@dataclass(frozen=True)
class _ReturnPoints:
    """Detect on some images of a sequence and return the keypoints as an .npz file; runs in the workers."""

    images: Sequence[np.ndarray]

    def __call__(self, detector: Detector, number: int, text: str) -> tuple[int, int, bytes]:
        start, stop = json.loads(text)
        rows = find_rows(
            detector, read_ahead((str(i), partial(self.images.__getitem__, i)) for i in range(start, stop))
        )
        good, bad = (
            [r for r in rows if r.error is None],
            [(int(r.image_id), r.error) for r in rows if r.error is not None],
        )
        k, file = len(detector.tokens.chosen), io.BytesIO()
        np.savez(
            file,
            index=np.array([int(r.image_id) for r in good], np.int64),
            bad=np.array(json.dumps(bad)),
            **{name: stacked([r.points[name] for r in good], k) for name in POINT_FIELDS},
            spread=np.array([r.spread for r in good], np.float32).reshape(-1, k),
            sizes=np.array([(r.width, r.height) for r in good], np.int64).reshape(-1, 2),
        )
        return len(rows), len(bad), file.getvalue()


@dataclass(frozen=True)
class Shard:
    """Images `start` to `stop` of a sequence. found: of those that could be read, None when none could.
    skipped: (index, reason) of the others."""

    start: int
    stop: int
    found: Detection | None
    skipped: list[tuple[int, str]]


def detect_shards(
    model: str | Backbone,
    tokens: KeypointTokens,
    images: Any,
    config: DetectConfig | None = None,
    *,
    shards: Sequence[tuple[int, int]],
    pool: Pool | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> Iterator[Shard]:
    """Detect the keypoints on `shards`, (start, stop) ranges of a sequence of images; yields each as it is done,
    in any order.

    images: an ImageSet, or what `as_image_set` takes; it goes to the workers, which read the images
    themselves. Raises KeypointError when a shard cannot be done."""
    pool, images = pool or Pool(), as_image_set(images)
    if isinstance(model, Backbone):
        device = model.device.type if device == "auto" else device
    model = model if isinstance(model, Backbone) else everywhere(model)
    job = Job(model, tokens, config or DetectConfig(), _ReturnPoints(images), dtype, device)
    missing = set(range(len(shards)))
    with cluster(pool) as ray:
        for done in run_pieces(ray, job, [(n, json.dumps(s)) for n, s in enumerate(shards)], pool) if shards else ():
            if done.problem:
                raise KeypointError(f"The images {shards[done.number]} could not be done ({done.problem}); try again.")
            missing.discard(done.number)
            yield _shard(shards[done.number], done.payload, tokens, images.names)
    if missing:
        raise KeypointError(f"The workers raised errors, shown above, over {len(missing)} of {len(shards)} shards.")


def _shard(span: tuple[int, int], payload: bytes, tokens: KeypointTokens, names: Sequence[str]) -> Shard:
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        index, spread, sizes = (file[n] for n in ("index", "spread", "sizes"))
        points = {name: file[name] for name in POINT_FIELDS}
        skipped = [(i, reason) for i, reason in json.loads(str(file["bad"]))]
    if not len(index):
        return Shard(*span, None, skipped)
    keypoints = Keypoints(
        **points,
        sizes=sizes,
        names=tokens.names,
        skeleton=tokens.skeleton,
        images=tuple(names[i] for i in index),
        colors=tokens.colors,
    )
    return Shard(*span, Detection(keypoints, spread), skipped)


def stacked(rows: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Rows of a field of points as float32 [B, K, ...]; of no rows an empty array of any such shape."""
    return np.array(rows, np.float32) if rows else np.zeros((0, count), np.float32)


def detect_parallel(
    model: str | Backbone,
    tokens: KeypointTokens,
    images: ImageSet | Iterable[Any],
    config: DetectConfig | None = None,
    workers: int = 0,
    *,
    pool: Pool | None = None,
    dtype: str = "auto",
    device: str = "auto",
    on_progress: Progress | None = None,
) -> Detection:
    """The result of `detect`, by several processes: the keypoints of all images that can be read, in order.

    images: see `as_image_set`; images that are broken are left out and named by the image set. on_progress:
    see progress.py. Raises KeypointError when no image can be read or the work cannot be done."""
    pool, images = pool or Pool(workers), as_image_set(images)
    size = max(1, min(64, -(-len(images) // (4 * max(pool.workers, 1)))))
    spans = [(i, min(i + size, len(images))) for i in range(0, len(images), size)]
    parts, count, report = {}, 0, on_progress or silent
    report(DETECTING, 0, len(images))
    for shard in detect_shards(model, tokens, images, config, shards=spans, pool=pool, dtype=dtype, device=device):
        parts[shard.start] = shard
        count += shard.stop - shard.start
        report(DETECTING, count, len(images))
    ordered = [parts[start] for start, _ in spans]
    for shard in ordered:
        for index, reason in shard.skipped:
            images.skip(index, reason)
    found = [shard.found for shard in ordered if shard.found is not None]
    if not found:
        raise KeypointError(f"None of the {len(images)} images can be read; use other files.")
    return Detection(Keypoints.concat([f.keypoints for f in found]), np.concatenate([f.spread for f in found]))
