import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SIDE, WIDTH

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import Detector, detect
from stablekp_core.errors import KeypointError
from stablekp_core.images.affine import identity_affine, random_affine
from stablekp_core.images.image_set import ImageSet, load_folder
from stablekp_core.images.latent_cache import LatentSource
from stablekp_core.images.masks import folder_masks
from stablekp_core.images.preprocessing import input_mask, input_transform
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.training.step import training_step
from stablekp_core.training.train import train

CONFIG = TrainConfig(
    keypoints=3, tokens=12, candidates=5, steps=2, batch_size=2, map_size=16, selection_images=3, selection_views=2
)


def left_half(name=""):
    """The left half counts."""
    mask = np.zeros((20, 40), bool)
    mask[:, :20] = True
    return mask


def left_of_image(name=""):
    """The same on the images of the tests, 24 x 20."""
    return left_half()[:, 8:32]


def test_a_mask_covers_the_image_and_bars_never_count():
    whole = input_mask(input_transform(40, 20, 16, "squash"), 16)
    assert whole.shape == (1, 16, 16) and whole.min() == 1
    padded = input_mask(input_transform(40, 20, 16, "pad"), 16)[0]
    assert padded[4:12].min() == 1 and padded[:4].max() == 0 and padded[12:].max() == 0
    for mask in (left_half(), left_half().astype(np.float64), left_half().astype(np.uint8) * 255):
        square = input_mask(input_transform(40, 20, 16, "pad"), 16, mask)[0]
        assert square[4:12, :8].min() == 1 and square.sum() == 64
    grey = input_mask(input_transform(8, 8, 16, "squash"), 16, np.full((8, 8), 51, np.uint8))
    np.testing.assert_allclose(grey, 0.2, atol=1e-6)
    with pytest.raises(KeypointError, match=r"\[20, 40, 3\].*\[height, width\]"):
        input_mask(input_transform(40, 20, 16), 16, np.zeros((20, 40, 3)))


def test_masks_are_found_by_the_images_name(tmp_path):
    Image.fromarray(left_half().astype(np.uint8) * 255).save(tmp_path / "bird.png")
    masks = folder_masks(tmp_path)
    assert np.array_equal(masks("bird.jpg") > 127, left_half())
    with pytest.raises(KeypointError, match="no mask for cat.jpg; add cat.png"):
        masks("cat.jpg")
    with pytest.raises(KeypointError, match="no mask for cat.jpg"):  # before anything is learned
        folder_masks(tmp_path, ["bird.jpg", "cat.jpg"])
    Image.fromarray(left_half().astype(np.uint8) * 255).save(tmp_path / "bird.bmp")
    with pytest.raises(KeypointError, match="two masks named bird"):
        folder_masks(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(KeypointError, match="no masks"):
        folder_masks(tmp_path / "none")


def test_masks_of_copies_are_scaled_and_others_refused():
    transform = input_transform(40, 20, 16, "squash")
    assert torch.equal(
        input_mask(transform, 16, left_half().repeat(4, 0).repeat(4, 1)), input_mask(transform, 16, left_half())
    )
    with pytest.raises(
        KeypointError, match="masks are for 20x40 pixels, but the image is 40x20; width and height are exch"
    ):
        input_mask(transform, 16, left_half().T)
    with pytest.raises(KeypointError, match="cropped or padded"):
        input_mask(transform, 16, left_half()[:, :20])


@pytest.mark.parametrize("kind", ["grey", "opacity", "white cut-out", "0 and 1", "palette", "grey palette", "16 bit"])
def test_every_way_of_writing_a_mask(tmp_path, kind):
    """A cut-out on transparency was laid over white, and counted everywhere."""
    inside = left_half()
    grey = inside.astype(np.uint8) * 255
    if kind == "opacity":
        image = Image.fromarray(np.dstack([np.full_like(grey, 90)] * 3 + [grey]))
    elif kind == "white cut-out":
        image = Image.fromarray(np.dstack([grey] * 4))
    elif kind == "0 and 1":
        image = Image.fromarray(inside.astype(np.uint8))
    elif kind.endswith("palette"):
        image = Image.fromarray(inside.astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 255, 255, 255] if kind == "grey palette" else [0, 0, 0, 128, 0, 0])
    else:
        image = Image.fromarray(grey if kind == "grey" else grey.astype(np.uint16) * 257)
    image.save(tmp_path / "bird.png")
    found = folder_masks(tmp_path, ["bird.jpg"])("bird.jpg")
    assert found.dtype == np.uint8 and np.array_equal(found, grey)


