"""What a training found out about its own result, without labels: numbers for each read-out, and a verdict in words.

The numbers are measured on images that were left out (selection/self_check.py); this module holds, stores and words
them. Each stands beside what chance would give, so that it means the same on any model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import KeypointError

VERSION = 1
LEARNED, REFINED = "learned", "refined"
READOUTS = (LEARNED, REFINED)


@dataclass(frozen=True)
class ReadoutCheck:
    """One read-out on left-out images. Lengths are sides of the model input.

    steadiness: distance of a point in one view of an image from its mean over the views; steadiness_chance: the same
    for views of different images. predictability: distance of a point from where a linear prediction from the other
    points puts it; predictability_chance: the same from the points of another image. unexplained: share of the variance
    of all other learned tokens' positions that the same kind of prediction from these points leaves (chance: 1).
    area: share of the image that a map covers, exp(entropy) in pixels (chance: 1). dead, duplicate, stuck: numbers of
    the keypoints that are of no use.
    """

    steadiness: float
    steadiness_chance: float
    predictability: float
    predictability_chance: float
    unexplained: float
    area: float
    dead: tuple[int, ...] = ()
    duplicate: tuple[int, ...] = ()
    stuck: tuple[int, ...] = ()

    @property
    def useless(self) -> tuple[int, ...]:
        """Keypoints that are dead, duplicates or stuck."""
        return tuple(sorted({*self.dead, *self.duplicate, *self.stuck}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReadoutCheck:
        """The inverse of dataclasses.asdict. Raises TypeError, ValueError or KeyError for other values."""
        lists = ("dead", "duplicate", "stuck")
        numbers = {f.name: float(values[f.name]) for f in fields(cls) if f.name not in lists}
        if not all(map(math.isfinite, numbers.values())):
            raise ValueError("a number that is not finite")
        return cls(**numbers, **{name: tuple(int(k) for k in values[name]) for name in lists})


@dataclass(frozen=True)
class SelfCheck:
    """The check of one training. images: how many it was measured on; how: "left out" (of learning, choosing and
    refining), "left out in turn" (of choosing and refining, where there are few images) or "seen" (nothing was left
    out). used: the read-out that `auto` takes. names: of the images left out."""

    images: int
    how: str
    used: str
    learned: ReadoutCheck
    refined: ReadoutCheck | None = None
    names: tuple[str, ...] = ()

    @property
    def best(self) -> ReadoutCheck:
        """The numbers of the read-out in use."""
        return self.refined if self.used == REFINED and self.refined is not None else self.learned

    @property
    def verdict(self) -> str:
        """ "good", "usable" or "poor"."""
        return verdict(self.best)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, with the record's version."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SelfCheck | None:
        """The inverse of `to_dict`; None for a record of another version, which is for reading only. Raises
        KeypointError for a damaged one."""
        if record.get("version") != VERSION:
            return None
        try:
            learned, refined = (record[k] and ReadoutCheck.from_dict(record[k]) for k in READOUTS)
            used, how = str(record["used"]), str(record["how"])
            if used not in READOUTS or learned is None:
                raise ValueError(f"read-out {used}")
            return cls(int(record["images"]), how, used, learned, refined, tuple(map(str, record["names"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KeypointError(f"the record of the self-check is damaged ({error!r}); train again.") from error


def mean_check(parts: Sequence[ReadoutCheck], whole: ReadoutCheck) -> ReadoutCheck:
    """The means of the parts' numbers; the keypoints that are of no use are those of `whole`."""
    names = [f.name for f in fields(whole) if isinstance(getattr(whole, f.name), float)]
    return replace(whole, **{n: sum(getattr(p, n) for p in parts) / len(parts) for n in names})


def merit(check: ReadoutCheck) -> float:
    """The larger, the better: what decides between read-outs and between moments of training."""
    return -math.log(max(check.unexplained, 1e-6))


def better_readout(learned: ReadoutCheck, refined: ReadoutCheck | None = None) -> str:
    """The read-out of greater merit."""
    return REFINED if refined is not None and merit(refined) >= merit(learned) else LEARNED


def verdict(check: ReadoutCheck) -> str:
    """ "good", "usable" or "poor"."""
    return "good" if merit(check) > 1 else "usable" if merit(check) > 0.5 else "poor"
