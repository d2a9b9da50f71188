"""Guide by Keypoints in a real ComfyUI with random weights: it changes the sampling and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfy_server import NodeError
from test_nodes_in_comfyui import FACES, SD15, from_model, newest_latent, node

from stablekp_core.keypoints.tokens import KeypointTokens

GRID = {"width": 64, "height": 64}


def guided(poses: int = 2, batch: int = 2, backbone: dict | None = None, **settings) -> dict:
    """Tokens, guidance and a pose from the same images, and a sampling with the guided MODEL; node 26 keeps latents."""
    return {
        **from_model(),
        **(backbone or {}),
        "2": {**FACES, "inputs": {**FACES["inputs"], "max_images": 8}},
        "3": node("StableKPLoadTokens", tokens_file="small.safetensors"),
        "4": node("StableKPFitGuidance", backbone=["1", 0], tokens=["3", 0], images=["2", 0]),
        "5": {**FACES, "inputs": {**FACES["inputs"], "max_images": poses}},
        "6": node(
            "StableKPDetect", backbone=["1", 0], tokens=["3", 0], images=["5", 0], views=1, batch_size=8, sub_pixel=True
        ),
        "7": node(
            "StableKPGuide",
            **{"model": ["10", 0], "backbone": ["1", 0], "guidance": ["4", 0], "pose": ["6", 0], "tokens": ["3", 0]},
            **{"strength": 1.0, "start_percent": 0.0, "end_percent": 0.75, **settings},
        ),
        "20": node("CLIPTextEncode", clip=["10", 1], text="a face"),
        "21": node("CLIPTextEncode", clip=["10", 1], text=""),
        "22": node("EmptyLatentImage", batch_size=batch, **GRID),
        "23": node(
            "KSampler",
            model=["7", 0],
            positive=["20", 0],
            negative=["21", 0],
            latent_image=["22", 0],
            seed=3,
            steps=4,
            cfg=2.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        "26": node("SaveLatent", samples=["23", 0], filename_prefix="latents/guided"),
    }


@pytest.fixture(scope="module", autouse=True)
def tokens(server):
    """Random tokens for a 64-pixel view of the images: guidance does not ask how good they are."""
    config = dict(keypoints=3, tokens=6, candidates=3, image_size=64, map_size=16)
    embeddings = torch.randn(6, 768, generator=torch.Generator().manual_seed(0))
    KeypointTokens(embeddings, (0, 1, 2), config=config).save(
        server.base / "models" / "keypoint_tokens" / "small.safetensors"
    )


def latents(server, prompt: dict) -> np.ndarray:
    server.run(prompt)
    return newest_latent(server)


def unguided(prompt: dict) -> dict:
    return {**prompt, "23": {**prompt["23"], "inputs": {**prompt["23"]["inputs"], "model": ["10", 0]}}}


def test_guidance_moves_the_sampling_and_leaves_the_model_as_it_is(server):
    plain = latents(server, unguided(guided()))
    moved = latents(server, guided())
    assert np.isfinite(moved).all()
    assert np.abs(moved - plain).mean() > 0.5  # in units of clean latents; a step alone moves by 0.05 x 14
    np.testing.assert_array_equal(latents(server, unguided(guided())), plain)
    np.testing.assert_array_equal(latents(server, guided(strength=0.0)), plain)


def test_a_backbone_from_a_file_guides_the_same_way(server):
    """The same weights, once as the graph's MODEL and once as the pack's own copy beside it."""
    own = latents(server, guided(backbone={"1": SD15}))
    shared = latents(server, guided())
    assert np.isfinite(own).all()
    assert np.corrcoef(own.ravel(), shared.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(poses=2, batch=3), "2 poses were given for 3 images"),
        (dict(points="wing"), "there is no keypoint 'wing'"),
        (dict(start_percent=0.9), "start must be below end"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(server, changes, words):
    with pytest.raises(NodeError, match=words):
        server.run(guided(**changes))


def test_another_kind_of_model_is_refused(server):
    prompt = guided()
    prompt["11"] = node("CheckpointLoaderSimple", ckpt_name="random_inpainting.safetensors")
    prompt["7"]["inputs"]["model"] = ["11", 0]
    with pytest.raises(NodeError, match="inpainting"):
        server.run(prompt)
