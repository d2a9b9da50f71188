"""The frames of a VIDEO, decoded one at a time: a long one never lies in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class VideoFrames:
    """Iterates over (name, uint8 RGB [H, W, 3]) of a VIDEO's frames, in order; `len` is what its file tells, which
    may be a few frames off.
    """

    def __init__(self, video):
        self._video = video
        self._file = video.get_stream_source() if type(video).__name__ == "VideoFromFile" else None
        self._held = None if self._file is not None else video.get_components().images  # [T, H, W, C], there anyway

    def __len__(self) -> int:
        return max(1, len(self._held) if self._held is not None else self._video.get_frame_count())

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        for number, frame in enumerate(self._decoded() if self._held is None else self._held):
            array = frame if isinstance(frame, np.ndarray) else _to_array(frame)
            yield f"frame_{number:06d}", array

    def _decoded(self) -> Iterator[np.ndarray]:
        import av

        window = getattr(self._video, "get_active_trim_window", lambda: (0.0, 0.0))
        start, duration = window()
        if hasattr(self._file, "seek"):
            self._file.seek(0)
        with av.open(self._file, mode="r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            first, last = (int(moment / stream.time_base) for moment in (start, start + duration))
            if first:
                container.seek(first, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and (frame.pts < first or duration and frame.pts >= last):
                    if frame.pts >= first:
                        return
                    continue
                turns = round(getattr(frame, "rotation", 0) / 90)
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def _to_array(frame) -> np.ndarray:
    """[H, W, C] float in [0, 1] -> uint8 [H, W, 3]."""
    return (frame[..., :3].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
