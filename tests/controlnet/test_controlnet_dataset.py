import json

import numpy as np
import pytest
from PIL import Image

from stablekp_core.controlnet.dataset import ExportSettings, draw_hint, export_controlnet_dataset, read_captions
from stablekp_core.errors import KeypointError
from stablekp_core.images.image_set import load_folder
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.pose.formats import OPENPOSE

WORDS = ("train", "test", "validation", "eval")


def make_images(count=12, size=(96, 72)):
    """Named images whose names are full of words that data set loaders take for splits."""
    rng = np.random.default_rng(0)
    return [
        (f"my_{WORDS[i % 4]}_{i}.png", rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        for i in range(count)
    ]


def points(pairs, k=4, **changes):
    rng = np.random.default_rng(1)
    sizes = np.array([(image.shape[1], image.shape[0]) for _, image in pairs])
    values = {
        "xy": rng.uniform(0.2, 0.8, (len(pairs), k, 2)) * sizes[:, None],
        "confidence": np.full((len(pairs), k), 0.9),
        "sizes": sizes,
        "skeleton": tuple((i, i + 1) for i in range(k - 1)),
        "images": tuple(name for name, _ in pairs),
    }
    return Keypoints(**{**values, **changes})


SMALL = ExportSettings(size=64, validation=0.3)


def rows(folder, split):
    path = folder / split / "metadata.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_loaded_back_with_the_datasets_library(tmp_path):
    """As the training example loads it: by folder, columns image, text, conditioning_image in this order."""
    from datasets import load_dataset

    images = make_images()
    kp = points(images)
    captions = {name: f"caption {i} ä" for i, (name, _) in enumerate(images)}
    folder = tmp_path / "test set"
    done = export_controlnet_dataset(images, kp, folder, SMALL, captions=captions)
    assert done.train + done.validation == 12 and min(done.train, done.validation) > 0
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        "train": done.train,
        "validation": done.validation,
    }
    by_name = dict(images)
    row_of = {name: i for i, (name, _) in enumerate(images)}
    for split in loaded.values():
        assert split.column_names[:3] == ["image", "text", "conditioning_image"]
        for row in split:
            name = row["source"]
            assert row["text"] == captions[name]
            assert row["image"].size == row["conditioning_image"].size == (64, 64)
            figure = kp.rows([row_of[name]])
            middle = (figure.xy[0].min(0) + figure.xy[0].max(0)) / 2
            left = int(np.clip(round(float(middle[0]) - 36), 0, 24))
            expected = Image.fromarray(by_name[name][:, left : left + 72]).resize((64, 64), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(expected))
            hint = draw_hint((figure.xy - (left, 0)) * (64 / 72), figure.confidence, SMALL, (64, 64), kp.skeleton)
            np.testing.assert_array_equal(np.asarray(row["conditioning_image"].convert("RGB")), hint)
            assert hint.max() == 255 and hint.min() == 0


def test_every_image_is_in_one_split_and_stays_there(tmp_path):
    images = make_images(40)
    export_controlnet_dataset(images[:25], points(images).rows(range(25)), tmp_path / "a", SMALL)
    export_controlnet_dataset(images, points(images), tmp_path / "b", SMALL)
    split_of = {
        folder: {row["source"]: split for split in ("train", "validation") for row in rows(tmp_path / folder, split)}
        for folder in "ab"
    }
    assert len(split_of["a"]) == 25 and len(split_of["b"]) == 40
    assert all(split_of["b"][name] == split for name, split in split_of["a"].items())
    assert 0.1 < sum(split == "validation" for split in split_of["b"].values()) / 40 < 0.5
    other = ExportSettings(size=64, validation=0.3, seed=7)
    export_controlnet_dataset(images, points(images), tmp_path / "c", other)
    assert {row["source"] for row in rows(tmp_path / "c", "validation")} != {
        name for name, split in split_of["b"].items() if split == "validation"
    }


