"""Images and points on a canvas of another size."""

import numpy as np
import pytest

from stablekp_core.drawing.canvas_fit import FITS, CanvasFit
from stablekp_core.errors import KeypointError


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(64, 64), (120, 40), (30, 90), (80, 60)])
def test_points_stay_on_what_they_mark(fit, size):
    """A bright square of 8 x 6 pixels is where its middle is said to be, whatever the canvas."""
    image = np.zeros((60, 80, 3), np.uint8)
    image[27:33, 36:44] = 255
    lay = CanvasFit.of((80, 60), size, fit)
    canvas = lay.image(image)
    assert canvas.shape == (size[1], size[0], 3)
    rows, columns = np.nonzero(canvas[..., 0] > 127)
    middle = columns.mean() + 0.5, rows.mean() + 0.5
    np.testing.assert_allclose(middle, lay.points([[40.0, 30.0]])[0], atol=0.75)
    sx, sy = lay.scale
    assert sx == pytest.approx(sy, rel=0.03) or fit == "stretch"


def test_contain_keeps_all_and_crop_fills():
    image = np.full((50, 100, 3), 200, np.uint8)
    contained = CanvasFit.of((100, 50), (60, 60), "contain").image(image, background=7)
    assert (contained[:15] == 7).all() and (contained[45:] == 7).all() and (contained[15:45] == 200).all()
    crop = CanvasFit.of((100, 50), (60, 60), "crop")
    assert (crop.image(image) == 200).all() and crop.offset == (-30, 0) and crop.scale == (1.2, 1.2)
    corners = crop.points([[0, 0], [100, 50]])
    np.testing.assert_allclose(corners, [[-30, 0], [90, 60]])


def test_a_missing_side_follows_the_other():
    assert CanvasFit.of((100, 50), (0, 0)).size == (100, 50)
    assert CanvasFit.of((100, 50), (40, 0)).size == (40, 20)
    assert CanvasFit.of((100, 50), (0, 100)).size == (200, 100)
    with pytest.raises(KeypointError, match="contain, crop, stretch"):
        CanvasFit.of((1, 1), (1, 1), "squash")
