"""A solution that is known: the fake model's queries know four parts of an image, and where in the image
they look.

Untrained tokens follow the place, which dominates; training has to find the parts, because only they move
with the view.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import detect
from stablekp_core.images.image_set import ImageSet
from stablekp_core.training.train import train

SIDE, FINE, WIDTH = 64, 32, 8
COLORS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])


class PartsBackbone:
    """Looks like a Backbone. Latents tell how much of each part is at a spot; queries add the place."""

    device, dtype, name, hash, factor, width = torch.device("cpu"), torch.float32, "parts", "planted", 4, WIDTH

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        self.mix = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g))[0]

    input_step = 1

    def input_side(self, image_size=0):
        return SIDE

    def encode(self, images, slice_size=0):
        """[B, 3, 64, 64] -> [B, 4, 16, 16]: how near each spot's colour is to each part's."""
        small = F.avg_pool2d(images, 4)
        brightness = small.amax(1, keepdim=True)
        away = (small[:, None] - brightness[:, None] * COLORS[None, :, :, None, None]).square().sum(2)
        return brightness * torch.exp(-8 * away / brightness.clamp(min=1e-3) ** 2)

    def add_noise(self, latents, noise, timestep):
        return latents + 0.02 * noise

    def queries(self, noisy, timestep, tokens):
        """One layer of two heads at 16 x 16: [B, 2, 256, 8]."""
        along = torch.linspace(-1, 1, 16)
        place = torch.stack([along[:, None].expand(16, 16), along[None].expand(16, 16)]) * 2
        constant = torch.ones(1, 16, 16)
        rest = torch.cat([place, constant])[None].expand(len(noisy), -1, -1, -1)
        known = torch.cat([4 * noisy, rest, torch.zeros_like(rest[:, :1])], 1)  # [B, 8, 16, 16]
        q = torch.einsum("bchw,cd->bhwd", known, self.mix).flatten(1, 2)  # [B, 256, 8]
        return [torch.stack([q, 0.7 * q], 1)]

    def logits(self, found, tokens):
        own = tokens if tokens.ndim == 2 else tokens[:, 0]  # of the only layer
        return [q @ own.T for q in found]

    def features(self, found):
        return [q.sum(1, keepdim=True) for q in found]

    def token_logits(self, noisy, timestep, tokens, gradient="exact"):
        return self.logits(self.queries(noisy, timestep, tokens), tokens)


def make_images(count, seed):
    """Images of four soft dots of the parts' colours at random places well apart; and the places [count, 4,
    2].
    """
    rng, images, spots = np.random.default_rng(seed), [], []
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    while len(images) < count:
        xy = rng.uniform(10, SIDE - 10, (4, 2))
        if min(np.linalg.norm(xy[i] - xy[j]) for i in range(4) for j in range(i)) < 16:
            continue
        image = np.zeros((SIDE, SIDE, 3))
        for (cx, cy), color in zip(xy, COLORS.numpy(), strict=True):
            image += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 4.0**2))[..., None] * color
        images.append((255 * np.clip(image, 0, 1)).astype(np.uint8))
        spots.append(xy)
    return ImageSet.from_arrays(images), np.array(spots)


CONFIG = TrainConfig(
    keypoints=4,
    tokens=24,
    candidates=8,
    steps=300,
    batch_size=4,
    map_size=FINE,
    sigma=2.0,
    learning_rate=0.1,
    selection_images=12,
    stop="fixed",
    check_share=0.0,
)


def distances(found, spots):
    """Mean distance in pixels of each keypoint from each part [K, 4]."""
    return np.linalg.norm(found.xy[:, :, None] - spots[:, None], axis=-1).mean(0)


@pytest.fixture(scope="module")
def trained():
    return train(PartsBackbone(), make_images(24, 0)[0], CONFIG)


def test_training_finds_the_planted_parts(trained):
    images, spots = make_images(12, 1)
    model = PartsBackbone()
    learned = CONFIG.replace(steps=0, refine_images=0)  # chosen by how steady they are themselves
    plain = train(model, make_images(24, 0)[0], learned, start=trained.tokens).tokens
    for tokens, near in ((trained.tokens, 0.3), (plain, 2.0)):
        away = distances(detect(model, tokens, images).keypoints, spots)
        assert sorted(away.argmin(1)) == [0, 1, 2, 3]  # one keypoint for each part
        assert away.min(1).max() < near
    untrained = train(model, make_images(24, 0)[0], CONFIG.replace(steps=0, refine_images=0)).tokens
    away = distances(detect(model, untrained, images).keypoints, spots)
    assert away.min(1).mean() > 6 and (away.min(0) < 2).sum() < 3


def test_peers_are_where_the_refined_tokens_are_found(trained):
    images, _ = make_images(24, 0)
    tokens = train(PartsBackbone(), images, CONFIG.replace(steps=0, selection_images=24), start=trained.tokens).tokens
    tokens = tokens.read("refined")
    found = detect(PartsBackbone(), tokens, images, DetectConfig(read="refined")).keypoints.xy / SIDE
    centred = found - found.mean(1, keepdims=True)
    np.testing.assert_allclose(tokens.spatial_prior.mean, centred.mean(0), atol=0.02)


def test_the_loss_falls(trained):
    total = np.array(trained.losses)[:, 0]
    assert total[-20:].mean() < 0.5 * total[:5].mean()


@pytest.mark.parametrize(("read", "usual"), [("learned", 0.4), ("refined", 0.25)])
def test_confidence_falls_where_a_part_is_missing(trained, read, usual):
    images, spots = make_images(6, 2)
    model = PartsBackbone()
    how = DetectConfig(read=read)
    which = int(distances(detect(model, trained.tokens, images, how).keypoints, spots)[:, 0].argmin())
    without = [np.array(image) for _, image in images]
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for image, (cx, cy) in zip(without, spots[:, 0], strict=True):
        image[(x - cx) ** 2 + (y - cy) ** 2 < 11**2] = 0
    whole, part = (
        detect(model, trained.tokens, s, how).keypoints.confidence for s in (images, ImageSet.from_arrays(without))
    )
    assert whole.mean() > usual  # parts that move independently tell little of each other
    assert part[:, which].mean() < 0.6 * whole[:, which].mean()
    others = [k for k in range(4) if k != which]
    assert part[:, others].mean() > 0.7 * whole[:, others].mean()  # they lose a peer, no more


def test_reference_preset_finds_them_too():
    changes = {k: v for k, v in CONFIG.to_dict().items() if v != TrainConfig().to_dict()[k]}
    config = TrainConfig.preset("reference", **changes)
    assert (config.selection, config.border, config.coverage_mask) == ("votes", "penalized", False)
    result = train(PartsBackbone(), make_images(24, 0)[0], config)
    images, spots = make_images(12, 1)
    found = detect(PartsBackbone(), result.tokens, images, DetectConfig.preset("reference", map_size=64)).keypoints
    away = distances(found, spots)
    assert sorted(away.argmin(1)) == [0, 1, 2, 3] and away.min(1).max() < 2
