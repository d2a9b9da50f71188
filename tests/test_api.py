"""The public API as its users would guess it."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CONFIG, write_images

import stablekp_core
from stablekp_core import KeypointDetector, KeypointError, Keypoints, KeypointTokens, load_folder, train
from stablekp_core.config import DetectConfig

DATA = Path(__file__).parent / "data"
DOLLS = Path(stablekp_core.__file__).parent / "assets" / "pictures" / "dolls" / "train"


@pytest.fixture(scope="module")
def detector():
    return KeypointDetector.from_pretrained(
        DATA / "tokens_of_0.1.safetensors", device="cpu", config=DetectConfig(views=1)
    )


def test_every_public_name_is_there_and_seen_by_editors():
    for name in stablekp_core.__all__:
        assert getattr(stablekp_core, name) is not None
    assert dir(stablekp_core) == stablekp_core.__all__
    assert (Path(stablekp_core.__file__).parent / "py.typed").is_file()


def test_a_detector_takes_whatever_is_an_image(detector, tmp_path):
    paths = sorted(DOLLS.glob("*.jpg"))[:2]
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    for number, path in enumerate(paths):
        (tmp_path / f"{number}.jpg").write_bytes(path.read_bytes())
    expected = detector(paths).keypoints.xy
    assert expected.shape == (2, 8, 2) and expected.std() > 1
    unit = torch.from_numpy(np.stack(arrays)).float() / 255
    for images in (
        tmp_path,
        str(tmp_path),
        arrays,
        np.stack(arrays),
        unit,
        [Image.open(path) for path in paths],
        [paths[0], arrays[1]],
        list(zip("ab", arrays, strict=True)),
        load_folder(tmp_path),
    ):
        np.testing.assert_allclose(detector(images).keypoints.xy, expected, atol=1e-3)
    for one in (paths[0], str(paths[0]), arrays[0], Image.open(paths[0])):
        np.testing.assert_allclose(detector(one).keypoints.xy, expected[:1], atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(3, "int is not an image"), ([], "no image was given"), (["gone.jpg"], "gone.jpg is not an image file"),
     ("nowhere", "does not exist"), (np.zeros((20, 20)), r"shape \[20\]"), ([object()], "shape")],
)  # fmt: skip
def test_what_is_no_image_is_answered_in_a_sentence(detector, wrong, words):
    with pytest.raises(KeypointError, match=words):
        detector(wrong)


def test_wrong_kinds_of_arguments_are_answered_before_work_starts(backbone, image_folder):
    with pytest.raises(KeypointError, match="backbone is the path model.safetensors.*load_backbone"):
        train("model.safetensors", image_folder)
    with pytest.raises(KeypointError, match="config is a dict"):
        train(backbone, image_folder, {"steps": 3})
    with pytest.raises(KeypointError, match="start is a str.*KeypointTokens.load"):
        train(backbone, image_folder, CONFIG, start="t.safetensors")
    with pytest.raises(KeypointError, match="tokens is a int.*from_pretrained"):
        KeypointDetector(backbone, 3)
    with pytest.raises(KeypointError, match="masks is a dict.*folder_masks"):
        train(backbone, image_folder, CONFIG, masks={})
    with pytest.raises(KeypointError, match=r"there is no mask for image\d.png; give one for each"):
        train(backbone, image_folder, CONFIG.replace(steps=0), masks=lambda name: None)


def test_detection_refuses_what_is_no_configuration_mask_or_keypoint(detector):
    image = min(DOLLS.glob("*.jpg"))
    with pytest.raises(KeypointError, match="config is a int, but a DetectConfig is needed"):
        KeypointDetector.from_pretrained(DATA / "tokens_of_0.1.safetensors", device="cpu", config=0)
    with pytest.raises(KeypointError, match="masks is a dict"):
        detector(image, masks={})
    with pytest.raises(KeypointError, match="there is no mask for dolls_000.jpg"):
        detector(image, masks=lambda name: None)
    with pytest.raises(KeypointError, match=r"keypoints \['kp0'\] were asked for.*numbers from 0 to 7"):
        detector.tokens.drop(["kp0"])


def test_training_takes_a_folder_a_list_or_arrays_and_says_nothing_on_the_terminal(backbone, tmp_path, capsys):
    write_images(tmp_path, 4)
    paths = sorted(tmp_path.iterdir())
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    results = [train(backbone, images, CONFIG.replace(steps=1)) for images in (tmp_path, paths, arrays)]
    assert all(torch.equal(r.tokens.embeddings, results[0].tokens.embeddings) for r in results)
    assert capsys.readouterr() == ("", "")


def test_keypoints_draw_themselves(detector):
    image = np.asarray(Image.open(min(DOLLS.glob("*.jpg"))).convert("RGB"))
    found = detector(image).keypoints
    drawn, black = found.draw(image), found.draw()
    assert drawn.shape == image.shape and (drawn != image).any() and (black == 0).mean() > 0.5 and black.any()
    with pytest.raises(KeypointError, match="no keypoints of image 1"):
        found.draw(image, 1)
    assert Keypoints.from_json(found.to_json()).xy.tolist() == found.xy.tolist()


def test_tokens_of_the_first_version_load_and_give_the_same_keypoints():
    """tests/data holds tokens written before they carried a record of how they are to be read."""
    wanted = json.loads((DATA / "keypoints_of_0.1.json").read_text())
    tokens = KeypointTokens.load(DATA / "tokens_of_0.1.safetensors")
    assert tokens.reading.map_size == 64 and tokens.refined is not None and tokens.occlusion
    detector = KeypointDetector.from_pretrained(tokens, device="cpu", config=DetectConfig(views=3))
    found = detector([DOLLS / name for name in wanted["images"]]).keypoints
    for row, flat in enumerate(wanted["keypoints"]):
        np.testing.assert_allclose(found.xy[row], np.reshape(flat, (-1, 3))[:, :2], atol=0.01)
    np.testing.assert_allclose(found.confidence, wanted["scores"], atol=1e-3)


def test_tokens_of_one_keypoint_are_detected():
    tokens = KeypointTokens.load(DATA / "tokens_of_0.1.safetensors").reorder([3])
    all_of_them = KeypointTokens.load(DATA / "tokens_of_0.1.safetensors")
    image = min(DOLLS.glob("*.jpg"))
    one, eight = (KeypointDetector.from_pretrained(t, device="cpu")(image).keypoints for t in (tokens, all_of_them))
    np.testing.assert_allclose(one.xy[0, 0], eight.xy[0, 3], atol=1e-3)
    assert one.confidence.shape == (1, 1) and 0 < one.confidence[0, 0] <= 1 and np.isfinite(one.occluded).all()


def test_notices_of_training_go_to_the_log(backbone, image_folder, monkeypatch, caplog):
    from stablekp_core.training import trainer

    step, failed = trainer.training_step, []

    def hungry(*args):
        if not failed:
            failed.append(1)
            raise RuntimeError("can't allocate memory")
        return step(*args)

    monkeypatch.setattr(trainer, "training_step", hungry)
    with caplog.at_level(logging.WARNING, logger="stablekp_core"):
        train(backbone, image_folder, CONFIG.replace(steps=1))
    assert "Out of memory: going on" in caplog.text
