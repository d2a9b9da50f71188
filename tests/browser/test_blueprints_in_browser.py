"""The pack's blueprints in the real page: offered, and one of them run as the node it looks like."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stablekp_core.keypoints.keypoints import Keypoints

#: Adds the blueprint of that name; its widgets' names, and the ids of the nodes that show what it gives.
_ADD = """async (name) => {
  const list = await (await app.api.fetchApi('/global_subgraphs')).json();
  const id = Object.keys(list).find((key) => list[key].name === name);
  const file = await (await app.api.fetchApi(`/global_subgraphs/${id}`)).json();
  await app.loadGraphData(JSON.parse(file.data));
  const whole = app.graph._nodes[0];
  const widgets = whole.widgets.map((widget) => widget.name);
  if (!whole.inputs.some((slot) => slot.name === 'images')) return { widgets };
  const [dolls, keep, show] = ['TestDolls', 'TestKeep', 'PreviewImage'].map((kind, i) => {
    const node = LiteGraph.createNode(kind);
    node.pos = [[-320, 0], [400, 0], [400, 120]][i];
    app.graph.add(node);
    return node;
  });
  dolls.widgets.find((widget) => widget.name === 'count').value = 2;
  dolls.widgets.find((widget) => widget.name === 'side').value = 128;
  dolls.connect(1, whole, whole.inputs.findIndex((slot) => slot.name === 'images'));
  whole.connect(0, keep, 0);
  whole.connect(1, show, 0);
  return { widgets, keep: keep.id, show: show.id };
}"""


def test_image_to_keypoints_runs_as_one_node(open_page, shot):
    page = open_page()
    page.open()
    made = page.page.evaluate(_ADD, "Image to Keypoints")
    assert made["widgets"] == ["model", "tokens_file", "style"]
    done = page.run(600)
    assert done["kind"] == "execution_success", done["detail"]
    shot(page, "blueprint_run")
    found = Keypoints.from_json(done["outputs"][str(made["keep"])]["coco"][0])
    assert len(found) == 2 and found.num_keypoints == 10 and (found.confidence > 0).any()
    assert len(done["outputs"][str(made["show"])]["images"]) == 2


def test_train_on_a_folder_shows_what_is_chosen(open_page):
    page = open_page()
    page.open()
    made = page.page.evaluate(_ADD, "Train Keypoints on a Folder")
    assert made["widgets"] == ["model", "folder", "max_images", "keypoints", "steps", "seed", "name"]


_HINT = """async () => {
  const [dolls, latent, show] = ['TestDolls', 'EmptyLatentImage', 'PreviewImage'].map((kind, i) => {
    const node = LiteGraph.createNode(kind);
    node.pos = [[-320, 0], [-320, 200], [400, 0]][i];
    app.graph.add(node);
    return node;
  });
  const whole = app.graph._nodes[0], set = (node, name, value) => {
    node.widgets.find((widget) => widget.name === name).value = value;
  };
  set(dolls, 'count', 1);
  set(latent, 'width', 320);
  set(latent, 'height', 192);
  set(whole, 'style', 'scribble');
  dolls.connect(0, whole, whole.inputs.findIndex((slot) => slot.name === 'keypoints'));
  latent.connect(0, whole, whole.inputs.findIndex((slot) => slot.name === 'size'));
  whole.connect(0, show, 0);
  return show.id;
}"""


def test_a_hint_has_the_size_of_the_latent(open_page, server, shot):
    page = open_page()
    page.open()
    assert page.page.evaluate(_ADD, "Keypoints to ControlNet Hint")["widgets"] == ["style", "fit"]
    show = page.page.evaluate(_HINT)
    done = page.run(600)
    assert done["kind"] == "execution_success", done["detail"]
    shot(page, "hint_blueprint_run")
    (image,) = done["outputs"][str(show)]["images"]
    drawn = Image.open(server.base / "temp" / image["subfolder"] / image["filename"]).convert("L")
    assert drawn.size == (320, 192)
    values = np.asarray(drawn)
    assert 0.005 < (values > 127).mean() < 0.2  # white lines on black
