"""The nodes around poses, skeletons, video and data sets, without ComfyUI (tests/fake_comfy.py stands in)."""

from __future__ import annotations

import importlib
import json

import fake_comfy
import numpy as np
import pytest
import torch

from stablekp_core.drawing.hints import draw_ap10k, draw_openpose
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.pose.formats import OPENPOSE
from stablekp_core.pose.writing import to_pose, to_pose_keypoint
from stablekp_core.synthetic.figures import landmark_names
from stablekp_core.synthetic.generator import render

SIDE, COUNT = 64, 12


@pytest.fixture()
def pack(tmp_path):
    yield fake_comfy.install(tmp_path)
    fake_comfy.remove()


def part(name: str):
    return importlib.import_module(f"{fake_comfy.PACK}.nodes.{name}")


def dolls(count: int = COUNT, names=(), images: bool = True) -> Keypoints:
    xy = np.stack([render("dolls", seed, SIDE, "plain").joints for seed in range(count)])
    files = tuple(f"{number}.png" for number in range(count)) if images else ()
    return Keypoints(xy, np.ones(xy.shape[:2]), np.full((count, 2), SIDE), names, images=files)


def named(count: int = COUNT) -> Keypoints:
    return dolls(count, landmark_names("dolls"))


def tokens(count: int) -> KeypointTokens:
    return KeypointTokens(torch.randn(20, 6), tuple(range(count)))


def fit(keypoints, labels=None, labels_file=""):
    return part("landmarks").FitLandmarkMap.execute(keypoints, labels_file, "auto", -1.0, -1, labels)


# Landmark maps


def test_a_pose_of_the_first_images_labels_them(pack):
    pose = to_pose_keypoint(named(8))
    landmarks, report = fit(dolls(), pose).args
    assert landmarks.images == 8 and landmarks.names == OPENPOSE.joints and "leave-one-out" in report
    (found,) = part("landmarks").ApplyLandmarkMap.execute(dolls(), landmarks).args
    right = to_pose(named(), "openpose")
    there = right.confidence[8:] > 0
    assert np.linalg.norm(found.xy[8:] - right.xy[8:], axis=-1)[there].mean() < 0.05 * SIDE


def test_labels_come_from_a_file_below_input_and_pair_by_name(pack, tmp_path):
    labels = named(10).rows(range(3, 10))  # other pictures than the first: only names can pair them
    (tmp_path / "input" / "labels.json").write_text(labels.to_json())
    landmarks = fit(dolls(), labels_file="labels.json").args[0]
    assert landmarks.images == 7 and np.nanmean(landmarks.error) < 2
    node = part("landmarks").FitLandmarkMap
    assert node.validate_inputs(labels_file="labels.json") is True
    before = node.fingerprint_inputs(labels_file="labels.json")
    (tmp_path / "input" / "labels.json").write_text(named(5).to_json())
    assert node.fingerprint_inputs(labels_file="labels.json") != before


@pytest.mark.parametrize("name", ["nowhere.json", "../secret.json", "/etc/passwd"])
def test_a_labels_file_elsewhere_is_refused(pack, tmp_path, name):
    (tmp_path / "secret.json").write_text("{}")
    assert "input folder" in part("landmarks").FitLandmarkMap.validate_inputs(labels_file=name)


def test_no_labels_and_two_kinds_of_labels_are_refused(pack):
    with pytest.raises(KeypointError, match="no labels"):
        fit(dolls())
    with pytest.raises(KeypointError, match="use one of them"):
        fit(dolls(), to_pose_keypoint(named(8)), "labels.json")


def test_settings_of_minus_one_are_chosen_and_others_are_kept(pack):
    node, pose = part("landmarks").FitLandmarkMap, to_pose_keypoint(named(8))
    landmarks = node.execute(dolls(), "", "linear", 0.25, 4, pose).args[0]
    assert (landmarks.mode, landmarks.ridge, landmarks.rank) == ("linear", 0.25, 4)


