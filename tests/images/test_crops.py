import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.images.crops import boxes_from_masks, crop_instances, detect_instances, read_boxes, to_full_image
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.writing import to_pose_keypoint


def scene(dots, width=120, height=80):
    """A black image with one white pixel at each (x, y)."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in dots:
        image[y, x] = 255
    return image


def find_dot(crops):
    """A detector that finds the centre of the white pixel of each crop, exactly."""
    xy, sizes = [], []
    for crop in crops:
        y, x = np.argwhere(crop[..., 0] == 255)[0]
        xy.append([[x + 0.5, y + 0.5]])
        sizes.append((crop.shape[1], crop.shape[0]))
    return Keypoints(np.array(xy), np.ones((len(xy), 1)), np.array(sizes), ("nose",))


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.15, 2.0])
def test_points_come_back_to_full_image_pixels(square, margin):
    dots = [[(10, 12), (100, 60)], [], [(0, 79)]]
    images = [scene(d) for d in dots]
    boxes = [[(5, 5, 14, 20), {"x": 90, "y": 50, "width": 25, "height": 20}], [], [(0, 70, 10, 10)]]
    cut, _ = crop_instances(images, boxes, margin=margin, square=square)
    if margin == 2.0:  # both dots may be in one crop then: leave the other one out
        boxes, dots = [boxes[0][:1], [], boxes[2]], [dots[0][:1], [], dots[2]]
        images = [scene(d) for d in dots]
    found = detect_instances(find_dot, images, boxes, names=("a", "b", "c"), margin=margin, square=square)
    expected = [(x + 0.5, y + 0.5) for frame in dots for x, y in frame]
    np.testing.assert_allclose(found.xy[:, 0], expected)
    assert found.image_index.tolist() == [i for i, frame in enumerate(dots) for _ in frame]
    assert (found.sizes == (120, 80)).all() and found.images[0] == "a" and found.images[-1] == "c"
    if square:
        assert all(piece.shape[0] == piece.shape[1] for piece in cut)


def test_resized_cut_outs_are_scaled_back():
    _, crops = crop_instances([scene([])], [[(20, 20, 40, 20)]], margin=0, square=False)
    half = Keypoints(np.array([[[10.0, 5.0]]]), np.ones((1, 1)), np.array([[20, 10]]))
    np.testing.assert_allclose(to_full_image(half, crops).xy[0, 0], [40, 30])


def test_several_people_of_one_image():
    images = [scene([(20, 20), (90, 40)])]
    found = detect_instances(find_dot, images, [[(10, 10, 20, 20), (80, 30, 20, 20)]])
    names = Keypoints(found.xy, found.confidence, found.sizes, ("nose",), image_index=found.image_index)
    frames = to_pose_keypoint(names)
    assert len(frames) == 1 and len(frames[0]["people"]) == 2
    assert frames[0]["people"][1]["pose_keypoints_2d"][:3] == [90.5, 40.5, 1.0]


def test_windows_stay_inside_where_they_fit_and_repeat_the_border_elsewhere():
    image = np.arange(40 * 30 * 3, dtype=np.uint16).reshape(30, 40, 3).astype(np.uint8)
    (piece,), (crop,) = crop_instances([image], [[(0, 0, 20, 20)]], margin=0.1)
    assert (crop.left, crop.top, crop.width, crop.height) == (0, 0, 24, 24)
    np.testing.assert_array_equal(piece, image[:24, :24])
    (piece,), (crop,) = crop_instances([image], [[(0, 0, 40, 30)]], margin=0)
    assert piece.shape == (40, 40, 3) and crop.top == -5 and crop.left == 0
    np.testing.assert_array_equal(piece[5:35], image)
    assert (piece[:5] == image[0]).all() and (piece[35:] == image[-1]).all()


def test_tiny_boxes_become_images_of_a_usable_size():
    (piece,), _ = crop_instances([scene([])], [[(50, 50, 1, 1)]])
    assert piece.shape == (16, 16, 3)


def test_masks():
    masks = np.zeros((2, 80, 120), np.float32)
    masks[0, 10:30, 5:25] = 1
    masks[1, 40:70, 60:61] = 0.9
    assert boxes_from_masks(masks) == [(5, 10, 20, 20), (60, 40, 1, 30)]
    image = scene([(15, 15), (60, 50)])
    found = detect_instances(find_dot, [image], figure_masks=[masks])
    np.testing.assert_allclose(found.xy[:, 0], [(15.5, 15.5), (60.5, 50.5)])
    with pytest.raises(KeypointError, match="mask 1 is empty"):
        boxes_from_masks(masks * np.array([1, 0])[:, None, None])


def test_isolating_hides_the_others():
    masks = np.zeros((2, 80, 120), bool)
    masks[0, 20:40, 20:40] = masks[1, 20:40, 40:60] = True
    image = np.zeros((80, 120, 3), np.uint8)
    image[masks[0]], image[masks[1]] = (200, 0, 0), (0, 200, 0)
    green = {}
    for isolate in ("none", "others", "background"):
        (first, second), _ = crop_instances([image], figure_masks=[masks], margin=0.5, isolate=isolate)
        green[isolate] = (first[..., 1] == 200).sum()
        assert (first[..., 0] == 200).sum() == 400  # the figure itself stays
        assert (second[..., 1] == 200).sum() == 400
        if isolate == "background":
            assert len(np.unique(first.reshape(-1, 3), axis=0)) == 2
    assert green["none"] > 0 and green["others"] == green["background"] == 0


def test_boxes_in_every_form():
    one = {"x": 1, "y": 2, "width": 3, "height": 4}
    box = (1.0, 2.0, 3.0, 4.0)
    for value in (one, [one], [1, 2, 3, 4], [[1, 2, 3, 4]], [[one]], np.array([[1, 2, 3, 4]])):
        assert read_boxes(value) == [[box]]
    assert read_boxes([one, [one, one], None], 3) == [[box], [box, box], []]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": [[(1, 2, 3)]]}, "is no box"),
        ({"boxes": [[{"x": 1, "y": 2, "w": 3}]]}, "is no box"),
        ({"boxes": [[(1, 2, 0, 5)]]}, "has no area"),
        ({"boxes": [[(500, 2, 10, 5)]]}, "outside its 120x80 image"),
        ({"boxes": [[], []]}, "boxes of 2 images were given for 1"),
        ({}, "either boxes or masks"),
        ({"boxes": [[]], "isolate": "others"}, "need masks"),
        ({"boxes": [[]], "margin": -1}, "margin is -1"),
        ({"figure_masks": [np.ones((1, 10, 10))]}, "10x10 but the image is 120x80"),
        ({"figure_masks": [np.ones((1, 1, 10, 10))]}, "figures, height, width"),
    ],
)
def test_bad_boxes_and_masks(arguments, message):
    with pytest.raises(KeypointError, match=message):
        crop_instances([scene([])], **arguments)


def test_nothing_to_detect():
    with pytest.raises(KeypointError, match="no box or mask"):
        detect_instances(find_dot, [scene([])], [[]])
    _, crops = crop_instances([scene([])], [[(20, 20, 40, 20)]])
    with pytest.raises(KeypointError, match="keypoints of 2 crops but 1"):
        to_full_image(find_dot([scene([(1, 1)])] * 2), crops)
