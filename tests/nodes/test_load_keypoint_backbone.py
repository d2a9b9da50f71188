"""Load Keypoint Backbone."""

from __future__ import annotations

from node_data import part


def test_checkpoints_are_safetensors_only_and_the_demo_comes_first(pack, tmp_path):
    backbone = part("load_keypoint_backbone")
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
