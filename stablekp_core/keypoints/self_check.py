"""The self-check of a training, without labels: numbers about its result for each read-out, and a verdict in words.

The numbers are measured on images that were left out (selection/self_check.py); this module holds, stores and explains
them. Each has its value by chance beside it, so that it means the same on any model.
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
STEADY, PREDICTED = (0.35, 0.45), (0.65, 0.9)  # ratios to chance up to which a result is called good, usable
NOT_POOR = (STEADY[1] + PREDICTED[1]) / 2  # the `ratio` of a result at both limits
FEW_CHECKED = 5  # images
_LISTS = ("dead", "duplicate", "stuck")


@dataclass(frozen=True)
class ReadoutCheck:
    """One read-out on left-out images. Lengths are sides of the model input.

    steadiness: distance of a point in one view of an image from its mean over the views; steadiness_chance: the same
    for views of different images. predictability: distance of a point from its expected position, by a linear
    prediction from the other points; predictability_chance: the same from the points of another image. unexplained:
    share of the variance of all other learned tokens' positions that the same kind of prediction from these points
    leaves (chance: 1). area: share of the image that a map covers, exp(entropy) in pixels (chance: 1). dead, duplicate,
    stuck: numbers of the keypoints that are of no use.
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
        numbers = {f.name: float(values[f.name]) for f in fields(cls) if f.name not in _LISTS}
        if not all(map(math.isfinite, numbers.values())):
            raise ValueError("a number that is not finite")
        return cls(**numbers, **{name: tuple(int(k) for k in values[name]) for name in _LISTS})


@dataclass(frozen=True)
class SelfCheck:
    """The check of one training. images: how many it was measured on; how: "left out" (of learning, choosing and
    refining), "left out in turn" (of choosing and refining, where there are few images) or "seen" (nothing was left
    out). used: the read-out that `auto` takes. names: of the images left out. keypoints: K."""

    images: int
    how: str
    used: str
    learned: ReadoutCheck
    refined: ReadoutCheck | None = None
    names: tuple[str, ...] = ()
    keypoints: int = 0

    @property
    def best(self) -> ReadoutCheck:
        """The numbers of the read-out in use."""
        return self.refined if self.used == REFINED and self.refined is not None else self.learned

    @property
    def verdict(self) -> str:
        """How good the result is: "good", "usable" or "poor"."""
        return verdict(self.best, self.keypoints)

    def indices(self, names: Sequence[str]) -> list[int]:
        """Which of the named images were left out."""
        left_out = set(self.names)
        return [i for i, name in enumerate(names) if name in left_out]

    def heading(self, left_out: Sequence[int] = ()) -> str:
        """A line above a contact sheet of the images left out, or of others."""
        shown = "left out of training" if left_out else "seen in training"
        return f"{self.verdict.upper()}: steady within {100 * self.best.steadiness:.1f} %. Images {shown}."

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
            names, count = tuple(map(str, record["names"])), int(record["keypoints"])
            return cls(int(record["images"]), how, used, learned, refined, names, count)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KeypointError(f"the record of the self-check is damaged ({error!r}); train again.") from error


def mean_check(parts: Sequence[ReadoutCheck], whole: ReadoutCheck) -> ReadoutCheck:
    """The means of the parts' numbers; the keypoints that are of no use are those of `whole`."""
    names = [f.name for f in fields(whole) if isinstance(getattr(whole, f.name), float)]
    return replace(whole, **{n: sum(getattr(p, n) for p in parts) / len(parts) for n in names})


def better_readout(learned: ReadoutCheck, refined: ReadoutCheck | None = None, keypoints: int = 0) -> str:
    """The read-out of the smaller cost."""
    if refined is None:
        return LEARNED
    costs = readout_costs(learned, refined, keypoints)
    return REFINED if costs[1] <= costs[0] else LEARNED


