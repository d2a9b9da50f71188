"""Image reading, sets of images, and the model's square."""

import itertools
import os

import numpy as np
import pytest
import torch
from PIL import Image

from stablekp_core.errors import KeypointError
from stablekp_core.images.files import BrokenImage, fingerprint, list_images, load_image
from stablekp_core.images.image_set import ImageSet, load_files, load_folder
from stablekp_core.images.preprocessing import fitting_input, input_transform, to_model_input


def make_image(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for i in (10, 2, 1):
        save(tmp_path / f"frame{i}.png", make_image(seed=i))
    return tmp_path


# Reading


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", make_image(), **options)
    assert np.array_equal(load_image(path), make_image())


def test_jpeg_is_close(tmp_path):
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 48, 0).repeat(3, 2)
    loaded = load_image(save(tmp_path / "a.JPG", smooth, format="JPEG", quality=95))
    assert loaded.dtype == np.uint8 and np.abs(loaded.astype(int) - smooth).max() <= 4


# What a viewer shows for stored pixels `s` under each EXIF orientation, written out by hand.
ORIENTED = {
    1: lambda s: s,
    2: lambda s: s[:, ::-1],
    3: lambda s: s[::-1, ::-1],
    4: lambda s: s[::-1],
    5: lambda s: s.transpose(1, 0, 2),
    6: lambda s: s.transpose(1, 0, 2)[:, ::-1],
    7: lambda s: s.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda s: s.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", make_image(), exif=exif)
    assert np.array_equal(load_image(path), ORIENTED[orientation](make_image()))


def over_white(rgb, alpha):
    return rgb * (alpha / 255.0) + 255.0 * (1 - alpha / 255.0)


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.dstack([make_image(), make_image(seed=1)[:, :, 0]])
    loaded = load_image(save(tmp_path / "rgba.png", rgba))
    assert np.abs(loaded - over_white(rgba[:, :, :3], rgba[:, :, 3:].astype(float))).max() <= 1

    grey_alpha = rgba[:, :, [0, 3]]
    Image.fromarray(grey_alpha, "LA").save(tmp_path / "la.png")
    loaded = load_image(tmp_path / "la.png")
    assert np.abs(loaded - over_white(grey_alpha[:, :, :1].repeat(3, 2), rgba[:, :, 3:].astype(float))).max() <= 1


def test_palette_with_and_without_transparency(tmp_path):
    indices = np.zeros((20, 30), dtype=np.uint8)
    indices[:, 10:20], indices[:, 20:] = 1, 2
    image = Image.fromarray(indices, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "p.png")
    image.save(tmp_path / "t.png", transparency=1)
    assert load_image(tmp_path / "p.png")[0, [0, 15, 25]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert load_image(tmp_path / "t.png")[0, [0, 15, 25]].tolist() == [
        [255, 0, 0],
        [255, 255, 255],
        [0, 0, 255],
    ]


def test_grey_becomes_rgb(tmp_path):
    grey = make_image()[:, :, 0]
    assert np.array_equal(load_image(save(tmp_path / "l.png", grey)), grey[:, :, None].repeat(3, 2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    deep = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
    loaded = load_image(save(tmp_path / f"deep.{suffix}", deep))
    expected = np.rint(deep / 257.0)
    assert loaded.shape == (20, 30, 3) and np.array_equal(loaded[:, :, 1], expected)
    assert loaded.max() == 255 and len(np.unique(loaded)) == 256


def test_float_tiff(tmp_path):
    unit = np.linspace(0, 1, 20 * 30, dtype=np.float32).reshape(20, 30)
    loaded = load_image(save(tmp_path / "f.tif", unit))
    assert np.array_equal(loaded[:, :, 0], np.rint(unit.astype(np.float64) * 255))


def test_loaded_pixels_are_writable(tmp_path):
    loaded = load_image(save(tmp_path / "a.png", make_image()))
    loaded[0, 0] = 7
    assert loaded[0, 0, 0] == 7


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n garbage"])
def test_broken_file_is_named(tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(KeypointError, match="bad.png"):
        load_image(path)


def test_missing_and_small_files_are_named(tmp_path):
    with pytest.raises(KeypointError, match="gone.png.*no such file"):
        load_image(tmp_path / "gone.png")
    save(tmp_path / "thin.png", make_image(15, 60))
    with pytest.raises(KeypointError, match=r"thin.png is 60x15.*16"):
        load_image(tmp_path / "thin.png")
    assert load_image(save(tmp_path / "ok.png", make_image(16, 16))).shape == (16, 16, 3)


# Folders


def test_list_images_is_natural_order_and_only_images(folder):
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "sub.png").mkdir()
    assert [p.name for p in list_images(folder)] == ["frame1.png", "frame2.png", "frame10.png"]


def test_natural_order_does_not_compare_text_with_numbers(tmp_path):
    for name in ("1a.png", "a1.png", "01a.png", "b.png", "A2.png"):
        save(tmp_path / name, make_image())
    assert [p.name for p in list_images(tmp_path)] == ["01a.png", "1a.png", "a1.png", "A2.png", "b.png"]


def test_folder_set_reads_in_order_with_names(folder):
    images = load_folder(folder)
    assert len(images) == 3 and images.names == ("frame1.png", "frame2.png", "frame10.png")
    for (name, array), seed in zip(images, (1, 2, 10), strict=True):
        assert name == f"frame{seed}.png" and np.array_equal(array, make_image(seed=seed))
    assert np.array_equal(images[2], make_image(seed=10))


def test_limit_and_seed(tmp_path):
    for i in range(12):
        save(tmp_path / f"{i}.png", make_image(16, 16, i))
    assert load_folder(tmp_path, limit=4).names == ("0.png", "1.png", "2.png", "3.png")
    shuffled = load_folder(tmp_path, limit=6, seed=3).names
    assert shuffled == load_folder(tmp_path, limit=6, seed=3).names
    assert shuffled != load_folder(tmp_path, limit=6, seed=4).names
    assert len(set(shuffled)) == 6
    with pytest.raises(KeypointError, match="limit is 0"):
        load_folder(tmp_path, limit=0)


def test_stray_and_broken_files_are_skipped_and_named(folder):
    (folder / "notes.txt").write_text("x")
    (folder / "broken.png").write_bytes(b"nothing")
    seen = []
    images = load_folder(folder, on_skip=lambda name, reason: seen.append((name, reason)))
    assert [name for name, _ in images.skipped] == ["notes.txt", "broken.png"] and seen == images.skipped
    assert [name for name, _ in images] == ["frame1.png", "frame2.png", "frame10.png"]


def test_truncated_file_is_skipped_when_decoded_and_only_once(folder):
    whole = (folder / "frame2.png").read_bytes()
    (folder / "frame2.png").write_bytes(whole[: len(whole) // 2])
    seen = []
    images = load_folder(folder, on_skip=lambda name, reason: seen.append(name))
    assert len(images) == 3 and not images.skipped  # the header is whole
    for _ in range(2):
        assert [name for name, _ in images] == ["frame1.png", "frame10.png"]
    assert seen == ["frame2.png"] and images.skipped[0][0] == "frame2.png"
    with pytest.raises(BrokenImage, match="frame2.png"):
        images[1]


def test_too_few_images(folder):
    with pytest.raises(KeypointError, match="3 readable images.*at least 4"):
        load_folder(folder, minimum=4)
    (folder / "frame2.png").write_bytes((folder / "frame2.png").read_bytes()[:200])
    images = load_folder(folder, minimum=3)
    with pytest.raises(KeypointError, match="2 readable images.*frame2.png.*at least 3"):
        list(images)


def test_empty_missing_and_small_folders(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeypointError, match="has no images"):
        load_folder(tmp_path / "empty")
    with pytest.raises(KeypointError, match="does not exist"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(KeypointError, match="is a file"):
        list_images(folder / "frame1.png")
    save(folder / "tiny.png", make_image(8, 8))
    with pytest.raises(KeypointError, match="tiny.png is 8x8"):
        load_folder(folder)


def test_opening_decodes_nothing(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(Image.Image, "convert", refuse)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert len(load_folder(folder)) == 3


def test_iteration_keeps_no_image(folder):
    import gc
    import weakref

    images = load_folder(folder)
    kept = []
    for _, array in images:
        kept.append(weakref.ref(array))
    del array
    gc.collect()
    assert [ref() for ref in kept] == [None, None, None]


def test_load_files_keeps_the_given_order(folder):
    paths = [folder / "frame10.png", folder / "gone.png", folder / "frame1.png"]
    images = load_files(paths)
    assert images.names == ("frame10.png", "frame1.png") and images.skipped == [("gone.png", "no such file")]


def test_fingerprint_follows_contents(folder):
    before = fingerprint(folder)
    assert before == fingerprint(folder)
    (folder / "labels.json").write_text("{}")
    assert before == fingerprint(folder)
    os.utime(folder / "frame1.png", ns=(1, 1))
    touched = fingerprint(folder)
    (folder / "frame1.png").rename(folder / "frame3.png")
    assert len({before, touched, fingerprint(folder)}) == 3


# Arrays


def test_from_arrays_takes_batches_lists_and_alpha():
    batch = torch.rand(2, 20, 30, 3, generator=torch.Generator().manual_seed(0))
    images = ImageSet.from_arrays(batch)
    assert images.names == ("image_00000", "image_00001")
    for (_, array), tensor in zip(images, batch, strict=True):
        assert np.array_equal(array, np.rint(tensor.numpy() * 255))
    rgba = np.dstack([make_image(), np.full((40, 60), 0, np.uint8)])
    mixed = ImageSet.from_arrays([make_image(), rgba, make_image()[:, :, :1]], ["a", "b", "c"])
    arrays = dict(mixed)
    assert np.array_equal(arrays["a"], make_image()) and (arrays["b"] == 255).all()
    assert np.array_equal(arrays["c"], make_image()[:, :, :1].repeat(3, 2))
    assert len(ImageSet.from_arrays(batch[0])) == 1


@pytest.mark.parametrize(("dtype", "word"), [(np.float32, "values from 254 to 254"), (np.int64, "int64")])
def test_from_arrays_refuses_what_would_be_white(dtype, word):
    with pytest.raises(KeypointError, match=word):
        ImageSet.from_arrays([np.full((16, 16, 3), 254, dtype)])[0]


def test_from_arrays_clips_and_survives_nan():
    wild = np.full((16, 16, 3), np.nan, dtype=np.float32)
    wild[0, 0], wild[0, 1] = 1.2, -0.2
    array = ImageSet.from_arrays([wild])[0]
    assert array[0, 0].tolist() == [255] * 3 and array[0, 1].tolist() == [0] * 3 and array[5, 5].tolist() == [0] * 3


@pytest.mark.parametrize("bad", [np.zeros((3, 20, 30), np.float32), np.zeros((20, 30), np.float32), "text", None])
def test_from_arrays_refuses_masks_and_latents(bad):
    with pytest.raises(KeypointError, match=r"image 0 has shape.*mask"):
        ImageSet.from_arrays([bad])


def test_from_arrays_refuses_small_none_and_wrong_names():
    with pytest.raises(KeypointError, match="16"):
        ImageSet.from_arrays([np.zeros((15, 30, 3), np.uint8)])
    with pytest.raises(KeypointError, match="0 readable images"):
        ImageSet.from_arrays([])
    with pytest.raises(KeypointError, match="2 names"):
        ImageSet.from_arrays([make_image()], ["a", "b"])


# The model's square


@pytest.mark.parametrize(
    ("mode", "shape", "size"),
    list(itertools.product(["squash", "pad"], [(40, 60), (61, 33), (50, 50), (16, 900)], [32, 65])),
)
def test_square_map_is_its_own_inverse_and_lands_inside(mode, shape, size):
    height, width = shape
    tensor, mapping = to_model_input(make_image(height, width), size, mode)
    assert tensor.shape == (3, size, size) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert mapping == input_transform(width, height, size, mode)
    points = np.random.default_rng(0).uniform(-5, 905, (7, 4, 2))
    assert np.allclose(mapping.to_original(mapping.to_unit(points)), points, rtol=0, atol=1e-9)
    corners = mapping.to_unit([[0, 0], [width, height]])
    assert (corners >= 0).all() and (corners <= 1).all()
    if mode == "squash":
        assert np.allclose(corners, [[0, 0], [1, 1]])


@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (131, 57)])
def test_points_follow_the_pixels(mode, shape):
    """A bright blob drawn at a known pixel is found where to_unit says it is."""
    height, width = shape
    x, y = 0.3 * width, 0.7 * height
    rows, cols = np.mgrid[:height, :width] + 0.5
    blob = np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * 5.0**2))
    image = np.rint(255 * blob)[:, :, None].repeat(3, 2).astype(np.uint8)
    tensor, mapping = to_model_input(image, 96, mode)
    weight = tensor[0].numpy().astype(np.float64)
    grid = (np.arange(96) + 0.5) / 96
    centre = np.array([(weight.sum(0) * grid).sum(), (weight.sum(1) * grid).sum()]) / weight.sum()
    assert np.abs(mapping.to_unit([x, y]) - centre).max() < 0.5 / 96
    assert np.abs(mapping.to_original(centre) - [x, y]).max() < 1.0


def test_resize_is_antialiased():
    checker = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, 2)
    tensor, _ = to_model_input(checker, 32)
    assert (tensor - 0.5).abs().max() < 0.05


def test_pad_fills_with_the_mean_of_the_touching_edges():
    image = np.full((20, 40, 3), 200, np.uint8)
    image[0], image[-1] = (10, 20, 30), (30, 40, 50)
    tensor, mapping = to_model_input(image, 40, "pad")
    assert (tensor[:, 0, 0] * 255).round().tolist() == [20, 30, 40]
    assert (tensor[:, -1, -1] * 255).round().tolist() == [20, 30, 40]
    assert (mapping.left, mapping.top, mapping.span_x, mapping.span_y) == (0, 0.25, 1, 0.5)
    assert tensor[0, 20, 20] * 255 == 200
    upright = input_transform(20, 40, 40, "pad")
    assert (upright.left, upright.top, upright.span_x, upright.span_y) == (0.25, 0, 0.5, 1)


def test_to_square_refuses_other_modes_and_arrays():
    with pytest.raises(KeypointError, match="squash, pad"):
        to_model_input(make_image(), 32, "crop")
    with pytest.raises(KeypointError, match="uint8"):
        to_model_input(make_image().astype(np.float32), 32)


@pytest.mark.parametrize(
    "sizes, expected",
    [
        ([(512, 512)], ("squash", 512)),
        ([(640, 480), (400, 600), (600, 400)], ("squash", 512)),  # 4:3 and 3:2, as most photographs
        ([(1920, 1080)] * 3 + [(400, 400)], ("pad", 704)),
        ([(400, 800)], ("pad", 768)),
        ([(400, 4000)], ("pad", 768)),  # it never grows by more than half
        ([(400, 400), (400, 410), (400, 4000)], ("squash", 512)),  # the median decides
        ([], ("squash", 512)),
    ],
)
def test_the_model_input_suits_the_shape_of_most_images(sizes, expected):
    assert fitting_input(sizes, 512, 64) == expected


def test_sizes_are_those_of_readable_images(tmp_path):
    for i, size in enumerate([(40, 20), (20, 60), (30, 30)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    images = load_folder(tmp_path)
    (tmp_path / "1.png").write_bytes(b"no image")
    assert images.sizes(10) == [(40, 20), (30, 30)] and images.sizes(1) == [(40, 20)]
    assert ImageSet.from_arrays([np.zeros((20, 40, 3), np.uint8)]).sizes(5) == [(40, 20)]
