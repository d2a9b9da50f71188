"""Smooth Keypoints."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.video.smoothing import METHODS, smooth_keypoints

from .comfy import sockets
from .comfy.messages import show_text


class SmoothKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPSmooth",
            display_name="Smooth Keypoints",
            category="video",
            description="Takes the jitter out of the keypoints of a video, fills short gaps and keeps left and "
            "right apart.",
            search_aliases=["jitter", "one euro", "temporal", "stable keypoints"],
            inputs=_inputs(),
            outputs=[
                sockets.Points.Output(display_name="keypoints", tooltip="Smoothed, one entry for each frame."),
                io.String.Output(display_name="report", tooltip="Jitter before and after, and what was put in order."),
            ],
        )

    @classmethod
    def execute(cls, keypoints, method, fill, threshold, may_swap="auto", **settings) -> io.NodeOutput:
        from stablekp_core.video.smoothing import parse_swaps

        done = smooth_keypoints(
            keypoints,
            method,
            fill=fill,
            threshold=threshold,
            identity=parse_swaps(may_swap, keypoints),
            **settings,
        )
        report = done.report()
        show_text(report)
        return io.NodeOutput(done.keypoints, report)


def _inputs() -> list:
    d, more = sockets.defaults_of(smooth_keypoints), {"optional": True, "extra_dict": sockets.ADVANCED}
    return [
        sockets.Points.Input("keypoints", tooltip="Detected on the frames of one video, in order."),
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default=d.method,
            tooltip="savitzky-golay: smooth curves through each moment, no lag. one-euro: strong at rest, "
            "weak in fast motion. none: only gaps and swaps.",
        ),
        io.Int.Input(
            "window",
            default=d.window,
            min=3,
            max=301,
            step=2,
            tooltip="Savitzky-Golay: over how many frames a curve runs. More is smoother.",
        ),
        io.Int.Input(
            "order",
            default=d.order,
            min=0,
            max=5,
            tooltip="Savitzky-Golay: the curve's degree. Higher follows quick turns better.",
        ),
        io.Float.Input("fps", default=d.fps, min=0.1, max=1000.0, step=0.1, tooltip="One-Euro: frames per second."),
        io.Float.Input(
            "min_cutoff",
            default=d.min_cutoff,
            min=0.001,
            max=100.0,
            step=0.01,
            tooltip="One-Euro: how much movement at rest is let through, in Hz. Lower is smoother.",
        ),
        io.Float.Input(
            "beta",
            default=d.beta,
            min=0.0,
            max=100.0,
            step=0.01,
            tooltip="One-Euro: how much more is let through in fast motion. Higher lags less.",
        ),
        io.Int.Input(
            "fill",
            default=d.fill,
            min=0,
            max=1000,
            tooltip="Longest gap, in frames, that is bridged. Points in longer gaps stay missing.",
        ),
        io.Float.Input(
            "threshold",
            default=d.threshold,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Points with a lower confidence count as gaps.",
        ),
        io.String.Input(
            "may_swap",
            default=d.identity,
            **more,
            tooltip="Which points the detector may confuse: auto (pairs named left and right, else any), "
            "all, none, or pairs such as 3-5, 2-7.",
        ),
        io.Boolean.Input(
            "causal",
            default=d.causal,
            **more,
            tooltip="One-Euro: look at past frames only, as for live images. It lags.",
        ),
    ]
