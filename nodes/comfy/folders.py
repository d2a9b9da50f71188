"""Where the pack reads and writes on the server's disk, and what a graph is not allowed to reach."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

import folder_paths

import stablekp_core
from stablekp_core.errors import KeypointError
from stablekp_core.files import indices_beside

TOKENS = "keypoint_tokens"
LANDMARKS = "keypoint_landmarks"
GUIDANCE = "keypoint_guidance"
#: Set to 1 by the server's owner, this lets a graph read image folders outside `input/`.
ANY_PATH_VARIABLE = "STABLEKP_ALLOW_ANY_PATH"
_SUFFIX = ".safetensors"
_ASSETS = Path(stablekp_core.__file__).parent / "assets"
#: Tokens that come with the pack, for the demo model.
BUILT_IN_TOKENS = {"built in: paper dolls": "paper_dolls.safetensors"}


def register_folders() -> None:
    """Tell ComfyUI about models/keypoint_tokens, keypoint_landmarks and keypoint_guidance (so extra_model_paths.yaml
    can add more) and the rescue folder.
    """
    for kind in (TOKENS, LANDMARKS, GUIDANCE):
        folder_paths.add_model_folder_path(kind, str(Path(folder_paths.models_dir) / kind))
    folder_paths.add_model_folder_path(TOKENS, str(rescue_folder()))


def _first_folder(kind: str) -> Path:
    return Path(folder_paths.get_folder_paths(kind)[0])


def _files(kind: str) -> list[str]:
    return [name for name in folder_paths.get_filename_list(kind) if name.lower().endswith(_SUFFIX)]


def _path(kind: str, name: str, what: str, node: str) -> Path:
    """The file behind one of `_files`; KeypointError when it is gone or is no such name."""
    known = name.lower().endswith(_SUFFIX) or (kind == TOKENS and name in token_files())
    found = folder_paths.get_full_path(kind, name) if known else None
    if found is None:
        raise KeypointError(
            f"there is no {what} {name!r} in {_first_folder(kind)}; run {node} first, "
            f"or put a .safetensors {what} there and press R to refresh."
        )
    return Path(found)


def tokens_folder() -> Path:
    """The folder Save Keypoint Tokens writes to: the first that ComfyUI knows for them."""
    return _first_folder(TOKENS)


def rescue_folder() -> Path:
    """Where the tokens of a cancelled training go."""
    return Path(folder_paths.get_output_directory()) / TOKENS


def token_files() -> list[str]:
    """Tokens that come with the pack, then files in all those folders, as ComfyUI names them (with the slashes of the
    system), and the authors' published ones: an embedding.pt with its indices.pt beside it.
    """
    published = [name for name in folder_paths.get_filename_list(TOKENS) if _is_published(name)]
    return [*BUILT_IN_TOKENS, *_files(TOKENS), *published]


def _is_published(name: str) -> bool:
    partner = indices_beside(Path(name))
    return partner is not None and str(partner) in folder_paths.get_filename_list(TOKENS)


def offer_example_video() -> None:
    """Put the short video of the templates into the input folder, where Load Video looks, unless it is there."""
    place = Path(folder_paths.get_input_directory()) / "stable_keypoints_paper_doll.mp4"
    if place.exists():
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ASSETS / "paper_doll.mp4", place)
    except OSError as error:  # a folder that cannot be written to is no reason not to load the nodes
        logging.warning("[Stable Keypoints] the example video could not be put into %s: %s", place.parent, error)


def token_path(name: str) -> Path:
    """The file behind one of `token_files`; KeypointError when it is gone or is no such name."""
    if name in BUILT_IN_TOKENS:
        return _ASSETS / "tokens" / BUILT_IN_TOKENS[name]
    return _path(TOKENS, name, "tokens file", "Save Keypoint Tokens")


def newest_tokens(name: str) -> str:
    """The newest of a file and those that Save Keypoint Tokens numbered after it: of `cat`, `cat_00002`, …"""
    known = token_files()
    family = [other for other in known if _unnumbered(other) == _unnumbered(name)]
    return max(family, key=lambda other: token_path(other).stat().st_mtime_ns, default=name)


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d{5}(?=\.safetensors$)", "", name, flags=re.IGNORECASE)


def landmarks_folder() -> Path:
    """The folder Save Landmark Map writes to: the first that ComfyUI knows for them."""
    return _first_folder(LANDMARKS)


def landmark_files() -> list[str]:
    """Landmark map files, as ComfyUI names them."""
    return _files(LANDMARKS)


def landmark_path(name: str) -> Path:
    """The file behind one of `landmark_files`; KeypointError when it is gone or is no such name."""
    return _path(LANDMARKS, name, "landmark map", "Save Landmark Map")


def guidance_folder() -> Path:
    """The folder Save Keypoint Guidance writes to: the first that ComfyUI knows for it."""
    return _first_folder(GUIDANCE)


def guidance_files() -> list[str]:
    """Guidance files, as ComfyUI names them."""
    return _files(GUIDANCE)


def guidance_path(name: str) -> Path:
    """The file behind one of `guidance_files`; KeypointError when it is gone or is no such name."""
    return _path(GUIDANCE, name, "guidance file", "Save Keypoint Guidance")


def input_file(name: str) -> Path:
    """A file below ComfyUI's input folder, by its path from there; KeypointError for anything else."""
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / name.strip()).resolve()
    if root not in path.parents or not path.is_file():
        raise KeypointError(
            f"there is no file {name.strip()!r} in ComfyUI's input folder; put it there and give its path from there."
        )
    return path


