"""The slow stages of an evaluation, learning tokens and finding keypoints, kept on disk as they are done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from ..config import DetectConfig, TrainConfig
from ..detection.detector import detect
from ..errors import KeypointError
from ..images.files import BrokenImage
from ..keypoints.keypoints import Keypoints
from ..keypoints.tokens import KeypointTokens
from ..progress import Progress
from ..training.train import train
from .cache import Points, StageCache, model_key
from .datasets.common import Split

SHARD = 32  # images between two writes of the detection cache
Span = tuple[int, int]  # images start to stop of a split


def learn(
    backbone, split: Split, config: TrainConfig, store: StageCache, report: Progress
) -> tuple[KeypointTokens, list[tuple[str, str]]]:
    """Tokens learned on a split, from the cache if they are there, and the images that could not be
    read."""
    key = store.key("tokens", model=model_key(backbone), images=split.fingerprint(), config=config.to_dict())
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
        on_progress=report,
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
        raise KeypointError("This split has no landmarks, so nothing can be fitted or measured on it.")
    made_from = {"tokens": tokens.digest, "pictures": split.fingerprint(), "config": config.to_dict()}
    key = store.key("points", model=model_key(backbone), **made_from)
    spans = [(start, min(start + SHARD, len(split))) for start in range(0, len(split), SHARD)]
    names = {span: f"{key}/{span[0]:07d}-{span[1]:07d}" for span in spans}
    found = {span: part for span in spans if (part := store.load_points(names[span])) is not None}
    todo = [span for span in spans if span not in found]
    done = sum(stop - start for start, stop in found)
    report(done, len(split))
    compute = _in_parallel if workers > 1 and len(todo) > 1 else _one_by_one
    for span, part in compute(backbone, tokens, split, config, todo, workers):
        store.save_points(names[span], part)
        found[span] = part
        done += span[1] - span[0]
        report(done, len(split))
    return Points.concat([found[span] for span in spans])


def _one_by_one(
    backbone, tokens: KeypointTokens, split: Split, config: DetectConfig, spans: list[Span], workers: int
) -> Iterator[tuple[Span, Points]]:
    """Read and detect on images start to stop of a split, for each of `spans`."""
    for span in spans:
        labels, skipped = [], []
        pairs = _read(split, span, labels, skipped)
        first = next(pairs, None)
        if first is None:
            yield span, Points.empty(skipped)
            continue
        keypoints = detect(backbone, tokens, itertools.chain([first], pairs), config).keypoints
        yield span, _points(keypoints, labels, skipped)


def _read(split: Split, span: Span, labels: list, skipped: list) -> Iterator[tuple[str, np.ndarray]]:
    """(name, image) of readable images, one at a time; notes their labels and the others' reasons."""
    for i in range(*span):
        try:
            sample = split.sample(i)
        except BrokenImage as error:
            skipped.append((split.names[i], error.reason))
        else:
            labels.append((sample.landmarks, sample.visible))
            yield split.names[i], sample.image


def _in_parallel(
    backbone, tokens: KeypointTokens, split: Split, config: DetectConfig, spans: list[Span], workers: int
) -> Iterator[tuple[Span, Points]]:
    """The same by several processes, which read the images themselves; in the order they finish."""
    from ..scale.detect import Pool, detect_shards

    for shard in detect_shards(backbone, tokens, split.images(), config, shards=spans, pool=Pool(workers)):
        skipped = [(split.names[i], reason) for i, reason in shard.skipped]
        for i, _ in shard.skipped:
            _only_damaged(split, i)
        if shard.found is None:
            yield (shard.start, shard.stop), Points.empty(skipped)
            continue
        left_out = {i for i, _ in shard.skipped}
        used = [i for i in range(shard.start, shard.stop) if i not in left_out]
        sizes = shard.found.keypoints.sizes
        labels = [split.labels(i, *map(int, size)) for i, size in zip(used, sizes, strict=True)]
        yield (shard.start, shard.stop), _points(shard.found.keypoints, labels, skipped)


def _only_damaged(split: Split, i: int) -> None:
    """Raise what reading image i raises, unless it is damaged: a missing file must not pass as skipped."""
    with suppress(BrokenImage):
        split.sample(i)


def _points(keypoints: Keypoints, labels: list[tuple[np.ndarray, np.ndarray]], skipped: list) -> Points:
    """Transform pixels of each image to its unit square."""
    sizes = keypoints.sizes[:, None].astype(np.float64)  # [B, 1, 2]
    landmarks, visible = (np.stack([label[part] for label in labels]) for part in (0, 1))
    return Points(
        keypoints.xy / sizes,
        keypoints.confidence,
        landmarks / sizes,
        visible,
        list(keypoints.images),
        skipped,
    )
