"""The authors' published files, written here by the same torch.save calls."""

import numpy as np
import pytest
import torch

from stablekp_core.config import TrainConfig
from stablekp_core.errors import KeypointError
from stablekp_core.evaluation.regression import fit_regression
from stablekp_core.keypoints.keypoints import Keypoints
from stablekp_core.keypoints.published_tokens import read_published_tokens
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.pose.published_map import XY_ORDER, read_published_map

K, L = 10, 5


@pytest.fixture
def published(tmp_path):
    """What the authors' code saves: a parameter, the result of argsort, a float32 matrix."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.nn.Parameter(torch.randn(1, 500, 768, generator=generator))
    counts = torch.randperm(500, generator=generator)
    torch.save(embedding.detach(), tmp_path / "embedding.pt")
    torch.save(counts.argsort(descending=True)[:K], tmp_path / "indices.pt")
    return tmp_path, embedding[0].detach(), counts.argsort(descending=True)[:K]


def save_regressor(path, points, landmarks, xy_order):
    """(row, column) in, and out unless `xy_order`; from numpy's float64, as the authors' code."""
    x = points[..., ::-1].reshape(len(points), -1) - 0.5
    y = (landmarks if xy_order else landmarks[..., ::-1]).reshape(len(landmarks), -1) - 0.5
    torch.save(torch.tensor(np.linalg.pinv(x.T @ x) @ x.T @ y).to(torch.float32), path)


def test_tokens_with_the_reference_settings(published):
    folder, embedding, indices = published
    tokens = read_published_tokens(folder / "embedding.pt", folder / "indices.pt")
    assert torch.equal(tokens.embeddings, embedding) and tokens.chosen == tuple(indices.tolist())
    assert tokens.config == TrainConfig.preset("reference", keypoints=K, tokens=500).to_dict()
    assert tokens.refined is None and tokens.names[0] == "kp0" and "v1-5" in tokens.model_name
    again = KeypointTokens.load(tokens.save(folder / "out.safetensors"))
    assert again.digest == tokens.digest
    torch.save(torch.nn.Parameter(embedding[None]), folder / "embedding.pt")  # as saved while it was being learned
    assert read_published_tokens(folder / "embedding.pt", folder / "indices.pt").digest == tokens.digest


@pytest.mark.parametrize("dataset", ["celeba_wild", "cub_aligned", "human36m", "human36m_unaligned", "taichi", None])
def test_the_regressor_becomes_a_landmark_map(tmp_path, dataset):
    rng = np.random.default_rng(3)
    points, landmarks = rng.random((40, K, 2)), rng.random((40, L, 2))
    save_regressor(tmp_path / "regressor.pt", points, landmarks, dataset in XY_ORDER)
    names = tuple(f"kp{i}" for i in range(K))
    made = read_published_map(tmp_path / "regressor.pt", names, dataset)
    size = np.array([300, 200])
    found = Keypoints(points * size, rng.random((40, K)), np.tile(size, (40, 1)), names)
    expected = fit_regression(points, landmarks).predict(points)  # the paper's map, (x, y)
    np.testing.assert_allclose(made.apply(found).xy / size, expected, atol=2e-5)
    assert made.names[0] == ("left_eye" if dataset == "celeba_wild" else "landmark0")
    assert "fitted elsewhere" in made.report()
    again = type(made).load(made.save(tmp_path / "map.safetensors"))
    np.testing.assert_array_equal(again.weights, made.weights)


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("embedding.pt", torch.zeros(500, 768), "embedding.pt holds float32 .500, 768., but published tokens"),
        ("embedding.pt", {"a": torch.zeros(1)}, "embedding.pt holds a dict"),
        ("embedding.pt", Harmful(), "embedding.pt is not a file in which torch.save wrote a tensor"),
        ("embedding.pt", torch.full((1, 500, 768), torch.nan), "not finite"),
        ("indices.pt", torch.zeros(3), "indices.pt holds float32 .3., but the chosen tokens are whole numbers"),
        ("indices.pt", torch.tensor([1, 500]), "indices.pt chooses 2 tokens from 1 to 500, but embedding.pt has 500"),
        ("indices.pt", torch.tensor([1, 1]), "different numbers"),
        ("regressor.pt", torch.zeros(18, 10), r"regressor of 10 keypoints is \[20, 2 x landmarks\]"),
    ],
)
def test_other_files_are_refused_by_name_and_nothing_runs(published, capsys, name, value, said):
    folder, _, _ = published
    torch.save(value, folder / name)
    with pytest.raises(KeypointError, match=said):
        tokens = read_published_tokens(folder / "embedding.pt", folder / "indices.pt")
        read_published_map(folder / "regressor.pt", tokens.names)
    assert capsys.readouterr().out == ""
    (folder / "indices.pt").write_bytes(b"hello")
    with pytest.raises(KeypointError, match="indices.pt is not a file|embedding.pt"):
        read_published_tokens(folder / "embedding.pt", folder / "indices.pt")
