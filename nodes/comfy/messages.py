"""What a running node tells on the page: status text on the node itself, and notes that stay after it has stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

#: Longest text on a node, and what is shown of one that is rather data: nodes of Nodes 2.0 grow to all of it, over
#: others. The whole is on the node's output.
MAX_CHARACTERS, EXCERPT = 4000, 200
#: Event that web/js/notes.js listens to.
NOTE_EVENT = "stable_keypoints.note"


def node_id() -> str | None:
    """Id of the node that runs now, as the page knows it; None outside a prompt."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    return context.node_id if context is not None else None


def show_text(text: str, most: int = MAX_CHARACTERS) -> None:
    """Show `text`, or its first `most` characters, on the running node, in place of what was shown there; it is not
    stored in the history.
    """
    server, number = _server(), node_id()
    if server is None or number is None:
        return
    if len(text) > most:
        text = text[:most].rsplit("\n", 1)[0] + "\n…"
    server.send_progress_text(text, number)


def leave_note(title: str, text: str, severity: str = "info") -> None:
    """A note in the corner of the page that stays until it is closed, also when the node was cancelled."""
    logging.info("[Stable Keypoints] %s: %s", title, text)
    server = _server()
    if server is not None:
        server.send_sync(NOTE_EVENT, {"title": title, "text": text, "severity": severity, "node": node_id()})


class Status:
    """Status text of a long run, sent at most twice a second; what stays the same is not sent again."""

    SECONDS = 0.5

    def __init__(self) -> None:
        self._last, self._shown = float("-inf"), ""

    def show(self, text: str | Callable[[], str], now: bool = False) -> None:
        """text: or what makes it, called only when it is shown. now: even if the last one is a moment old."""
        moment = time.monotonic()
        if not now and moment - self._last < self.SECONDS:
            return
        text = text if isinstance(text, str) else text()
        if text != self._shown:
            show_text(text)
            self._last, self._shown = moment, text


def short_path(path: Path) -> str:
    """A path as the pack's messages name it: the folder's name and the file's."""
    return f"{path.parent.name}/{path.name}"


def _server():
    from server import PromptServer

    return getattr(PromptServer, "instance", None)
