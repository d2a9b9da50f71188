"""Label Joints: named joints placed by hand on a few images, as labels for Fit Landmark Map."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from stablekp_core.errors import KeypointError
from stablekp_core.files import write_atomically
from stablekp_core.pose.formats import pose_format

from .comfy import folders, point_editor, sockets
from .comfy.batches import single_images
from .comfy.messages import short_path, show_text
from .map_keypoints_by_hand import POSES as POSE_CHOICES

_OWN = "own joints"
_EXAMPLE = "head\nleft hand\nright hand\nhead - left hand\nhead - right hand"


class LabelJoints(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPLabelJoints",
            display_name="Label Joints",
            category="pose",
            description="Place named joints on a few images by hand; after three images the others are guessed. The "
            "labels are kept in the workflow.",
            search_aliases=["annotate", "label keypoints", "coco", "landmarks", "stable keypoints"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="3 to 20 images to label, or more of which some are labelled."),
                io.String.Input(
                    "labels",
                    default="",
                    socketless=True,
                    tooltip="The labels as JSON. The button Label joints writes them; empty it to take all labels "
                    "back.",
                ),
                io.Combo.Input(
                    "joints",
                    options=[*POSE_CHOICES, _OWN],
                    default=next(iter(POSE_CHOICES)),
                    tooltip="Which joints are labelled: of OpenPose, AP-10K or COCO, or those listed below.",
                ),
                io.String.Input(
                    "own_joints",
                    default=_EXAMPLE,
                    multiline=True,
                    tooltip="Only for own joints: one name a line; a line such as head - left hand joins two of them.",
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="File name below ComfyUI's input folder: the labels are also written there as COCO JSON. "
                    "Empty: "
                    "not written.",
                ),
                sockets.Points.Input(
                    "keypoints",
                    optional=True,
                    tooltip="From Detect Keypoints on the same images. With them, three labelled images are enough "
                    "to guess "
                    "the joints of the others.",
                ),
                io.String.Input(
                    "names",
                    optional=True,
                    force_input=True,
                    tooltip="File names of the images, from Load Image Set, so that labels belong to files.",
                ),
            ],
            outputs=[
                sockets.Points.Output(
                    display_name="labels", tooltip="One entry for each labelled image, for Fit Landmark Map."
                ),
                io.String.Output(
                    display_name="report", tooltip="How much is labelled, and how far off the guesses are."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, save_as="") -> bool | str:
        name = save_as[0] if isinstance(save_as, list) else save_as
        return sockets.verdict(_label_path, name) if name and name.strip() else True

    @classmethod
    def execute(cls, images, labels, joints, own_joints, save_as, keypoints=None, names=None) -> io.NodeOutput:
        from stablekp_core.images.image_set import ImageSet
        from stablekp_core.keypoints.keypoints import Keypoints
        from stablekp_core.keypoints.point_edits import KeypointEdits
        from stablekp_core.pose.labelling import joint_list, label_images

        tensors = single_images(images, "Label Joints (images)")
        arrays = ImageSet.from_arrays(tensors)
        if names is not None and len(names) != len(arrays):
            raise KeypointError(
                f"Label Joints got {len(names)} names for {len(arrays)} images; connect both outputs of one Load "
                f"Image Set."
            )
        if joints[0] == _OWN:
            wanted, skeleton = joint_list(own_joints[0])
        else:
            pose = pose_format(POSE_CHOICES[joints[0]])
            wanted, skeleton = pose.joints, pose.skeleton
        edits = KeypointEdits.from_json(labels[0])
        found = None if keypoints is None else Keypoints.concat(keypoints)
        done = label_images(
            edits,
            [(tensor.shape[1], tensor.shape[0]) for tensor in tensors],
            wanted,
            skeleton=skeleton,
            images=tuple(names or ()),
            keypoints=found,
        )
        report = done.report()
        if save_as[0].strip():
            path = _label_path(save_as[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(done.labels.to_coco()) + "\n").encode())
            report += f"\nsaved {short_path(path)}"
        offered = point_editor.offer(
            done.suggested, arrays.__getitem__, mode="label", threshold=0.0, remarks=done.unused
        )
        show_text(report)
        # Before anything is labelled, what follows waits; it would only fail.
        labels = done.labels if len(done.labels) else ExecutionBlocker(None)
        return io.NodeOutput(labels, report, ui={"stablekp_editor": [offered]})


def _label_path(name: str) -> Path:
    return folders.save_path(Path(folder_paths.get_input_directory()), name, ".json")
