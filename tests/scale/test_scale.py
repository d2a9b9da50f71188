import io
import json
import os
import signal
import subprocess
import sys
import tarfile

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from stablekp_core import files
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.cli import main
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import Detector, detect
from stablekp_core.errors import KeypointError
from stablekp_core.images.files import BrokenImage, SmallImage, decode_image, load_image
from stablekp_core.images.image_set import ImageSet, as_image_set, load_folder
from stablekp_core.keypoints.keypoints import POINT_FIELDS
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.scale import cluster as cluster_module
from stablekp_core.scale import dataset
from stablekp_core.scale.cluster import Pool, cluster
from stablekp_core.scale.dataset import Report, detect_dataset
from stablekp_core.scale.detect import _ReturnPoints, _shard, detect_parallel
from stablekp_core.scale.engine import Done, Job, find_rows, read_ahead, run_pieces
from stablekp_core.scale.inputs import Piece, find_pieces, piece_images, read
from stablekp_core.scale.parts import PLAN, Folder, Row, part_bytes, part_name, read_plan, write_plan
from stablekp_core.synthetic import generator

LOOK = DetectConfig(views=1, batch_size=4)


def png(seed, size=64):
    file = io.BytesIO()
    Image.fromarray(generator.render("dolls", seed, size).image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("demo", device="cpu")


def random_tokens(seed=0):
    config = TrainConfig(keypoints=3, tokens=12, candidates=5, map_size=32)
    embeddings = torch.randn(12, 64, generator=torch.Generator().manual_seed(seed))
    return KeypointTokens(embeddings, (1, 5, 7), config=config.to_dict(), names=("a", "b", "c"), skeleton=((0, 2),))


@pytest.fixture(scope="module")
def tokens():
    return random_tokens()


@pytest.fixture
def folder(tmp_path):
    """Five images in two folders, one that is broken, one that is too small, one file that is no
    image."""
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    for i in range(4):
        (root / f"{i}.png").write_bytes(png(i))
    (root / "sub" / "4.jpg").write_bytes(png(4))
    (root / "sub" / "junk.png").write_bytes(b"not an image")
    (root / "sub" / "small.png").write_bytes(_encoded(Image.new("RGB", (8, 8))))
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(png(9))
    return root


def _encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def contents(pieces):
    """id -> what comes of reading it, over all pieces: the image's bytes or the reason."""
    out = {}
    for piece in pieces:
        for name, result in read_ahead(piece_images(Piece.from_json(piece.to_json()))):
            assert name not in out
            out[name] = result if isinstance(result, str) else result.tobytes()
    return out


def same(data):
    return decode_image("", data).tobytes()


# Inputs


def test_a_folder_is_read_with_its_sub_folders(folder):
    pieces = find_pieces(str(folder), 3)
    assert [len(p.names) for p in pieces] == [3, 3, 1]
    found = contents(pieces)
    assert list(found) == ["0.png", "1.png", "2.png", "3.png", "sub/4.jpg", "sub/junk.png", "sub/small.png"]
    assert all(found[f"{i}.png"] == same(png(i)) for i in range(4)) and found["sub/4.jpg"] == same(png(4))
    assert found["sub/junk.png"] == "not an image in any known format" and "8x8" in found["sub/small.png"]


def test_what_is_known_or_left_out_is_not_found_again(folder):
    first = find_pieces(str(folder), 2)
    known = {url for piece in first for url in piece.urls()}
    assert find_pieces(str(folder), 2, known=known) == []
    (folder / "new.png").write_bytes(png(7))
    assert [p.names for p in find_pieces(str(folder), 2, known=known)] == [("new.png",)]
    inside = find_pieces(str(folder), 100, leave_out=Folder(str(folder / "sub")).url)
    assert inside[0].names == ("0.png", "1.png", "2.png", "3.png", "new.png")


def test_a_file_or_a_pattern_is_an_input(folder):
    assert [p.names for p in find_pieces(str(folder / "2.png"), 10)] == [("2.png",)]
    assert [p.names for p in find_pieces(str(folder / "*.png"), 10)] == [("0.png", "1.png", "2.png", "3.png")]
    assert list(contents(find_pieces(str(folder / "s*" / "*.jpg"), 10))) == ["sub/4.jpg"]


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


MEMBERS = {
    "a/000.png": png(0),
    "a/000.json": b"{}",
    "a/001.jpg": b"junk",
    "a/._001.jpg": b"x",
    "a/002.PNG": png(2),
}


@pytest.mark.parametrize("name,mode", [("0.tar", "w"), ("0.tar.gz", "w:gz"), ("0.tgz", "w:gz")])
def test_tar_shards(tmp_path, name, mode):
    write_tar(tmp_path / name, MEMBERS, mode)
    write_tar(tmp_path / "1.tar", {"000.png": png(5)})
    pieces = find_pieces(str(tmp_path), 1)
    assert len(pieces) == 2  # a shard stays whole
    assert contents(pieces) == {
        f"{name}/a/000.png": same(png(0)),
        f"{name}/a/002.PNG": same(png(2)),
        f"{name}/a/001.jpg": "not an image in any known format",
        "1.tar/000.png": same(png(5)),
    }


def test_a_tar_that_breaks_off_is_read_up_to_there(tmp_path):
    write_tar(tmp_path / "0.tar", {"0.png": png(0), "1.png": png(1)})
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: whole.index(b"1.png") + 700])
    found = contents(find_pieces(str(tmp_path), 1))
    assert found.pop("0.tar/0.png") == same(png(0))
    assert list(found) == ["0.tar"] and "damaged from here on" in found["0.tar"]