def test_maps_are_saved_numbered_and_loaded(pack, tmp_path):
    nodes, landmarks = part("landmarks"), fit(dolls(), to_pose_keypoint(named(8))).args[0]
    paths = [nodes.SaveLandmarkMap.execute(landmarks, "pets/cat").args[0] for _ in range(2)]
    assert [path[len(str(tmp_path)) :] for path in paths] == [
        "/models/keypoint_landmarks/pets/cat.safetensors",
        "/models/keypoint_landmarks/pets/cat_00002.safetensors",
    ]
    assert "pets/cat.safetensors" in part("folders").landmark_files()
    loaded = nodes.LoadLandmarkMap.execute("pets/cat.safetensors").args[0]
    np.testing.assert_array_equal(loaded.weights, landmarks.weights)
    assert "stays inside" in nodes.SaveLandmarkMap.validate_inputs("../cat")
    assert "there is no landmark map" in nodes.LoadLandmarkMap.validate_inputs("dog.safetensors")


# Poses


def test_the_default_table_maps_by_hand(pack):
    node = part("landmarks").MapKeypointsByHand
    table = next(i for i in node.define_schema().inputs if i.id == "table").options["default"]
    points = dolls()
    pose = node.execute(points, "openpose (people)", table).args[0]
    assert pose.names == OPENPOSE.joints and (pose.confidence > 0).sum(axis=1).tolist() == [4] * COUNT
    np.testing.assert_allclose(pose.xy[:, 1], points.xy[:, 1:3].mean(axis=1), rtol=1e-6)


def test_poses_come_out_as_data_and_as_text(pack):
    node = part("poses").KeypointsToPose
    pose, text = node.execute(named(), "openpose (people)", 0.3).args
    assert pose == to_pose_keypoint(named()) == json.loads(text)
    animals = node.execute(named(), "AP-10K (animals)", 0.3).args[0]
    assert len(animals) == COUNT and len(animals[0]["animals"][0]) == 17
    with pytest.raises(KeypointError, match="map them by hand"):
        node.execute(dolls(), "openpose (people)", 0.3)


@pytest.mark.parametrize(
    "style, target, draw",
    [("openpose", "openpose", draw_openpose), ("animal openpose", "ap10k", draw_ap10k)],
)
def test_named_joints_in_any_order_are_drawn_as_the_pose(pack, style, target, draw):
    settings = dict(canvas="black", dots=True, numbers=True, lines=True, line_width=0.0, threshold=0.0)
    settings |= dict(style=style, which="", out_width=128, out_height=128)
    node = part("drawing").DrawKeypoints
    drawn = node.execute([named(1)], **{name: [value] for name, value in settings.items()}).args[0]
    pose = to_pose(named(1), target)
    wanted = draw(np.concatenate([pose.xy * 2, pose.confidence[..., None]], -1), 128, 128)
    np.testing.assert_array_equal((drawn[0][0].numpy() * 255).round(), wanted)
    settings["which"] = "neck, left shoulder, right shoulder"
    fewer = node.execute([named(1)], **{name: [value] for name, value in settings.items()}).args[0]
    assert 0 < (fewer[0] > 0).sum() < (drawn[0] > 0).sum()


# Skeleton, video, report, edits


def test_the_skeleton_goes_into_tokens_and_keypoints(pack):
    node, points = part("skeleton").DiscoverSkeleton, dolls(40)
    count = points.num_keypoints
    found, same, text = node.execute(points, tokens(count), 1.0, "").args
    assert len(found.skeleton) == count - 1 and same.skeleton == found.skeleton
    again = node.execute(points, tokens(count), 1.0, text).args
    assert again[0].skeleton == found.skeleton and again[2] == text
    edited = node.execute(points, tokens(count), 1.0, "0-1\n2-3").args[0]
    assert edited.skeleton == ((0, 1), (2, 3))
    with pytest.raises(KeypointError, match="tokens have 3"):
        node.execute(points, tokens(3), 1.0, "")