def checkpoints() -> list[str]:
    """Checkpoints that may be read: safetensors only, because opening a pickle can run code."""
    return [name for name in folder_paths.get_filename_list("checkpoints") if name.lower().endswith(_SUFFIX)]


def diffusers_folders() -> list[str]:
    """Model folders below models/diffusers, by the path from there."""
    found = set()
    for base in folder_paths.get_folder_paths("diffusers"):
        for root, folders, files in os.walk(base, followlinks=True):
            if "model_index.json" in files or {"unet", "vae"} <= set(folders):
                found.add(os.path.relpath(root, base).replace(os.sep, "/"))
                folders.clear()
    return sorted(found - {"."})


def diffusers_path(name: str) -> Path:
    """The folder behind one of `diffusers_folders`."""
    if name not in diffusers_folders():
        raise KeypointError(f"there is no diffusers folder {name!r} in models/diffusers; choose one from the list.")
    return next(
        Path(base) / name for base in folder_paths.get_folder_paths("diffusers") if (Path(base) / name).is_dir()
    )


def input_subfolders() -> list[str]:
    """Sub-folders of ComfyUI's input folder, sorted, with forward slashes."""
    return sorted(folder_paths.get_input_subfolders())


def image_folder(folder: str, other: str = "") -> Path:
    """The folder of an image set: `folder` below `input/`, or `other` where the server's owner allows
    any path.
    """
    if other.strip():
        if os.environ.get(ANY_PATH_VARIABLE) != "1":
            raise KeypointError(
                f"the folder {other.strip()!r} lies outside ComfyUI's input folder, which this server "
                f"does not allow; copy the images into a sub-folder of input/, or let the server's "
                f"owner start it with {ANY_PATH_VARIABLE}=1."
            )
        return Path(other.strip()).expanduser()
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / folder).resolve()
    if not path.is_relative_to(root):
        raise KeypointError(f"the folder {folder!r} lies outside ComfyUI's input folder; choose one from the list.")
    if not path.is_dir():
        raise KeypointError(
            f"there is no folder {folder!r} in ComfyUI's input folder; make it, put images into it, "
            "and press R to refresh."
        )
    leads_out = [link.name for link in path.iterdir() if link.is_symlink() and not link.resolve().is_relative_to(root)]
    if leads_out:
        raise KeypointError(
            f"{min(leads_out)} in the folder {folder!r} is a link to outside ComfyUI's input folder; put the file "
            "itself there."
        )
    return path


def relative_save_path(name: str, suffix: str = _SUFFIX) -> Path:
    """A name typed by the user as a path below the folder it is saved in, ending in `suffix`.

    Sub-folders are allowed (`cats/tabby`); anything that would leave the folder, on any operating system, is
    refused with a KeypointError rather than quietly changed.
    """
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part != "."]
    if parts and parts[-1].lower().endswith(suffix):
        parts[-1] = parts[-1][: -len(suffix)]
    if not parts or any(not _safe_part(part) for part in parts):
        raise KeypointError(
            f"{name!r} cannot be used as a file name; give a name of letters, digits, spaces and ._- "
            "(with / for a sub-folder) that stays inside its folder."
        )
    return Path(*parts[:-1], parts[-1] + suffix)


def save_path(root: Path, name: str, suffix: str = _SUFFIX) -> Path:
    """`relative_save_path` below `root`; KeypointError where a linked sub-folder leads out of it."""
    path = root / relative_save_path(name, suffix)
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise KeypointError(
            f"the sub-folder of {name!r} is a link to outside {root.name}; choose another name for the file."
        )
    return path


def _safe_part(part: str) -> bool:
    reserved = re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", part)
    return bool(re.fullmatch(r"\w(?:[\w .()+-]{0,98}[\w()+-])?", part)) and not reserved


def free_path(path: Path) -> Path:
    """`path`, or the first of `name_00002`, `name_00003`, … that does not exist yet."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}_{number:05d}{path.suffix}")
    return candidate


def file_fingerprint(path: Path) -> str:
    """Changes when the file, or any file below the folder, is replaced: from names, sizes and times only."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
