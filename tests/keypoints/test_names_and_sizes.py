"""Names of one image in two lists, and things made on another copy of an image."""

import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.names import match_names
from stablekp_core.keypoints.sizes import scale_to_image

LABEL_STUDIO = [
    r"images\cb0618f6-img_000.jpg",
    r"..\..\label-studio\media\upload\4\cb0618f7-img_001.jpg",
    "/data/local-files/?d=photos%2Fimg_002.jpg",
    "img_003_jpg.rf.0a1b2c3d4e5f.jpg",
    "sub/img_004.png",
]


def test_tools_that_rename_files():
    ours = [f"img_{i:03d}.jpg" for i in range(6)]
    assert match_names(ours, LABEL_STUDIO) == dict(zip(LABEL_STUDIO, ours, strict=False))


def test_the_longest_path_from_the_right_decides():
    ours = ["a/left/1.jpg", "b/left/1.jpg", "b/right/1.jpg"]
    theirs = ["/data/b/left/1.jpg", "b/right/1.jpg"]
    assert match_names(ours, theirs) == {theirs[0]: "b/left/1.jpg", theirs[1]: "b/right/1.jpg"}
    assert match_names(["1.png", "1.jpg"], ["1.jpg"]) == {"1.jpg": "1.jpg"}  # the same suffix comes first
    assert match_names(["x.jpg"], ["y.jpg"]) == {}


@pytest.mark.parametrize(
    "ours, theirs, said",
    [
        (["a/1.jpg", "b/1.jpg"], ["1.jpg"], "1.jpg of the labels may be a/1.jpg or b/1.jpg"),
        (["1.jpg"], ["a/1.jpg", "b/1.jpg"], "a/1.jpg and b/1.jpg of the labels both go with 1.jpg"),
        (["1.jpg", "1.png"], ["1.webp"], "may be 1.jpg or 1.png"),
    ],
)
def test_what_could_be_two_images_is_refused_by_name(ours, theirs, said):
    with pytest.raises(KeypointError, match=said):
        match_names(ours, theirs)


def test_copies_of_one_shape_are_scaled():
    assert scale_to_image((200, 100), (800, 400), "x") == (4, 4)
    assert scale_to_image((1000, 667), (512, 344), "x") == pytest.approx((0.512, 344 / 667))  # rounded to eights
    assert scale_to_image((4032, 3024), (20, 15), "x")[0] == pytest.approx(20 / 4032)
    assert scale_to_image((1000, 333), (9, 3), "x") == pytest.approx((0.009, 3 / 333))


@pytest.mark.parametrize(
    "made_on, image, reason",
    [
        ((200, 100), (100, 200), "width and height are exchanged"),
        ((640, 480), (720, 480), "cropped or padded"),
        ((1280, 1024), (1280, 960), "cropped or padded"),
        ((0, 100), (100, 200), "no size"),
    ],
)
def test_other_shapes_are_refused_with_the_reason(made_on, image, reason):
    with pytest.raises(KeypointError, match=f"the labels of 1.jpg are for .*{reason}"):
        scale_to_image(made_on, image, "the labels of 1.jpg")
