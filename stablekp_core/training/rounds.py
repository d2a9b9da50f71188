"""Only as much training as helps: rounds of steps, a cheap self-check after each, and an end when two bring nothing.

A poor result does not end it: a large model may need hundreds of steps before the check moves at all.
"""

from __future__ import annotations

from collections.abc import Callable

from ..keypoints.self_check import NOT_POOR, ratio
from ..selection.select import choose_tokens
from .trainer import Trainer

FIRST = 40  # steps of the first round; after it, two rounds double their number
IMAGES, HELD = 16, 8  # the most that a check is made on: images to choose on, images left out
GAIN = 0.05  # share of the error ratio by which a round must improve on the best one before
IDLE = 2  # rounds without a gain that end the training


def marks(steps: int) -> list[int]:
    """The numbers of steps after which a round ends, below `steps`: 40, 60, 80, 120, 160, 240, ..."""
    out, mark = [], FIRST
    while mark < steps:
        out += [mark, mark + mark // 2]
        mark *= 2
    return [mark for mark in out if mark < steps]


def settled(ratios: list[float]) -> bool:
    """Whether the last `IDLE` rounds brought no gain over those before, of which there must be one, and what there is
    is not poor."""
    if len(ratios) <= IDLE or min(ratios) > NOT_POOR:
        return False
    before = min(ratios[:-IDLE])
    return min(ratios[-IDLE:]) > (1 - GAIN) * before


def check_rounds(trainer: Trainer, on_image: Callable[[], None]) -> bool:
    """Do the check that is due after this many steps, if one is; whether training has brought what it can. on_image is
    called now and then meanwhile, and may raise to stop."""
    ratios, due = trainer.ratios, [mark for mark in marks(trainer.config.steps) if mark <= trainer.step]
    if trainer.config.stop == "fixed":
        return False
    if len(ratios) < len(due):
        ratios.append(trainer.ranks.of_first(_cheap_check(trainer, on_image)))
    return settled(ratios)


def _cheap_check(trainer: Trainer, on_image: Callable[[], None]) -> float:
    """The error of the better read-out as a share of chance, on a few images, one view and no occlusion."""
    c, held = trainer.config, trainer.held
    few = c.replace(
        selection_images=min(c.selection_images, IMAGES),
        refine_images=min(c.refine_images, IMAGES),
        selection_views=1,
        occluded_views=0,
    )
    if held is not None and len(held) > HELD:
        held = held.pick(range(HELD))
    tokens, at_once = trainer.tokens.detach(), 2 * trainer.micro_batch
    choice = choose_tokens(trainer.backbone, tokens, trainer.source, few, at_once, lambda *progress: on_image(), held)
    return ratio(choice.check.best)
