"""How deep an image is says the file; what is no image in floats is refused."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from stablekp_core.errors import KeypointError
from stablekp_core.images.files import image_size, load_image
from stablekp_core.images.image_set import ImageSet


@pytest.mark.parametrize("peak", [40, 255, 4000, 65535])
def test_sixteen_bits_are_sixteen_bits_however_dark(tmp_path, peak):
    """A dark image was taken for one of 8 bits."""
    grey = np.full((20, 30), peak, np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        assert load_image(tmp_path / name)[0, 0].tolist() == [round(peak / 257)] * 3


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_tiffs_say_their_depth(tmp_path, bits):
    """Ten or twelve bits in sixteen came out nearly black."""
    from stablekp_core.images.files import _white_of

    image = Image.fromarray(np.full((20, 30), 2**bits - 1, np.uint16))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[258] = (bits,)
    image.tag_v2 = tags
    assert _white_of(image) == 2**bits - 1


def test_floats(tmp_path):
    Image.fromarray(np.full((20, 30), 0.5, np.float32)).save(tmp_path / "a.tif")
    assert load_image(tmp_path / "a.tif")[0, 0, 0] == 128
    Image.fromarray(np.full((20, 30), 128.0, np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(KeypointError, match="from 128 to 128"):
        load_image(tmp_path / "b.tif")
    for low, high in ((-1.0, 1.0), (0.0, 2.0), (0.0, 255.0)):
        wild = np.linspace(low, high, 16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3)
        with pytest.raises(KeypointError, match="give float from 0 to 1"):
            ImageSet.from_arrays([wild])[0]
    assert ImageSet.from_arrays([np.full((16, 16, 3), 1.1, np.float32)])[0].max() == 255  # resampling overshoots


def test_the_size_is_that_of_the_turned_image(tmp_path):
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[274] = turn
        Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
        height, width = load_image(tmp_path / "a.jpg").shape[:2]
        assert image_size(tmp_path / "a.jpg") == (width, height)