def write_rows(path, columns, group=3):
    parquet.write_table(pa.table(columns), path, row_group_size=group)


def test_parquet_with_bytes(tmp_path):
    data = [png(0), png(1), None, b"junk", png(4)]
    write_rows(tmp_path / "x.parquet", {"image": data, "key": [10, 11, 12, 13, 14]})
    pieces = find_pieces(str(tmp_path), 1)
    assert [(p.group, p.first, p.start, p.stop) for p in pieces] == [(0, 0, 0, 3), (1, 3, 0, 2)]
    expected = [
        same(png(0)),
        same(png(1)),
        "the row has no image",
        "not an image in any known format",
        same(png(4)),
    ]
    assert contents(pieces) == {f"x.parquet#{i}": e for i, e in enumerate(expected)}
    assert list(contents(find_pieces(str(tmp_path), 1, id_column="key"))) == ["10", "11", "12", "13", "14"]


def test_parquet_with_hugging_face_images(tmp_path):
    (tmp_path / "outside.png").write_bytes(png(3))
    rows = [
        {"bytes": png(0), "path": "a.png"},
        {"bytes": None, "path": "outside.png"},
        {"bytes": None, "path": None},
    ]
    write_rows(tmp_path / "x.parquet", {"label": ["p", "q", "r"], "image": rows})
    found = contents(find_pieces(str(tmp_path / "*.parquet"), 10, id_column="label"))
    assert found == {"p": same(png(0)), "q": same(png(3)), "r": "the row has no image"}


def test_parquet_with_paths_is_cut_within_row_groups(tmp_path):
    (tmp_path / "pics").mkdir()
    for i in range(7):
        (tmp_path / "pics" / f"{i}.png").write_bytes(png(i))
    names = [
        "pics/0.png",
        str(tmp_path / "pics" / "1.png"),
        (tmp_path / "pics" / "2.png").as_uri(),
        *(f"pics/{i}.png" for i in range(3, 7)),
        "pics/absent.png",
    ]
    write_rows(tmp_path / "list.parquet", {"file_name": names}, group=5)
    pieces = find_pieces(str(tmp_path / "list.parquet"), 2)
    assert [(p.group, p.start, p.stop) for p in pieces] == [
        (0, 0, 2),
        (0, 2, 4),
        (0, 4, 5),
        (1, 0, 2),
        (1, 2, 3),
    ]
    assert contents(pieces) == {
        **{n: same(png(i)) for i, n in enumerate(names[:7])},
        "pics/absent.png": "no such file",
    }


