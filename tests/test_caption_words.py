"""Learning the small model's caption words alone (tools/train_tiny_sd.py --words-of)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from stablekp_core.backbone.checkpoint import DEMO_FOLDER
from stablekp_core.guidance.words import CaptionWords

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("train_tiny_sd")
    sys.path.remove(str(TOOLS))


def learn(tool, monkeypatch, folder: Path, steps: int) -> CaptionWords:
    given = f"--out {folder} --words-of {DEMO_FOLDER} --steps {steps} --bank 1 --batch 2 --lr 0.05 --threads 0"
    monkeypatch.setattr(sys, "argv", ["train_tiny_sd.py", *given.split()])
    tool.main()
    return CaptionWords.load(folder)


def test_words_are_learned_for_the_frozen_model_and_a_stopped_run_goes_on(tool, monkeypatch, tmp_path):
    before = {path: path.read_bytes() for path in DEMO_FOLDER.rglob("*.safetensors")}
    first = learn(tool, monkeypatch, tmp_path / "a", 0)
    words = learn(tool, monkeypatch, tmp_path / "a", 3)
    assert words.part.shape == first.part.shape and (words.part != first.part).any()
    assert {path: path.read_bytes() for path in DEMO_FOLDER.rglob("*.safetensors")} == before
    again = learn(tool, monkeypatch, tmp_path / "a", 3)  # nothing is left to do
    assert torch.equal(again.part, words.part) and torch.equal(again.color, words.color)


def test_the_shipped_words_fit_the_model_better_than_random_ones(tool):
    """Noise prediction and grounding of one batch of rendered images, the same noise."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(DEMO_FOLDER / "unet", local_files_only=True).float()
    vae = AutoencoderKL.from_pretrained(DEMO_FOLDER / "vae", local_files_only=True).float()
    batch = tool.Batches(vae, 77, 4, 0.5)[0]
    layers, alpha = tool.captured_layers(unet), tool.alphas_cumprod()
    losses = []
    torch.manual_seed(0)
    for shipped in (False, True):
        captions = tool.Captions()
        if shipped:
            words = CaptionWords.load(DEMO_FOLDER)
            captions.load_state_dict({"part": words.part, "color": words.color})
        with torch.no_grad():
            losses.append(tool.caption_losses(unet, layers, captions, batch, alpha, torch.Generator().manual_seed(0)))
    (noise_random, ground_random), (noise_words, ground_words) = losses
    assert ground_words < 0.5 * ground_random and noise_words < noise_random
