"""The ComfyUI nodes. They translate between ComfyUI's types and `stablekp_core`, which does all the work."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    backbone,
    convert,
    detection,
    drawing,
    export,
    images,
    landmarks,
    poses,
    report,
    skeleton,
    token_files,
    training,
    video,
)
from .folders import register_folders

NODES: list[type[io.ComfyNode]] = [
    backbone.LoadKeypointBackbone,
    backbone.KeypointBackboneFromModel,
    images.LoadImageSet,
    training.TrainKeypointTokens,
    token_files.SaveKeypointTokens,
    token_files.LoadKeypointTokens,
    detection.DetectKeypoints,
    drawing.DrawKeypoints,
    convert.KeypointsToMasks,
    convert.KeypointsToTracks,
    convert.KeypointsToJSON,
    landmarks.FitLandmarkMap,
    landmarks.ApplyLandmarkMap,
    landmarks.SaveLandmarkMap,
    landmarks.LoadLandmarkMap,
    landmarks.MapKeypointsByHand,
    poses.KeypointsToPose,
    skeleton.DiscoverSkeleton,
    video.SmoothKeypoints,
    report.KeypointReport,
    report.EditKeypointTokens,
    export.ExportControlNetDataset,
]


class StableKeypoints(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> StableKeypoints:
    """Called once by ComfyUI when it loads the pack."""
    register_folders()
    return StableKeypoints()
