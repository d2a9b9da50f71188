"""Label files of other people's tools: read where their meaning is plain, else refused by file and entry."""

import copy
import json
import logging

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.reading import read_pose

NAMES = ("nose", "tail", "hip")


def coco(**category):
    points = [[10.0, 20, 2, 30, 40, 2, 50, 60, 2], [11.0, 21, 2, 31, 41, 2, 51, 61, 2]]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100} for i in (0, 1)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "keypoints": p} for i, p in enumerate(points)],
        "categories": [{"id": 1, "name": "thing", "keypoints": list(NAMES), "skeleton": [[1, 2]], **category}],
    }


PLAIN = Keypoints.from_coco(coco())


def read(tmp_path, data) -> Keypoints:
    path = tmp_path / "labels.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return Keypoints.load(path)


def same(a: Keypoints, b: Keypoints) -> None:
    assert (a.xy == b.xy).all() and (a.confidence == b.confidence).all() and a.names == b.names


def test_keypoints_as_a_list_of_points(tmp_path):
    data = coco()
    for a in data["annotations"]:
        a["keypoints"] = np.reshape(a["keypoints"], (-1, 3)).tolist()
    same(read(tmp_path, data), PLAIN)
    del data["categories"][0]["keypoints"]
    assert read(tmp_path, data).num_keypoints == 3


@pytest.mark.parametrize("gap", ["NaN", "null"])
def test_a_point_that_is_not_labelled_may_have_any_place(tmp_path, gap):
    data = coco()
    data["annotations"][0]["keypoints"][:3] = ["GAP", "GAP", 0]
    found = read(tmp_path, json.dumps(data).replace('"GAP"', gap))
    assert found.confidence.tolist() == [[0, 1, 1], [1, 1, 1]] and np.isfinite(found.xy).all()
    same(found.rows([1]), PLAIN.rows([1]))
    data["annotations"][0]["keypoints"][2] = 2
    with pytest.raises(
        KeypointError, match=r"labels.json: annotation 0: keypoint 0 is labelled \(v = 2\) but has no place"
    ):
        read(tmp_path, json.dumps(data).replace('"GAP"', gap))


def test_gaps_in_openpose_files():
    body = [1.0, 2.0, 1.0] * 18
    body[:3] = [float("nan"), None, 0.0]
    frame = {"people": [{"pose_keypoints_2d": body}], "canvas_width": 200, "canvas_height": 100}
    found = read_pose([frame])
    assert found.confidence[0, 0] == 0 and (found.confidence[0, 1:] == 1).all()


def test_ids_of_another_type_and_empty_scores(tmp_path):
    data = coco()
    for a in data["annotations"]:
        a |= {"image_id": str(a["image_id"]), "category_id": "1", "scores": []}
    same(read(tmp_path, data), PLAIN)


def test_lines_between_points_that_do_not_exist_are_left_out_and_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, coco(skeleton=[[3, 2], [9, 15], [32, 33]]))
    assert found.skeleton == ((2, 1),)
    assert "2 of 3 lines of the skeleton of category 'thing'" in caplog.text and "count from 1 to 3" in caplog.text
    assert "[9, 15]" in caplog.text
    assert read(tmp_path, coco(skeleton=[[0, 1], [1, 2], [2, 3]])).skeleton == ((0, 1), (1, 2))


def test_kinds_with_the_same_points_are_one(tmp_path):
    data = coco()
    data["categories"].append({**data["categories"][0], "id": 2, "name": "other thing"})  # AP-10K has 54 of these
    data["annotations"][1]["category_id"] = 2
    same(read(tmp_path, data), PLAIN)
    assert len(Keypoints.from_coco(data, "other thing")) == 1
    data["categories"].append({"id": 3, "name": "box", "keypoints": ["lid"]})
    data["annotations"].append({"id": 9, "image_id": 0, "category_id": 3, "keypoints": [1, 2, 2]})
    with pytest.raises(KeypointError, match=r"labels.json: .*\(thing, other thing, box\).*--category NAME"):
        read(tmp_path, data)
    assert Keypoints.from_coco(data, "box").names == ("lid",)
    with pytest.raises(KeypointError, match="no category 'dog', but thing, other thing, box"):
        Keypoints.from_coco(data, "dog")


def test_crowds_are_no_figures():
    data = coco()
    data["annotations"].append({**copy.deepcopy(data["annotations"][0]), "id": 7, "iscrowd": 1})
    same(Keypoints.from_coco(data), PLAIN)


def test_shares_of_the_canvas_with_points_outside_the_frame():
    body = [[0.1 + 0.02 * i, 1.04 - 0.01 * i, 1.0] for i in range(18)]
    body[3] = [-0.03, 0.5, 1.0]
    frame = {"people": [{"pose_keypoints_2d": sum(body, [])}], "canvas_width": 200, "canvas_height": 100}
    found = read_pose(frame)
    np.testing.assert_allclose(found.xy[0, :4], [[20, 104], [24, 103], [28, 102], [-6, 50]], atol=1e-4)


def test_a_folder_of_openposes_own_files(tmp_path):
    """One file a frame, without the size of the image; a frame may show nobody."""
    for i, name in enumerate(("f10", "f2", "f1")):
        people = [] if name == "f10" else [{"pose_keypoints_2d": [50.0 + i, 60.0, 0.9] * 25}]
        (tmp_path / f"{name}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))
    with pytest.raises(KeypointError, match="does not say how large its image is.*--canvas WIDTH HEIGHT"):
        read_pose(tmp_path)
    found = read_pose(tmp_path, canvas=(640, 480))
    assert found.images == ("f1", "f2") and found.num_images == 3 and found.image_list()[2] == ("f10", (640, 480))
    assert found.xy[:, 0, 0].tolist() == [52, 51] and (found.sizes == (640, 480)).all()
    (tmp_path / "notes.json").write_text("[]")
    with pytest.raises(KeypointError, match="notes.json is not one of OpenPose's files"):
        read_pose(tmp_path, canvas=(640, 480))


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.json", json.dumps([{"id": 1, "data": {"image": "x"}, "annotations": []}]), "Label Studio's own JSON.*COCO"),
        ("dlc.csv", "scorer,a\n", "DeepLabCut's.*COCO keypoints"),
        ("dlc.h5", "\0", "HDF5 file.*COCO keypoints"),
        ("video.slp", "\0", "SLEAP project.*COCO keypoints"),
        ("a.json", "{", "a.json is not JSON"),
    ],
)
def test_other_formats_are_told_which_export_to_use(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    for load in (Keypoints.load, read_pose):
        with pytest.raises(KeypointError, match=f"{name} is .*{said.split(' is ')[-1]}" if " is " in said else said):
            load(tmp_path / name)


def test_text_in_other_encodings(tmp_path):
    path = tmp_path / "labels.json"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(json.dumps(coco()).encode(encoding))
        same(Keypoints.load(path), PLAIN)
    path.write_bytes('{"Flügel": 1}'.encode("cp1252"))
    with pytest.raises(KeypointError, match="labels.json is text in another encoding than UTF-8"):
        Keypoints.load(path)
    path.write_bytes(b"\x89PNG\0\xff")
    with pytest.raises(KeypointError, match="labels.json is not text"):
        Keypoints.load(path)
    with pytest.raises(KeypointError, match="gone.json cannot be read .No such file") as caught:
        Keypoints.load(tmp_path / "gone.json")
    assert "Errno" not in str(caught.value)