def test_resumes_after_an_interruption(tmp_path):
    images, kp = make_images(), points(make_images())
    folder = tmp_path / "set"

    def interrupted(stop):
        for i, pair in enumerate(images):
            if i == stop:
                raise KeyboardInterrupt
            yield pair

    with pytest.raises(KeyboardInterrupt):
        export_controlnet_dataset(interrupted(5), kp, folder, SMALL)
    (folder / "train" / "hints" / "notes.txt").write_text("mine")
    seen = []
    done = export_controlnet_dataset(images, kp, folder, SMALL, on_progress=lambda *a: seen.append(a))
    assert (done.written, done.kept) == (7, 5)
    assert seen == [("exporting", i, len(images)) for i in range(len(images) + 1)]
    (folder / "train" / "hints" / "notes.txt").unlink()
    export_controlnet_dataset(images, kp, tmp_path / "at once", SMALL)
    assert files(folder) == files(tmp_path / "at once")
    for name in files(folder):
        assert (folder / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()
    again = export_controlnet_dataset(images, kp, folder, SMALL)
    assert (again.written, again.kept) == (0, 12) and "12 already there" in again.report()


def test_changed_keypoints_are_drawn_again_and_old_pairs_go(tmp_path):
    images = make_images()
    export_controlnet_dataset(images, points(images), tmp_path, SMALL)
    xy = points(images).xy.copy()
    xy[3] += 4
    done = export_controlnet_dataset(images[:10], points(images, xy=xy).rows(range(10)), tmp_path, SMALL)
    assert (done.written, done.kept) == (1, 9)
    assert len(files(tmp_path)) == 10 * 2 + 2 + 1
    captioned = export_controlnet_dataset(
        images[:10], points(images, xy=xy).rows(range(10)), tmp_path, SMALL, caption="a mascot"
    )
    assert captioned.written == 0 and {row["text"] for row in rows(tmp_path, "train")} == {"a mascot"}


def test_other_settings_need_another_folder(tmp_path):
    images = make_images(4)
    export_controlnet_dataset(images, points(images), tmp_path / "s", SMALL)
    wider = ExportSettings(size=64, validation=0.3, line_width=9)
    with pytest.raises(KeypointError, match="other settings .line_width"):
        export_controlnet_dataset(images, points(images), tmp_path / "s", wider)
    before = files(tmp_path / "s")
    export_controlnet_dataset(images, points(images), tmp_path / "s", wider, overwrite=True)
    after = files(tmp_path / "s")
    assert len(after) == len(before) and set(after) != set(before)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(KeypointError, match="not empty"):
        export_controlnet_dataset(images, points(images), tmp_path / "mine", SMALL)
    assert files(tmp_path / "mine") == ["letter.txt"]


def test_images_without_points_are_left_out_by_name(tmp_path):
    images = make_images(6)
    confidence = np.full((6, 4), 0.9)
    confidence[2] = 0.1
    done = export_controlnet_dataset(images, points(images, confidence=confidence), tmp_path / "a", SMALL)
    assert [name for name, _ in done.skipped] == ["my_validation_2.png"] and "left out" in done.report()
    assert done.train + done.validation == 5
    with pytest.raises(KeypointError, match="none of 6 images"):
        export_controlnet_dataset(images, points(images, confidence=np.zeros((6, 4))), tmp_path / "b", SMALL)


def test_pairing_by_name_or_by_number(tmp_path):
    images = make_images(6)
    shuffled = points(images).rows([3, 1, 5, 0, 4, 2])
    export_controlnet_dataset(images, points(images), tmp_path / "a", SMALL)
    export_controlnet_dataset(images, shuffled, tmp_path / "b", SMALL)
    export_controlnet_dataset(images, points(images, images=("",) * 6), tmp_path / "c", SMALL)
    hints = [{row["source"]: (tmp_path / f / "train" / row["conditioning_image_file_name"]).read_bytes()
              for row in rows(tmp_path / f, "train")} for f in "abc"]  # fmt: skip
    assert hints[0] == hints[1] == hints[2] and len(hints[0]) >= 2


def test_several_figures_share_a_hint(tmp_path):
    images = make_images(1)
    kp = points(images * 2, xy=np.array([[[20, 20], [30, 30.0]], [[60, 20], [70, 50]]]), k=2, image_index=np.zeros(2))
    done = export_controlnet_dataset(images, kp, tmp_path, SMALL)
    assert done.train == 1 and done.validation == 0  # the only pair is a training pair
    hint = np.asarray(Image.open(tmp_path / "train" / rows(tmp_path, "train")[0]["conditioning_image_file_name"]))
    left, right = hint[:, :32], hint[:, 32:]
    assert left.max() == 255 and right.max() == 255


@pytest.mark.parametrize("style", ["openpose", "ap10k", "keypoints", "scribble"])
def test_styles(tmp_path, style):
    from stablekp_core.pose.formats import AP10K

    images = make_images(3)
    joints = (AP10K if style == "ap10k" else OPENPOSE).joints
    kp = points(images, k=len(joints), names=joints)
    settings = ExportSettings(style=style, size=64, validation=0, image_format="jpg", fit="keep")
    done = export_controlnet_dataset(images, kp, tmp_path, settings)
    assert done.train == 3 and done.validation == 0 and not (tmp_path / "validation").exists()
    row = rows(tmp_path, "train")[0]
    image = Image.open(tmp_path / "train" / row["file_name"])
    hint = Image.open(tmp_path / "train" / row["conditioning_image_file_name"])
    assert image.format == "JPEG" and hint.format == "PNG" and image.size == hint.size == (85, 64)
    grey = np.ptp(np.asarray(hint).astype(int), axis=-1).max() == 0
    assert grey == (style == "scribble") and np.asarray(hint).max() > 200


def test_poses_need_joints_and_scribbles_edges(tmp_path):
    images = make_images(2)
    with pytest.raises(KeypointError, match="landmark map"):
        export_controlnet_dataset(images, points(images), tmp_path / "a", ExportSettings("openpose", 64))
    with pytest.raises(KeypointError, match="need a skeleton"):
        export_controlnet_dataset(images, points(images, skeleton=()), tmp_path / "b", SMALL)
    with pytest.raises(KeypointError, match="for 96x72 pixels, but the image is 100x50"):
        export_controlnet_dataset(
            [(images[0][0], np.zeros((50, 100, 3), np.uint8))], points(images), tmp_path / "c", SMALL
        )
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_from_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name, image in make_images(3):
        Image.fromarray(image).save(tmp_path / "in" / name)
    image_set = load_folder(tmp_path / "in")
    done = export_controlnet_dataset(image_set, points(make_images(3)), tmp_path / "out", SMALL)
    assert done.train + done.validation == 3


def test_captions_from_files(tmp_path):
    (tmp_path / "a.txt").write_text(" first \n", "utf-8")
    (tmp_path / "a.json").write_text('{"x.png": "one"}', "utf-8")
    (tmp_path / "a.jsonl").write_text('{"file_name": "x.png", "text": "one"}\n\n', "utf-8")
    (tmp_path / "a.csv").write_text('file_name,text\nx.png,"one, two"\n', "utf-8")
    assert read_captions(tmp_path) == {"a": "first"}
    assert read_captions(tmp_path / "a.json") == read_captions(tmp_path / "a.jsonl") == {"x.png": "one"}
    assert read_captions(tmp_path / "a.csv") == {"x.png": "one, two"}
    (tmp_path / "bad.csv").write_text("name,words\nx,y\n", "utf-8")
    with pytest.raises(KeypointError, match="none.json cannot be read"):
        read_captions(tmp_path / "none.json")
    for bad in ("bad.csv",):
        with pytest.raises(KeypointError, match="holds no captions"):
            read_captions(tmp_path / bad)
    images = make_images(2)
    export_controlnet_dataset(
        images,
        points(images),
        tmp_path / "out",
        ExportSettings(size=64, validation=0),
        captions={"my_train_0": "by stem"},
        caption="default",
    )
    texts = {row["source"]: row["text"] for row in rows(tmp_path / "out", "train")}
    assert texts == {"my_train_0.png": "by stem", "my_test_1.png": "default"}


@pytest.mark.parametrize(
    "changes",
    [
        {"style": "canny"},
        {"size": 500},
        {"size": 8},
        {"fit": "pad"},
        {"validation": 1.0},
        {"image_format": "gif"},
    ],
)
def test_bad_settings(changes):
    with pytest.raises(KeypointError, match=next(iter(changes))):
        ExportSettings(**changes)


def test_captions_of_other_tools(tmp_path):
    """kohya's entries became the text of a Python dict, and null the word None."""
    entry = {"caption": "a board", "tags": "grey, wood"}
    (tmp_path / "meta.json").write_text(json.dumps({"a": entry, "b": {"tags": "grey"}, "c": None, "d": ["x", "y"]}))
    assert read_captions(tmp_path / "meta.json") == {"a": "a board", "b": "grey", "d": "x, y"}
    for bad, said in (
        ({"a": 3}, "a is 3 and no text"),
        ({"a": {"words": 1}}, "a has no caption, text, tags, but words"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(bad))
        with pytest.raises(KeypointError, match=said):
            read_captions(tmp_path / "bad.json")
    (tmp_path / "bad.csv").write_text("file_name,text\na.png,a board, grey\n")
    with pytest.raises(KeypointError, match="bad.csv: line 2 has too many columns.*quotation marks"):
        read_captions(tmp_path / "bad.csv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.caption").write_bytes("a board".encode("utf-16"))
    (tmp_path / "folder" / "._a.caption").write_bytes(b"\0")
    assert read_captions(tmp_path / "folder") == {"a": "a board"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeypointError, match="has no .txt or .caption files"):
        read_captions(tmp_path / "empty")


def test_images_without_caption_and_captions_without_image_are_counted(tmp_path):
    images = make_images(4)
    names = [name for name, _ in images]
    captions = {f"train/{names[0]}": "first", names[1].rsplit(".", 1)[0]: "second", "other.png": "lost"}
    done = export_controlnet_dataset(
        images, points(images), tmp_path / "a", SMALL, captions=captions, caption="a thing"
    )
    assert done.uncaptioned == 2 and done.unused_captions == ("other.png",)
    assert "2 images have no caption of their own\n1 captions belong to no image, the first: other.png" in done.report()
    lines = [json.loads(line) for f in (tmp_path / "a").rglob("metadata.jsonl") for line in f.read_text().splitlines()]
    assert {line["source"]: line["text"] for line in lines} == dict(
        zip(names, ["first", "second", "a thing", "a thing"], strict=True)
    )
    plain = export_controlnet_dataset(images, points(images), tmp_path / "b", SMALL, caption="a thing")
    assert plain.uncaptioned == 0 and "of their own" not in plain.report()


def test_copies_of_another_size_are_exported_with_their_points(tmp_path):
    images = make_images(1)
    small = Image.fromarray(images[0][1])
    double = [(images[0][0], np.asarray(small.resize((2 * small.width, 2 * small.height))))]
    hints = []
    for part, folder in ((images, "a"), (double, "b")):
        export_controlnet_dataset(part, points(images), tmp_path / folder, SMALL)
        hints.append(np.asarray(Image.open(next((tmp_path / folder).rglob("hints/*.png")))))
    assert np.array_equal(*hints)
