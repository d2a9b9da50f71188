"""A tiny random Stable Diffusion of the diffusers classes, and small folders of images, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stablekp_core.config import TrainConfig

WIDTH = 16  # of a token of the tiny model
SIDE = 16  # pixels of the square the tiny model sees
#: A training run of a second.
CONFIG = TrainConfig(
    keypoints=3,
    tokens=12,
    candidates=5,
    steps=6,
    batch_size=2,
    map_size=16,
    learning_rate=0.02,
    resize="squash",  # what "auto" comes to for images of this shape
    selection_images=3,
    selection_views=2,
    check_share=0.0,  # nothing is left out: the self-check looks at images seen
)


def make_unet(seed: int = 0):
    """A UNet with the four captured cross-attentions (three at 4 x 4, one at 8 x 8) in 0.2 M parameters.

    Queries and keys of the cross-attentions are enlarged, so that attention is far from uniform.
    """
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=2,
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                parameter.mul_(3)
    return unet.eval()


def make_vae(seed: int = 0):
    """A VAE that halves the side."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=8,
        layers_per_block=1,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()


def write_images(folder, count: int, size: tuple[int, int] = (24, 20), seed: int = 0) -> None:
    """`count` smooth random PNG images of `size` (width, height)."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"image{i}.png")


def write_text_encoder(folder: Path, width: int) -> None:
    """A random CLIP text encoder of this width and a tokenizer of single letters, as diffusers keeps them."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16).save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