def smooth_defaults() -> dict:
    schema = part("video").SmoothKeypoints.define_schema()
    return {i.id: i.options["default"] for i in schema.inputs if i.is_widget}


@pytest.mark.parametrize("method", ["savitzky-golay", "one-euro", "none"])
def test_smoothing_with_the_widgets_values(pack, method):
    time = np.linspace(0, 3, 60)[:, None]
    way = np.stack([32 + 15 * np.sin(time + np.arange(5)), 32 + 15 * np.cos(time - np.arange(5))], -1)
    noisy = way + np.random.default_rng(1).normal(0, 0.5, way.shape)
    points = Keypoints(noisy, np.ones(noisy.shape[:2]), np.full((60, 2), SIDE))
    smooth, report = part("video").SmoothKeypoints.execute(points, **{**smooth_defaults(), "method": method}).args
    before, after = (np.abs(np.diff(xy, 2, axis=0)).mean() for xy in (noisy, smooth.xy))
    assert after < 0.5 * before if method != "none" else after == pytest.approx(before, rel=1e-4)
    assert "jitter" in report


def test_the_report_shows_each_image_and_names_useless_points(pack):
    points = dolls()
    xy = np.concatenate([points.xy, points.xy[:, :1]], axis=1)  # the last point doubles the first
    double = Keypoints(xy, np.ones(xy.shape[:2]), points.sizes)
    images = [torch.rand(COUNT, SIDE, SIDE, 3)]
    node = part("report").KeypointReport
    picture, text = node.execute([double], [4], [0.3], [tokens(xy.shape[1])], images).args
    assert picture.shape[0] == 1 and picture.shape[1] > 2 * 512 and picture.max() <= 1
    assert "same place as 0" in text and f"suggested edit: drop {xy.shape[1] - 1}" in text
    black, same = node.execute([double], [4], [0.3]).args
    assert black.mean() < picture.mean() and "same place as 0" in same
    with pytest.raises(KeypointError, match="1 images are connected to Keypoint Report"):
        node.execute([double], [4], [0.3], None, [torch.rand(1, SIDE, SIDE, 3)])


def test_edits_change_the_tokens_and_list_the_points(pack):
    edited, text = part("report").EditKeypointTokens.execute(tokens(4), "rename 0 nose\ndrop 1").args
    assert edited.names == ("nose", "kp2", "kp3") and text == "0 nose\n1 kp2\n2 kp3"


# The data set


def export(points, images, **changes):
    node = part("export").ExportControlNetDataset
    schema = node.define_schema()
    values = {i.id: [i.options["default"]] for i in schema.inputs if i.is_widget}
    values |= {"size": [64], "style": ["openpose"], "caption": ["a doll"]}
    return node.execute([images], [points], **{**values, **changes}).args


