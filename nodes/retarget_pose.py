"""Retarget Pose: a pose carried to a body of other proportions."""

from __future__ import annotations

from comfy_api.latest import io

from stablekp_core.pose.formats import POSES
from stablekp_core.pose.retarget import PLACES

from .comfy import sockets

_OWN = "of the keypoints"


class RetargetPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPRetargetPose",
            display_name="Retarget Pose",
            category="pose",
            description="Carries the pose of one figure to a body of other proportions: the drive's directions with "
            "the "
            "target's bone lengths.",
            search_aliases=["pose transfer", "pose retargeting", "proportions", "openpose", "stable keypoints"],
            inputs=[
                sockets.PointsOrPose.Input(
                    "drive",
                    tooltip="The poses to take, of one image or of the frames of a video: keypoints or POSE_KEYPOINT.",
                ),
                sockets.PointsOrPose.Input(
                    "target",
                    tooltip="Keypoints or POSE_KEYPOINT of an image that shows the whole target body; the first "
                    "counts.",
                ),
                io.Combo.Input(
                    "skeleton",
                    options=[_OWN, *POSES],
                    default=_OWN,
                    tooltip="Which points are joined: as the keypoints say (Discover Skeleton), or a named pose, whose "
                    "joints are found by name on both sides.",
                ),
                io.Combo.Input(
                    "place",
                    options=list(PLACES),
                    default=PLACES[0],
                    tooltip="target: in the target's image, starting where its body stands. drive: in the drive's "
                    "image, in "
                    "its place and as large.",
                ),
                io.Float.Input(
                    "scale", default=1.0, min=0.01, max=100.0, step=0.01, tooltip="Makes the body larger or smaller."
                ),
                io.Float.Input(
                    "offset_x",
                    default=0.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Shift to the right, in image widths.",
                ),
                io.Float.Input(
                    "offset_y", default=0.0, min=-10.0, max=10.0, step=0.01, tooltip="Shift down, in image heights."
                ),
                io.String.Input(
                    "root",
                    default="",
                    optional=True,
                    extra_dict=sockets.ADVANCED,
                    tooltip="Name of the point that the body hangs on. Empty: the one with most bones, such as the "
                    "neck.",
                ),
            ],
            outputs=[
                sockets.Points.Output(
                    display_name="keypoints",
                    tooltip="One entry for each of the drive's, for Draw Keypoints or Keypoints to Pose. Missing "
                    "points stay "
                    "missing.",
                )
            ],
        )

    @classmethod
    def execute(cls, drive, target, skeleton, place, scale, offset_x, offset_y, root="") -> io.NodeOutput:
        from stablekp_core.pose.retarget import retarget_pose

        done = retarget_pose(
            sockets.as_keypoints(drive),
            sockets.as_keypoints(target),
            skeleton=None if skeleton == _OWN else skeleton,
            place=place,
            scale=scale,
            offset=(offset_x, offset_y),
            root=root,
        )
        return io.NodeOutput(done)
