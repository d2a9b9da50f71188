"""The tokens type and its file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stablekp_core.errors import KeypointError
from stablekp_core.files import sanitize_name
from stablekp_core.keypoints.read_settings import ReadSettings
from stablekp_core.keypoints.readouts import Readout
from stablekp_core.keypoints.self_check import ReadoutCheck, SelfCheck
from stablekp_core.keypoints.spatial_prior import SpatialPrior
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.keypoints.tokens_file import FORMAT
from stablekp_core.selection.occlusion import occlusion_network


def net(width):
    g = torch.Generator().manual_seed(3)
    return {k: torch.randn(v.shape, generator=g) for k, v in occlusion_network(width).state_dict().items()}


def make(**fields):
    values = {
        "embeddings": torch.randn(12, 8, generator=torch.Generator().manual_seed(0)),
        "chosen": (7, 2, 11),
        "votes": (90, 80, 70),
        "config": {"steps": 10, "kappa": 25, "nested": {"a": [1, 2.5, None]}},
        "model_name": "tiny",
        "model_hash": "abc",
        "names": ("nose", "ear", "tail"),
        "skeleton": ((0, 1), (1, 2)),
        "colors": ((1, 2, 3), (4, 5, 6), (7, 8, 9)),
        "scores": (0.1, 0.2, 0.3),
        "losses": (1.0, 0.1, 1e-9),
        "spatial_prior": SpatialPrior.of(torch.rand(9, 3, 2, generator=torch.Generator().manual_seed(1))),
        "refined": torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(2)),
        "occlusion": net(16),
    }
    return KeypointTokens(**{**values, **fields})


def same(a, b):
    assert torch.equal(a.embeddings, b.embeddings)
    names = "chosen votes config model_name model_hash names skeleton colors scores losses reading"
    for name in names.split():
        assert getattr(a, name) == getattr(b, name), name
    assert (a.spatial_prior is None) == (b.spatial_prior is None)
    if a.spatial_prior is not None:
        assert torch.equal(a.spatial_prior.mean, b.spatial_prior.mean) and torch.equal(
            a.spatial_prior.covariance, b.spatial_prior.covariance
        )
        assert a.spatial_prior.images == b.spatial_prior.images == 9
    assert (a.refined is None) == (b.refined is None)
    assert a.refined is None or torch.equal(a.refined, b.refined)
    assert (a.occlusion is None) == (b.occlusion is None)
    if a.occlusion is not None:
        assert list(a.occlusion) == list(b.occlusion) and len(a.occlusion) == 10
        assert all(torch.equal(a.occlusion[k], b.occlusion[k]) for k in a.occlusion)


def test_round_trip(tmp_path):
    tokens = make()
    path = tokens.save(tmp_path / "deep" / "dog.safetensors")
    same(KeypointTokens.load(path), tokens)
    least = KeypointTokens(torch.zeros(3, 4), (1,))
    loaded = KeypointTokens.load(least.save(tmp_path / "least"))
    same(loaded, least)
    assert loaded.names == ("kp0",) and loaded.width == 4 and loaded.num_keypoints == 1


def test_the_file_is_plain_safetensors_with_a_json_header(tmp_path):
    path = make().save(tmp_path / "dog")
    assert path == tmp_path / "dog.safetensors"
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["stable_keypoints"])
        assert file.get_tensor("embeddings").dtype == torch.float32
    assert header["format"] == FORMAT and header["version"] == 1 and header["chosen"] == [7, 2, 11]


def test_tokens_refined_for_another_prompt_are_left_out(tmp_path):
    path = make().save(tmp_path / "dog")
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["stable_keypoints"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del header["refined_prompt"]
    save_file(tensors, path, {"stable_keypoints": json.dumps(header)})
    with pytest.warns(UserWarning, match="dog.safetensors was refined by an earlier version.*Train again"):
        same(KeypointTokens.load(path), make(refined=None, occlusion=None))


def test_a_dotted_name_keeps_its_dots(tmp_path):
    assert make().save(tmp_path / "dog.v1").name == "dog.v1.safetensors"


def test_the_digest_tells_what_decides_where_keypoints_are():
    same_place = (make(), make(names=("a", "b", "c")), make(losses=()))
    assert len({t.digest for t in same_place}) == 1
    others = (
        make(chosen=(7, 2, 1)),
        make(refined=torch.zeros(3, 2, 8)),
        make(spatial_prior=None),
        make(occlusion=None),
    )
    assert len({t.digest for t in (*others, make(refined=None, occlusion=None), make())}) == 6


def test_tokens_without_a_second_readout_have_the_digest_they_always_had():
    """Detections kept under a digest stay valid."""
    assert make().digest == "1ca69be218aad0371a4de5c6ae8f406c87d53e1bb89136207a1d1c48de03d9af"


CHECK = SelfCheck(
    4,
    "left out",
    "refined",
    ReadoutCheck(0.06, 0.15, 0.08, 0.2, 0.8, 0.3, dead=(1,)),
    ReadoutCheck(0.02, 0.14, 0.03, 0.2, 0.5, 0.06, duplicate=(2,), stuck=(0, 2)),
    ("a.png", "b.png"),
)
OTHER = Readout((1, 2, 3), (5, 6, 7), (0.5, 0.6, 0.7), SpatialPrior.of(torch.rand(9, 3, 2)))


def test_the_other_readout_and_the_check_go_through_the_file(tmp_path):
    tokens = make(other=OTHER, check=CHECK)
    assert tokens.digest != make().digest
    loaded = KeypointTokens.load(tokens.save(tmp_path / "dog"))
    same(loaded, tokens)
    assert loaded.check == CHECK and loaded.digest == tokens.digest
    learned = loaded.read("learned")
    assert (learned.chosen, learned.scores, learned.refined) == ((1, 2, 3), (0.5, 0.6, 0.7), None)
    assert learned.names == ("kp0", "kp1", "kp2") and learned.skeleton == () and learned.other is None
    assert loaded.read("refined") is loaded is loaded.read("auto")
    swapped = make(
        refined=None, occlusion=None, other=Readout((1, 2, 3), refined=make().refined, occlusion=make().occlusion)
    )
    back = KeypointTokens.load(swapped.save(tmp_path / "cat"))
    assert torch.equal(back.read("refined").refined, make().refined) and len(back.read("refined").occlusion) == 10
    assert back.read("learned") is back


def test_tokens_with_one_readout_are_read_as_near_as_they_come():
    tokens = make()
    assert tokens.read("learned").refined is None and tokens.read("learned").chosen == tokens.chosen
    plain = make(refined=None, occlusion=None)
    assert plain.read("refined") is plain


def test_an_edit_drops_the_keypoints_of_the_other_readout():
    tokens = make(other=OTHER, check=CHECK)
    assert tokens.drop([1]).other is None and tokens.drop([1]).check == CHECK
    assert tokens.rename(["a", "b", "c"]).other is OTHER


@pytest.mark.parametrize(
    "damage, match",
    [
        (lambda h: h["check"].update(used="both"), "record of the self-check is damaged"),
        (lambda h: h["check"]["learned"].update(area=float("nan")), "record of the self-check is damaged"),
        (lambda h: h["check"].pop("images"), "record of the self-check is damaged"),
        (lambda h: h["other"].update(chosen=[1, 2, 99]), "chosen tokens .* must be different numbers from 0 to 11"),
        (lambda h: h["other"].pop("chosen"), "damaged header"),
    ],
)
def test_a_damaged_second_readout_or_check_is_named(tmp_path, damage, match):
    path = make(other=OTHER, check=CHECK).save(tmp_path / "dog")
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["stable_keypoints"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    damage(header)
    save_file(tensors, path, {"stable_keypoints": json.dumps(header)})
    with pytest.raises(KeypointError, match=match):
        KeypointTokens.load(path)


def test_a_check_of_a_later_version_is_passed_over(tmp_path):
    path = make(check=CHECK).save(tmp_path / "dog")
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["stable_keypoints"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header["check"] = {"version": 99, "something": "else"}
    save_file(tensors, path, {"stable_keypoints": json.dumps(header)})
    assert KeypointTokens.load(path).check is None


def test_embeddings_are_a_detached_copy():
    source = torch.zeros(3, 4, requires_grad=True)
    tokens = KeypointTokens(source, (0,))
    with torch.no_grad():
        source += 1
    assert not tokens.embeddings.requires_grad and (tokens.embeddings == 0).all()


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = make().save(tmp_path / "dog")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeypointError, match="disk full"):
        make(chosen=(0, 1, 2)).save(path)
    monkeypatch.undo()
    assert KeypointTokens.load(path).chosen == (7, 2, 11)
    assert [p.name for p in tmp_path.iterdir()] == ["dog.safetensors"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embeddings": torch.zeros(12)}, r"\[12\].*\[tokens, width\]"),
        ({"embeddings": [[1.0]]}, "list"),
        ({"embeddings": torch.zeros(12, 8, dtype=torch.float16)}, "float16.*float32"),
        ({"embeddings": torch.full((12, 8), float("nan"))}, "not finite"),
        ({"chosen": (7, 7, 1)}, "different numbers from 0 to 11"),
        ({"chosen": (7, 12, 1)}, "different numbers"),
        ({"chosen": (-1, 2, 1)}, "different numbers"),
        ({"chosen": (), "names": (), "skeleton": (), "colors": (), "scores": (), "votes": ()}, "at least 1"),
        ({"votes": (1, 2)}, "2 votes"),
        ({"names": ("a", "b", "a")}, "names must differ"),
        ({"names": ("a",)}, "1 names"),
        ({"skeleton": ((0, 3),)}, "skeleton edge"),
        ({"colors": ((0, 0, 0),)}, "1 colors"),
        ({"scores": (1.0,)}, "1 scores"),
        ({"scores": (1.0, 2.0, float("nan"))}, "not finite"),
        ({"refined": torch.zeros(6, 2, 8)}, "refined tokens are not those of 3 keypoints"),
        ({"refined": torch.zeros(3, 2, 7)}, "refined tokens"),
        ({"refined": torch.zeros(3, 8)}, "refined tokens"),
        ({"refined": torch.full((3, 2, 8), float("inf"))}, "refined tokens"),
        ({"occlusion": net(8)}, "occlusion network does not fit"),
        ({"refined": None}, "occlusion network"),
        ({"occlusion": {}}, "occlusion network"),
        ({"occlusion": {"0.weight": torch.full((1, 16, 1, 1), float("nan"))}}, "occlusion network"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(KeypointError, match=message):
        make(**fields)


def test_reorder_moves_everything_of_a_keypoint():
    tokens = make().reorder([2, 0])
    assert tokens.chosen == (11, 7) and tokens.names == ("tail", "nose") and tokens.votes == (70, 90)
    assert tokens.colors == ((7, 8, 9), (1, 2, 3)) and tokens.scores == (0.3, 0.1) and tokens.skeleton == ()
    assert torch.equal(tokens.spatial_prior.covariance, make().spatial_prior.pick([2, 0]).covariance)
    assert torch.equal(tokens.refined, make().refined[[2, 0]])
    assert torch.equal(make().drop([1]).refined, make().refined[[0, 2]])
    assert make().reorder([2, 1, 0]).skeleton == ((2, 1), (1, 0))
    assert make(votes=tuple(range(12))).reorder([1]).votes == tuple(range(12))  # votes of all N tokens stay
    for bad in ([], [0, 0], [3]):
        with pytest.raises(KeypointError):
            make().reorder(bad)


def test_drop_rename_skeleton_colors():
    tokens = make()
    assert tokens.drop([1]).names == ("nose", "tail")
    with pytest.raises(KeypointError):
        tokens.drop([0, 1, 2])
    with pytest.raises(KeypointError, match="different numbers from 0 to 2"):
        tokens.drop([5])
    assert tokens.rename({"ear": "left ear"}).names == ("nose", "left ear", "tail")
    assert tokens.rename(["a", "b", "c"]).names == ("a", "b", "c")
    with pytest.raises(KeypointError, match="no keypoint is named 'paw'"):
        tokens.rename({"paw": "x"})
    with pytest.raises(KeypointError, match="2 names"):
        tokens.rename(["a", "b"])
    assert tokens.with_skeleton([[0, 2]]).skeleton == ((0, 2),)
    assert tokens.with_colors([]).colors == ()
    assert tokens.names == ("nose", "ear", "tail")  # unchanged


def test_check_model(recwarn):
    make().check_model("abc", 8)
    make(model_hash="").check_model("other", 8)
    assert not recwarn.list
    with pytest.raises(KeypointError, match="8 wide but the model takes 768"):
        make().check_model("abc", 768)
    with pytest.warns(UserWarning, match="other weights"):
        make().check_model("def", 8)


# Loading what is not a tokens file


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pkl", ".PT"])
def test_pickles_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"tokens{suffix}"
    torch.save({"embeddings": torch.zeros(2, 2)}, path)
    with pytest.raises(KeypointError, match="pickle"):
        KeypointTokens.load(path)
    with pytest.raises(KeypointError, match="pickle"):
        make().save(path)


def test_a_renamed_pickle_and_a_cut_file_are_refused(tmp_path):
    path = tmp_path / "tokens.safetensors"
    torch.save({"embeddings": torch.zeros(2, 2)}, path)
    with pytest.raises(KeypointError, match="not a complete safetensors file"):
        KeypointTokens.load(path)
    make().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(KeypointError, match="not a complete safetensors file"):
        KeypointTokens.load(path)
    with pytest.raises(KeypointError, match="does not exist"):
        KeypointTokens.load(tmp_path / "gone.safetensors")


def rewritten(tmp_path, tensors=None, raw=None, **changes):
    """A saved file with parts of it replaced."""
    path = make().save(tmp_path / "t")
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["stable_keypoints"])
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
    header.update(changes)
    header = {key: value for key, value in header.items() if value != "absent"}
    save_file(stored if tensors is None else tensors, path, {"stable_keypoints": raw or json.dumps(header)})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"version": "absent"}, "version None"),
        ({"format": "other"}, "does not have the format"),
        ({"raw": "{oops"}, "damaged header"),
        ({"raw": "[]"}, "does not have the format"),
        ({"chosen": "absent"}, "damaged header.*chosen"),
        ({"chosen": 3}, "damaged header"),
        ({"chosen": ["a", "b", "c"]}, "damaged header"),
        ({"chosen": [0, 1, 99]}, "t.safetensors: the chosen tokens"),
        ({"config": 5}, "damaged header"),
        ({"skeleton": [[0]]}, "not a pair"),
        ({"tensors": {"scores": torch.zeros(3)}}, "no embeddings"),
        ({"tensors": {"embeddings": torch.zeros(12, 8, dtype=torch.float64)}}, "float64"),
        ({"tensors": {"embeddings": torch.zeros(12)}}, "tokens, width"),
        ({"reading": {"version": 2}}, "version 2.*update"),
        ({"reading": {"version": 1, "map_size": "wide"}}, "damaged"),
        ({"reading": {"version": 1, "colour": 3}}, "colour"),
        ({"reading": 7}, "damaged header"),
        ({"tensors": {"embeddings": torch.zeros(12, 8), "peers_mean": torch.zeros(3, 2)}}, "damaged header"),
        (
            {
                "tensors": {
                    "embeddings": torch.zeros(12, 8),
                    "peers_mean": torch.zeros(2, 2),
                    "peers_covariance": torch.zeros(6, 6),
                }
            },
            "spatial prior is not that of 3 keypoints",
        ),
        ({"tensors": {"embeddings": torch.full((12, 8), float("inf"))}}, "not finite"),
    ],
)
def test_damaged_files_are_refused(tmp_path, changes, message):
    with pytest.raises(KeypointError, match=message):
        KeypointTokens.load(rewritten(tmp_path, **changes))


def test_rewritten_without_a_change_loads(tmp_path):
    same(KeypointTokens.load(rewritten(tmp_path)), make())


def test_another_safetensors_file_is_refused(tmp_path):
    save_file({"embeddings": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(KeypointError, match="not a keypoint tokens file"):
        KeypointTokens.load(tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dog", "dog"),
        ("my dog v1.2", "my dog v1.2"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\x", "x"),
        ("C:x", "C_x"),
        ("..", "keypoints"),
        ("", "keypoints"),
        ("a/", "keypoints"),
        ("/", "keypoints"),
        (".hidden", "hidden"),
        ("a\0b\n", "a_b_"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("名前", "名前"),
        ("x" * 300, "x" * 100),
        ("x" * 99 + ". y", "x" * 99),
        (" a. ", "a"),
        ("~", "_"),
    ],
)
def test_sanitize_name(tmp_path, name, expected):
    clean = sanitize_name(name)
    assert clean == expected
    assert (tmp_path / clean).resolve().parent == tmp_path.resolve()


def test_the_reading_record_is_what_training_said_and_survives_a_round_trip(tmp_path):
    config = {"map_size": 32, "sigma": 1.5, "gradient": "cached", "scale": [0.7, 0.9], "an option of long ago": True}
    tokens = make(config=config)
    assert tokens.reading == ReadSettings(map_size=32, sigma=1.5, scale=(0.7, 0.9), prompt="zero token")
    kept = make(reading=ReadSettings(map_size=64), config={"map_size": 8})
    assert KeypointTokens.load(kept.save(tmp_path / "t")).reading == ReadSettings(map_size=64)
    assert make(config={}).reading == ReadSettings()


def test_mirrored_tokens_of_earlier_files_are_left_out(tmp_path):
    path = rewritten(tmp_path, tensors={"embeddings": torch.zeros(12, 8), "refined": torch.ones(6, 2, 8)})
    assert KeypointTokens.load(path).refined.shape == (3, 2, 8)
