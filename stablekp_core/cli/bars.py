"""Progress on the terminal: the core's callback as bars of tqdm, which is known here only."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

_FORMAT = "{desc}: {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_OPEN_END = "{desc}: {n_fmt} [{elapsed}{postfix}]"


class Bars:
    """A progress callback (progress.py) with one bar at a time on stderr: what is being done, how far, time left. A new
    phase closes the last one's bar, and so does a phase that begins again. Use it as a context manager, so that the
    last bar is closed too."""

    def __init__(self, show: bool = True, prefix: str = ""):
        self._show, self._prefix = show, prefix
        self._bar, self._phase = None, None
        self._first, self._began = 0, 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` (0: unknown) steps of `phase` are finished. Where stderr is no terminal, what has
        done nothing yet is not shown, so that an error stands alone."""
        if phase != self._phase or (self._bar is not None and done < self._bar.n):
            self.close()
            self._phase, self._first, self._began = phase, done, time.time()
        if self._bar is None and (done or sys.stderr.isatty()):
            self._bar = tqdm(
                total=total or None,
                initial=self._first,  # a run that goes on from a checkpoint did not do these now
                desc=self._prefix + phase,
                bar_format=_FORMAT if total else _OPEN_END,
                disable=not self._show,
                dynamic_ncols=True,
                file=None,
            )
            if self._show:
                self._bar.start_t -= time.time() - self._began
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def note(self, **values: str) -> None:
        """Show some values behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)

    def close(self) -> None:
        """Finish the bar that is shown, if any."""
        if self._bar is not None:
            self._bar.leave = self._bar.n > 0
            self._bar.close()
        self._bar, self._phase = None, None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
