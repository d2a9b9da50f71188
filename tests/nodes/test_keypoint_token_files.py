"""Save and Load Keypoint Tokens."""

from __future__ import annotations

import os
from pathlib import Path

from node_data import part, tokens

from stablekp_core.keypoints.tokens import KeypointTokens


def test_saving_adds_a_number_unless_overwriting(pack):
    save = part("save_keypoint_tokens").SaveKeypointTokens
    first, second = (Path(save.execute(tokens(), "pets/cat")[0]) for _ in range(2))
    assert [first.name, second.name] == ["cat.safetensors", "cat_00002.safetensors"]
    third = Path(save.execute(tokens(2), "pets/cat", overwrite=True)[0])
    assert third == first and KeypointTokens.load(first).num_keypoints == 2
    assert part("comfy.folders").token_files() == [
        os.path.join("pets", "cat.safetensors"),
        os.path.join("pets", "cat_00002.safetensors"),
    ]


def test_loading_lists_rescued_files_and_never_pickles(pack):
    folders, load = part("comfy.folders"), part("load_keypoint_tokens").LoadKeypointTokens
    tokens().save(folders.rescue_folder() / "interrupted.safetensors")
    (folders.tokens_folder() / "evil.pt").parent.mkdir(parents=True, exist_ok=True)
    (folders.tokens_folder() / "evil.pt").write_bytes(b"pickle")
    assert folders.token_files() == ["interrupted.safetensors"]
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