def readout_costs(learned: ReadoutCheck, refined: ReadoutCheck, keypoints: int = 0) -> list[float]:
    """Of each read-out: how far its points lie from where the other points put them, and how far they move between
    views of one image, added up, on average and in sides of the image.

    The first decides where points tell of each other, the second where they move independently. Those of `keypoints`
    that stand still or double others, which are told from each other for nothing, count as no better than chance.
    """
    chance = max(learned.predictability_chance, refined.predictability_chance)
    share = [len({*c.duplicate, *c.stuck}) / keypoints if keypoints else 0.0 for c in (learned, refined)]
    return [
        (1 - void) * check.predictability + void * chance + check.steadiness
        for check, void in zip((learned, refined), share, strict=True)
    ]


def ratios(check: ReadoutCheck) -> tuple[float, float]:
    """Steadiness and predictability, each by its chance level: 0 = perfect, 1 = no better than chance."""
    return (
        check.steadiness / max(check.steadiness_chance, 1e-6),
        check.predictability / max(check.predictability_chance, 1e-6),
    )


def ratio(check: ReadoutCheck) -> float:
    """The mean of `ratios`: what rounds of training are to lower."""
    return sum(ratios(check)) / 2


def verdict(check: ReadoutCheck, keypoints: int = 0) -> str:
    """How good a result is, "good", "usable" or "poor": by the worse of `ratios`, one step worse when more than a
    quarter of the keypoints is of no use."""
    pairs = zip(ratios(check), (STEADY, PREDICTED), strict=True)
    level = max((found > good) + (found > usable) for found, (good, usable) in pairs)
    if keypoints and 4 * len(check.useless) > keypoints:
        level += 1
    return ("good", "usable", "poor")[min(level, 2)]


def report(check: SelfCheck, config: Mapping[str, Any]) -> str:
    """The check in words, a line each; config: the training's settings, which the advice depends on."""
    best = check.best
    where = {
        "left out": f"on {check.images} images that were left out",
        "left out in turn": f"on {check.images} images, each left out once",
        "seen": f"on {check.images} images that training saw too",
    }.get(check.how, f"on {check.images} images")
    lines = [
        f"self-check {where}: {check.verdict}",
        f"  the {check.used} tokens are read: {_words(best)}",
    ]
    other = check.learned if check.used == REFINED else check.refined
    if other is not None:
        lines.append(f"  the {LEARNED if check.used == REFINED else REFINED} ones are not: {_words(other)}")
    for what, which in (
        ("with flat maps", best.dead),
        ("that double others", best.duplicate),
        ("that stand still", best.stuck),
    ):
        if which:
            lines.append(f"  keypoints {what}: {', '.join(map(str, which))}")
    return "\n".join(lines + [f"  {text}" for text in advice(check, config)])


def _words(check: ReadoutCheck) -> str:
    c = {name: 100 * getattr(check, name) for name in (f.name for f in fields(check)) if name not in _LISTS}
    return (
        f"steady within {c['steadiness']:.1f} % of the side (chance {c['steadiness_chance']:.0f} %), "
        f"{c['predictability']:.1f} % from their expected positions (chance {c['predictability_chance']:.0f} %), "
        f"maps over {c['area']:.0f} % of the image"
    )


def advice(check: SelfCheck, config: Mapping[str, Any]) -> list[str]:
    """What to try, a sentence each; nothing for a good result."""
    found, out = check.verdict, []
    if found == "good":
        return out
    if found == "poor" and config.get("selection") == "prediction":
        out.append(
            "Try the preset paper with more steps (--preset paper --steps 2000): default rests on a small model, paper "
            "on the tables for Stable Diffusion 1.5."
        )
    elif found == "poor":
        out.append("Try the preset default, which refines its tokens, and look at the images: one kind of thing only.")
    if check.images <= FEW_CHECKED:
        out.append("More images help learning and this check; 50 or more of one kind of thing are a good start.")
    if best := check.best.useless:
        out.append(f"Ask for fewer keypoints, or leave out those of no use ({', '.join(map(str, best))}).")
    return out
