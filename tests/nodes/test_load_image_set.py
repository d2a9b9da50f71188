"""Load Image Set."""

from __future__ import annotations

import fake_comfy
import numpy as np
import torch
from node_data import part
from PIL import Image


def test_load_image_set_gives_the_images_as_they_are(pack, tmp_path, caplog):
    load = part("load_image_set").LoadImageSet
    folder = tmp_path / "input" / "cats"
    folder.mkdir()
    rng = np.random.default_rng(0)
    wanted = {name: rng.integers(0, 256, (20 + i, 30, 3), np.uint8) for i, name in enumerate(("2.png", "10.png"))}
    for name, image in wanted.items():
        Image.fromarray(image).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    images, names = load.execute("cats", 10, "by name")
    assert names == ["2.png", "10.png"]
    for loaded, image in zip(images, wanted.values(), strict=True):
        assert loaded.shape == (1, *image.shape) and loaded.dtype == torch.float32
        np.testing.assert_array_equal((loaded[0] * 255).round().numpy(), image)
    assert "broken.jpg" in caplog.text
    assert load.execute("cats", 1, "by name")[1] == ["2.png"]
    before = load.fingerprint_inputs("cats", 10, "by name")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "3.png")
    assert load.fingerprint_inputs("cats", 10, "by name") != before


def test_built_in_images_need_no_folder_and_follow_the_seed(pack):
    images = part("load_image_set")
    load = images.LoadImageSet
    for name in images.BUILT_IN:
        assert load.validate_inputs(name) is True and len(load.execute(name, 100, "by name")[0]) >= 64
    unseen = "built in: paper dolls, unseen"
    first, other = (load.execute(unseen, 3, order, shuffle_seed=3)[1] for order in ("by name", "shuffled"))
    assert first == load.execute(unseen, 3, "by name")[1] and other == load.execute(unseen, 3, "shuffled", 3)[1]
    assert first != other


def test_large_images_are_made_smaller_as_they_are_read(pack, tmp_path):
    load = part("load_image_set").LoadImageSet
    assert next(i for i in load.define_schema().inputs if i.id == "max_side").options["default"] == 1024
    folder = tmp_path / "input" / "photos"
    folder.mkdir()
    for name, size in (("small.png", (40, 30)), ("wide.jpg", (400, 100)), ("high.jpg", (90, 300))):
        Image.fromarray(np.full((*size[::-1], 3), 100, np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no image")
    images, names = load.execute("photos", 10, "by name", max_side=100)
    shapes = {name: tuple(image.shape) for name, image in zip(names, images, strict=True)}
    assert shapes == {"small.png": (1, 30, 40, 3), "wide.jpg": (1, 25, 100, 3), "high.jpg": (1, 100, 30, 3)}
    text = fake_comfy.page().texts[-1][1]
    assert "3 images" in text and "2 made smaller, to 100 pixels" in text and "skipped broken.jpg: " in text
    assert [tuple(image.shape) for image in load.execute("photos", 10, "by name")[0]][0] == (1, 300, 90, 3)


def test_a_missing_folder_is_told_in_one_sentence(pack):
    """ComfyUI repeats what `validate_inputs` says for each of its arguments, so it takes one."""
    import inspect

    load = part("load_image_set").LoadImageSet
    assert list(inspect.signature(load.validate_inputs).parameters) == ["folder"]
    assert "no folder 'nowhere'" in load.validate_inputs("nowhere")
