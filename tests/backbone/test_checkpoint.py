import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sd15_writer import (
    FULL_UNET,
    FULL_VAE,
    SMALL_UNET,
    SMALL_VAE,
    random_tensors,
    sd15_tensors,
    unet_shapes,
    vae_shapes,
    write_checkpoint,
)

from stablekp_core.backbone import checkpoint
from stablekp_core.backbone.backbone import Backbone
from stablekp_core.backbone.checkpoint import load_model, unet_from_ldm, vae_from_ldm, weights_hash
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import DetectConfig, TrainConfig
from stablekp_core.detection.detector import detect
from stablekp_core.errors import KeypointError
from stablekp_core.keypoints.tokens import KeypointTokens

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every test here runs with the network gone, and fails loudly if something reaches for it unasked."""

    def refuse(*args, **kwargs):
        raise OSError("the network is blocked in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("models") / "small.safetensors")


@pytest.fixture(scope="module")
def small_folder(small_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small_folder"
    model = load_model(small_file)
    model.unet.save_pretrained(folder / "unet")
    model.vae.save_pretrained(folder / "vae")
    return folder


def directly_built_unet(tensors, **config):
    """A diffusers UNet with the same weights, put in place by diffusers' own conversion."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = UNet2DConditionModel(attention_head_dim=8, **config)
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(tensors), dict(unet.config)))
    # Frozen as the loaded one is: PyTorch's linear layers round differently when a weight wants a gradient.
    return unet.requires_grad_(False).eval()


def unet_inputs(width):
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(2, 4, 16, 16, generator=generator),
        torch.tensor([3, 700]),
        torch.randn(2, 7, width, generator=generator),
    )


@pytest.mark.parametrize("linear", [False, True])
def test_unet_forward_equals_the_directly_built_one(tmp_path, linear):
    layout = {**SMALL_UNET, "linear": linear}
    path = write_checkpoint(tmp_path / "m.safetensors", unet=layout)
    wanted = directly_built_unet(
        load_file(path), block_out_channels=(32, 64, 64, 64), cross_attention_dim=48, use_linear_projection=linear
    )
    inputs = unet_inputs(48)
    with torch.no_grad():
        assert torch.equal(load_model(path).unet(*inputs).sample, wanted(*inputs).sample)