def test_columns_are_named_when_they_are_not_known(tmp_path):
    write_rows(tmp_path / "x.parquet", {"thing": [png(0)], "n": [1]})
    with pytest.raises(KeypointError, match=r"\(thing, n\).*--column"):
        find_pieces(str(tmp_path), 1)
    assert contents(find_pieces(str(tmp_path), 1, column="thing")) == {"x.parquet#0": same(png(0))}
    with pytest.raises(KeypointError, match="no column 'n' of bytes or paths"):
        find_pieces(str(tmp_path), 1, column="n")
    with pytest.raises(KeypointError, match="no column 'who'"):
        find_pieces(str(tmp_path), 1, column="thing", id_column="who")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(KeypointError, match="not a complete Parquet file"):
        find_pieces(str(tmp_path), 1)


def test_any_fsspec_url(tmp_path):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/pics/a.png", png(1))
    write_tar(tmp_path / "t.tar", {"b.png": png(2)})
    fs.pipe_file("/bucket/shards/t.tar", (tmp_path / "t.tar").read_bytes())
    write_rows(tmp_path / "p.parquet", {"path": ["memory://bucket/pics/a.png", "../bucket/nothing.png"]})
    fs.pipe_file("/bucket/rows/p.parquet", (tmp_path / "p.parquet").read_bytes())
    try:
        assert contents(find_pieces("memory://bucket/pics", 5)) == {"a.png": same(png(1))}
        assert contents(find_pieces("memory://bucket/shards/*.tar", 5)) == {"t.tar/b.png": same(png(2))}
        assert contents(find_pieces("memory://bucket/rows", 5))["memory://bucket/pics/a.png"] == same(png(1))
        out = Folder("memory://bucket/out")
        assert out.names() == set()
        out.write("part-1.parquet", b"x")
        assert out.names() == {"part-1.parquet"} and out.read("part-1.parquet") == b"x"
    finally:
        fs.rm("/bucket", recursive=True)
    with pytest.raises(KeypointError, match="nosuch://a.*use a path"):
        find_pieces("nosuch://a", 5)


def test_inputs_without_images_are_refused(tmp_path, folder):
    with pytest.raises(KeypointError, match="does not exist"):
        find_pieces(str(tmp_path / "absent"), 5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeypointError, match="no .tar and no"):
        find_pieces(str(tmp_path / "empty"), 5)
    write_tar(folder / "x.tar", {"0.png": png(0)})
    with pytest.raises(KeypointError, match="7 image files and 1 tar shards"):
        find_pieces(str(folder), 5)


