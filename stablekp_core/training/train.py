"""A whole training run: the steps, checkpoints between them, and the choice of the keypoints at the end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..attention import tiled
from ..backbone.backbone import Backbone
from ..config import TrainConfig
from ..errors import KeypointError, check_type
from ..images.image_set import as_image_set
from ..images.masks import Masks
from ..keypoints.tokens import KeypointTokens
from ..progress import TRAINING, Progress, silent
from ..selection.select import choose_tokens
from .checkpoint import load_state, save_state
from .rounds import check_rounds
from .trainer import Trainer, TrainingDiverged

_log = logging.getLogger(__name__)


@dataclass
class StepInfo:
    """Progress after step number `step` of `steps`. Reading `loss` waits for the device."""

    step: int
    steps: int
    _losses: deque
    _snapshot: Callable[[], KeypointTokens]

    @property
    def loss(self) -> float:
        """The total loss (Eq. 4), mean over the batch."""
        return float(self._losses[-1][0])

    @property
    def history(self) -> list[float]:
        """The total loss (Eq. 4) of every step so far."""
        return [float(x[0]) for x in self._losses]

    def snapshot(self) -> KeypointTokens:
        """The tokens after this step, ready for detection, with the keypoints that the last images voted for."""
        return self._snapshot()


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run.

    tokens: what to save and to detect with. losses: (total, localization, equivariance) of each step (Eq. 4, 6 and 5),
    means over the batch. skipped: (name, reason) of the images that could not be read.
    """

    tokens: KeypointTokens
    losses: list[tuple[float, float, float]]
    skipped: list[tuple[str, str]] = field(default_factory=list)


def train(
    backbone: Backbone,
    images: Any,
    config: TrainConfig | None = None,
    *,
    start: KeypointTokens | None = None,
    on_step: Callable[[StepInfo], None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    notice: Callable[[str], None] = _log.warning,
    masks: Masks | None = None,
    on_progress: Progress | None = None,
) -> TrainResult:
    """Learn tokens on images of one kind of object and choose K of them (the paper, Sec. 3.2).

    images: anything that `as_image_set` takes (a folder, files, arrays, ...). config: the preset `default` when left
    out. start: tokens to begin with instead of random ones. on_step: called after every step, may raise to stop; the
    tokens at that time are `StepInfo.snapshot()`. on_progress: called in all phases of `progress.TRAINING_PHASES`, may
    raise too. checkpoint: file for the state of the run, written atomically every `checkpoint_every` steps and when the
    run is interrupted; with `resume` an existing one is continued, bit for bit on a CPU. notice: takes messages to the
    user. masks: where the object is on each image, by its name; attention outside is ignored. Raises KeypointError for
    arguments that do not fit together and for images that cannot be read, TrainingDiverged when the loss is not finite.
    """
    trainer = Trainer(backbone, as_image_set(images), _checked(backbone, config, start), start, notice, masks)
    path = Path(checkpoint) if checkpoint else None
    if resume and path is not None and path.exists():
        load_state(path, trainer)
    with tiled.restored_tiles():
        return _run(trainer, path, checkpoint_every, on_step, on_progress or silent)


def _checked(backbone: Any, config: Any, start: Any) -> TrainConfig:
    """The configuration; raises KeypointError before any work for arguments of a wrong type."""
    config = TrainConfig() if config is None else config
    if isinstance(backbone, (str, Path)):
        raise KeypointError(f"backbone is the path {backbone}, but a Backbone is needed; open it with load_backbone.")
    check_type("config", config, TrainConfig)
    if start is not None:
        check_type("start", start, KeypointTokens, "use KeypointTokens.load")
    return config


def _run(
    trainer: Trainer,
    path: Path | None,
    checkpoint_every: int,
    on_step: Callable[[StepInfo], None] | None,
    on_progress: Progress,
) -> TrainResult:
    """The steps that are left, then the choice; see `train`."""
    backbone, config = trainer.backbone, trainer.config
    try:
        if trainer.step < config.steps:
            on_progress(TRAINING, trainer.step, config.steps)
        while trainer.step < config.steps:
            if check_rounds(trainer, lambda: on_progress(TRAINING, trainer.step, config.steps)):
                _log.info("training ends after %d steps: two rounds brought nothing", trainer.step)
                break
            trainer.run_step()
            saving = path is not None and trainer.step % checkpoint_every == 0
            # Reading a number waits for the device, so off the CPU it is done only now and then.
            if saving or backbone.device.type == "cpu" or trainer.step % 10 == 0 or trainer.step == config.steps:
                trainer.check_finite()
            if saving and trainer.ranks.first:
                save_state(path, trainer)
            if on_step is not None:
                on_step(StepInfo(trainer.step, config.steps, trainer.losses, trainer.snapshot))
            on_progress(TRAINING, trainer.step, config.steps)
        choice = choose_tokens(
            backbone,
            trainer.tokens.detach(),
            trainer.source,
            config,
            2 * trainer.micro_batch,
            on_progress,
            trainer.held,
        )
    except TrainingDiverged:
        raise  # the state of the optimiser is not finite any more, so the last checkpoint is kept
    except BaseException:
        if path and trainer.step and trainer.ranks.first and trainer.finite():
            save_state(path, trainer)
        raise
    history = [tuple(float(v) for v in row) for row in trainer.losses]
    return TrainResult(trainer.result(choice), history, list(trainer.images.skipped))
