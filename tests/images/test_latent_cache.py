import numpy as np
import pytest
import torch
from tiny_models import SIDE

from stablekp_core.images import latent_cache as module
from stablekp_core.images.affine import identity_affine, random_affine, warp
from stablekp_core.images.files import BrokenImage
from stablekp_core.images.image_set import ImageSet, load_files, load_folder
from stablekp_core.images.latent_cache import LatentSource
from stablekp_core.images.preprocessing import to_model_input


@pytest.fixture
def encoded(backbone, monkeypatch):
    """How many images were encoded so far."""
    count = []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda x, *a: (count.append(len(x)), encode(x, *a))[1])
    return count


def views(count, seed=0):
    return random_affine(count, 15, (0.8, 1.0), 0.25, torch.Generator().manual_seed(seed))


def test_latents_are_those_of_the_model_inputs(backbone, image_folder):
    images = load_folder(image_folder)
    source = LatentSource(backbone, images, resize="pad")
    squares = torch.stack([to_model_input(images[i], SIDE, "pad")[0] for i in (4, 1)])
    np.testing.assert_allclose(source.batch([4, 1]), squares, atol=0.5 / 255)
    np.testing.assert_allclose(source.latents([4, 1]), backbone.encode(source.batch([4, 1])), atol=1e-6)
    theta = views(2)
    expected = backbone.encode(warp(source.batch([4, 1]), theta))
    np.testing.assert_allclose(source.view_latents([4, 1], theta), expected, atol=1e-6)
    np.testing.assert_allclose(source.view_latents([4, 1], theta, [0, 3]), expected, atol=1e-6)
    assert LatentSource(backbone, images, 24).batch([0]).shape == (1, 3, 24, 24)
    squashed = LatentSource(backbone, images).batch([4])
    assert (squashed - squares[:1]).abs().max() > 0.02


def test_whole_images_and_pooled_views_are_encoded_once(backbone, image_folder, encoded):
    source = LatentSource(backbone, load_folder(image_folder))
    first = source.latents([0, 2, 0])
    assert sum(encoded) == 2 and torch.equal(first[0], first[2])
    assert torch.equal(source.latents([2, 0, 1])[:2], first[[1, 0]]) and sum(encoded) == 3
    a = source.view_latents([0, 2], views(2), [0, 1])
    b = source.view_latents([2, 0, 0], views(3, seed=9), [1, 0, 1])  # (0, 1) is new, the others keep their views
    assert torch.equal(b[:2], a[[1, 0]]) and sum(encoded) == 6
    alone = LatentSource(backbone, source.images).view_latents([0], views(3, seed=9)[2:], [1])
    assert torch.equal(b[2:], alone)
    encoded.pop()
    source.view_latents([0, 2], views(2))
    source.view_latents([0, 2], views(2))
    assert sum(encoded) == 10  # fresh views are not kept


def test_a_latent_does_not_depend_on_what_is_encoded_with_it(backbone, image_folder):
    """Else a resumed run, whose cache is empty, would round differently."""
    images = load_folder(image_folder)
    together = LatentSource(backbone, images).latents([0, 1, 2, 3, 4, 5])
    one_by_one = LatentSource(backbone, images)
    assert torch.equal(together, torch.cat([one_by_one.latents([i]) for i in range(6)]))
    turned = LatentSource(backbone, images).view_latents([0, 1, 2], views(3), [0, 0, 0])
    assert torch.equal(turned[2:], LatentSource(backbone, images).view_latents([2], views(3)[2:], [0]))


def test_memory_is_bounded(backbone, image_folder, encoded, monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 2 * 4 * 8 * 8 * 4 + 100)  # two latents, two squares of 768 bytes
    source = LatentSource(backbone, load_folder(image_folder))
    expected = [source.latents([i]) for i in range(6)]
    for cache in (source._inputs, source._latents):
        assert len(cache.items) == 2 and cache.size == sum(x.nbytes for x in cache.items.values())
    for _ in range(5):
        source.latents([5, 5, 4])
    assert sum(encoded) == 6  # the two most recent ones are still there
    assert source._latents.size == sum(x.nbytes for x in source._latents.items.values()) == 2 * 1024
    assert torch.equal(source.latents([0])[0], expected[0][0]) and sum(encoded) == 7
    for index, count in ((4, 7), (1, 8), (4, 8), (0, 9)):  # asking for 4 again kept it, 0 had to go
        source.latents([index])
        assert sum(encoded) == count


def test_broken_images_are_replaced_by_the_next_and_named_once(backbone, image_folder, monkeypatch):
    for name in ("image2.png", "image5.png"):
        file = image_folder / name
        file.write_bytes(file.read_bytes()[:-60])  # the header is fine
    told = []
    images = load_folder(image_folder, on_skip=lambda name, reason: told.append(name))
    source = LatentSource(backbone, images)
    assert [source.usable(i) for i in range(6)] == [0, 1, 3, 3, 4, 0]
    with monkeypatch.context() as patch:
        patch.setattr(ImageSet, "__getitem__", None)  # nothing is read again
        assert [source.usable(i) for i in range(6)] == [0, 1, 3, 3, 4, 0]
    again = LatentSource(backbone, images)
    assert again.usable(2) == 3
    assert told == ["image2.png", "image5.png"] == [name for name, _ in images.skipped]


def test_no_readable_image_is_an_error(backbone, tmp_path, image_folder):
    file = image_folder / "image0.png"
    file.write_bytes(file.read_bytes()[:-60])
    source = LatentSource(backbone, load_files([file]))
    with pytest.raises(BrokenImage, match="no image of the set can be read"):
        source.usable(0)


def test_images_in_memory(backbone):
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[:, 15:] = 255
    source = LatentSource(backbone, ImageSet.from_arrays([image]))
    model_input = source.model_input(0)
    assert model_input.dtype == torch.uint8 and model_input.shape == (3, SIDE, SIDE)
    assert (model_input[:, :, :5] == 0).all() and (model_input[:, :, 11:] == 255).all()
    assert source.latents([0]).shape == (1, 4, 8, 8)
    np.testing.assert_allclose(source.view_latents([0], identity_affine(1)), source.latents([0]), atol=1e-6)


def test_some_of_the_images_are_a_source_of_their_own(backbone, image_folder):
    """What the whole source keeps under an index is not what the picked one means by it."""
    source = LatentSource(backbone, load_folder(image_folder))
    whole = [source.model_input(i) for i in range(3)]
    some = source.pick([2, 0])
    assert torch.equal(some.model_input(0), whole[2]) and torch.equal(some.model_input(1), whole[0])
    assert torch.equal(source.model_input(0), whole[0])
