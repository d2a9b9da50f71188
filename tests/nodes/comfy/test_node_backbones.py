"""What travels on STABLEKP_BACKBONE, and how ComfyUI's memory management sees it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from node_data import part
from tiny_models import WIDTH, make_unet, make_vae


class Dynamic:
    """A patcher that brings weights layer by layer, in ComfyUI 0.26 and newer."""

    def __init__(self):
        self.whole = SimpleNamespace(is_dynamic=lambda: False)

    def is_dynamic(self):
        return True

    def get_non_dynamic_delegate(self):
        return self.whole

    def clone(self, disable_dynamic=False):
        pytest.fail("a second model would be read at every run")


def test_dynamic_models_use_the_copy_that_comfyui_keeps_for_all(pack):
    backbones, model, vae = part("comfy.backbones"), Dynamic(), Dynamic()
    handles = [backbones.GraphBackbone(model, SimpleNamespace(patcher=vae), "MODEL") for _ in range(2)]
    assert all(h._model is model.whole and h._vae_patcher is vae.whole for h in handles)
    plain = SimpleNamespace(is_dynamic=lambda: False)
    assert backbones._without_dynamic_loading(plain) is plain


def loaded_file():
    return SimpleNamespace(unet=make_unet(), vae=make_vae(), name="tiny", hash="", dtype=torch.float32)


def test_a_model_from_a_file_is_loaded_by_comfyui_and_can_be_trained_through_wherever_it_was_moved(pack, monkeypatch):
    handle, asked = part("comfy.backbones").FileBackbone(loaded_file()), []
    monkeypatch.setattr(
        sys.modules["comfy.model_management"],
        "load_models_gpu",
        lambda patchers, memory_required, force_full_load: asked.append((patchers, memory_required, force_full_load)),
    )
    for _ in range(2):
        with torch.inference_mode():  # as when another node needs the memory, and gives it back
            handle._patcher.model.to(torch.float64).to(torch.float32)
        with handle.open(batch_size=3) as model:
            tokens = torch.zeros(4, WIDTH, requires_grad=True)
            sum(q.sum() for q in model.queries(torch.zeros(1, 4, 8, 8), 0, tokens)).backward()
        assert tokens.grad is not None
    assert [patchers[0].model.unet is model.unet for patchers, _, _ in asked] == [True, True]
    assert asked[0][1:] == (3 * part("comfy.backbones").WORK_BYTES, True)
