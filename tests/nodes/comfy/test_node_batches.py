"""IMAGE and MASK tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from node_data import part

from stablekp_core.errors import KeypointError


def test_batches_and_lists_become_single_images(pack):
    single = part("comfy.batches").single_images
    batch, other = torch.rand(2, 20, 30, 3), torch.rand(1, 40, 20, 4)
    assert [tuple(p.shape) for p in single([batch, other], "x")] == [(20, 30, 3), (20, 30, 3), (40, 20, 4)]
    assert len(single(batch, "x")) == 2


@pytest.mark.parametrize(
    "wrong, words",
    [
        (torch.rand(2, 20, 30), "mask"),
        (torch.rand(2, 4, 20, 30), "mask"),
        ([], "no images"),
        ([None], "no images"),
        ({"samples": torch.rand(1, 4, 8, 8)}, "latent"),
        ("text", "str"),
        (torch.rand(0, 20, 30, 3), "no images"),
    ],
)
def test_what_is_no_image_gets_a_sentence(pack, wrong, words):
    with pytest.raises(KeypointError, match=words):
        part("comfy.batches").single_images(wrong, "Somewhere")


def test_images_of_one_size_are_one_batch_and_others_a_list(pack):
    batches = part("comfy.batches")
    black, white = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)
    (one,) = batches.image_batches([black, white])
    assert one.shape == (2, 4, 5, 3) and one[0].max() == 0 and one[1].min() == 1
    assert [t.shape[0] for t in batches.image_batches([black, np.zeros((6, 5, 3), np.uint8)])] == [1, 1]


def test_images_and_masks_come_in_the_number_format_of_comfyui(pack, monkeypatch):
    batches, array = part("comfy.batches"), np.full((4, 5, 3), 51, np.uint8)
    assert batches.image_batches([array])[0].dtype == torch.float32  # versions that know no other
    monkeypatch.setattr(batches.model_management, "intermediate_dtype", lambda: torch.float16, raising=False)
    (image,), (mask,) = batches.image_batches([array]), batches.mask_batches([np.ones((1, 4, 5), np.float32)])
    assert image.dtype == mask.dtype == torch.float16 and float(image.max()) == pytest.approx(0.2, abs=1e-3)
