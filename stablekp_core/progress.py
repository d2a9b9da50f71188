"""The one progress callback: what is being done, how far it is, of how much.

Whatever runs for longer than two seconds takes an optional `on_progress` and calls it as
`on_progress(phase, done, total)`: phase is one of the names below (evaluation adds the split behind a comma), done the
units finished, total how many there are, 0 where that cannot be known. Units are those of the phase: steps, images, or
evaluations of a fit, which may end before its total and then says that it is done. A phase is reported when it begins,
with what was finished before (0, or the steps of a run that goes on), so that it can be shown and timed from there. The
callback runs in the thread of the work and may raise to stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

Progress = Callable[[str, int, int], None]
Item = TypeVar("Item")

TRAINING = "training"
EXTRACTING = "extracting features"
CHOOSING = "choosing keypoints"
REFINING = "refining keypoints"
OCCLUSION = "learning occlusion"
CHECKING = "checking the result"
DETECTING = "detecting"
DRAWING = "drawing"
EXPORTING = "exporting"
FITTING_GUIDANCE = "fitting guidance"
GENERATING = "generating"

#: The phases of `train`, in order; those that a configuration does without are not reported.
TRAINING_PHASES = (TRAINING, EXTRACTING, CHOOSING, REFINING, OCCLUSION, CHECKING)


def silent(phase: str, done: int, total: int) -> None:
    """Stands in where nobody asked for progress."""


def duration(seconds: float) -> str:
    """A time in words: `40 s`, `3 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def known_total(items: Any) -> int:
    """How many items there are, 0 for an iterator that does not say."""
    return len(items) if hasattr(items, "__len__") else 0


def counted(
    items: Iterable[Item], phase: str, on_progress: Progress | None, total: int | None = None
) -> Iterator[Item]:
    """The items one by one; each is reported once the work on it is done, that is when the next one is asked for."""
    total, report = known_total(items) if total is None else total, on_progress or silent
    report(phase, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        report(phase, done, total)


class Rounds:
    """Progress of a phase of several rounds that each take an unknown number of evaluations, at most `most[i]`, each
    of cost `cost[i]` in a unit common to all rounds."""

    def __init__(self, on_progress: Progress | None, phase: str, most: Sequence[int], cost: Sequence[int] = ()):
        self._report, self._phase = on_progress or silent, phase
        self._plan = list(zip(most, cost or [1] * len(most), strict=True))
        self._total, self._done, self._at = sum(n * c for n, c in self._plan), 0, 0
        self._report(phase, 0, self._total)

    @contextmanager
    def next(self) -> Iterator[Callable[[], None]]:
        """One round: call what this yields after every evaluation. At its end the round counts as whole. It is
        reported as it begins too, so that what prepares it is not taken for the pace of its evaluations."""
        (most, cost), start, count = self._plan[self._at], self._done, 0
        self._at += 1
        self._report(self._phase, start, self._total)

        def tick() -> None:
            nonlocal count
            count = min(count + 1, most - 1)
            self._report(self._phase, start + count * cost, self._total)

        yield tick
        self._done = start + most * cost
        self._report(self._phase, self._done, self._total)
