"""Smooth Keypoints."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.video.smoothing import smooth_keypoints

from .comfy import sockets
from .comfy.messages import show_text

_DEFAULTS = sockets.defaults_of(smooth_keypoints)
#: What each method has of its own, and the default.
_OWN = {
    method: {name: getattr(_DEFAULTS, name) for name in names}
    for method, names in (
        ("savitzky-golay", ("window", "order")),
        ("one-euro", ("fps", "min_cutoff", "beta", "causal")),
        ("none", ()),
    )
}


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
            accept_all_inputs=True,
            inputs=_inputs(),
            outputs=[
                sockets.Points.Output(display_name="keypoints", tooltip="Smoothed, one entry for each frame."),
                io.String.Output(display_name="report", tooltip="Jitter before and after, and what was put in order."),
            ],
        )

    @classmethod
    def execute(cls, keypoints, fill, threshold, may_swap="auto", **settings) -> io.NodeOutput:
        from stablekp_core.video.smoothing import parse_swaps

        values = sockets.own_values("method", _OWN, sockets.flat(settings))
        done = smooth_keypoints(
            keypoints,
            fill=fill,
            threshold=threshold,
            identity=parse_swaps(may_swap, keypoints),
            **{name: values[name] for name in ("method", *_OWN[values["method"]])},
        )
        report = done.report()
        show_text(report)
        return io.NodeOutput(done.keypoints, report)


def _own_inputs() -> list:
    """The inputs that only some methods have."""
    d, own = _DEFAULTS, {"optional": True}
    return [
        io.Int.Input(
            "window",
            default=d.window,
            min=3,
            max=301,
            step=2,
            **own,
            tooltip="Over how many frames a curve runs. More is smoother.",
        ),
        io.Int.Input(
            "order",
            default=d.order,
            min=0,
            max=5,
            **own,
            tooltip="The curve's degree. Higher follows quick turns better.",
        ),
        io.Float.Input("fps", default=d.fps, min=0.1, max=1000.0, step=0.1, **own, tooltip="Frames per second."),
        io.Float.Input(
            "min_cutoff",
            default=d.min_cutoff,
            min=0.001,
            max=100.0,
            step=0.01,
            **own,
            tooltip="How much movement at rest is let through, in Hz. Lower is smoother.",
        ),
        io.Float.Input(
            "beta",
            default=d.beta,
            min=0.0,
            max=100.0,
            step=0.01,
            **own,
            tooltip="How much more is let through in fast motion. Higher lags less.",
        ),
        io.Boolean.Input(
            "causal",
            default=d.causal,
            **own,
            extra_dict=sockets.ADVANCED,
            tooltip="Look at past frames only, as for live images. It lags.",
        ),
    ]


def _inputs() -> list:
    d = _DEFAULTS
    return [
        sockets.Points.Input("keypoints", tooltip="Detected on the frames of one video, in order."),
        sockets.choice_input(
            "method",
            _OWN,
            _own_inputs(),
            tooltip="savitzky-golay: smooth curves through each moment, no lag. one-euro: strong at rest, "
            "weak in fast motion. none: only gaps and swaps.",
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
            optional=True,
            extra_dict=sockets.ADVANCED,
            tooltip="Which points the detector may confuse: auto (pairs named left and right, else any), "
            "all, none, or pairs such as 3-5, 2-7.",
        ),
    ]