def test_a_data_set_is_written_below_output_and_goes_on(pack, tmp_path):
    images = torch.rand(COUNT, SIDE, SIDE, 3)
    path, report = export(named(), images)
    assert path == str(tmp_path / "output" / "controlnet_datasets" / "my_dataset")
    assert f"{COUNT} new" in report
    texts = [f"doll {number}" for number in range(COUNT)]
    assert "0 new" in export(named(), images, captions=texts)[1]
    rows = [
        json.loads(line)
        for file in (tmp_path / "output" / "controlnet_datasets" / "my_dataset").glob("*/metadata.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert {row["source"]: row["text"] for row in rows} == {f"{i}.png": texts[i] for i in range(COUNT)}


def test_a_data_set_cannot_leave_output_and_lists_must_agree(pack):
    node = part("export").ExportControlNetDataset
    assert "stays inside" in node.validate_inputs(name="../x") and node.validate_inputs(name=["x"]) is True
    images = torch.rand(COUNT, SIDE, SIDE, 3)
    with pytest.raises(KeypointError, match="2 captions are connected"):
        export(named(), images, captions=["a", "b"])
    with pytest.raises(KeypointError, match="1 names are connected"):
        export(named(), images, names=["a"])


# Several figures


class Backbone:
    """In place of a model: what the node opens and hands on."""

    hash = ""

    def open(self, batch_size):
        from contextlib import nullcontext

        return nullcontext(self)


def detect(pack, monkeypatch, images, **more):
    """The node with a detection that finds each cut-out's corner and centre."""
    module, sizes = part("detection"), []

    def found(model, tokens, pictures, config, heat, progress):
        sizes.extend(picture.shape[1::-1] for _, picture in pictures)
        corner_and_centre = np.array([[[0, 0], [w / 2, h / 2]] for w, h in sizes])
        names = pictures.names
        return Keypoints(corner_and_centre, np.ones((len(sizes), 2)), np.array(sizes), images=names), []

    monkeypatch.setattr(module, "_detect", found)
    values = dict(views=[0], batch_size=[1], sub_pixel=[True], **more)
    return module.DetectKeypoints.execute([Backbone()], [tokens(2)], images, **values).args, sizes


BOX = {"x": 10, "y": 20, "width": 20, "height": 20}
OTHER = {"x": 40, "y": 8, "width": 16, "height": 16}


@pytest.mark.parametrize("boxes", [[BOX, OTHER], [[BOX, OTHER]], [[[BOX, OTHER]]]])
def test_boxes_of_one_image_give_a_row_each_in_its_pixels(pack, monkeypatch, boxes):
    images = [torch.rand(1, 64, 96, 3)]
    (found, _, text), sizes = detect(pack, monkeypatch, images, boxes=boxes, crop_margin=[0.0])
    assert sizes == [(20, 20), (16, 16)]
    np.testing.assert_allclose(found.xy, [[[10, 20], [20, 30]], [[40, 8], [48, 16]]])
    assert found.image_index.tolist() == [0, 0] and found.sizes.tolist() == [[96, 64]] * 2
    assert "figure 1" in text


def test_boxes_of_several_images_and_one_without_any(pack, monkeypatch):
    images = [torch.rand(3, 64, 96, 3)]
    (found, _, _), _ = detect(pack, monkeypatch, images, boxes=[[[BOX], [], [BOX, OTHER]]])
    assert found.image_index.tolist() == [0, 2, 2]
    with pytest.raises(KeypointError, match="boxes of 2 images were given for 3"):
        detect(pack, monkeypatch, images, boxes=[[BOX], [BOX]])


def test_masks_are_a_figure_each(pack, monkeypatch):
    masks = torch.zeros(2, 64, 96)
    masks[0, 20:40, 10:30], masks[1, 8:24, 40:56] = 1, 1
    images = [torch.rand(1, 64, 96, 3)]
    (found, _, _), _ = detect(pack, monkeypatch, images, masks=[masks], crop_margin=[0.0])
    np.testing.assert_allclose(found.xy[:, 0], [[10, 20], [40, 8]])
    pair = [torch.rand(2, 64, 96, 3)]
    (found, _, _), _ = detect(pack, monkeypatch, pair, masks=[masks], crop_margin=[0.0])
    assert found.image_index.tolist() == [0, 1]
    with pytest.raises(KeypointError, match="connect only one"):
        detect(pack, monkeypatch, images, masks=[masks], boxes=[BOX])
    with pytest.raises(KeypointError, match="1 MASK batches"):
        detect(pack, monkeypatch, [torch.rand(3, 64, 96, 3)], masks=[masks])


def test_without_boxes_nothing_is_cut(pack, monkeypatch):
    (found, _, text), sizes = detect(pack, monkeypatch, [torch.rand(2, 64, 96, 3)])
    assert sizes == [(96, 64)] * 2 and found.image_index.tolist() == [0, 1] and "figure" not in text
