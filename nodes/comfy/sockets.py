"""Socket types of the pack and the small helpers every schema uses."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable

from comfy_api.latest import io

from stablekp_core.errors import KeypointError

CATEGORY = "keypoints"
#: Groups of the menu below it, in the order of the work.
GROUPS = ("train", "detect", "pose", "video", "files")

#: The pack's own types, under a name of its own: other packs have a KEYPOINTS that is something else. What travels on
#: each: a `backbones.BackboneHandle`, a `stablekp_core` KeypointTokens, a `stablekp_core` Keypoints.
Backbone = io.Custom("STABLEKP_BACKBONE")
Tokens = io.Custom("STABLEKP_TOKENS")
Points = io.Custom("STABLEKP_KEYPOINTS")
#: Types that ComfyUI's own nodes read: {"loss": [float]} and {"track_path", "track_visibility"}.
LossMap = io.Custom("LOSS_MAP")
Tracks = io.Custom("TRACKS")
#: A `stablekp_core` LandmarkMap.
Landmarks = io.Custom("STABLEKP_LANDMARK_MAP")
#: A `stablekp_core` KeypointGuidance.
Guidance = io.Custom("STABLEKP_GUIDANCE")
#: What pose detectors and pose editors exchange: one dict per image, people (OpenPose) or animals (AP-10K).
Pose = io.Custom("POSE_KEYPOINT")
#: An input that takes either; see `as_keypoints`.
PointsOrPose = io.Custom(f"{Points.io_type},{Pose.io_type}")
#: ComfyUI's own boxes, dicts of x, y, width and height; its class for them came after 0.8.0.
Boxes = io.Custom("BOUNDING_BOX")
#: The same from the canvas widget of newer versions.
AnyBoxes = io.Custom("BOUNDING_BOX,BOUNDING_BOXES")

#: Whatever has a size: ComfyUI lets an input take several types.
ImageOrLatent = io.Custom("IMAGE,LATENT")

#: For inputs most people never touch. Given as extra option because the schema field for it came after 0.8.0.
ADVANCED = {"advanced": True}

_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def make_schema(*, category: str = "detect", **fields) -> io.Schema:
    """`io.Schema` in one of the pack's `GROUPS`, without the fields that this version of ComfyUI does not know yet.

    An unknown field would raise and take the whole pack with it.
    """
    known = {name: value for name, value in fields.items() if name in _SCHEMA_FIELDS}
    return io.Schema(category=f"{CATEGORY}/{category}", **known)


def choice_input(name: str, own: dict[str, dict], inputs: list, tooltip: str):
    """A list to choose from whose choices bring inputs of their own, which are shown below it and are optional in a
    prompt. own: the names of those of each choice; the first choice is the default. inputs: all of them. See `flat`."""
    by_name = {i.id: i for i in inputs}
    options = [io.DynamicCombo.Option(choice, [by_name[one] for one in names]) for choice, names in own.items()]
    return io.DynamicCombo.Input(name, options=options, tooltip=tooltip)


def flat(values: dict) -> dict:
    """What a node with a `choice_input` is given, all under own names. ComfyUI puts the inputs of the choice below it,
    {"style": {"style": "points", "dots": True}}, with None for those that a prompt leaves out; prompts of before there
    was one have them beside it."""
    chosen = [value for value in values.values() if isinstance(value, dict)]
    beside = {name: value for name, value in values.items() if not isinstance(value, dict)}
    return beside | {name: value for inner in chosen for name, value in inner.items() if value is not None}


def own_values(name: str, own: dict[str, dict], values: dict) -> dict:
    """`values` with the defaults of what the choice made in `name` has of its own. Raises KeypointError for a choice
    that there is not, and for none, as when it came over a wire."""
    if values.get(name) not in own:
        raise KeypointError(
            f"{name} is {values.get(name)!r}, but it must be one of {', '.join(own)}, chosen on the node itself."
        )
    return own[values[name]] | values


def seed_input(tooltip: str, default: int = 0, **more):
    """A widget `seed` that stays as it is: unless told so, the page changes a seed after every run, and a node that
    takes minutes would run anew each time. more: further arguments of the input."""
    return io.Int.Input(
        "seed", default=default, min=0, max=2**31 - 1, control_after_generate=False, tooltip=tooltip, **more
    )


def defaults_of(function: Callable) -> types.SimpleNamespace:
    """The defaults of a core function's parameters, for widgets: they are written down in the core only."""
    return types.SimpleNamespace(
        **{p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
    )


def verdict(look: Callable, *values) -> bool | str:
    """What `validate_inputs` answers: the sentence of the KeypointError that `look(*values)` raises, or True.

    None among the values comes over a wire: that is looked at when the node runs.
    """
    if None in values:
        return True
    try:
        look(*values)
    except KeypointError as error:
        return str(error)
    return True


def as_keypoints(value):
    """What came over a `PointsOrPose` wire, as core Keypoints."""
    from stablekp_core.keypoints.keypoints import Keypoints
    from stablekp_core.pose.reading import read_pose

    return value if isinstance(value, Keypoints) else read_pose(value)
