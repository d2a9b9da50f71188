"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
from tiny_models import make_unet, make_vae, write_images


@pytest.fixture
def backbone():
    """A fresh tiny Backbone in fp32 on the CPU."""
    from stablekp_core.backbone.backbone import Backbone

    return Backbone(make_unet(), make_vae(), "tiny", "0123abcd")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """The tiny model as a diffusers folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_unet().save_pretrained(folder / "unet")
    make_vae().save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def image_folder(tmp_path):
    """A folder of six small images."""
    write_images(tmp_path / "pictures", 6)
    return tmp_path / "pictures"