def test_other_depths_and_transformer_placement(tmp_path):
    layout = {"channels": 64, "mult": (1, 2), "res_blocks": 1, "attention": (True, False), "context": 32}
    path = write_checkpoint(tmp_path / "m.safetensors", unet=layout)
    wanted = directly_built_unet(
        load_file(path),
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    inputs = unet_inputs(32)
    with torch.no_grad():
        assert torch.equal(load_model(path).unet(*inputs).sample, wanted(*inputs).sample)


def test_vae_equals_the_directly_built_one(small_file):
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae = load_model(small_file).vae
    wanted = AutoencoderKL(
        block_out_channels=(32, 32, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    wanted.load_state_dict(convert_ldm_vae_checkpoint(load_file(small_file), dict(wanted.config)))
    wanted.eval()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mean = wanted.encode(image).latent_dist.mean
        assert torch.equal(vae.encode(image).latent_dist.mean, mean)
        assert torch.equal(vae.decode(mean).sample, wanted.decode(mean).sample)
    assert vae.config.scaling_factor == 0.18215


def test_full_shapes_cover_every_tensor():
    with torch.device("meta"):
        unet_state = {key: torch.empty(shape) for key, shape in unet_shapes(**FULL_UNET).items()}
        vae_state = {key: torch.empty(shape) for key, shape in vae_shapes(**FULL_VAE).items()}
    assert (len(unet_state), len(vae_state)) == (686, 248)
    unet, vae = unet_from_ldm(unet_state), vae_from_ldm(vae_state)
    assert (len(unet.state_dict()), len(vae.state_dict())) == (686, 248)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert unet.config.block_out_channels == (320, 640, 1280, 1280)
    assert unet.up_blocks[1].attentions[0].transformer_blocks[0].attn2.heads == 8


def storages(tensors):
    return sorted(tensor.untyped_storage().data_ptr() for tensor in tensors)


def test_modules_share_the_given_storage_and_leave_the_givers_alone():
    tensors = {key: torch.nn.Parameter(value) for key, value in sd15_tensors().items()}
    for prefix, make in (("model.diffusion_model.", unet_from_ldm), ("first_stage_model.", vae_from_ldm)):
        mine = {key: value for key, value in tensors.items() if key.startswith(prefix)}
        module = make(tensors)
        assert storages(module.parameters()) == storages(mine.values())
        assert not any(p.requires_grad for p in module.parameters())
        assert all(value.requires_grad for value in mine.values())
        assert not set(storages(make(tensors, share=False).parameters())) & set(storages(mine.values()))


def test_weights_of_inference_mode_carry_gradients_without_a_copy(small_file):
    with torch.inference_mode():
        weights = random_tensors(unet_shapes(**SMALL_UNET))
        unet, from_file = unet_from_ldm(weights), load_model(small_file).unet
    assert all(value.is_inference() for value in weights.values())
    assert storages(unet.parameters()) == storages(weights.values())
    for module in (unet, from_file):
        latents, steps, tokens = unet_inputs(48)
        tokens.requires_grad_(True)
        module(latents, steps, tokens).sample.square().mean().backward()
        assert tokens.grad.abs().sum() > 0


@pytest.mark.parametrize("names", [("query", "key", "value", "proj_attn"), ("q", "k", "v", "proj_out")])
@pytest.mark.parametrize("matrices", [False, True])
def test_vae_attention_names_and_shapes_of_all_ages(names, matrices):
    tensors = random_tensors(vae_shapes(**SMALL_VAE), seed=2)
    renamed = {}
    for key, value in tensors.items():
        for new, old in zip(names, ("q", "k", "v", "proj_out"), strict=True):
            key = key.replace(f".attn_1.{old}.", f".attn_1.{new}.")
        flat = matrices and ".attn_1." in key and value.ndim == 4
        renamed[key] = value.reshape(value.shape[:2]) if flat else value
    vae = vae_from_ldm(renamed)
    for part in ("encoder", "decoder"):
        attention = getattr(vae, part).mid_block.attentions[0]
        layers = (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
        for name, layer in zip(("q", "k", "v", "proj_out"), layers, strict=True):
            assert torch.equal(layer.weight, tensors[f"{part}.mid.attn_1.{name}.weight"].flatten(1))


def dtypes(model):
    return {p.dtype for part in (model.unet, model.vae) for p in part.parameters()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_of_the_file_is_kept_unless_another_is_asked_for(tmp_path, dtype):
    path = write_checkpoint(tmp_path / "m.safetensors", dtype=dtype)
    model = load_model(path)
    assert dtypes(model) == {dtype} == {model.dtype}
    other = torch.float16 if dtype == torch.float32 else torch.float32
    model = load_model(path, other)
    assert dtypes(model) == {other} == {model.dtype}


def test_float8_weights_and_stray_dtypes_end_in_one_dtype(tmp_path):
    tensors = sd15_tensors(dtype=torch.float16)
    for key in tensors:
        if key.startswith("model.diffusion_model.") and tensors[key].ndim > 1:
            tensors[key] = tensors[key].to(torch.float8_e4m3fn)
        if key == "first_stage_model.quant_conv.weight":
            tensors[key] = tensors[key].float()
    save_file(tensors, tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors")
    assert dtypes(model) == {torch.float16}


def test_file_and_folder_give_the_same_model_and_hash(small_file, small_folder):
    one, two = load_model(small_file), load_model(small_folder)
    assert (one.name, two.name) == ("small", "small_folder")
    assert one.hash == two.hash == weights_hash(one.unet) == weights_hash(two.unet)
    for part in ("unet", "vae"):
        first, second = getattr(one, part).state_dict(), getattr(two, part).state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    inputs = unet_inputs(48)
    with torch.no_grad():
        assert torch.equal(one.unet(*inputs).sample, two.unet(*inputs).sample)


def test_file_may_be_replaced_while_its_model_is_in_use(tmp_path):
    path = write_checkpoint(tmp_path / "m.safetensors")
    model = load_model(path)
    half = path.stat().st_size // 2
    with path.open("r+b") as file:  # in place, as a program does that overwrites a file
        file.seek(half)
        file.write(bytes(half))
    assert weights_hash(model.unet) == model.hash


def test_hash_ignores_dtype_and_sees_other_weights(small_file, tmp_path):
    hash32 = load_model(small_file).hash
    half = write_checkpoint(tmp_path / "half.safetensors", dtype=torch.float16)
    assert load_model(half).hash == load_model(small_file, torch.float16).hash == hash32
    assert weights_hash(load_model(half, torch.float32).unet) == hash32
    assert load_model(write_checkpoint(tmp_path / "other.safetensors", seed=1)).hash != hash32
    unet = load_model(small_file, torch.float32).unet
    with torch.no_grad():
        unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_v.weight.mul_(1.01)
    assert weights_hash(unet) != hash32


def test_folder_with_fp16_variant_shards_and_old_names(small_folder, tmp_path):
    wanted = load_model(small_folder)
    folder = tmp_path / "old"
    load_model(small_folder, torch.float16).unet.save_pretrained(folder / "unet", variant="fp16", max_shard_size="2MB")
    (folder / "vae").mkdir()
    (folder / "vae/config.json").write_text((small_folder / "vae/config.json").read_text())
    state = load_file(small_folder / "vae/diffusion_pytorch_model.safetensors")
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        state = {key.replace(f".{new}.", f".{old}."): value for key, value in state.items()}
    assert any("proj_attn" in key for key in state)
    save_file(state, folder / "vae/diffusion_pytorch_model.safetensors")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    model = load_model(folder)
    assert (model.dtype, model.vae.dtype, model.hash) == (torch.float16, torch.float32, wanted.hash)
    first, second = model.vae.state_dict(), wanted.vae.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in second)


def test_demo_is_a_folder_like_any_other(small_folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "DEMO_FOLDER", small_folder)
    demo = load_model("demo")
    assert (demo.name, demo.hash) == ("demo", load_model(small_folder).hash)
    monkeypatch.setattr(checkpoint, "DEMO_FOLDER", small_folder / "nowhere")
    with pytest.raises(KeypointError, match="demo model is missing from this installation"):
        load_model("demo")


def test_hub_id_downloads_only_unet_and_vae(small_folder, monkeypatch):
    import fnmatch

    import huggingface_hub

    asked = {}

    def download(repo_id, allow_patterns):
        asked.update(repo_id=repo_id, patterns=allow_patterns)
        return str(small_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = load_model("someone/some-model.v1-5")
    assert (model.name, asked["repo_id"]) == ("someone/some-model.v1-5", "someone/some-model.v1-5")

    def taken(name):
        return any(fnmatch.fnmatch(name, pattern) for pattern in asked["patterns"])

    assert taken("unet/config.json") and taken("vae/diffusion_pytorch_model.safetensors")
    assert taken("unet/diffusion_pytorch_model-00001-of-00002.safetensors")
    assert taken("scheduler/scheduler_config.json")
    assert not any(
        map(
            taken,
            (
                "text_encoder/model.safetensors",
                "unet/diffusion_pytorch_model.bin",
                "v1-5-pruned.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
            ),
        )
    )


def test_works_with_the_hub_switched_off(small_file):
    code = f"""
import socket
def refuse(*a, **k): raise SystemExit("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from stablekp_core.backbone.checkpoint import load_model
print(load_model({str(small_file)!r}).hash)
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load_model(small_file).hash


# ---- refusals: each sentence says what was given, and what to use instead ----


def refusal(model) -> str:
    with pytest.raises(KeypointError) as error:
        load_model(model)
    message = str(error.value)
    assert "Stable Diffusion 1.4 or 1.5" in message and "\n" not in message
    return message


def shaped(shapes, prefix=""):
    return {prefix + key: torch.zeros(shape) for key, shape in shapes.items()}


def unet_file(**changes):
    return sd15_tensors(unet={**SMALL_UNET, **changes})


REFUSED = {
    "an SDXL model": lambda: unet_file(context=2048, label_width=64),
    "an SDXL refiner": lambda: unet_file(context=1280, label_width=64),
    "a Stable Diffusion 2 model": lambda: unet_file(context=1024, linear=True),
    "an inpainting model": lambda: unet_file(in_channels=9),
    "an InstructPix2Pix model": lambda: unet_file(in_channels=8),
    "a Stable Diffusion 3 model": lambda: shaped(
        {"joint_blocks.0.x_block.attn.qkv.weight": (4, 4)}, "model.diffusion_model."
    ),
    "a Flux-like model": lambda: shaped({"double_blocks.0.img_attn.qkv.weight": (4, 4)}),
    "a diffusion transformer": lambda: shaped({"transformer_blocks.0.attn.to_q.weight": (4, 4)}),
    "a LoRA": lambda: shaped({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 4)}),
    "a LoRA,": lambda: shaped({"unet.mid_block.attentions.0.proj_in.lora_A.weight": (4, 4)}),
    "a ControlNet": lambda: shaped({"control_model.input_blocks.0.0.weight": (4, 4, 3, 3)}),
    "a ControlNet;": lambda: shaped({"controlnet_mid_block.weight": (4, 4), "down_blocks.0.weight": (1,)}),
    "a VAE alone": lambda: random_tensors(vae_shapes(**SMALL_VAE)),
    "a checkpoint without a VAE": lambda: sd15_tensors(vae=None),
    "a UNet alone, without a VAE": lambda: random_tensors(unet_shapes(**SMALL_UNET)),
    "the UNet of a diffusers folder": lambda: shaped({"down_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3)}),
    "into a copy of such a folder": lambda: shaped({"up_blocks.1.attentions.0.proj_in.weight": (4, 4, 1, 1)}),
    "a diffusers pipeline in one file": lambda: shaped({"unet.down_blocks.0.resnets.0.conv1.bias": (4,)}),
    "the averaged (EMA) weights alone": lambda: shaped({"model_ema.diffusion_modelinput_blocks00weight": (4, 4)}),
    "not a Stable Diffusion checkpoint": lambda: shaped({"text_model.embeddings.weight": (4, 4)}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_other_safetensors_files_are_named(tmp_path, words):
    save_file(REFUSED[words](), tmp_path / "given.safetensors")
    message = refusal(tmp_path / "given.safetensors")
    assert words in message and "given.safetensors" in message


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"context": 2048, "label_width": 64}, "an SDXL model"),
        ({"context": 1024}, "a Stable Diffusion 2 model"),
        ({"in_channels": 9}, "an inpainting model"),
    ],
)
def test_weights_in_memory_are_refused_by_name(changes, words):
    with pytest.raises(KeypointError, match=words):
        unet_from_ldm(random_tensors(unet_shapes(**{**SMALL_UNET, **changes})))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("model.diffusion_model.out.2.bias"), "conv_out.bias is missing"),
        (lambda t: t.update({"model.diffusion_model.time_mixer.w": torch.zeros(1)}), "time_mixer.w is not part"),
        (lambda t: t.update({"model.diffusion_model.time_embed.0.bias": torch.zeros(5)}), "has the wrong shape"),
        (lambda t: t.pop("first_stage_model.decoder.norm_out.bias"), "decoder.conv_norm_out.bias is missing"),
        (lambda t: t.pop("first_stage_model.encoder.conv_out.weight"), "not a Stable Diffusion VAE"),
    ],
)
def test_incomplete_or_extended_models_are_refused(tmp_path, change, words):
    tensors = sd15_tensors()
    change(tensors)
    save_file(tensors, tmp_path / "given.safetensors")
    with pytest.raises(KeypointError, match=words) as error:
        load_model(tmp_path / "given.safetensors")
    assert "given.safetensors" in str(error.value)


def test_every_kind_of_missing_tensor_is_refused():
    """Whichever UNet tensor is gone, the answer is a KeypointError and never another exception."""
    layout = {"channels": 32, "mult": (1, 1), "res_blocks": 1, "attention": (True, False), "context": 8}
    tensors = random_tensors(unet_shapes(**layout))
    for key in sorted(tensors)[::2]:  # half of them reach every kind of block
        with pytest.raises(KeypointError):
            unet_from_ldm({other: value for other, value in tensors.items() if other != key})


# ---- variants of Stable Diffusion 1.5 that people have ----


@pytest.mark.parametrize("prefix", ["state_dict.", "module."])
def test_a_checkpoint_that_was_wrapped_once_more_opens(small_file, tmp_path, prefix):
    save_file({prefix + key: value for key, value in load_file(small_file).items()}, tmp_path / "wrapped.safetensors")
    assert load_model(tmp_path / "wrapped.safetensors").hash == load_model(small_file).hash


def test_averaged_weights_beside_the_usual_ones_are_passed_over(small_file, tmp_path):
    state = load_file(small_file) | shaped({"model_ema.decay": (1,), "model_ema.diffusion_modelout2bias": (4,)})
    save_file(state, tmp_path / "ema.safetensors")
    assert load_model(tmp_path / "ema.safetensors").hash == load_model(small_file).hash


def test_a_model_distilled_to_few_steps_opens_and_gives_queries(small_folder, tmp_path):
    """An LCM's UNet takes a guidance scale too, as a linear map of its embedding, and does without one."""
    shutil.copytree(small_folder, tmp_path / "lcm")
    unet = tmp_path / "lcm" / "unet"
    config = json.loads((unet / "config.json").read_text()) | {"time_cond_proj_dim": 16}
    (unet / "config.json").write_text(json.dumps(config))
    weights = unet / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights) | {"time_embedding.cond_proj.weight": torch.ones(32, 16)}, weights)
    lcm, plain = load_model(tmp_path / "lcm"), load_model(small_folder)
    latents, tokens = torch.ones(1, 4, 16, 16), torch.ones(3, SMALL_UNET["context"])
    found, expected = (Backbone(m.unet, m.vae).queries(latents, 0, tokens) for m in (lcm, plain))
    assert all(map(torch.equal, found, expected))


def test_a_unet_that_predicts_velocity_is_recognised_where_the_file_tells(small_file, small_folder, tmp_path):
    state = load_file(small_file)
    save_file(state | {"v_pred": torch.tensor([])}, tmp_path / "key.safetensors")
    save_file(state, tmp_path / "spec.safetensors", {"modelspec.predict_key": "v"})
    save_file(state, tmp_path / "epsilon.safetensors", {"modelspec.prediction_type": "epsilon"})
    found = [load_model(tmp_path / f"{name}.safetensors").prediction for name in ("key", "spec", "epsilon")]
    assert found == ["v_prediction", "v_prediction", "epsilon"]
    assert load_model(small_folder).prediction == load_model(small_file).prediction == "epsilon"
    shutil.copytree(small_folder, tmp_path / "folder")
    (tmp_path / "folder" / "scheduler").mkdir()
    (tmp_path / "folder/scheduler/scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    assert load_backbone(str(tmp_path / "folder"), "fp32", "cpu").prediction == "v_prediction"


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin"])
def test_pickles_are_never_opened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save({"state_dict": sd15_tensors()}, path)
    assert f"model{suffix} is a pickle file" in refusal(path)


def test_truncated_foreign_and_missing_files(small_file, tmp_path):
    data = small_file.read_bytes()
    for name, content in (("half", data[: len(data) // 2]), ("empty", b""), ("page", b"<!doctype html>" * 9)):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert f"{name}.safetensors is not a complete safetensors file" in refusal(path)
    assert "There is no file or folder" in refusal(tmp_path / "nothing.safetensors")
    assert "There is no file or folder" in refusal("nothing.safetensors")


def test_hub_id_without_network_and_mistyped_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "could not be downloaded" in refusal("no-such-organisation/no-such-model")
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "could not be downloaded" not in refusal("models/mistyped")
    assert "could not be downloaded" not in refusal("folder/missing.safetensors")


def test_folders_of_other_models(small_folder, tmp_path):
    def folder(name, **changes):
        (tmp_path / name / "vae").mkdir(parents=True)
        (tmp_path / name / "unet").mkdir()
        config = json.loads((small_folder / "unet/config.json").read_text()) | changes
        (tmp_path / name / "unet/config.json").write_text(json.dumps(config))
        return tmp_path / name

    assert "has no unet/ folder" in refusal(small_folder / "vae")
    (tmp_path / "half/unet").mkdir(parents=True)
    assert "has no vae/ folder" in refusal(tmp_path / "half")
    (tmp_path / "dit/transformer").mkdir(parents=True)
    assert "diffusion transformer" in refusal(tmp_path / "dit")
    assert "an SDXL model" in refusal(folder("xl", cross_attention_dim=2048, addition_embed_type="text_time"))
    assert "a Stable Diffusion 2 model" in refusal(folder("two", cross_attention_dim=1024))
    assert "an inpainting model" in refusal(folder("inpaint", in_channels=9))
    motion = folder("motion", _class_name="UNetMotionModel")
    assert "a UNetMotionModel where a UNet2DConditionModel" in refusal(motion)
    empty = folder("empty")
    assert "holds no weights" in refusal(empty)
    (empty / "unet/diffusion_pytorch_model.bin").write_bytes(b"x")
    assert "holds only pickled weights" in refusal(empty)
    (empty / "unet/config.json").write_text("{")
    assert "config.json cannot be read" in refusal(empty)
    (empty / "unet/config.json").write_text("[]")
    assert "config.json is not a JSON object" in refusal(empty)


def test_folder_that_lacks_a_shard(small_folder, tmp_path):
    folder = tmp_path / "sharded"
    load_model(small_folder).unet.save_pretrained(folder / "unet", max_shard_size="4MB")
    shards = sorted((folder / "unet").glob("*.safetensors"))
    assert len(shards) > 1
    (folder / "vae").mkdir()
    shards[0].unlink()
    assert shards[0].name in refusal(folder)


@pytest.mark.slow
def test_full_size_file(tmp_path):
    """The real size, 1.9 GB in float16: loads, is hashed in under a second, and runs."""
    path = write_checkpoint(tmp_path / "sd15.safetensors", FULL_UNET, FULL_VAE, dtype=torch.float16)
    model = load_model(path)
    assert model.dtype == torch.float16
    start = time.perf_counter()
    assert weights_hash(model.unet) == model.hash
    assert time.perf_counter() - start < 1
    latents, steps, tokens = unet_inputs(768)
    with torch.no_grad():
        out = model.unet.to(torch.float32)(latents, steps, tokens).sample
    assert out.shape == (2, 4, 16, 16) and out.isfinite().all()
    small = TrainConfig(keypoints=4, tokens=20, candidates=8, image_size=64, map_size=16)
    learned = KeypointTokens(torch.randn(20, 768), (0, 5, 7, 9), config=small.to_dict(), model_hash=model.hash)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    backbone = Backbone(model.unet, model.vae.to(torch.float32), model.name, model.hash)
    found = detect(backbone, learned, [("one", image)], DetectConfig(views=1)).keypoints
    assert found.xy.shape == (1, 4, 2) and (found.xy >= 0).all() and (found.xy <= (80, 60)).all()


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_weights_that_are_not_finite_are_refused_by_name(small_folder, tmp_path, part):
    """info was content, detect blamed the keypoints, train the learning rate."""
    shutil.copytree(small_folder, tmp_path / "model")
    path = tmp_path / "model" / part / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    key = next(key for key in sorted(state) if state[key].is_floating_point() and "norm" not in key)
    state[key].view(-1)[0] = float("nan")
    save_file(state, path)
    with pytest.raises(KeypointError, match=f"model.*hold values that are not numbers .{re.escape(key)}.*use another"):
        load_model(tmp_path / "model")
    state[key].view(-1)[0] = 1e6
    save_file(state, path)
    load_model(tmp_path / "model")
    with pytest.raises(KeypointError, match="too large for float16 .*use fp32"):
        load_model(tmp_path / "model", torch.float16)


def test_a_stray_key_makes_no_lora_of_a_checkpoint(small_file, tmp_path):
    state = {**load_file(small_file), "lora_unet_x.alpha": torch.zeros(1)}
    save_file(state, tmp_path / "stray.safetensors")
    assert load_model(tmp_path / "stray.safetensors").hash == load_model(small_file).hash
