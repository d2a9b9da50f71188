"""Save and Load Keypoint Tokens."""

from __future__ import annotations

import os
from pathlib import Path

import fake_comfy
from node_data import part, tokens

from stablekp_core.keypoints.tokens import KeypointTokens


def test_saving_adds_a_number_unless_overwriting(pack):
    save = part("save_keypoint_tokens").SaveKeypointTokens
    first, second = (Path(save.execute(tokens(), "pets/cat")[0]) for _ in range(2))
    assert [first.name, second.name] == ["cat.safetensors", "cat_00002.safetensors"]
    third = Path(save.execute(tokens(2), "pets/cat", overwrite=True)[0])
    assert third == first and KeypointTokens.load(first).num_keypoints == 2
    assert part("comfy.folders").token_files()[1:] == [  # after those that come with the pack
        str(Path("pets") / "cat.safetensors"),
        str(Path("pets") / "cat_00002.safetensors"),
    ]


def test_loading_lists_rescued_files_and_never_pickles(pack):
    folders, load = part("comfy.folders"), part("load_keypoint_tokens").LoadKeypointTokens
    tokens().save(folders.rescue_folder() / "interrupted.safetensors")
    (folders.tokens_folder() / "evil.pt").parent.mkdir(parents=True, exist_ok=True)
    (folders.tokens_folder() / "evil.pt").write_bytes(b"pickle")
    assert folders.token_files()[1:] == ["interrupted.safetensors"]
    assert load.execute("interrupted.safetensors")[0].num_keypoints == 3
    assert "evil.pt" in load.validate_inputs("evil.pt")
    assert load.validate_inputs("interrupted.safetensors") is True


def test_the_fingerprint_of_tokens_follows_the_file(pack):
    folders, load = part("comfy.folders"), part("load_keypoint_tokens").LoadKeypointTokens
    path = tokens().save(folders.tokens_folder() / "cat")
    before = load.fingerprint_inputs("cat.safetensors")
    assert load.fingerprint_inputs("cat.safetensors") == before
    os.utime(path, ns=(1, 1))
    assert load.fingerprint_inputs("cat.safetensors") != before


def test_the_newest_of_a_name_is_followed(pack):
    save, load = part("save_keypoint_tokens").SaveKeypointTokens, part("load_keypoint_tokens").LoadKeypointTokens
    for number, count in enumerate((2, 3, 4, 5)):
        path = Path(save.execute(tokens(count), "cat" if number < 3 else "cat_b")[0])
        os.utime(path, ns=(number, number))
    before = load.fingerprint_inputs("cat.safetensors", newest=True)
    assert load.execute("cat.safetensors", newest=True)[0].num_keypoints == 4
    assert "cat_00003.safetensors: 4 keypoints" in fake_comfy.page().texts[-1][1]
    assert load.execute("cat.safetensors")[0].num_keypoints == 2
    assert "cat_00003.safetensors is newer; turn newest on" in fake_comfy.page().texts[-1][1]
    assert load.execute("cat_b.safetensors", newest=True)[0].num_keypoints == 5
    save.execute(tokens(6), "cat")
    assert load.fingerprint_inputs("cat.safetensors", newest=True) != before
    assert load.execute("cat_00002.safetensors", newest=True)[0].num_keypoints == 6


def test_tokens_and_a_video_come_with_the_pack(pack, tmp_path):
    """The templates that need nothing of the user's own run on a fresh installation."""
    folders, load = part("comfy.folders"), part("load_keypoint_tokens").LoadKeypointTokens
    name = folders.token_files()[0]
    assert load.validate_inputs(name) is True and load.fingerprint_inputs(name, newest=True)
    assert load.execute(name, newest=True)[0].model_name == "demo"
    folders.offer_example_video()
    (video,) = (tmp_path / "input").glob("*.mp4")
    assert video.stat().st_size > 10_000
    video.write_bytes(b"another")
    folders.offer_example_video()
    assert video.read_bytes() == b"another"


def test_the_authors_published_tokens_load(pack):
    import torch

    folders, load = part("comfy.folders"), part("load_keypoint_tokens").LoadKeypointTokens
    folder = folders.tokens_folder()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(torch.randn(1, 30, 6), folder / "celeba_embedding.pt")
    assert "celeba_embedding.pt" not in folders.token_files()  # nothing says yet which of them are keypoints
    torch.save(torch.tensor([4, 2, 9]), folder / "celeba_indices.pt")
    assert folders.token_files()[-1] == "celeba_embedding.pt"
    assert load.validate_inputs("celeba_embedding.pt") is True
    assert load.execute("celeba_embedding.pt")[0].chosen == (4, 2, 9)
    assert "celeba_indices.pt" in load.validate_inputs("celeba_indices.pt")