def test_images_decode_as_they_do_from_files(tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    cases = {
        "alpha.png": _encoded(Image.fromarray(colors)),
        "turned.jpg": _encoded(Image.fromarray(colors[..., :3]), "JPEG", exif=exif),
        "deep.png": _encoded(Image.fromarray(colors[..., 0].astype(np.uint16) * 257)),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        assert np.array_equal(decode_image(name, data), load_image(tmp_path / name))
    assert decode_image("turned.jpg", cases["turned.jpg"]).shape == (30, 20, 3)
    with pytest.raises(SmallImage):
        decode_image("s", _encoded(Image.new("RGB", (15, 40))))


def test_storage_that_fails_is_no_broken_image(monkeypatch, tmp_path):
    with pytest.raises(BrokenImage, match="no such file"):
        read("x", str(tmp_path / "x.png"))

    def reset(*_):
        raise ConnectionResetError("the storage hung up")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", reset)
    with pytest.raises(ConnectionResetError):
        list(read_ahead([("x", lambda: read("x", str(tmp_path / "x.png")))]))


# Rows and parts


def test_rows_keep_the_order_and_the_errors(backbone, tokens):
    images = [generator.render("dolls", i, s).image for i, s in enumerate((64, 80, 64, 96, 64))]
    items = [("first", "broken"), *((f"n{i}", image) for i, image in enumerate(images)), ("last", "gone")]
    items.insert(3, ("middle", "bad"))
    rows = find_rows(Detector(backbone, tokens, LOOK), items)
    expected = detect(backbone, tokens, [(f"n{i}", image) for i, image in enumerate(images)], LOOK)
    assert [r.image_id for r in rows] == ["first", "n0", "n1", "middle", "n2", "n3", "n4", "last"]
    assert [r.error for r in rows] == ["broken", None, None, "bad", None, None, None, "gone"]
    good = [r for r in rows if r.points is not None]
    np.testing.assert_allclose([r.points["xy"] for r in good], expected.keypoints.xy, atol=1e-3)
    np.testing.assert_allclose([r.points["confidence"] for r in good], expected.keypoints.confidence, atol=1e-5)
    np.testing.assert_allclose([r.spread for r in good], expected.spread, atol=1e-5)
    assert [(r.width, r.height) for r in good] == [(64, 64), (80, 80), (64, 64), (96, 96), (64, 64)]


def test_a_part_says_everything(tokens):
    points = np.arange(9, dtype=np.float32).reshape(3, 3)
    fields = {"xy": points[:, :2], "confidence": points[:, 2], "occluded": points[:, 0]}
    rows = [Row("a", 30, 20, fields, points[0]), Row("b\udce9", error="broken")]
    table = parquet.read_table(io.BytesIO(part_bytes(rows, tokens, "hash")))
    assert table.to_pylist() == [
        {
            "image_id": "a",
            "width": 30,
            "height": 20,
            "keypoints": points.tolist(),
            "tokens": "hash",
            "error": None,
            "occluded": points[:, 0].tolist(),
        },
        {
            "image_id": "b?",
            "width": None,
            "height": None,
            "keypoints": None,
            "tokens": "hash",
            "error": "broken",
            "occluded": None,
        },
    ]
    about = table.schema.metadata
    assert json.loads(about[b"keypoint_names"]) == ["a", "b", "c"] and json.loads(about[b"skeleton"]) == [[0, 2]]


def test_the_hash_follows_what_decides_the_keypoints(tokens):
    assert tokens.digest[:16] == tokens.rename(("x", "y", "z")).digest[:16]
    assert len({t.digest[:16] for t in (tokens, random_tokens(1), tokens.reorder([1, 0, 2]))}) == 3


def test_the_plan_comes_back_and_belongs_to_its_settings(tmp_path):
    out, settings = Folder(str(tmp_path / "out")), {"input": "in", "detection": LOOK.to_dict()}
    assert read_plan(out, settings) == []
    pieces = [
        Piece("files", "file:///in", ("a\n.png", "b\u2028\udce9.png")),
        Piece("rows", "s3://x", ("x",), 1, 2, 3, 4, "i"),
    ]
    write_plan(out, settings, pieces)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    half = [f".{part_name(0)}.{owner}.tmp" for owner in (f"{files._HOST}.{ended.pid}", f"elsewhere.{ended.pid}")]
    for name in half:
        (tmp_path / "out" / name).write_bytes(b"half")
    out.sweep()  # another machine may still be writing its own
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [half[1], PLAN]
    assert read_plan(out, settings) == pieces
    with pytest.raises(KeypointError, match="another input"):
        read_plan(out, {**settings, "input": "elsewhere"})
    (tmp_path / "out" / PLAN).write_text('{"format": "other"}\n')
    with pytest.raises(KeypointError, match="not written by this program"):
        read_plan(out, settings)
    (tmp_path / "out" / PLAN).unlink()
    out.write("theirs.parquet", b"")
    with pytest.raises(KeypointError, match="holds Parquet files but no"):
        read_plan(out, settings)


def test_the_report_counts():
    report = Report()
    for number, worker, began, ended in ((0, "a", 10.0, 12.0), (1, "b", 11.0, 15.0), (2, "a", 12.0, 14.0)):
        report.add(Done(number, 10, 1, b"", began, ended, worker, 100.0 + number))
    report.add(Done(3, 0, 0, b"", 0.0, 0.5, "a", 1.0, problem="no network"))
    assert (report.rows, report.errors, report.parts, report.seconds) == (30, 3, 3, 5.0)
    assert report.rows_per_second == 6.0 and report.failed == {3: "no network"}
    assert report.workers == {
        "a": {"rows": 20, "seconds": 4.0, "rss_mb_first": 100.0, "rss_mb_last": 102.0},
        "b": {"rows": 10, "seconds": 4.0, "rss_mb_first": 101.0, "rss_mb_last": 101.0},
    }
    assert "a: 20 rows, 5.00 rows/s, 102 MB" in report.text() and "30 rows (3 with an error)" in report.text()


def test_images_of_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    array = generator.render("dolls", 0, 64).image
    for given in (load_folder(tmp_path), [tmp_path / "a.png"], [str(tmp_path / "a.png")], [("a.png", array)]):
        images = as_image_set(given)
        assert images.names == ("a.png",) and np.array_equal(images[0], array)


def test_resources_decide_the_number_of_workers():
    class FakeRay:
        def __init__(self, **has):
            self.has = has

        def cluster_resources(self):
            return self.has

    settle = cluster_module.settle
    assert settle(FakeRay(CPU=6.0), Pool(cpus=2), "auto") == (3, 0.0, "cpu")
    assert settle(FakeRay(CPU=6.0, GPU=2.0), Pool(), "auto") == (2, 1.0, "cuda")
    assert settle(FakeRay(CPU=6.0, GPU=2.0), Pool(gpus=0.25), "auto") == (8, 0.25, "cuda")
    assert settle(FakeRay(CPU=6.0, GPU=2.0), Pool(), "cpu") == (6, 0.0, "cpu")
    assert settle(FakeRay(CPU=6.0), Pool(workers=4), "cpu") == (4, 0.0, "cpu")
    with pytest.raises(KeypointError, match="3 workers with 0.5 GPUs each.*has 1"):
        settle(FakeRay(CPU=6.0, GPU=1.0), Pool(workers=3, gpus=0.5), "auto")
    with pytest.raises(KeypointError, match="must be positive"):
        Pool(workers=-1)


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path, tokens, folder, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    tokens.save(tmp_path / "t.safetensors")
    arguments = [
        "detect-dataset",
        str(folder),
        str(tmp_path / "out"),
        "--tokens",
        str(tmp_path / "t.safetensors"),
    ]
    assert main(arguments) == 1
    assert 'pip install "ray[data]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# With Ray: one small cluster for all


@pytest.fixture(scope="module")
def small_cluster():
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch, cluster_at_usual_priority(patch) as ray:
        yield ray


def cluster_at_usual_priority(patch):
    """Ray gives its workers the lowest priority, at which they hardly run beside other work."""
    patch.setenv("RAY_worker_niceness", "0")
    return cluster(Pool(workers=2))


def all_rows(folder):
    return parquet.read_table(folder).to_pylist()  # ignores names that begin with _ or ., like other readers


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_a_restart_does_the_rest(small_cluster, tmp_path, backbone, tokens):
    source, out, killed = tmp_path / "in", tmp_path / "in" / "out", []
    source.mkdir()
    for i in range(24):
        (source / f"{i:02d}.png").write_bytes(png(i))
    (source / "07.png").write_bytes(b"broken")

    def kill_first(report, done, total):
        if not killed:
            killed.append(done.worker)
            os.kill(int(killed[0].split(":")[1]), signal.SIGKILL)

    def run(workers, **how):
        return detect_dataset(
            str(source),
            str(out),
            tokens,
            LOOK,
            model="demo",
            device="cpu",
            pool=Pool(workers),
            part_rows=3,
            **how,
        )

    report = run(2, on_part=kill_first)
    assert report.rows == 24 and report.errors == 1 and not report.failed and report.parts == 8
    assert len(report.workers) > 1 and report.workers[killed[0]]["rows"] < 24
    rows = all_rows(out)
    assert sorted(r["image_id"] for r in rows) == [f"{i:02d}.png" for i in range(24)]
    bad = [r for r in rows if r["error"]]
    assert [r["image_id"] for r in bad] == ["07.png"] and bad[0]["keypoints"] is None
    assert {r["tokens"] for r in rows} == {tokens.digest[:16]}
    expected = detect(backbone, tokens, load_folder(source), LOOK).keypoints
    found = np.array([r["keypoints"] for r in sorted(rows, key=lambda r: r["image_id"]) if not r["error"]])
    np.testing.assert_allclose(found[..., :2], expected.xy, atol=1e-2)
    np.testing.assert_allclose(found[..., 2], expected.confidence, atol=1e-4)
    assert json.loads((out / dataset.REPORT).read_text())["rows"] == 24

    before = {p.name: p.stat().st_mtime_ns for p in out.glob("part-*")}
    (out / part_name(2)).unlink()
    (source / "new.png").write_bytes(png(99))
    again = run(1)
    assert (again.rows, again.parts, again.skipped) == (4, 2, 7)
    assert sorted(r["image_id"] for r in all_rows(out)) == [*(f"{i:02d}.png" for i in range(24)), "new.png"]
    after = {p.name: p.stat().st_mtime_ns for p in out.glob("part-*")}
    assert {name for name in after if after[name] != before.get(name)} == {part_name(2), part_name(8)}
    assert run(1).rows == 0  # nothing to do: no worker is started
    with pytest.raises(KeypointError, match="another tokens"):
        detect_dataset(str(source), str(out), random_tokens(1), LOOK, model="demo", device="cpu")


def test_workers_send_every_field_of_points_back(backbone, tokens, monkeypatch):
    """Whether points are occluded was lost on the way."""
    monkeypatch.setattr(Detector, "occlusion", lambda self, maps, front: np.full(maps.shape[:2], 0.75, np.float32))
    images = ImageSet.from_arrays([generator.render("dolls", i, 64).image for i in range(3)])
    _, _, payload = _ReturnPoints(images)(Detector(backbone, tokens, LOOK), 0, "[0, 3]")
    found = _shard((0, 3), payload, tokens, images.names).found.keypoints
    expected = detect(backbone, tokens, images, LOOK).keypoints
    for name in POINT_FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4)
    assert (found.occluded == 0.75).all()


@pytest.mark.slow
def test_detection_in_parallel_is_detection(small_cluster, tmp_path, backbone, tokens):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(png(i, 64 + 16 * (i % 2)))
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) // 2])  # its header is fine
    expected = detect(backbone, tokens, load_folder(tmp_path), LOOK)
    images, counts = load_folder(tmp_path), []
    found = detect_parallel(backbone, tokens, images, LOOK, 2, on_progress=lambda *a: counts.append(a))
    assert found.keypoints.images == expected.keypoints.images and len(found.keypoints) == 8
    np.testing.assert_allclose(found.keypoints.xy, expected.keypoints.xy, atol=1e-2)
    np.testing.assert_allclose(found.keypoints.confidence, expected.keypoints.confidence, atol=1e-4)
    np.testing.assert_allclose(found.spread, expected.spread, atol=1e-4)
    assert np.array_equal(found.keypoints.sizes, expected.keypoints.sizes)
    assert found.keypoints.names == tokens.names and found.keypoints.skeleton == tokens.skeleton
    assert [name for name, _ in images.skipped] == ["4.png"]
    assert counts[-1] == ("detecting", 9, 9) and counts == sorted(counts)


@pytest.mark.slow
def test_what_kills_every_worker_does_not_hold_up_the_others(small_cluster, tokens):
    ray = small_cluster
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    job = Job("demo", tokens, LOOK, _deadly, device="cpu", retries=1)
    done = {d.number: d for d in run_pieces(ray, job, [(n, f"{n}") for n in range(5)], Pool(2))}
    assert sorted(done) == list(range(5))
    assert done[2].problem == "2 workers died over it" and done[3].problem == "ConnectionError: gone"
    assert [done[n].rows for n in (0, 1, 4)] == [0, 1, 4] and done[4].payload == b"4"


def _deadly(detector, number, text):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise ConnectionError("gone")
    return number, 0, text.encode()


@pytest.mark.slow
def test_a_model_that_cannot_be_opened_is_a_sentence(small_cluster, tmp_path, tokens):
    images = ImageSet.from_arrays([generator.render("dolls", 0, 64).image])
    with pytest.raises(KeypointError, match="There is no file or folder"):
        detect_parallel(str(tmp_path / "absent.safetensors"), tokens, images, LOOK, 1)
