"""What the nodes translate, without ComfyUI (tests/fake_comfy.py stands in for the few calls they make)."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import fake_comfy
import numpy as np
import pytest
import torch
from PIL import Image

from stablekp_core.config import TrainConfig
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.tokens import KeypointTokens

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture()
def pack(tmp_path):
    yield fake_comfy.install(tmp_path)
    fake_comfy.remove()


def part(pack, name: str):
    return importlib.import_module(f"{fake_comfy.PACK}.nodes.{name}")


def points(sizes=((64, 48), (64, 48)), count: int = 3, **more) -> Keypoints:
    rows = len(sizes)
    xy = np.arange(rows * count * 2, dtype=np.float32).reshape(rows, count, 2) * 3 + 5
    confidence = np.linspace(0.2, 1.0, rows * count, dtype=np.float32).reshape(rows, count)
    return Keypoints(xy=xy, confidence=confidence, sizes=np.array(sizes), **more)


def tokens(count: int = 3) -> KeypointTokens:
    return KeypointTokens(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), tuple(range(count)))


# The pack


def test_outside_comfyui_the_pack_is_empty_and_harmless():
    code = (
        "import importlib.util, sys; s = importlib.util.spec_from_file_location('pack', sys.argv[1], "
        "submodule_search_locations=[sys.argv[2]]); m = importlib.util.module_from_spec(s); "
        "sys.modules['pack'] = m; s.loader.exec_module(m); "
        "print(hasattr(m, 'comfy_entrypoint'), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "__init__.py"), str(ROOT)],
        text=True,
        capture_output=True,
        cwd="/",
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]


def test_loading_the_pack_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib, fake_comfy; "
        "fake_comfy.install(pathlib.Path(sys.argv[2])); "
        "print([m for m in ('diffusers', 'transformers', 'cv2', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests"), str(tmp_path)],
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_all_nodes_have_our_prefix_category_and_a_tooltip_everywhere(pack):
    names = set()
    for node in pack.nodes.NODES:
        schema = node.define_schema()
        names.add(schema.node_id)
        assert schema.node_id.startswith("StableKP") and schema.category == "keypoints"
        assert schema.display_name and schema.description
        for socket in [*schema.inputs, *schema.outputs]:
            assert socket.tooltip, (schema.node_id, socket.id)
    assert len(names) == len(pack.nodes.NODES)


def test_execute_takes_every_input_and_has_a_default_for_every_optional_one(pack):
    import inspect

    for node in pack.nodes.NODES:
        parameters = inspect.signature(node.execute).parameters
        takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for socket in node.define_schema().inputs:
            assert takes_rest or socket.id in parameters, (node, socket.id)
            if socket.optional and socket.id in parameters:
                assert parameters[socket.id].default is not inspect.Parameter.empty, (node, socket.id)


def test_boxes_come_over_a_wire_only(pack):
    """Newer pages make a widget of a BOUNDING_BOX input, and so a box of every graph, unless it is told not to."""
    boxes = [
        socket
        for node in pack.nodes.NODES
        for socket in node.define_schema().inputs
        if socket.io_type == "BOUNDING_BOX"
    ]
    assert boxes and all(socket.options["extra_dict"]["forceInput"] for socket in boxes)


def test_schemas_only_use_fields_of_the_oldest_supported_version(pack):
    known = {field.name for field in fields(fake_comfy.Schema)}
    assert "search_aliases" not in known  # what 0.8.0 does not have is filtered out on the way
    assert pack.nodes.NODES[0].define_schema().node_id == "StableKPLoadBackbone"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_translations_are_complete(pack, language):
    entries = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for node in pack.nodes.NODES:
        schema = node.define_schema()
        entry = entries.pop(schema.node_id)
        assert entry["display_name"] and entry["description"]
        assert set(entry["inputs"]) == {i.id for i in schema.inputs}
        assert set(entry["outputs"]) == {str(i) for i in range(len(schema.outputs))}
        for text in [*entry["inputs"].values(), *entry["outputs"].values()]:
            assert text["name"] and text["tooltip"]
        if language == "en":
            assert {k: v["tooltip"] for k, v in entry["inputs"].items()} == {i.id: i.tooltip for i in schema.inputs}
    assert not entries


def test_every_node_has_a_help_page_that_explains_every_input_and_output(pack):
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == {node.define_schema().node_id for node in pack.nodes.NODES}
    for node in pack.nodes.NODES:
        schema = node.define_schema()
        page = (ROOT / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n")
        for name in [i.id for i in schema.inputs] + [o.options["display_name"] for o in schema.outputs]:
            assert f"**{name}**" in page, (schema.node_id, name)


# Files and folders


@pytest.mark.parametrize(
    "typed, path",
    [
        ("cat", "cat.safetensors"),
        ("cat.safetensors", "cat.safetensors"),
        (" my cat ", "my cat.safetensors"),
        ("pets/cat", "pets/cat.safetensors"),
        ("pets\\cat", "pets/cat.safetensors"),
        ("猫", "猫.safetensors"),
        ("v1.2", "v1.2.safetensors"),
        ("./cat", "cat.safetensors"),
    ],
)
def test_names_that_may_be_saved(pack, typed, path):
    assert part(pack, "folders").relative_save_path(typed) == Path(path)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "..",
        "../cat",
        "pets/../../cat",
        "/etc/passwd",
        "\\\\host\\share",
        "C:\\cat",
        "C:cat",
        "~/cat",
        "con",
        "NUL.safetensors",
        "cat\nx",
        "cat\0",
        "a" * 200,
        ".hidden",
        "cat.",
    ],
)
def test_names_that_would_leave_the_folder_are_refused(pack, typed):
    with pytest.raises(KeypointError, match="file name"):
        part(pack, "folders").relative_save_path(typed)


def test_saving_adds_a_number_unless_overwriting(pack):
    save = part(pack, "token_files").SaveKeypointTokens
    first, second = (Path(save.execute(tokens(), "pets/cat")[0]) for _ in range(2))
    assert [first.name, second.name] == ["cat.safetensors", "cat_00002.safetensors"]
    third = Path(save.execute(tokens(2), "pets/cat", overwrite=True)[0])
    assert third == first and KeypointTokens.load(first).num_keypoints == 2
    assert part(pack, "folders").token_files() == [
        os.path.join("pets", "cat.safetensors"),
        os.path.join("pets", "cat_00002.safetensors"),
    ]


def test_loading_lists_rescued_files_and_never_pickles(pack):
    folders, load = part(pack, "folders"), part(pack, "token_files").LoadKeypointTokens
    tokens().save(folders.rescue_folder() / "interrupted.safetensors")
    (folders.tokens_folder() / "evil.pt").parent.mkdir(parents=True, exist_ok=True)
    (folders.tokens_folder() / "evil.pt").write_bytes(b"pickle")
    assert folders.token_files() == ["interrupted.safetensors"]
    assert load.execute("interrupted.safetensors")[0].num_keypoints == 3
    assert "evil.pt" in load.validate_inputs("evil.pt")
    assert load.validate_inputs("interrupted.safetensors") is True


def test_the_fingerprint_of_tokens_follows_the_file(pack):
    folders, load = part(pack, "folders"), part(pack, "token_files").LoadKeypointTokens
    path = tokens().save(folders.tokens_folder() / "cat")
    before = load.fingerprint_inputs("cat.safetensors")
    assert load.fingerprint_inputs("cat.safetensors") == before
    os.utime(path, ns=(1, 1))
    assert load.fingerprint_inputs("cat.safetensors") != before


def test_image_folders_stay_below_input(pack, tmp_path, monkeypatch):
    folders = part(pack, "folders")
    (tmp_path / "input" / "cats").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "input-other").mkdir()
    (tmp_path / "input" / "way-out").symlink_to(tmp_path / "elsewhere")
    assert folders.image_folder("cats") == tmp_path / "input" / "cats"
    for wrong in (
        "../elsewhere",
        "cats/../../elsewhere",
        str(tmp_path / "elsewhere"),
        "../input-other",
        "way-out",
    ):
        with pytest.raises(KeypointError, match="outside"):
            folders.image_folder(wrong)
    with pytest.raises(KeypointError, match="no folder 'dogs'"):
        folders.image_folder("dogs")
    with pytest.raises(KeypointError, match=folders.ANY_PATH_VARIABLE):
        folders.image_folder("cats", str(tmp_path / "elsewhere"))
    monkeypatch.setenv(folders.ANY_PATH_VARIABLE, "1")
    assert folders.image_folder("cats", str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_load_image_set_gives_the_pictures_as_they_are(pack, tmp_path, caplog):
    load = part(pack, "images").LoadImageSet
    folder = tmp_path / "input" / "cats"
    folder.mkdir()
    rng = np.random.default_rng(0)
    wanted = {name: rng.integers(0, 256, (20 + i, 30, 3), np.uint8) for i, name in enumerate(("2.png", "10.png"))}
    for name, picture in wanted.items():
        Image.fromarray(picture).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    images, names = load.execute("cats", 10, "by name")
    assert names == ["2.png", "10.png"]
    for image, picture in zip(images, wanted.values(), strict=True):
        assert image.shape == (1, *picture.shape) and image.dtype == torch.float32
        np.testing.assert_array_equal((image[0] * 255).round().numpy(), picture)
    assert "broken.jpg" in caplog.text
    assert load.execute("cats", 1, "by name")[1] == ["2.png"]
    before = load.fingerprint_inputs("cats", 10, "by name")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "3.png")
    assert load.fingerprint_inputs("cats", 10, "by name") != before


def test_built_in_pictures_need_no_folder_and_follow_the_seed(pack):
    images = part(pack, "images")
    load = images.LoadImageSet
    for name in images.BUILT_IN:
        assert load.validate_inputs(name) is True and len(load.execute(name, 100, "by name")[0]) >= 64
    unseen = "built in: paper dolls, unseen"
    first, other = (load.execute(unseen, 3, order, shuffle_seed=3)[1] for order in ("by name", "shuffled"))
    assert first == load.execute(unseen, 3, "by name")[1] and other == load.execute(unseen, 3, "shuffled", 3)[1]
    assert first != other


def test_checkpoints_are_safetensors_only_and_the_demo_comes_first(pack, tmp_path):
    backbone = part(pack, "backbone")
    for name in (
        "checkpoints/a.safetensors",
        "checkpoints/b.ckpt",
        "diffusers/x/unet/config.json",
        "diffusers/x/vae/config.json",
        "diffusers/notes/readme.txt",
    ):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert backbone.backbone_choices() == [backbone.DEMO, "a.safetensors", "diffusers/x"]
    assert backbone.backbone_path(backbone.DEMO) == "demo"
    assert backbone.backbone_path("diffusers/x") == str(tmp_path / "models" / "diffusers" / "x")
    for wrong in ("b.ckpt", "diffusers/../../x", "diffusers/notes", "/etc/passwd"):
        assert isinstance(backbone.LoadKeypointBackbone.validate_inputs(wrong), str)


def test_what_comes_over_a_wire_is_looked_at_when_the_node_runs(pack):
    assert part(pack, "backbone").LoadKeypointBackbone.validate_inputs(None) is True
    assert part(pack, "images").LoadImageSet.validate_inputs(None) is True
    assert part(pack, "token_files").LoadKeypointTokens.validate_inputs(None) is True
    assert part(pack, "token_files").SaveKeypointTokens.validate_inputs(None) is True
    with pytest.raises(KeypointError):
        part(pack, "folders").image_folder("..")


# Images


def test_batches_and_lists_become_single_pictures(pack):
    single = part(pack, "batches").single_images
    batch, other = torch.rand(2, 20, 30, 3), torch.rand(1, 40, 20, 4)
    assert [tuple(p.shape) for p in single([batch, other], "x")] == [(20, 30, 3), (20, 30, 3), (40, 20, 4)]
    assert len(single(batch, "x")) == 2


@pytest.mark.parametrize(
    "wrong, words",
    [
        (torch.rand(2, 20, 30), "mask"),
        (torch.rand(2, 4, 20, 30), "mask"),
        ([], "no images"),
        ([None], "no images"),
        ({"samples": torch.rand(1, 4, 8, 8)}, "latent"),
        ("text", "str"),
        (torch.rand(0, 20, 30, 3), "no images"),
    ],
)
def test_what_is_no_image_gets_a_sentence(pack, wrong, words):
    with pytest.raises(KeypointError, match=words):
        part(pack, "batches").single_images(wrong, "Somewhere")


def test_pictures_of_one_size_are_one_batch_and_others_a_list(pack):
    batches = part(pack, "batches")
    black, white = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)
    (one,) = batches.image_batches([black, white])
    assert one.shape == (2, 4, 5, 3) and one[0].max() == 0 and one[1].min() == 1
    assert [t.shape[0] for t in batches.image_batches([black, np.zeros((6, 5, 3), np.uint8)])] == [1, 1]


# Training


def test_training_widgets_are_the_cores_settings_with_its_defaults(pack):
    training = part(pack, "training")
    widgets = {i.id: i.options for i in training.TrainKeypointTokens.define_schema().inputs if i.is_widget}
    default = training.train_config({name: options["default"] for name, options in widgets.items()})
    assert default == TrainConfig()
    changed = training.train_config({"steps": 7, "scale_min": 0.5, "scale_max": 0.9, "resize": "pad"})
    assert changed == TrainConfig(steps=7, scale=(0.5, 0.9), resize="pad")


@pytest.mark.parametrize("losses", [[], [2.0], [1.0, 1.0, 1.0], [0.0], [3.0, 1.0]])
def test_the_loss_graph_can_always_divide_by_the_range(pack, losses):
    values = part(pack, "training").loss_map(losses)["loss"]
    assert max(values) > min(values) and all(type(v) is float for v in values)
    assert losses == [] or values[-len(losses) :] == losses


def test_cancel_saves_what_was_learned_and_goes_on_up(pack, monkeypatch):
    training, folders = part(pack, "training"), part(pack, "folders")

    class Info:
        step, steps, history = 2, 9, [1.0, 0.5]
        snapshot = staticmethod(tokens)

    def core_train(model, pictures, config, *, start, on_step, notice, on_choosing):
        on_step(Info)
        pytest.fail("training went on after Cancel")

    def cancelled():
        raise fake_comfy.Cancelled

    monkeypatch.setattr("stablekp_core.training.trainer.train", core_train)
    monkeypatch.setattr(sys.modules["comfy.model_management"], "throw_exception_if_processing_interrupted", cancelled)
    with pytest.raises(fake_comfy.Cancelled):
        training._train(None, [], TrainConfig(steps=9), None)
    (rescued,) = folders.rescue_folder().glob("interrupted_*.safetensors")
    torch.testing.assert_close(KeypointTokens.load(rescued).embeddings, tokens().embeddings)


def test_progress_shows_a_picture_only_now_and_then(pack, monkeypatch):
    runtime = part(pack, "runtime")
    now = [100.0]
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    fake_comfy.ProgressBar.calls.clear()
    progress, drawn = runtime.Progress(10), []
    for step in range(1, 11):
        now[0] += 1.0
        progress.step(step, lambda step=step: drawn.append(step) or np.zeros((4, 4, 3), np.uint8))
    assert drawn == [3, 6, 9]
    assert [value for value, _, _ in fake_comfy.ProgressBar.calls] == list(range(1, 11))
    kind, picture, _ = fake_comfy.ProgressBar.calls[2][2]
    assert kind == "JPEG" and picture.size == (4, 4)


# Detection


def test_detection_widgets_are_the_cores_settings(pack):
    from stablekp_core.config import DetectConfig

    detection = part(pack, "detection")
    widgets = {i.id: i.options["default"] for i in detection.DetectKeypoints.define_schema().inputs if i.is_widget}
    for name in ("heat_maps", "crop_margin", "isolate"):  # of the node, not of the detection
        widgets.pop(name)
    assert detection.detect_config(widgets) == DetectConfig()
    assert detection.detect_config({"sub_pixel": False, "view_seed": 4, "views": 1}) == DetectConfig(
        readout="argmax", seed=4, views=1
    )


def test_names_must_be_those_of_the_images(pack):
    named = part(pack, "detection").named_pictures
    pictures = [torch.rand(20, 20, 3)] * 2
    assert named(pictures, ["a", "b"]).names == ("a", "b")
    assert len(named(pictures, None)) == 2
    with pytest.raises(KeypointError, match="3 names"):
        named(pictures, ["a", "b", "c"])


def test_the_confidence_text_names_the_doubtful_points(pack):
    text = part(pack, "detection").confidence_text(points(images=("a.png", "")), "other model")
    lines = text.splitlines()
    assert "other model" in lines[0]
    assert lines[1] == "a.png: mean 0.36; unsure: kp0 0.20, kp1 0.36"
    assert lines[2] == "image 1: mean 0.84"
    found = points(images=("a.png", ""), hidden=[[0.5, 0.2, 0.91], [0, 0, 0.4]])
    lines = part(pack, "detection").confidence_text(found).splitlines()
    assert lines == ["a.png: mean 0.36; unsure: kp0 0.20, kp1 0.36; hidden: kp0 0.50, kp2 0.91", "image 1: mean 0.84"]


def test_maps_over_a_padded_image_leave_out_the_bars(pack):
    from stablekp_core.images.preprocessing import square_map

    class Detector:
        @staticmethod
        def square(picture):
            return None, square_map(picture.shape[1], picture.shape[0], 64, "pad")

    maps = torch.zeros(1, 64, 64)
    maps[0, 32:] = 1.0  # the lower half of the square
    over = part(pack, "detection")._over_image(maps, Detector, np.zeros((20, 80, 3), np.uint8))
    assert over.shape == (1, 20, 80)
    assert over[0, :9].max() == 0 and over[0, 11:].min() == 1


# Drawing and conversion


@pytest.mark.parametrize(
    "text, chosen",
    [("", None), (" , ", None), ("0, 2", [0, 2]), ("0-2", [0, 1, 2]), ("nose;1", [2, 1]), ("1,1", [1])],
)
def test_which_points(pack, text, chosen):
    assert part(pack, "drawing").chosen_points(text, ("a", "b", "nose")) == chosen


@pytest.mark.parametrize("text", ["3", "0-3", "2-1", "eye", "-1", "1.5"])
def test_points_that_do_not_exist(pack, text):
    with pytest.raises(KeypointError):
        part(pack, "drawing").chosen_points(text, ("a", "b", "nose"))


def drawn(pack, keypoints, images=None, **changes):
    options = {
        "style": "points",
        "canvas": "black",
        "dots": True,
        "numbers": False,
        "lines": False,
        "line_width": 0.0,
        "threshold": 0.0,
        "which": "",
        "out_width": 0,
        "out_height": 0,
        **changes,
    }
    wires = {} if images is None else {"images": images}
    return part(pack, "drawing").DrawKeypoints.execute(
        keypoints=[keypoints], **wires, **{k: [v] for k, v in options.items()}
    )[0]


def test_points_are_drawn_where_they_are_whatever_the_size(pack):
    keypoints = Keypoints(xy=np.array([[[20.0, 10.0]]]), confidence=np.ones((1, 1)), sizes=np.array([[80, 40]]))
    for images, size in (
        (None, (160, 80)),
        ([torch.zeros(1, 40, 80, 3)], (160, 80)),
        ([torch.zeros(1, 200, 400, 3)], (160, 80)),
        ([torch.zeros(1, 40, 80, 3)], (0, 0)),
    ):
        (batch,) = drawn(pack, keypoints, images, out_width=size[0], out_height=size[1])
        width, height = size if size[0] else (80, 40)
        assert batch.shape == (1, height, width, 3)
        lit = np.argwhere(batch[0].numpy().max(-1) > 0.3) + 0.5  # (y, x)
        np.testing.assert_allclose(lit.mean(0), (height / 4, width / 4), atol=0.6)


def test_each_instance_is_drawn_on_its_image(pack):
    keypoints = Keypoints(
        xy=np.array([[[10.0, 10.0]], [[50.0, 10.0]], [[30.0, 30.0]]]),
        confidence=np.ones((3, 1)),
        sizes=np.array([[64, 48]] * 3),
        image_index=np.array([0, 0, 1]),
    )
    (batch,) = drawn(pack, keypoints)
    lit = batch.numpy().max(-1) > 0.3
    assert batch.shape[0] == 2
    assert lit[0, 10, 10] and lit[0, 10, 50] and not lit[0, 30, 30] and lit[1, 30, 30]


def test_hidden_points_are_marked_on_images_and_not_on_hints(pack):
    where = dict(xy=np.array([[[40.0, 20.0]]]), confidence=np.ones((1, 1)), sizes=np.array([[80, 40]]))
    images = [torch.full((1, 200, 400, 3), 0.5)]
    for canvas, marked in (("image", True), ("black", False)):
        seen, hidden = (
            drawn(pack, Keypoints(**where, hidden=np.array([[h]])), images, canvas=canvas, line_width=6.0)[0]
            for h in (0.4, 0.6)
        )
        assert seen[0, 100, 200].max() > 0.3
        assert (hidden[0, 100, 200].max() < 0.2) == marked and bool((seen != hidden).any()) == marked


def test_hint_styles_are_the_cores_pictures(pack):
    from stablekp_core.drawing.hints import draw_ap10k, draw_openpose, draw_scribble

    rng = np.random.default_rng(1)
    for style, count, draw in (("openpose", 18, draw_openpose), ("animal openpose", 17, draw_ap10k)):
        keypoints = Keypoints(
            xy=rng.uniform(5, 60, (1, count, 2)), confidence=np.ones((1, count)), sizes=np.array([[64, 64]])
        )
        (batch,) = drawn(pack, keypoints, style=style, out_width=128, out_height=128)
        pose = np.concatenate([keypoints.xy * 2, np.ones((1, count, 1))], -1)
        np.testing.assert_array_equal((batch[0] * 255).round().numpy(), draw(pose, 128, 128))
    keypoints = points(((64, 64),), skeleton=((0, 1), (1, 2)))
    (batch,) = drawn(pack, keypoints, style="scribble", line_width=4.0)
    np.testing.assert_array_equal(
        (batch[0] * 255).round().numpy(), draw_scribble(keypoints.xy, keypoints.skeleton, 64, 64, 4)
    )
    with pytest.raises(KeypointError, match="18 points"):
        drawn(pack, keypoints, style="openpose")


def test_drawing_without_an_image_or_with_too_few_says_so(pack):
    with pytest.raises(KeypointError, match="no image to draw on"):
        drawn(pack, points(), canvas="image")
    with pytest.raises(KeypointError, match="1 images"):
        drawn(pack, points(), [torch.zeros(1, 48, 64, 3)])


def test_masks_are_discs_of_exactly_the_pixels_within_the_radius(pack):
    convert = part(pack, "convert")
    masks = convert.disc_masks(np.array([[3.5, 2.5], [-2.0, 1.0]]), np.array([True, False]), 8, 6, 1.6)
    expected = np.zeros((6, 8))
    for y in range(6):
        for x in range(8):
            expected[y, x] = (x + 0.5 - 3.5) ** 2 + (y + 0.5 - 2.5) ** 2 <= 1.6**2
    np.testing.assert_array_equal(masks[0], expected)
    assert expected.sum() == 9 and masks[1].max() == 0


def test_masks_come_per_keypoint_or_per_image(pack):
    node = part(pack, "convert").KeypointsToMasks
    (each,) = node.execute(points(), "one per keypoint", 3.0)[0]
    (whole,) = node.execute(points(), "one per image", 3.0)[0]
    assert each.shape == (6, 48, 64) and whole.shape == (2, 48, 64)
    torch.testing.assert_close(whole[1], each[3:].amax(0))
    mixed = node.execute(points(sizes=((64, 48), (32, 32))), "one per image", 3.0)[0]
    assert [tuple(mask.shape) for mask in mixed] == [(1, 48, 64), (1, 32, 32)]
    (sure,) = node.execute(points(), "one per keypoint", 3.0, threshold=0.5)[0]
    assert [bool(mask.any()) for mask in sure] == [False, False, True, True, True, True]


def test_tracks_are_the_keypoints_over_time(pack):
    tracks = part(pack, "convert").KeypointsToTracks.execute(points(), 0.5)[0]
    torch.testing.assert_close(tracks["track_path"], torch.from_numpy(points().xy))
    assert tracks["track_visibility"].tolist() == [[False, False, True], [True, True, True]]


def test_json_in_all_formats(pack):
    node = part(pack, "convert").KeypointsToJSON
    again = Keypoints.from_json(node.execute(points(images=("a", "b")), "COCO")[0])
    np.testing.assert_array_equal(again.xy, points().xy)
    assert again.images == ("a", "b")
    first = json.loads(node.execute(points(), "points of the first image")[0])
    assert [(p["x"], p["y"]) for p in first] == [tuple(map(float, p)) for p in points().xy[0]]
    tracks = json.loads(node.execute(points(), "tracks over all images")[0])
    assert len(tracks) == 3 and [p["x"] for p in tracks[1]] == [float(x) for x in points().xy[:, 1, 0]]
