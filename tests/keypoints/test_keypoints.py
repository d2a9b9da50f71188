"""The Keypoints type and its file formats."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import POINT_FIELDS, ROW_FIELDS, Keypoints


def make(rows=3, count=4, seed=0, **fields):
    rng = np.random.default_rng(seed)
    values = {
        "xy": rng.uniform(0, 200, (rows, count, 2)),
        "confidence": rng.uniform(0.01, 1, (rows, count)),
        "sizes": rng.integers(100, 300, (rows, 2)),
        "names": tuple(f"p{k}" for k in range(count)),
        "skeleton": ((0, 1), (1, 2), (3, 0))[: max(0, count - 1)],
        "images": tuple(f"img{r}.png" for r in range(rows)),
    }
    return Keypoints(**{**values, **fields})


def same(a, b):
    assert np.array_equal(a.xy, b.xy) and np.array_equal(a.confidence, b.confidence)
    assert np.array_equal(a.occluded, b.occluded)
    assert np.array_equal(a.sizes, b.sizes) and np.array_equal(a.image_index, b.image_index)
    assert (a.names, a.skeleton, a.images, a.colors) == (b.names, b.skeleton, b.images, b.colors)


def test_defaults_and_types():
    kp = Keypoints([[[1, 2], [3, 4]]], [[1, 0.5]], [[10, 20]])
    assert kp.names == ("kp0", "kp1") and kp.images == ("",) and kp.image_index.tolist() == [0]
    assert kp.xy.dtype == np.float32 and kp.confidence.dtype == np.float32 and kp.sizes.dtype == np.int64
    assert len(kp) == 1 and kp.num_keypoints == 2


def test_arrays_are_copies():
    xy = np.zeros((1, 1, 2), dtype=np.float32)
    kp = Keypoints(xy, [[1]], [[9, 9]])
    xy[:] = 5
    assert (kp.xy == 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"xy": np.zeros((3, 4))}, "positions have shape"),
        ({"xy": np.full((3, 4, 2), np.nan)}, "xy holds a value that is not finite"),
        ({"xy": "text"}, "not an array of numbers"),
        ({"confidence": np.ones((3, 5))}, "confidence has shape"),
        ({"confidence": np.full((3, 4), np.inf)}, "confidence holds"),
        ({"confidence": np.full((3, 4), 1.5)}, "0..1"),
        ({"confidence": np.full((3, 4), -0.1)}, "0..1"),
        ({"occluded": np.ones((3, 5))}, "occluded has shape"),
        ({"occluded": np.full((3, 4), 1.5)}, "occluded runs from 1.5 to 1.5"),
        ({"sizes": np.ones((2, 2))}, "sizes has shape"),
        ({"sizes": np.zeros((3, 2))}, "not positive"),
        ({"names": ("a", "b", "c", "a")}, "names must differ"),
        ({"names": ("a", "b")}, "2 names"),
        ({"images": ("a",)}, "1 image names"),
        ({"skeleton": ((0, 4),)}, "skeleton edge"),
        ({"skeleton": ((1, 1),)}, "skeleton edge"),
        ({"skeleton": ((1, 2, 3),)}, "not a pair"),
        ({"colors": ((1, 2, 3),)}, "1 colors"),
        ({"colors": ((1, 2, 256),) * 4}, "0..255"),
        ({"image_index": [0, -1, 1]}, "negative"),
        ({"image_index": [0, 1]}, "image_index has shape"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(KeypointError, match=message):
        make(**fields)


def test_select_reorders_and_remaps_the_skeleton():
    kp = make(colors=((0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4)))
    chosen = kp.select([3, 0, 2])
    assert chosen.names == ("p3", "p0", "p2") and chosen.skeleton == ((0, 1),)
    assert chosen.colors == ((0, 0, 4), (0, 0, 1), (0, 0, 3))
    assert np.array_equal(chosen.xy, kp.xy[:, [3, 0, 2]])
    for bad in ([0, 0], [4], [-1]):
        with pytest.raises(KeypointError, match="different numbers"):
            kp.select(bad)


def test_frame_and_instances():
    kp = make(image_index=[0, 0, 2])
    one = kp.frame(2)
    assert len(one) == 1 and one.images == ("img2.png",) and one.image_index.tolist() == [0]
    assert np.array_equal(one.xy[0], kp.xy[2])
    assert len(kp.instances(0)) == 2 and len(kp.instances(1)) == 0
    same(kp.frame(-1), kp.frame(2))
    with pytest.raises(KeypointError, match="row 3"):
        kp.frame(3)


def test_concat_counts_images_on():
    a, b = make(image_index=[0, 0, 1]), make(2, seed=1)
    both = Keypoints.concat([a, make(0), b])
    assert both.image_index.tolist() == [0, 0, 1, 2, 3] and both.images == a.images + b.images
    assert np.array_equal(both.xy[3:], b.xy)
    with pytest.raises(KeypointError, match="cannot be put together"):
        Keypoints.concat([a, make(count=3)])
    with pytest.raises(KeypointError, match="no keypoints"):
        Keypoints.concat([])


# COCO


def test_coco_layout():
    kp = Keypoints(
        [[[10, 20], [30, 60.5], [5, 5]]],
        [[0.9, 0.3, 0.0]],
        [[100, 80]],
        ("a", "b", "c"),
        ((0, 2),),
        ("x.png",),
    )
    assert kp.to_coco(threshold=0.5) == {
        "images": [{"id": 1, "file_name": "x.png", "width": 100, "height": 80}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "keypoints": [10.0, 20.0, 2, 30.0, 60.5, 1, 5.0, 5.0, 0],
                "num_keypoints": 2,
                "scores": [0.9, 0.3, 0.0],
                "bbox": [10.0, 20.0, 20.0, 40.5],
                "area": 810.0,
                "iscrowd": 0,
            }
        ],
        "categories": [
            {
                "id": 1,
                "name": "object",
                "supercategory": "object",
                "keypoints": ["a", "b", "c"],
                "skeleton": [[1, 3]],
            }
        ],
    }


def test_coco_threshold_is_inclusive():
    kp = Keypoints([[[1, 1], [2, 2]]], [[0.5, 0.25]], [[9, 9]])
    assert kp.to_coco(0.5)["annotations"][0]["keypoints"][2::3] == [2, 1]
    assert kp.to_coco(0.25)["annotations"][0]["keypoints"][2::3] == [2, 2]


def test_hidden_points_are_labelled_but_not_visible():
    kp = Keypoints([[[1, 1], [2, 2], [3, 3]]], [[0.9, 0.9, 0.0]], [[9, 9]], occluded=[[0.5, 0.49, 0.9]])
    annotation = kp.to_coco(0.5)["annotations"][0]
    assert annotation["keypoints"][2::3] == [1, 2, 0]
    assert annotation["hidden"] == [0.5, 0.49, 0.9]
    assert kp.select([2, 0]).occluded.tolist() == kp.occluded[:, [2, 0]].tolist()
    both = Keypoints.concat([kp, kp.frame(0)])
    assert (
        np.array_equal(both.occluded, np.concatenate([kp.occluded, kp.occluded]))
        and len(both.instances(1).occluded) == 1
    )
    bad = kp.to_coco()
    bad["annotations"][0]["hidden"] = [1, 2]
    with pytest.raises(KeypointError, match="hidden has 2 numbers, but 3 are needed"):
        Keypoints.from_coco(bad)


@pytest.mark.parametrize("rows", [0, 1, 50])
@pytest.mark.parametrize("known", [False, True])
def test_json_round_trip_is_exact(rows, known):
    occluded = np.random.default_rng(1).random((rows, 4)) * known
    kp = make(rows, 4, colors=((1, 2, 3),) * 4, occluded=occluded)
    same(Keypoints.from_json(kp.to_json()), kp)


def test_round_trip_of_several_instances_per_image(tmp_path):
    kp = make(4, image_index=[0, 0, 1, 1], images=("a", "a", "b", "b"), sizes=[[9, 8], [9, 8], [7, 6], [7, 6]])
    data = kp.to_coco()
    assert [image["file_name"] for image in data["images"]] == ["a", "b"]
    assert [annotation["image_id"] for annotation in data["annotations"]] == [1, 1, 2, 2]
    path = tmp_path / "labels.json"
    path.write_text(kp.to_json())
    same(Keypoints.load(path), kp)


def labels(**changes):
    """What labelling tools export: no scores, no skeleton, ids out of order, an image without labels."""
    data = {
        "images": [
            {"id": 7, "file_name": "sub/b.png", "width": 64, "height": 48},
            {"id": 3, "file_name": "a.png", "width": 32, "height": 24},
            {"id": 5, "file_name": "empty.png", "width": 10, "height": 10},
            {"id": 9, "file_name": "c.png", "width": 20, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 2, "keypoints": [1, 2, 2, 0, 0, 0]},
            {"id": 2, "image_id": 7, "category_id": 2, "keypoints": [3, 4, 1, 5, 6, 2]},
            {"id": 3, "image_id": 7, "category_id": 2, "keypoints": [7, 8, 2, 9, 10, 2]},
            {"id": 4, "image_id": 3, "category_id": 1, "bbox": [0, 0, 5, 5]},
        ],
        "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "dog", "keypoints": ["nose", "tail"]}],
    }
    return {**data, **changes}


def test_labelling_tools_export():
    kp = Keypoints.from_coco(labels())
    assert kp.images == ("sub/b.png", "sub/b.png", "c.png") and kp.image_index.tolist() == [0, 0, 3]
    assert kp.confidence.tolist() == [[1, 1], [1, 1], [1, 0]] and kp.skeleton == ()
    assert kp.xy.tolist() == [[[3, 4], [5, 6]], [[7, 8], [9, 10]], [[1, 2], [0, 0]]]
    assert kp.sizes.tolist() == [[64, 48], [64, 48], [20, 30]] and kp.names == ("nose", "tail")


def test_labels_without_names_or_annotations():
    data = labels()
    data["categories"][1].pop("keypoints")
    assert Keypoints.from_coco(data).names == ("kp0", "kp1")
    assert Keypoints.from_coco(labels(annotations=[])).xy.shape == (0, 2, 2)


def test_skeleton_base_is_told_by_a_zero():
    data = labels()
    data["categories"][1]["skeleton"] = [[1, 2]]
    assert Keypoints.from_coco(data).skeleton == ((0, 1),)
    data["categories"][1]["skeleton"] = [[0, 1]]
    assert Keypoints.from_coco(data).skeleton == ((0, 1),)


def test_category_is_chosen_by_name_when_several_have_keypoints():
    data = labels()
    data["categories"].append({"id": 4, "name": "cat", "keypoints": ["x"]})
    assert Keypoints.from_coco(data).names == ("nose", "tail")  # nobody drew a cat
    data["annotations"].append({"id": 9, "image_id": 3, "category_id": 4, "keypoints": [1, 1, 2]})
    with pytest.raises(KeypointError, match="several categories.*dog, cat"):
        Keypoints.from_coco(data)
    assert Keypoints.from_coco(data, "cat").names == ("x",)
    with pytest.raises(KeypointError, match="no category 'cow'"):
        Keypoints.from_coco(data, "cow")


def broken(section, index, **changes):
    data = labels()
    data[section][index] = {**data[section][index], **changes}
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "not COCO"),
        ({"images": []}, "no list of annotations"),
        (labels(categories=[1]), "no list of categories"),
        (labels(categories=[]), "no keypoints"),
        (broken("annotations", 0, image_id=99), "image 99"),
        (broken("annotations", 0, keypoints=[1, 2, 2]), "3 numbers, but 6"),
        (broken("annotations", 0, keypoints=[1, 2, 2, "x", 0, 0]), "not numbers"),
        (broken("annotations", 0, keypoints=[1, float("nan"), 2, 0, 0, 0]), "annotation 1: keypoint 0 is labelled"),
        (broken("annotations", 0, scores=[1.0]), "scores has 1"),
        (broken("annotations", 0, scores=[1.0, 7.0]), "0..1"),
        (broken("images", 3, width=None), "no width and height"),
        (broken("images", 3, id=7), "share one id"),
        (broken("categories", 1, keypoints=["a", "a"]), "names must differ"),
        (broken("categories", 1, skeleton=[1, 2]), "not a list of pairs"),
    ],
)
def test_bad_coco_is_refused(data, message):
    with pytest.raises(KeypointError, match=message):
        Keypoints.from_coco(data)


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "labels.json"
    with pytest.raises(KeypointError, match="labels.json cannot be read"):
        Keypoints.load(path)
    path.write_text("{oops")
    with pytest.raises(KeypointError, match="labels.json is not JSON"):
        Keypoints.load(path)
    path.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(KeypointError, match="is not text"):
        Keypoints.load(path)


# Other formats


def test_csv_has_one_line_per_point():
    kp = make(2, 3, images=("a,b.png", 'q"'))
    rows = list(csv.DictReader(io.StringIO(kp.to_csv())))
    assert len(rows) == 6 and rows[4]["name"] == "p1" and rows[0]["image"] == "a,b.png" and rows[5]["image"] == 'q"'
    read = np.array([[float(r["x"]), float(r["y"]), float(r["confidence"])] for r in rows], dtype=np.float32)
    assert np.array_equal(read[:, :2].reshape(2, 3, 2), kp.xy)
    assert np.array_equal(read[:, 2].reshape(2, 3), kp.confidence)
    assert [int(r["width"]) for r in rows] == kp.sizes[:, 0].repeat(3).tolist()


def test_every_choice_carries_every_field():
    """The lists name all arrays of the type, and all that choose, order or join go by them."""
    kp = make(4, 3, occluded=np.random.default_rng(5).random((4, 3)), image_index=[0, 0, 2, 5])
    per_point = {
        f.name for f in dataclasses.fields(Keypoints) if getattr(getattr(kp, f.name), "shape", ())[:2] == (4, 3)
    }
    assert per_point == set(POINT_FIELDS)
    per_row = {f.name for f in dataclasses.fields(Keypoints) if len(np.shape(getattr(kp, f.name))) >= 1} - per_point
    assert set(ROW_FIELDS) == per_row - {"names", "skeleton", "colors", "empty_images"}
    orders = np.array([[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]])
    for name in POINT_FIELDS:
        whole = getattr(kp, name)
        assert np.array_equal(getattr(kp.select([2, 0]), name), whole[:, [2, 0]])
        assert np.array_equal(getattr(kp.rows([3, 1]), name), whole[[3, 1]])
        assert np.array_equal(getattr(Keypoints.concat([kp, kp.rows([1])]), name), whole[[0, 1, 2, 3, 1]])
        assert np.array_equal(getattr(kp.reordered(orders), name), whole[np.arange(4)[:, None], orders])
    assert kp.reordered(orders).names == kp.names


def test_keypoints_know_how_many_images_they_are_of():
    first = make(2, 2, skeleton=(), image_index=[0, 1], num_images=4, empty_images=[(3, "d.png", 30, 20)])
    assert first.num_images == 4 and make(2, 2, skeleton=(), image_index=[1, 5]).num_images == 6
    both = Keypoints.concat([first, make(1, 2, skeleton=())])  # the first batch ends in images without a figure
    assert both.image_index.tolist() == [0, 1, 4] and both.num_images == 5
    assert both.image_list()[3] == ("d.png", (30, 20)) and both.image_list()[2] == ("", (0, 0))
    again = Keypoints.from_json(both.to_json())
    assert again.image_index.tolist() == [0, 1, 4] and again.num_images == 5
    assert again.image_list()[3] == ("d.png", (30, 20)) and again.image_list()[4] == both.image_list()[4]
    assert both.rows([2]).num_images == 5 and both.frame(2).num_images == 1
    assert Keypoints.concat([make(0, 2, skeleton=(), num_images=3), first]).image_index.tolist() == [3, 4]
    with pytest.raises(KeypointError, match="keypoints of 2 images, but image 5 is among them"):
        make(2, 2, skeleton=(), image_index=[0, 5], num_images=2)


def test_point_json():
    kp = make(5, 2, skeleton=())
    points = json.loads(kp.to_point_json(3))
    assert np.array_equal(np.float32([[p["x"], p["y"]] for p in points]), kp.xy[3])
