"""Paths that look like patterns, columns of every kind, addresses where nobody answers, and other runs' files."""

import io
import os
import socket
import time

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

import pathlib

from stablekp_core.errors import KeypointError
from stablekp_core.files import left_behind
from stablekp_core.scale import storage
from stablekp_core.scale.cluster import Pool, cluster
from stablekp_core.scale.engine import everywhere
from stablekp_core.scale.inputs import find_pieces, piece_images
from stablekp_core.scale.parts import Folder


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def values(pieces) -> list[int]:
    """The red of every image that is read."""
    return [int(read()[0, 0, 0]) for piece in pieces for _, read in piece_images(piece)]


@pytest.mark.parametrize("name", ["holiday [2021]", "what?", "a::b", "all*"])
def test_a_path_that_exists_is_taken_as_it_is(tmp_path, name):
    (tmp_path / name).mkdir()
    for i, file in enumerate(("one [1].png", "12::30.png", "plain.png")):
        (tmp_path / name / file).write_bytes(png(10 * i))
    assert sorted(values(find_pieces(str(tmp_path / name), 500))) == [0, 10, 20]
    assert values(find_pieces(str(tmp_path / name / "one [1].png"), 500)) == [0]
    assert values(find_pieces(str(tmp_path / name / "12::30.png"), 500)) == [10]
    out = Folder(str(tmp_path / name))
    assert out.read("plain.png") == png(20)


def test_patterns_are_still_patterns(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    assert values(find_pieces(f"{tmp_path}/[01].png", 500)) == [0, 1]


def columns() -> dict:
    images = [png(1), png(2)]
    kinds = {
        "dictionary": pa.array(images, pa.binary()).dictionary_encode(),
        "list": pa.array([list(i) for i in images], pa.list_(pa.uint8())),
        "large list": pa.array([list(i) for i in images], pa.large_list(pa.uint8())),
        "large": pa.array(images, pa.large_binary()),
    }
    if hasattr(pa, "binary_view"):
        kinds["view"] = pa.array(images, pa.binary_view())
    return kinds


@pytest.mark.parametrize("kind", list(columns()))
def test_columns_of_every_kind(tmp_path, kind):
    parquet.write_table(pa.table({"image": columns()[kind]}), tmp_path / "a.parquet")
    assert values(find_pieces(str(tmp_path), 500)) == [1, 2]


def test_an_address_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 1)
    monkeypatch.setattr(storage, "file_system", lambda _: time.sleep(3))
    start = time.perf_counter()
    with pytest.raises(KeypointError, match=r"s3://bucket/x did not answer within 1 s"):
        find_pieces("s3://bucket/x", 500)
    assert time.perf_counter() - start < 2.5

    def broken(_):
        raise RuntimeError("a library's own error\nand its second line")

    monkeypatch.setattr(storage, "file_system", broken)
    with pytest.raises(
        KeypointError, match="cannot be reached .RuntimeError: a library's own error.; check the address"
    ):
        find_pieces("hf://datasets/nobody/nothing/*.parquet", 500)


def test_a_dead_cluster_is_told_at_once():
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    with (
        pytest.raises(KeypointError, match=f"no Ray cluster at 127.0.0.1:{port}"),
        cluster(Pool(address=f"127.0.0.1:{port}")),
    ):
        pass
    assert time.perf_counter() - start < 30


def test_a_folder_named_demo_is_not_the_built_in_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "other").mkdir()
    assert everywhere("demo") == "demo" and everywhere("other") == str(tmp_path / "other")


def test_sweeping_takes_what_dead_processes_of_this_machine_left(tmp_path):
    from stablekp_core import files

    dead = next(pid for pid in range(400_000, 4_000_000, 7) if not pathlib.Path(f"/proc/{pid}").exists())
    names = {
        f".part-0000001.parquet.{files._HOST}.{dead}.tmp": True,
        f".part-0000002.parquet.{files._HOST}.{os.getpid()}.tmp": False,  # at work
        f".part-0000003.parquet.another-host.{dead}.tmp": False,
        ".something.tmp": False,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert {name: left_behind(tmp_path / name) for name in names} == names
    Folder(str(tmp_path)).sweep()
    assert {p.name for p in tmp_path.iterdir()} == {name for name, gone in names.items() if not gone}


def test_the_model_of_a_run_is_told_by_its_weights(tmp_path, monkeypatch):
    """Two models of one file name were one."""
    from types import SimpleNamespace

    import torch

    from stablekp_core.config import TrainConfig
    from stablekp_core.keypoints.tokens import KeypointTokens
    from stablekp_core.scale import dataset

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(1))
    hashes = {"a/model.safetensors": "1" * 64, "b/model.safetensors": "2" * 64}
    monkeypatch.setattr(dataset, "load_model", lambda name: SimpleNamespace(hash=hashes[name]))
    monkeypatch.setattr(dataset, "cluster", lambda pool: pytest.fail("Ray was started"))
    tokens = KeypointTokens(torch.randn(12, 64), (1, 5), config=TrainConfig(keypoints=2).to_dict())
    out = str(tmp_path / "out")
    seen = []
    monkeypatch.setattr(dataset, "read_plan", lambda folder, settings: seen.append(settings["model"]) or pytest.skip())
    for name in hashes:
        with pytest.raises(pytest.skip.Exception):
            dataset.detect_dataset(str(tmp_path / "in"), out, tokens, model=name)
    assert len(set(seen)) == 2


def test_a_wrong_input_is_told_before_ray_starts(tmp_path, monkeypatch):
    import torch

    from stablekp_core.keypoints.tokens import KeypointTokens
    from stablekp_core.scale import dataset

    monkeypatch.setattr(dataset, "cluster", lambda pool: pytest.fail("Ray was started"))
    tokens = KeypointTokens(torch.randn(12, 64), (1, 5))
    with pytest.raises(KeypointError, match="nosuch does not exist"):
        dataset.detect_dataset("nosuch", str(tmp_path / "out"), tokens)
    assert np.all([not p.name.startswith("out") for p in tmp_path.iterdir()])
