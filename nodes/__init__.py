"""The ComfyUI nodes: each in a file named as the node is in the menu. They translate between ComfyUI's types and
`stablekp_core`, which does all the work; what talks to ComfyUI itself is in `comfy`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .apply_landmark_map import ApplyLandmarkMap
from .comfy import folders
from .compare_keypoints import CompareKeypoints
from .detect_keypoints import DetectKeypoints
from .discover_skeleton import DiscoverSkeleton
from .draw_keypoints import DrawKeypoints
from .edit_keypoint_tokens import EditKeypointTokens
from .edit_keypoints import EditKeypoints
from .export_controlnet_dataset import ExportControlNetDataset
from .fit_keypoint_guidance import FitKeypointGuidance
from .fit_landmark_map import FitLandmarkMap
from .guide_by_keypoints import GuideByKeypoints
from .keypoint_backbone_from_model import KeypointBackboneFromModel
from .keypoint_report import KeypointReport
from .keypoints_to_boxes import KeypointsToBoxes
from .keypoints_to_json import KeypointsToJSON
from .keypoints_to_masks import KeypointsToMasks
from .keypoints_to_pose import KeypointsToPose
from .keypoints_to_tracks import KeypointsToTracks
from .label_joints import LabelJoints
from .load_image_set import LoadImageSet
from .load_keypoint_backbone import LoadKeypointBackbone
from .load_keypoint_guidance import LoadKeypointGuidance
from .load_keypoint_tokens import LoadKeypointTokens
from .load_landmark_map import LoadLandmarkMap
from .map_keypoints_by_hand import MapKeypointsByHand
from .retarget_pose import RetargetPose
from .save_keypoint_guidance import SaveKeypointGuidance
from .save_keypoint_tokens import SaveKeypointTokens
from .save_landmark_map import SaveLandmarkMap
from .smooth_keypoints import SmoothKeypoints
from .train_keypoint_tokens import TrainKeypointTokens

NODES: list[type[io.ComfyNode]] = [
    LoadKeypointBackbone,
    KeypointBackboneFromModel,
    LoadImageSet,
    TrainKeypointTokens,
    SaveKeypointTokens,
    LoadKeypointTokens,
    DetectKeypoints,
    DrawKeypoints,
    KeypointsToMasks,
    KeypointsToBoxes,
    KeypointsToTracks,
    KeypointsToJSON,
    LabelJoints,
    FitLandmarkMap,
    ApplyLandmarkMap,
    SaveLandmarkMap,
    LoadLandmarkMap,
    MapKeypointsByHand,
    KeypointsToPose,
    DiscoverSkeleton,
    EditKeypoints,
    RetargetPose,
    SmoothKeypoints,
    KeypointReport,
    EditKeypointTokens,
    ExportControlNetDataset,
    FitKeypointGuidance,
    SaveKeypointGuidance,
    LoadKeypointGuidance,
    GuideByKeypoints,
    CompareKeypoints,
]


class StableKeypoints(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> StableKeypoints:
    """Called once by ComfyUI when it loads the pack."""
    folders.register_folders()
    folders.offer_example_video()
    return StableKeypoints()
