"""Retarget Pose in a real ComfyUI: the graph gives what the core gives, which tests/pose/test_retarget.py measures."""

from __future__ import annotations

import numpy as np

from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.retarget import retarget_pose

SIDE, COUNT = 512, 4


def prompt() -> dict:
    dolls = {"side": SIDE, "noise": 0.0, "named": True}
    points = {"drive": ["1", 0], "target": ["2", 0], "result": ["3", 0]}
    retarget = {"skeleton": "of the keypoints", "place": "target", "scale": 1.0, "offset_x": 0.0, "offset_y": 0.0}
    drawing = {"style": "points", "style.canvas": "black"}
    drawing |= {"threshold": 0.0, "which": "", "out_width": 0, "out_height": 0}
    return {
        "1": node("TestDolls", count=COUNT, **dolls),
        "2": node("TestDolls", count=1, **dolls),
        "3": node("StableKPRetargetPose", drive=["1", 0], target=["2", 0], **retarget),
        "4": node("StableKPDraw", keypoints=["3", 0], **drawing),
        "5": node("PreviewImage", images=["4", 0]),
        **{name: node("TestKeep", keypoints=wire) for name, wire in points.items()},
    }


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def test_a_pose_on_another_body_comes_out_of_the_graph(server):
    done = server.run(prompt())
    drive, target, result = (
        Keypoints.from_json(done["outputs"][name]["coco"][0]) for name in ("drive", "target", "result")
    )
    assert len(result) == COUNT and result.names == drive.names and (result.sizes == SIDE).all()
    there = result.confidence[0] > 0
    assert there.sum() == 14  # the joint that is missing in the drive stays missing
    wanted = retarget_pose(drive, target)
    np.testing.assert_allclose(result.xy[:, there], wanted.xy[:, there], atol=0.05)  # the drive as its JSON has it
    assert np.abs(result.xy[1:] - drive.xy[1:])[:, there].max() > 10  # another body than the drive's
    assert len(done["outputs"]["5"]["images"]) == COUNT
