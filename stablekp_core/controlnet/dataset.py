"""A data set to train one's own ControlNet with: pairs of image and drawn keypoints.

The folder is the image-folder layout of the `datasets` library, which diffusers' ControlNet training example
reads: train/ and validation/, each with metadata.jsonl whose columns are image, text, conditioning_image,
source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import KeypointError
from ..files import write_atomically
from ..keypoints.keypoints import Keypoints
from ..pose.writing import to_pose
from ..progress import EXPORTING, Progress, counted
from .captions import Captions, read_captions
from .pairs import FITS, STYLES, ExportSettings, draw_hint, pair_key, write_pair

__all__ = [
    "FITS",
    "STYLES",
    "ExportSettings",
    "Exported",
    "draw_hint",
    "export_controlnet_dataset",
    "read_captions",
]

SPLITS = ("train", "validation")
_SETTINGS_FILE = "export.json"
_VERSION = 1


@dataclass(frozen=True)
class Exported:
    """What an export did: numbers of pairs in train and validation, of those drawn now and of those that were
    already there, and the images left out as (name, reason). uncaptioned: pairs without a caption of their own, where
    captions were given; unused_captions: names of captions that belong to no pair.
    """

    folder: Path
    train: int
    validation: int
    written: int
    kept: int
    skipped: tuple[tuple[str, str], ...]
    uncaptioned: int = 0
    unused_captions: tuple[str, ...] = ()

    def report(self) -> str:
        """One or two lines of text."""
        text = (
            f"{self.train} training and {self.validation} validation pairs in {self.folder} ({self.written} "
            f"new, {self.kept} already there)"
        )
        if self.skipped:
            name, reason = self.skipped[0]
            text += f"\n{len(self.skipped)} images left out, the first: {name} ({reason})"
        if self.uncaptioned:
            text += f"\n{self.uncaptioned} images have no caption of their own"
        if self.unused_captions:
            text += f"\n{len(self.unused_captions)} captions belong to no image, the first: {self.unused_captions[0]}"
        return text


def export_controlnet_dataset(
    images: Iterable[tuple[str, np.ndarray]],
    keypoints: Keypoints,
    folder: str | Path,
    settings: ExportSettings | None = None,
    *,
    captions: Mapping[str, str] | None = None,
    caption: str = "",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Exported:
    """Write pairs of image and hint with metadata; a run after an interruption continues where that one stopped.

    images: (name, uint8 RGB [H, W, 3]) one after the other, such as an ImageSet; never more than one in
    memory. keypoints: in pixels of these images, paired by name, or by number where they have no names;
    several rows per image are several figures. Style openpose and ap10k need keypoints that are joints (see
    `to_pose`), scribble a skeleton. captions: text by image name (with or without suffix); `caption` for the
    others. overwrite: allow other settings than those the folder was begun with; its old pairs are removed.
    on_progress: see progress.py; it counts images, those that are left out too.

    A pair that is there with the same keypoints is not drawn again. Files of pairs that are no longer part of
    the data set are removed. Raises KeypointError when nothing can be exported.
    """
    settings, folder = settings or ExportSettings(), Path(folder)
    figures = _pose_of(keypoints, settings)
    _claim(folder, settings, overwrite)
    rows_of = _rows_by_image(figures)
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in SPLITS}
    places: dict[str, str] = {}
    skipped, written, done = [], 0, 0
    total = len(set(figures.image_index.tolist()))
    texts = Captions(captions, dict.fromkeys(figures.images), caption)
    for number, (name, image) in enumerate(counted(images, EXPORTING, on_progress, total)):
        person = figures.rows(rows_of(number, name))
        if not ((person.confidence >= settings.threshold) & (person.confidence > 0)).any():
            skipped.append((name, "no keypoint is confident enough"))
            continue
        key = pair_key(name, image, person, settings)
        if key in places:
            skipped.append((name, "an image of the same name and content came before"))
            continue
        split = "validation" if _draw_lot(name, settings.seed) < settings.validation else "train"
        places[key] = split
        written += write_pair(folder / split, key, image, person, settings)
        rows[split].append(_metadata(name, key, settings, texts.of(name)))
        done += 1
    if not done:
        raise KeypointError(
            f"none of {len(skipped)} images has a keypoint of confidence {settings.threshold:g} or more, so "
            f"there is nothing to export; lower the threshold or detect on these images."
        )
    if not rows["train"]:
        rows["train"].append(rows["validation"].pop())
        _move(folder, rows["train"][0], settings)
    for split, lines in rows.items():
        _finish(folder / split, lines)
    return Exported(
        folder,
        len(rows["train"]),
        len(rows["validation"]),
        written,
        done - written,
        tuple(skipped),
        texts.without,
        tuple(texts.unused),
    )


def _pose_of(keypoints: Keypoints, settings: ExportSettings) -> Keypoints:
    if settings.style in ("openpose", "ap10k"):
        return to_pose(keypoints, settings.style)
    if settings.style == "scribble" and not keypoints.skeleton:
        raise KeypointError("scribble hints need a skeleton, but these keypoints have none; discover or write one.")
    return keypoints


def _rows_by_image(keypoints: Keypoints) -> Callable[[int, str], list[int]]:
    """A function (image number, name) -> rows."""
    if len(keypoints) and all(keypoints.images):
        by_name: dict[str, list[int]] = {}
        for row, name in enumerate(keypoints.images):
            by_name.setdefault(name, []).append(row)
        if all(len({int(keypoints.image_index[row]) for row in rows}) == 1 for rows in by_name.values()):
            return lambda number, name: by_name.get(name, [])
    by_number: dict[int, list[int]] = {}
    for row, image in enumerate(keypoints.image_index):
        by_number.setdefault(int(image), []).append(row)
    return lambda number, name: by_number.get(number, [])


def _claim(folder: Path, settings: ExportSettings, overwrite: bool) -> None:
    """Note the settings in the folder, or compare them with those it was begun with."""
    path, wanted = folder / _SETTINGS_FILE, {"version": _VERSION, **asdict(settings)}
    if path.is_file():
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise KeypointError(f"{path} cannot be read ({error}); export into another folder.") from error
        if found != wanted and not overwrite:
            other = [name for name in wanted if not isinstance(found, dict) or found.get(name) != wanted[name]]
            raise KeypointError(
                f"{folder} was exported with other settings ({', '.join(other)}); choose another folder, or overwrite."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise KeypointError(f"{folder} is not empty and holds no export; choose an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(wanted, indent=1).encode())


def _draw_lot(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on name and seed alone: images added later move no image between
    splits.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") / 2**64


def _metadata(name: str, key: str, settings: ExportSettings, text: str) -> dict[str, str]:
    """A line of metadata.jsonl. The order matters: the training example takes columns 1, 2, 3 by default."""
    return {
        "file_name": f"{key}.{settings.image_format}",
        "text": text,
        "conditioning_image_file_name": f"hints/{key}.png",
        "source": name,
    }


def _move(folder: Path, row: dict[str, str], settings: ExportSettings) -> None:
    """Take the only pair over into train: a data set without training pairs is none."""
    (folder / "train" / "hints").mkdir(parents=True, exist_ok=True)
    for key in ("file_name", "conditioning_image_file_name"):
        (folder / "validation" / row[key]).replace(folder / "train" / row[key])


def _finish(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write metadata.jsonl whole, and remove pairs that it does not list."""
    wanted = {row[key] for row in rows for key in ("file_name", "conditioning_image_file_name")}
    if folder.is_dir():
        for file in [*folder.glob("*.*"), *folder.glob("hints/*.png")]:
            ours = len(file.stem) == 20 and set(file.stem) <= set("0123456789abcdef")
            if ours and file.relative_to(folder).as_posix() not in wanted:
                file.unlink()
    if rows:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / "metadata.jsonl", lines.encode())
    else:
        (folder / "metadata.jsonl").unlink(missing_ok=True)
