"""What the nodes that save a file share: the widgets for its name, and writing it inside its folder."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io, ui

from . import folders
from .messages import short_path, show_text


def name_inputs(example: str) -> list:
    return [
        io.String.Input(
            "name",
            default=example,
            tooltip="File name without ending; with / for a sub-folder. It cannot leave the folder.",
        ),
        io.Boolean.Input(
            "overwrite",
            default=False,
            optional=True,
            tooltip="Replace a file of that name. Off: a number is added to the new file's name.",
        ),
    ]


def path_output():
    return io.String.Output(display_name="path", tooltip="Where the file was written.")


def save(thing, folder: Path, name: str, overwrite: bool) -> io.NodeOutput:
    """Save what has a method `save` below `folder`; the node's output is the file's path."""
    path = folders.save_path(folder, name)
    path = thing.save(path if overwrite else folders.free_path(path))
    show_text(f"saved {short_path(path)}")
    return io.NodeOutput(str(path), ui=ui.PreviewText(f"saved {path}"))