def test_masks_go_by_path(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((20, 20), 255 * (folder == "a"), np.uint8)).save(tmp_path / folder / "1.png")
    masks = folder_masks(tmp_path, ["a/1.jpg", "b/1.jpg"])
    assert masks("a/1.jpg").min() == 255 and masks("b/1.jpg").max() == 0
    with pytest.raises(KeypointError, match="1.jpg of the images may be a/1.png or b/1.png"):
        folder_masks(tmp_path, ["1.jpg"])


def test_masks_are_seen_through_the_views(backbone, image_folder):
    images = load_folder(image_folder)
    assert LatentSource(backbone, images).area([0], identity_affine(1), 16) is None
    source = LatentSource(backbone, images, masks=left_of_image)
    still = source.area([0, 1], identity_affine(2), 16)
    assert still.shape == (2, 1, 16, 16)
    assert still[..., :8].min() > 0.999 and still[..., 8:].max() < 0.001
    turned = identity_affine(1)
    turned[0, 0, 2] = 0.5  # the view looks a quarter of the side further right
    seen = source.area([0], turned, 16)[0, 0]
    assert seen[:, :4].min() > 0.999 and seen[:, 4:].max() < 0.01
    padded = LatentSource(backbone, ImageSet.from_arrays([np.zeros((20, 40, 3), np.uint8)]), resize="pad")
    assert padded.area([0], identity_affine(1), SIDE).mean() == pytest.approx(0.5, abs=0.05)


def test_attention_outside_the_mask_has_no_part_in_the_losses(backbone):
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(12, WIDTH, generator=g).requires_grad_()
    latents, view = torch.randn(2, 2, 4, 8, 8, generator=g)
    theta = random_affine(2, 15, (0.8, 1.0), 0.25, g)
    inputs = backbone, CONFIG, tokens, latents, view, theta, torch.randn(4, 4, 8, 8, generator=g)
    plain, ones = training_step(*inputs), training_step(*inputs, torch.ones(4, 1, 16, 16))
    assert torch.equal(plain.total, ones.total)
    half = torch.zeros(4, 1, 16, 16)
    half[..., :8] = 1
    out = training_step(*inputs, half)
    assert torch.equal(out.maps, plain.maps * half[:2]) and torch.equal(out.view_maps, plain.view_maps * half[2:])
    # With nothing left to attend to, only the Gaussian itself is missed, and no token is to blame.
    nothing = training_step(*inputs, torch.zeros(4, 1, 16, 16))
    (gradient,) = torch.autograd.grad(nothing.total.sum(), tokens)
    assert gradient.abs().max() == 0 and nothing.equivariance.max() == 0


def test_keypoints_stay_inside_the_mask(backbone, image_folder):
    images = load_folder(image_folder)
    tokens = train(backbone, images, CONFIG, masks=left_of_image).tokens
    free = train(backbone, images, CONFIG).tokens
    assert not torch.equal(tokens.embeddings, free.embeddings)
    config = DetectConfig(views=2, readout="argmax")
    names = []
    found = detect(backbone, tokens, images, config, masks=lambda name: names.append(name) or left_of_image()).keypoints
    assert names == list(images.names)
    width = found.sizes[:, None, 0]
    assert (found.xy[..., 0] <= width / 2).all()
    anywhere = detect(backbone, tokens, images, config).keypoints
    absent = {images.names[0]: np.zeros((20, 24), bool)}
    found = detect(backbone, tokens, images, config, masks=lambda name: absent.get(name, left_of_image())).keypoints
    assert (found.confidence[0] == 0).all() and (found.confidence[1:] > 0).any()
    assert (anywhere.xy[..., 0] > width / 2).any()


def test_keypoints_of_a_padded_image_are_not_in_its_bars(backbone: Backbone):
    tokens = KeypointTokens(
        torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(0)),
        tuple(range(12)),
        config=CONFIG.replace(resize="pad", keypoints=12, candidates=12).to_dict(),
        model_hash="0123abcd",
    )
    images = [("wide", np.random.default_rng(0).integers(0, 256, (16, 64, 3), dtype=np.uint8))]
    found = detect(backbone, tokens, images, DetectConfig(views=2, readout="argmax")).keypoints
    assert (found.xy[..., 1] >= 0).all() and (found.xy[..., 1] <= 16).all()
    detector = Detector(backbone, tokens, DetectConfig(views=2, readout="argmax"))
    square, _ = detector.model_input(images[0][1])
    xy, _, _ = detector.unit_points(*detector.maps(square[None])[:2])
    assert (abs(xy[..., 1] - 0.5) > 0.125).any()  # without the mask some would be
