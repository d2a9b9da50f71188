"""Edit Keypoints without ComfyUI: what the page is given, and what its edits do."""

from __future__ import annotations

import importlib.resources
import json

import numpy as np
import pytest
import torch
from PIL import Image

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints

NAMES = ("nose", "tail", "paw")


def points(count=2, sizes=(64, 48), **more):
    rng = np.random.default_rng(3)
    values = dict(confidence=rng.uniform(0.1, 1, (count, 3)), sizes=np.tile(sizes, (count, 1)), names=NAMES)
    return Keypoints(rng.uniform(0, 40, (count, 3, 2)), **{**values, **more})


def images(count=2, size=(64, 48)):
    """Smooth images, so that JPEG keeps them; each another one."""
    x, y = torch.meshgrid(torch.linspace(0, 1, size[0]), torch.linspace(0, 1, size[1]), indexing="xy")
    return torch.stack([torch.stack([x, y, (x + i) / (i + 1)], dim=-1) for i in range(count)])


def edits(state="visible", image=0, name="nose", **place):
    return json.dumps(
        {
            "version": 1,
            "names": NAMES,
            "images": [{"image": image, "size": [64, 48], "points": {name: {"state": state, **place}}}],
        }
    )


def run(pack, keypoints, text="", pictures=None, between="as detected"):
    return pack.nodes.EditKeypoints.execute(
        [keypoints], [text], [between], [0.3], None if pictures is None else [pictures]
    )


def offered(tmp_path, output):
    (file,) = output.ui["stablekp_editor"]
    assert file["type"] == "temp" and file["subfolder"] == ""
    return json.loads((tmp_path / "temp" / file["filename"]).read_text())


def test_without_edits_the_keypoints_pass_and_the_page_gets_them(pack, tmp_path):
    given = points(images=("a.png", "b.png"), skeleton=((0, 1),))
    output = run(pack, given, "", images())
    np.testing.assert_array_equal(output[0].xy, given.xy)
    np.testing.assert_array_equal(output[0].confidence, given.confidence)
    batch = offered(tmp_path, output)
    assert batch["names"] == list(NAMES) and batch["skeleton"] == [[0, 1]] and batch["mode"] == "edit"
    assert [image["key"] for image in batch["images"]] == ["a.png", "b.png"]
    assert [image["size"] for image in batch["images"]] == [[64, 48], [64, 48]]
    np.testing.assert_allclose(np.array(batch["rows"][1]["points"])[:, :2], given.xy[1], atol=1e-3)
    shown = Image.open(tmp_path / "temp" / batch["images"][1]["file"]["filename"])
    assert shown.size == (64, 48)
    assert np.abs(np.asarray(shown, float) - 255 * images()[1].numpy()).mean() < 5


def test_edits_are_applied_and_drawn_but_the_page_still_gets_what_was_detected(pack, tmp_path):
    given = points()
    before, output = run(pack, given, "", images()), run(pack, given, edits(x=60.0, y=5.0), images())
    assert output[0].xy[0, 0].tolist() == [60, 5] and output[0].confidence[0, 0] == 1
    assert output.ui["stablekp_editor"] == before.ui["stablekp_editor"]  # and so nothing is loaded again
    assert (output[1][0][0] != before[1][0][0]).any() and (output[1][0][1] == before[1][0][1]).all()
    assert output[2].startswith("1 points edited in 1 of 2 images")


def test_a_second_run_writes_no_image_again(pack, tmp_path):
    run(pack, points(), "", images())
    pictures = {path: path.stat().st_mtime_ns for path in (tmp_path / "temp").glob("*.jpg")}
    assert len(pictures) == 2
    run(pack, points(), edits("deleted"), images())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "temp").glob("*.jpg")} == pictures


def test_without_images_the_preview_is_black_and_the_page_has_none(pack, tmp_path):
    output = run(pack, points())
    assert output[1][0].shape == (2, 48, 64, 3)
    assert [image["file"] for image in offered(tmp_path, output)["images"]] == [None, None]


def test_large_images_are_smaller_in_the_page_but_points_stay_in_their_pixels(pack, tmp_path):
    output = run(pack, points(1, (3000, 1500)), "", images(1, (3000, 1500)))
    (image,) = offered(tmp_path, output)["images"]
    assert image["size"] == [3000, 1500]
    assert Image.open(tmp_path / "temp" / image["file"]["filename"]).size == (2048, 1024)


def test_what_fits_nothing_is_said_in_the_report_and_in_the_page(pack, tmp_path):
    output = run(pack, points(), edits(name="horn"), images())
    assert "left out, no keypoint has that name now: horn" in output[2]
    assert offered(tmp_path, output)["note"] == "Left out, no keypoint has that name now: horn."


def test_several_figures_and_mixed_sizes(pack, tmp_path):
    given = points(3, sizes=(64, 48), image_index=np.array([0, 0, 1]))
    output = pack.nodes.EditKeypoints.execute([given], [""], ["as detected"], [0.3], [images(1), images(1, (32, 32))])
    batch = offered(tmp_path, output)
    assert [(row["image"], row["figure"]) for row in batch["rows"]] == [(0, 0), (0, 1), (1, 0)]
    assert [tuple(preview.shape[1:3]) for preview in output[1]] == [(48, 64), (32, 32)]


def test_bad_edits_and_missing_images_are_one_sentence(pack):
    with pytest.raises(KeypointError, match="not JSON"):
        run(pack, points(), "{")
    with pytest.raises(KeypointError, match="1 images are connected to Edit Keypoints"):
        run(pack, points(), "", images(1))


def test_texts_of_the_page_are_translated():
    locales = importlib.resources.files("stablekp_core").parent / "locales"
    texts = {
        lang: json.loads((locales / lang / "main.json").read_text("utf-8"))["stableKeypoints"] for lang in ("en", "zh")
    }
    assert texts["en"].keys() == texts["zh"].keys()
    for key, text in texts["en"].items():
        assert text and texts["zh"][key]
        fields = {word for word in text.replace("{", " {").split() if word.startswith("{")}
        assert all(word.split("}")[0] + "}" in texts["zh"][key] for word in fields), key
    page = "".join(path.read_text("utf-8") for path in (locales.parent / "web").rglob("*.js"))
    for key in texts["en"]:
        assert f"'{key}'" in page or key.startswith("is_") or f"{key}:" in page or key.endswith("Some"), key
