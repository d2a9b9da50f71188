"""Nodes for the browser tests only: dolls with their true joints, a little wrong, as if a detector had found them."""

import numpy as np
import torch


class Dolls:
    CATEGORY = "testing"
    FUNCTION = "make"
    RETURN_TYPES = ("STABLEKP_KEYPOINTS", "IMAGE", "STRING")
    RETURN_NAMES = ("keypoints", "images", "names")
    OUTPUT_IS_LIST = (False, False, True)

    @classmethod
    def INPUT_TYPES(cls):
        numbers = {"count": ("INT", {"default": 4, "max": 1000}), "side": ("INT", {"default": 512, "max": 4096})}
        return {"required": {**numbers, "noise": ("FLOAT", {"default": 4.0}), "named": ("BOOLEAN", {"default": True})}}

    def make(self, count, side, noise, named):
        from stablekp_core.keypoints.keypoints import Keypoints
        from stablekp_core.synthetic.figures import DOLL_BONES, DOLL_JOINTS
        from stablekp_core.synthetic.generator import render

        samples = [render("dolls", seed, min(side, 256)) for seed in range(min(count, 12))]
        samples = [samples[i % len(samples)] for i in range(count)]
        rng = np.random.default_rng(7)
        joints = np.stack([sample.joints for sample in samples]) * (side / len(samples[0].image))
        xy = np.clip(joints + rng.normal(0, noise, joints.shape), 0, side)
        confidence = np.full(xy.shape[:2], 0.9)
        confidence[:, 7], confidence[:, 14] = 0.15, 0.0  # one the detector is not sure of, one it did not find
        files = [f"doll{i}.png" for i in range(count)]
        points = Keypoints(
            xy,
            confidence,
            np.full((count, 2), side),
            DOLL_JOINTS if named else (),
            DOLL_BONES,
            images=files,
        )
        images = torch.from_numpy(np.stack([sample.image for sample in samples])).float() / 255
        grown = torch.nn.functional.interpolate(images.movedim(-1, 1), (side, side), mode="bilinear").movedim(1, -1)
        return points, grown.clamp(0, 1), files


class Keep:
    """Shows keypoints as COCO JSON in the answer to the page."""

    CATEGORY = "testing"
    FUNCTION = "keep"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"keypoints": ("STABLEKP_KEYPOINTS",)}}

    def keep(self, keypoints):
        return {"ui": {"coco": [keypoints.to_json()]}}


NODE_CLASS_MAPPINGS = {"TestDolls": Dolls, "TestKeep": Keep}
