"""The loaders on small data sets in the exact layouts: counts, filters, landmarks, missing files."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import dataset_fixtures as make
import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.evaluation.datasets import DATASETS, generated, open_dataset
from stablekp_core.evaluation.datasets.common import Split, roles_of
from stablekp_core.evaluation.datasets.cub import MIRRORED, cut_out, square_around
from stablekp_core.evaluation.datasets.human36m import SWAP
from stablekp_core.evaluation.datasets.human36m_unaligned import crop_box
from stablekp_core.evaluation.datasets.sources import read_mat
from stablekp_core.evaluation.mat_file import without_fields
from stablekp_core.evaluation.metrics import Roles
from stablekp_core.images.files import BrokenImage


def check_places(split: Split, share, off=None, tolerance=0.05):
    """Landmarks lie on the line through the squares drawn in the very image; returns the visible counts."""
    counts = []
    for i in range(len(split)):
        sample = split.sample(i)
        assert sample.image.dtype == np.uint8 and sample.image.shape[2] == 3
        a, b = make.find_blobs(sample.image)
        shift = (off[i] if off else 0) * make.SHIFT
        expected = make.on_line(a - shift, b - shift, np.asarray(share))
        np.testing.assert_allclose(sample.landmarks[sample.visible], expected[sample.visible], atol=tolerance)
        counts.append(int(sample.visible.sum()))
        assert (split.image(i) == sample.image).all() and (split.landmarks(i) == sample.landmarks).all()
    return counts


def test_celeba_aligned_takes_the_mafl_lists(tmp_path):
    make.write_celeba(tmp_path)
    data = open_dataset("celeba_aligned", tmp_path)
    assert (len(data.train), len(data.regression), len(data.test)) == (8, 8, 3)
    assert data.test.names == ("000009.png", "000010.png", "000011.png")
    share = [0, 1, 0.5, 0.25, 0.75]
    assert check_places(data.regression, share) == [5] * 8
    check_places(data.test, share, off=[1, 2, 3])
    assert data.keypoints == 10 and data.metrics == ("inter_ocular",) and data.paper[("inter_ocular", 10)] == 3.60


def test_celeba_wild_keeps_boxes_of_thirty_percent(tmp_path):
    make.write_celeba(tmp_path, small=(2, 3, 10))
    data = open_dataset("celeba_wild", tmp_path)
    assert (len(data.train), len(data.test)) == (6, 2)  # 9000 of 30000 pixels stays, 8900 goes
    assert data.train.names[:2] == ("000001.jpg", "000004.jpg") and data.test.names == (
        "000009.jpg",
        "000011.jpg",
    )
    assert list(data.train.dropped.values()) == [2] and list(data.test.dropped.values()) == [1]
    check_places(data.train, [0, 1, 0.5, 0.25, 0.75], tolerance=0.3)


def test_cub_aligned_reads_the_h5_file(tmp_path):
    pytest.importorskip("h5py")
    make.write_cub_aligned(tmp_path, hidden={1: 10})
    data = open_dataset("cub_aligned", tmp_path)
    assert (len(data.train), len(data.regression), len(data.test)) == (8, 8, 3)
    check_places(data.regression, make.shares(15), tolerance=1e-4)
    assert check_places(data.test, make.shares(15), off=[1, 2, 3], tolerance=1e-4) == [15, 5, 15]


@pytest.fixture(scope="module")
def cub(tmp_path_factory):
    pytest.importorskip("scipy")
    root = tmp_path_factory.mktemp("cub")
    make.write_cub_parts(root, train={1: 7, 2: 6, 3: 5, 17: 1}, test={1: 3, 2: 2, 3: 1, 17: 2})
    return root


@pytest.mark.parametrize(
    "name, train, test", [("cub_001", 7, 3), ("cub_002", 6, 2), ("cub_003", 5, 1), ("cub_all", 19, 8)]
)
def test_cub_classes_by_count(cub, name, train, test):
    data = open_dataset(name, cub)
    assert (len(data.train), len(data.regression), len(data.test)) == (train, train, test)
    if name != "cub_all":
        assert all(n.startswith(f"{int(name[-3:]):03d}.") for n in data.train.names + data.test.names)
    assert data.keypoints == 4


def test_cub_landmarks_follow_crop_and_mirror(cub):
    data = open_dataset("cub_all", cub)
    assert check_places(data.train, make.CUB_SHARES, tolerance=0.3) == [15] * 19
    assert check_places(data.test, make.CUB_SHARES, off=[1, 2, 3, 1, 2, 1, 1, 2], tolerance=0.3) == [14] * 8
    sample = data.test.sample(0)
    assert sample.image.shape == (110, 110, 3)  # box 100 x 80, 5 % wider on each side, made square
    assert sample.extras["class_id"] == 1
    # Mirrored or not shows in which side the blue square (right of the red one in the file) is on.
    mirrored = [bool(np.diff(make.find_blobs(data.train.image(i))[:, 0])[0] < 0) for i in range(19)]
    assert 0 < sum(mirrored) < 19
    again, other = open_dataset("cub_all", cub), open_dataset("cub_all", cub, seed=1)
    assert all((again.train.image(i) == data.train.image(i)).all() for i in range(19))
    assert any(other.train.image(i).shape != data.train.image(i).shape for i in range(19))
    assert other.train.fingerprint() != data.train.fingerprint()
    assert other.test.fingerprint() == data.test.fingerprint()


def test_cub_mirror_table_exchanges_eyes_legs_and_wings():
    names = "back beak belly breast crown forehead left_eye left_leg left_wing nape right_eye right_leg".split()
    names += ["right_wing", "tail", "throat"]
    for name, partner in zip(names, MIRRORED, strict=True):
        swapped = name.replace("left", "L").replace("right", "left").replace("L", "right")
        assert names[partner] == swapped


def test_cub_half_pixel_of_the_authors(cub):
    ours, theirs = open_dataset("cub_all", cub), open_dataset("cub_all", cub, reference=True)
    assert ours.test.fingerprint() != theirs.test.fingerprint()
    np.testing.assert_allclose(theirs.test.landmarks(0)[:14], ours.test.landmarks(0)[:14] - 0.5)
    steps = set()
    for i in range(len(ours.train)):
        side = ours.train.image(i).shape[0]
        step = theirs.train.landmarks(i) - ours.train.landmarks(i)
        np.testing.assert_allclose(step[:, 1], -0.5)
        np.testing.assert_allclose(np.minimum(abs(step[:, 0] + 0.5), abs(step[:, 0] - 0.5 + side / 512)), 0, atol=1e-9)
        steps.add(bool(step[0, 0] > 0))
    assert steps == {True, False}  # mirrored ones and others


def test_cub_labels_are_read_without_their_masks(tmp_path):
    """The published file needed 1.2 GB for 29 birds."""
    import tracemalloc

    pytest.importorskip("scipy")
    make.write_cub_parts(tmp_path, train={1: 20}, test={1: 2}, mask=1_000_000)
    tracemalloc.start()
    data = open_dataset("cub_001", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data.train) == 20 and check_places(data.test, make.CUB_SHARES, off=[1, 2], tolerance=0.3) == [14, 14]
    assert peak < 5e6


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_without_some_fields(tmp_path, compressed):
    scipy_io = pytest.importorskip("scipy.io")
    fields = [(name, object) for name in ("name", "mask", "box", "parts")]
    rows = [(f"bird {i}", np.full((40, 50), i, np.uint8), {"x1": 1.5 * i}, np.full((3, 15), i / 7)) for i in range(5)]
    content = {"images": np.array(rows, dtype=fields), "more": np.arange(4.0), "text": "as it was"}
    scipy_io.savemat(tmp_path / "a.mat", content, do_compression=compressed)
    read = scipy_io.loadmat(without_fields(tmp_path / "a.mat", {"mask"}), struct_as_record=False, squeeze_me=True)
    assert (read["more"] == np.arange(4)).all() and read["text"] == "as it was"
    for i, bird in enumerate(read["images"]):
        assert (bird.name, bird.box.x1) == (f"bird {i}", 1.5 * i) and (bird.parts == i / 7).all()
        assert bird._fieldnames == ["name", "box", "parts"]
    (tmp_path / "half.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:-100])
    with pytest.raises(KeypointError, match=r"half\.mat is not a MATLAB file.*a nice place"):
        read_mat(tmp_path / "half.mat", "a nice place", ("mask",))


def test_square_around_by_hand():
    assert square_around((20, 30, 119, 89)) == (15, 5, 110)  # 110 x 66 -> 22 rows more above and below

    class Draw:
        def uniform(self, low, high, count):
            return np.array([high, 0, low, 0])

    assert square_around((20, 30, 119, 89), Draw()) == (10, 5, 110)  # both sides 5 columns further left


def test_cut_out_is_black_outside():
    image = np.full((20, 30, 3), 9, np.uint8)
    cut = cut_out(image, -5, 10, 20)
    assert cut.shape == (20, 20, 3) and (cut[:10, 5:] == 9).all()
    assert not cut[:, :5].any() and not cut[10:].any()
    assert not cut_out(image, 100, 100, 16).any()


def test_taichi(tmp_path):
    pytest.importorskip("pandas")
    make.write_taichi(tmp_path, hidden={1: 10})
    data = open_dataset("taichi", tmp_path)
    assert (len(data.train), len(data.regression), len(data.test)) == (5, 8, 3)
    assert data.train.names[:3] == ("a_video/0000000.png", "a_video/0000001.png", "b_video/0000000.png")
    assert not data.train.labelled and data.train.landmarks(0).shape == (0, 2)
    assert check_places(data.regression, make.shares(18)) == [16, *[18] * 7]
    assert check_places(data.test, make.shares(18), off=[1, 2, 3]) == [18, 8, 18]


def test_deepfashion_matches_csv_and_json_by_position(tmp_path):
    make.write_deepfashion(tmp_path)
    data = open_dataset("deepfashion", tmp_path)
    assert (len(data.train), len(data.test)) == (6, 2)
    assert data.train.names[:3] == ("train_0.jpg", "train_7.jpg", "train_4.jpg")
    assert check_places(data.train, make.shares(17), tolerance=0.3) == [17] * 6
    entries = json.loads((tmp_path / "data_test.json").read_text())
    (tmp_path / "data_test.json").write_text(json.dumps(entries[:1]))
    with pytest.raises(KeypointError, match="2 images, 1 labels"):
        open_dataset("deepfashion", tmp_path)


def test_deepfashion_takes_any_number_of_joints(tmp_path):
    make.write_deepfashion(tmp_path, joints=13)
    assert open_dataset("deepfashion", tmp_path).test.landmarks(0).shape == (13, 2)
    entries = json.loads((tmp_path / "data_test.json").read_text())
    entries[0]["keypoints"].append([1, 1])
    (tmp_path / "data_test.json").write_text(json.dumps(entries))
    with pytest.raises(KeypointError, match="different numbers of joints.*reproducing_baselines"):
        open_dataset("deepfashion", tmp_path)


def test_human36m_subjects_actions_and_masks(tmp_path):
    pytest.importorskip("scipy")
    make.write_human36m(tmp_path, SWAP)
    data = open_dataset("human36m", tmp_path)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.train.names[-2:] == ("S9/Directions 1/2.jpg", "S9/Posing/10.jpg")  # no "Eating"
    assert data.test.names == ("S11/Greeting/9.jpg", "S11/Greeting/10.jpg")  # only S11, in order of numbers
    check_places(data.train, make.HUMAN_SHARES, tolerance=0.3)
    image = data.train.image(0)
    assert not image[:, :10].any() and image[:, 10:].all(axis=2).any()
    assert tuple(np.array(SWAP)[list(SWAP)]) == tuple(range(32)) and SWAP[20] == 28 and SWAP[21] == 29


def test_walking_is_walking_unless_the_reference_is_asked_for(tmp_path):
    pytest.importorskip("scipy")
    make.write_human36m(tmp_path, SWAP)
    folder = tmp_path / "S11" / "WithBackground"
    for name in ("WalkingDog", "WalkingTogether 1", "Walking 1"):
        make.save(folder / name / "1.jpg", make.drawn(7, 128, 128)[0])
    plain, reference = (open_dataset("human36m", tmp_path, reference=r).test.names for r in (False, True))
    assert set(reference) - set(plain) == {"S11/WalkingDog/1.jpg", "S11/WalkingTogether 1/1.jpg"}
    assert "S11/Walking 1/1.jpg" in plain and set(plain) < set(reference)


def test_human36m_unaligned_crops(tmp_path):
    pytest.importorskip("h5py")
    make.write_human36m_unaligned(tmp_path)
    data = open_dataset("human36m_unaligned", tmp_path)
    assert (len(data.train), len(data.test)) == (9, 2)
    assert data.train.names[0] == "S1/Discussion 1/54138969/img_000001.jpg"
    with pytest.raises(BrokenImage, match="no pose"):
        data.train.sample(3)
    rest = data.train.limited(None)
    for i in (0, 1, 2, 4, 5, 6, 7, 8):
        sample = rest.sample(i)
        a, b = make.find_blobs(sample.image)
        np.testing.assert_allclose(sample.landmarks, make.on_line(a, b, make.shares(32, -0.4, 1.4)), atol=0.3)
        left, top, right, bottom = sample.extras["bbox"]
        assert sample.image.shape == (bottom - top, right - left, 3)
        assert 0 <= left < right <= 400 and 0 <= top < bottom <= 360
    other = open_dataset("human36m_unaligned", tmp_path, seed=7)
    assert other.train.sample(0).extras["bbox"] != data.train.sample(0).extras["bbox"]
    assert (open_dataset("human36m_unaligned", tmp_path).train.image(0) == data.train.image(0)).all()


def test_crop_box_by_hand():
    class Draw:
        def __init__(self, *shift):
            self.shift = shift

        def integers(self, low, high, count):
            assert (low, high, count) == (-100, 100, 2)
            return np.array(self.shift)

    joints = np.array([[400.0, 300], [460, 500], [430, 400]])  # 60 x 200, so a square of 200 around x = 430
    assert crop_box(joints, 1000, 1000, Draw(0, 0)) == (230, 200, 630, 600)
    assert crop_box(joints, 1000, 1000, Draw(-50, 99)) == (180, 299, 580, 699)
    assert crop_box(joints - [300, 0], 1000, 1000, Draw(-50, 0)) == (
        0,
        200,
        400,
        600,
    )  # held at the left border
    assert crop_box(joints, 1000, 580, Draw(0, 0)) == (230, 200, 630, 580)  # cut at the bottom
    assert crop_box(joints, 1000, 250, Draw(0, -90)) == (
        230,
        160,
        630,
        250,
    )  # room for a margin of 50 only, in y


def test_folder_with_splits_and_without(tmp_path):
    make.write_folder(tmp_path / "split")
    data = open_dataset("folder", tmp_path / "split")
    assert (len(data.train), len(data.regression), len(data.test)) == (6, 6, 2)
    assert check_places(data.regression, make.shares(3)) == [3] * 6
    make.write_folder(tmp_path / "regression", {"train": 2, "regression": 5, "test": 3})
    data = open_dataset("folder", tmp_path / "regression")
    assert (len(data.train), len(data.regression), len(data.test)) == (2, 5, 3)
    make.write_folder(tmp_path / "one", {"": 11})
    make.save(tmp_path / "one" / "unlabelled.png", make.drawn(0, 64, 64)[0])
    data = open_dataset("folder", tmp_path / "one")
    assert data.test.names == ("4.png", "9.png") and len(data.regression) == 9
    assert "unlabelled.png" in data.train.names and not set(data.train.names) & set(data.test.names)


def test_folder_drops_images_with_several_figures(tmp_path):
    make.write_folder(tmp_path)
    path = tmp_path / "test" / "labels.json"
    data = json.loads(path.read_text())
    data["annotations"].append({**data["annotations"][0], "id": 99})
    path.write_text(json.dumps(data))
    test = open_dataset("folder", tmp_path).test
    assert test.names == ("1.png",) and test.dropped == {"several figures labelled": 1}
    (tmp_path / "test" / "second.json").write_text("{}")
    with pytest.raises(KeypointError, match=r"2 \.json files"):
        open_dataset("folder", tmp_path)


def labels_of(path):
    return json.loads(path.read_text())


def test_figures_without_points_and_crowds_do_not_count(tmp_path):
    make.write_folder(tmp_path)
    path = tmp_path / "test" / "labels.json"
    data = labels_of(path)
    first = data["annotations"][0]
    data["annotations"].append({**first, "id": 98, "keypoints": [0] * 9, "num_keypoints": 0})
    data["annotations"].append({**first, "id": 99, "iscrowd": 1, "image_id": 1})
    path.write_text(json.dumps(data))
    test = open_dataset("folder", tmp_path).test
    assert test.names == ("0.png", "1.png") and test.dropped == {}


def test_label_studio_layout(tmp_path):
    """result.json beside images/, with names of Windows and a hash before each."""
    make.write_folder(tmp_path / "flat", {"": 10})
    (tmp_path / "studio" / "images").mkdir(parents=True)
    data = labels_of(tmp_path / "flat" / "labels.json")
    for i, image in enumerate(data["images"]):
        name = f"{0xCB0618F6 + i:08x}-{image['file_name']}"
        (tmp_path / "flat" / image["file_name"]).rename(tmp_path / "studio" / "images" / name)
        image["file_name"] = f"images\\{name}"
    (tmp_path / "studio" / "result.json").write_text(json.dumps(data))
    (tmp_path / "studio" / "._result.json").write_bytes(b"\0\5\x16\7")
    studio = open_dataset("folder", tmp_path / "studio")
    assert (len(studio.train), len(studio.regression), len(studio.test)) == (8, 8, 2)
    assert check_places(studio.regression, make.shares(3)) == [3] * 8


def test_names_that_repeat_in_two_folders_are_told_apart(tmp_path):
    make.write_folder(tmp_path / "flat", {"": 10})
    data = labels_of(tmp_path / "flat" / "labels.json")
    for i, image in enumerate(data["images"]):
        other = f"{'ab'[i % 2]}/{i // 2}.png"
        (tmp_path / "both" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat" / image["file_name"]).rename(tmp_path / "both" / other)
        image["file_name"] = other
    (tmp_path / "both" / "labels.json").write_text(json.dumps(data))
    both = open_dataset("folder", tmp_path / "both")
    assert both.test.names == ("a/2.png", "b/4.png") and len(set(both.regression.names)) == 8
    assert check_places(both.regression, make.shares(3)) == [3] * 8
    for image in data["images"]:
        image["file_name"] = image["file_name"][2:]
    (tmp_path / "both" / "labels.json").write_text(json.dumps(data))
    with pytest.raises(KeypointError, match="lists 2 images named [0-4].png"):
        open_dataset("folder", tmp_path / "both")


def test_labels_of_another_shape_are_refused_before_anything_runs(tmp_path):
    make.write_folder(tmp_path)
    path = tmp_path / "test" / "labels.json"
    data = labels_of(path)
    for image, size in zip(data["images"], ((60, 50), (240, 200)), strict=True):  # copies of the same shape
        image["width"], image["height"] = size
    path.write_text(json.dumps(data))
    test = open_dataset("folder", tmp_path).test
    np.testing.assert_allclose(test.landmarks(0)[0], 2 * np.array(data["annotations"][0]["keypoints"][:2]))
    for size, reason in (((100, 120), "width and height are exchanged"), ((100, 100), "cropped or padded")):
        data["images"][1]["width"], data["images"][1]["height"] = size
        path.write_text(json.dumps(data))
        with pytest.raises(KeypointError, match=rf"labels of 1\.png in labels\.json.*{reason}"):
            open_dataset("folder", tmp_path)


def test_a_category_of_folder_labels_can_be_chosen(tmp_path):
    make.write_folder(tmp_path)
    for which in ("train", "test"):
        path = tmp_path / which / "labels.json"
        data = labels_of(path)
        data["categories"].append({"id": 2, "name": "box", "keypoints": ["lid"]})
        data["annotations"].append({"id": 99, "image_id": 0, "category_id": 2, "keypoints": [10, 10, 2]})
        path.write_text(json.dumps(data))
    with pytest.raises(KeypointError, match="several categories"):
        open_dataset("folder", tmp_path)
    assert open_dataset("folder", tmp_path, category="thing").test.landmarks(0).shape == (3, 2)
    with pytest.raises(KeypointError, match="of one kind"):
        open_dataset("dolls", category="thing")


def test_generated_sets_are_fixed_and_apart():
    data = open_dataset("dolls")
    assert (len(data.train), len(data.test)) == (500, 200)
    assert not set(data.train.names) & set(data.test.names)
    assert data.train.landmarks(0).shape == (15, 2) and data.train.image(0).shape == (128, 128, 3)
    assert (open_dataset("dolls").train.image(3) == data.train.image(3)).all()
    assert (open_dataset("dolls", seed=1).train.image(3) != data.train.image(3)).any()
    assert open_dataset("faces").test.landmarks(0).shape == (11, 2)


def test_limits_spread_over_the_split():
    split = open_dataset("dolls").train
    some = split.limited(5)
    assert some.names == tuple(split.names[i] for i in (0, 100, 200, 300, 400))
    assert (some.image(2) == split.image(200)).all()
    assert split.limited(500) is split and split.limited(None) is split
    with pytest.raises(KeypointError, match="limit is 0"):
        split.limited(0)


def test_landmark_names_tell_sides_and_eyes():
    faces = open_dataset("faces").roles
    assert faces.eyes == (0, 1) and faces.swap == (1, 0, 3, 2, 4, 6, 5, 8, 7, 9, 10)
    dolls = open_dataset("dolls").roles.swap
    assert dolls[:5] == (1, 0, 2, 4, 3) and tuple(np.array(dolls)[list(dolls)]) == tuple(range(15))
    assert roles_of(["a", "b"]) == Roles() and roles_of(["left hand", "nose"]) == Roles()
    assert roles_of(["LeftEye", "left-eye", "Right_Eye"]) == Roles(swap=(0, 2, 1), eyes=(1, 2))
    assert roles_of(["left hand", "right hand", "left hand"]).swap == ()  # two of one name: nobody can tell


def test_the_generator_is_part_of_a_generated_sets_fingerprint(monkeypatch):
    before = open_dataset("dolls").test.fingerprint()
    assert open_dataset("dolls").test.fingerprint() == before
    render = generated.generator.render
    monkeypatch.setattr(
        generated.generator, "render", lambda kind, seed, size: render(kind, seed, size, variant="wild")
    )
    assert open_dataset("dolls").test.fingerprint() != before


def test_masks_and_labels_are_part_of_a_human36m_fingerprint(tmp_path):
    pytest.importorskip("scipy")
    make.write_human36m(tmp_path, SWAP)
    seen = [open_dataset("human36m", tmp_path).test.fingerprint()]
    for file in ("WithBackground/Greeting/9.jpg", "BackgroudMask/Greeting/9.png", "Landmarks/Greeting/9.mat"):
        os.utime(tmp_path / "S11" / file, (1, 1))
        seen.append(open_dataset("human36m", tmp_path).test.fingerprint())
    assert len(set(seen)) == 4


def write_celeba(root):
    make.write_celeba(root, train=2, test=1)


WRITERS = {
    "celeba_wild": write_celeba,
    "cub_aligned": lambda root: make.write_cub_aligned(root, {}),
    "cub_001": lambda root: make.write_cub_parts(root, train={1: 2}, test={1: 1}),
    "taichi": lambda root: make.write_taichi(root, {}),
    "deepfashion": make.write_deepfashion,
    "human36m": lambda root: make.write_human36m(root, SWAP),
    "human36m_unaligned": make.write_human36m_unaligned,
    "folder": make.write_folder,
}


@pytest.mark.parametrize("name", WRITERS)
def test_splits_travel_to_other_processes(tmp_path, name):
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    for module in ("scipy", "h5py", "pandas"):
        pytest.importorskip(module)
    WRITERS[name](tmp_path)
    split = open_dataset(name, tmp_path).test.limited(1)
    there = pickle.loads(cloudpickle.dumps(split))
    assert there.fingerprint() == split.fingerprint()
    np.testing.assert_array_equal(there.image(0), split.image(0))
    np.testing.assert_array_equal(there.landmarks(0), split.landmarks(0))


def test_fingerprints_notice_changed_images_and_labels(tmp_path):
    make.write_folder(tmp_path)
    first = open_dataset("folder", tmp_path).test.fingerprint()
    assert open_dataset("folder", tmp_path).test.fingerprint() == first
    os.utime(tmp_path / "test" / "0.png", (1, 1))
    second = open_dataset("folder", tmp_path).test.fingerprint()
    path = tmp_path / "test" / "labels.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["keypoints"][0] += 1
    path.write_text(json.dumps(data))
    assert len({first, second, open_dataset("folder", tmp_path).test.fingerprint()}) == 3


# Missing and damaged files

FILES = {
    "celeba_aligned": (make.write_celeba, ("Anno/list_landmarks_align_celeba.txt", "MAFL/training.txt")),
    "celeba_wild": (make.write_celeba, ("Anno/list_bbox_celeba.txt", "Img/img_celeba/000003.jpg")),
    "deepfashion": (make.write_deepfashion, ("data_train.csv", "data_test.json")),
    "folder": (make.write_folder, ("test/labels.json",)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_its_source(tmp_path, name):
    write, files = FILES[name]
    write(tmp_path)
    for file in files:
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).unlink()
        with pytest.raises(KeypointError) as caught:
            open_dataset(name, tmp_path)
        assert "https://" in str(caught.value) or name == "folder"
        assert Path(file).name in str(caught.value) or name == "folder"
        (tmp_path / file).write_bytes(content)
    open_dataset(name, tmp_path)


@pytest.mark.parametrize(
    "name, file",
    [
        ("cub_aligned", "cub.h5"),
        ("cub_001", "train_cub_cleaned.mat"),
        ("taichi", "train"),
        ("human36m", "WithBackground"),
        ("human36m_unaligned", "S1"),
    ],
)
def test_an_empty_folder_names_the_first_file(tmp_path, name, file):
    with pytest.raises(KeypointError, match=f"{file}.* is missing; it comes with .*http"):
        open_dataset(name, tmp_path)


def test_a_missing_image_is_an_error_and_a_damaged_one_is_skipped(tmp_path):
    make.write_deepfashion(tmp_path)
    data = open_dataset("deepfashion", tmp_path)
    (tmp_path / "img" / "test_0.jpg").unlink()
    with pytest.raises(KeypointError, match="test_0.jpg is missing; it comes with DeepFashion") as caught:
        data.test.sample(0)
    assert not isinstance(caught.value, BrokenImage)
    (tmp_path / "img" / "test_7.jpg").write_bytes(b"no image")
    with pytest.raises(BrokenImage):
        data.test.sample(1)


def test_damaged_label_files_are_named(tmp_path):
    pytest.importorskip("scipy")
    pytest.importorskip("h5py")
    (tmp_path / "cub.h5").write_bytes(b"nothing")
    with pytest.raises(KeypointError, match="cub.h5"):
        open_dataset("cub_aligned", tmp_path)
    path = tmp_path / "CUB_200_2011" / "cachedir" / "cub" / "data" / "train_cub_cleaned.mat"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing at all, but long enough for a header" * 10)
    with pytest.raises(KeypointError, match="train_cub_cleaned.mat"):
        open_dataset("cub_all", tmp_path)
    make.write_celeba(tmp_path)
    lines = (tmp_path / "Anno" / "list_landmarks_celeba.txt").read_text().splitlines()
    (tmp_path / "Anno" / "list_landmarks_celeba.txt").write_text("\n".join([*lines[:3], lines[3] + " 7"]))
    with pytest.raises(KeypointError, match="11 numbers where 10"):
        open_dataset("celeba_wild", tmp_path)


def test_names_and_roots_are_checked(tmp_path):
    with pytest.raises(KeypointError, match="celeba_aligned, celeba_wild"):
        open_dataset("celebb", tmp_path)
    with pytest.raises(KeypointError, match="--root"):
        open_dataset("taichi")
    with pytest.raises(KeypointError, match="not a folder"):
        open_dataset("taichi", tmp_path / "nowhere")


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    make.write_cub_aligned(tmp_path, {})
    for module in ("h5py", "scipy.io"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(KeypointError, match=r'h5py.*pip install "stable-keypoints\[eval\]"'):
        open_dataset("cub_aligned", tmp_path)
    with pytest.raises(KeypointError, match=r'scipy.*pip install "stable-keypoints\[eval\]"'):
        open_dataset("cub_all", tmp_path)


def test_the_list_of_data_sets_loads_nothing_heavy():
    code = (
        "import sys; import stablekp_core.evaluation.datasets as d; assert len(d.DATASETS) >= 13; "
        "print([m for m in ('torch', 'scipy', 'h5py', 'pandas', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    wanted = "celeba_aligned celeba_wild cub_aligned cub_001 cub_002 cub_003 cub_all taichi deepfashion human36m"
    assert set(wanted.split()) | {"human36m_unaligned", "dolls", "folder"} <= set(DATASETS)
