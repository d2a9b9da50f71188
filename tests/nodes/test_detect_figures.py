"""Boxes and masks at Detect Keypoints: several figures in one image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from node_data import part, tokens

from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints


class Backbone:
    """In place of a model: what the node opens and hands on."""

    hash = ""

    def open(self, batch_size):
        from contextlib import nullcontext

        return nullcontext(self)


def detect(pack, monkeypatch, images, **more):
    """The node with a detection that finds each cut-out's corner and centre."""
    module, sizes = part("detect_keypoints"), []

    def found(model, tokens, images, config, heat, progress):
        pairs = list(images)
        sizes.extend(image.shape[1::-1] for _, image in pairs)
        corner_and_centre = np.array([[[0, 0], [w / 2, h / 2]] for w, h in sizes])
        names = tuple(name for name, _ in pairs)
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
        detect(pack, monkeypatch, images, boxes=[[[BOX], [BOX]]])


@pytest.mark.parametrize("boxes, rows", [(BOX, 1), ([BOX, OTHER], 2), ([[BOX, OTHER]], 2), ([BOX, OTHER, BOX], 3)])
def test_one_list_of_boxes_counts_for_all_images(pack, monkeypatch, boxes, rows):
    """As in ComfyUI's own nodes, also where there happen to be as many boxes as images."""
    (found, _, _), _ = detect(pack, monkeypatch, [torch.rand(3, 64, 96, 3)], boxes=[boxes])
    assert found.image_index.tolist() == sorted([0, 1, 2] * rows)


def test_boxes_of_the_canvas_widget_are_taken_too(pack, monkeypatch):
    assert part("comfy.sockets").AnyBoxes.io_type.split(",") == ["BOUNDING_BOX", "BOUNDING_BOXES"]
    drawn = [{**BOX, "metadata": {"label": "cat"}}, OTHER]
    (found, _, _), _ = detect(pack, monkeypatch, [torch.rand(1, 64, 96, 3)], boxes=[drawn])
    assert len(found) == 2


def test_boxes_or_images_beside_a_video_are_refused(pack, monkeypatch):
    video = [SimpleNamespace(get_components=lambda: SimpleNamespace(images=torch.rand(3, 20, 30, 3)))]
    (found, maps, _), sizes = detect(pack, monkeypatch, None, video=video)
    assert sizes == [(30, 20)] * 3 and found.images == ("frame_000000", "frame_000001", "frame_000002")
    for more in ({"boxes": [BOX]}, {"images": [torch.rand(1, 20, 30, 3)]}):
        with pytest.raises(KeypointError, match="connect the video alone"):
            detect(pack, monkeypatch, more.pop("images", None), video=video, **more)
    with pytest.raises(KeypointError, match="no images; connect at least one"):
        detect(pack, monkeypatch, None)


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
