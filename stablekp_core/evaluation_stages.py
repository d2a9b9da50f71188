"""The slow stages of an evaluation, learning tokens and finding keypoints, kept on disk as they are done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .config import DetectConfig, TrainConfig
from .datasets.common import Split
from .detection import detect
from .errors import KeypointError
from .evaluation_cache import Points, StageCache, model_key, tokens_key
from .image_files import BrokenImage
from .tokens import KeypointTokens
from .training import train

SHARD = 32  # pictures between two writes of the detection cache
Progress = Callable[[str, int, int], None]  # stage, done, of how many


def learn(
    backbone, split: Split, config: TrainConfig, store: StageCache, report: Progress
) -> tuple[KeypointTokens, list[tuple[str, str]]]:
    """Tokens learned on a split, from the cache if they are there, and the pictures that could not be
    read."""
    key = store.key(
        "tokens", model=model_key(backbone), pictures=split.fingerprint(), config=config.to_dict()
    )
    kept = store.load_tokens(key)
    if kept is not None:
        return kept
    checkpoint = store.path(f"{key}.checkpoint")
    result = train(
        backbone,
        split.images(),
        config,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        on_step=lambda info: report("training", info.step, info.steps),
    )
    skipped = [(str(name), str(reason)) for name, reason in result.skipped]
    store.save_tokens(key, result.tokens, skipped)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return result.tokens, skipped


def find(
    backbone,
    tokens: KeypointTokens,
    split: Split,
    config: DetectConfig,
    store: StageCache,
    workers: int,
    report: Callable[[int, int], None],
) -> Points:
    """Keypoints and landmarks of a labelled split, shard by shard; finished shards come from the cache."""
    if not split.labelled:
        raise KeypointError(
            "This split has pictures but no landmarks, so nothing can be fitted or measured on it."
        )
    key = store.key(
        "points",
        model=model_key(backbone),
        tokens=tokens_key(tokens),
        pictures=split.fingerprint(),
        config=config.to_dict(),
    )
    look = (
        _parallel(backbone, tokens, config, workers)
        if workers > 1
        else (lambda pairs: detect(backbone, tokens, pairs, config))
    )
    size, parts = SHARD * max(1, workers), []
    for start in range(0, len(split), size):
        stop = min(start + size, len(split))
        name = f"{key}/{start:07d}-{stop:07d}"  # the size of a shard may change with the number of workers
        part = store.load_points(name)
        if part is None:
            part = _look_at(split, range(start, stop), look)
            store.save_points(name, part)
        parts.append(part)
        report(stop, len(split))
    return Points.concat(parts)


def _look_at(split: Split, indices: range, look: Callable) -> Points:
    """Read and look at some pictures of a split; positions go into the unit square of each picture."""
    labels, pairs, skipped = [], [], []
    for i in indices:
        try:
            sample = split.sample(i)
        except BrokenImage as error:
            skipped.append((split.names[i], error.reason))
            continue
        pairs.append((split.names[i], sample.image))
        labels.append((sample.landmarks / [sample.image.shape[1], sample.image.shape[0]], sample.visible))
    if not pairs:
        return Points.empty(skipped)
    keypoints = look(pairs).keypoints
    if keypoints.images != tuple(name for name, _ in pairs):
        raise KeypointError("The detector returned other pictures than it was given; use one worker.")
    return Points(
        keypoints.xy / keypoints.sizes[:, None].astype(np.float64),
        keypoints.confidence,
        np.stack([xy for xy, _ in labels]),
        np.stack([seen for _, seen in labels]),
        [name for name, _ in pairs],
        skipped,
    )


def _parallel(backbone, tokens: KeypointTokens, config: DetectConfig, workers: int) -> Callable:
    """A function from (name, picture) pairs to a Detection that uses several processes."""
    try:
        from .scale import detect_parallel
    except ImportError as error:
        raise KeypointError(
            f"{workers} workers need Ray, which is not installed; install it with: pip install "
            '"stable-keypoints[scale]", or use one worker.'
        ) from error
    return lambda pairs: detect_parallel(backbone, tokens, pairs, config, workers=workers)
