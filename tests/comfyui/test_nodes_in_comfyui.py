"""The nodes in a real ComfyUI, with random weights: what they promise about gradients, memory, Cancel
and wiring.
"""

from __future__ import annotations

import json
import math
import re
import time

import numpy as np
import pytest
import torch
from comfy_server import TEXT, Interrupted, NodeError
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.randomness import generator_for

# Small enough for one core: a 64-pixel view of the pictures, few tokens, coarse maps.
SMALL = {
    "keypoints": 4,
    "steps": 3,
    "tokens": 30,
    "learning_rate": 0.01,
    "batch_size": 2,
    "seed": 5,
    "candidates": 8,
    "image_size": 64,
    "map_size": 16,
}
STEP = re.compile(r"step (\d+) of 5000")
SD15 = {"class_type": "StableKPLoadBackbone", "inputs": {"model": "random_sd15.safetensors"}}
DEMO = {"class_type": "StableKPLoadBackbone", "inputs": {"model": "demo model (built in)"}}
FACES = {
    "class_type": "StableKPLoadImageSet",
    "inputs": {"folder": "built in: cartoon faces, to learn from", "max_images": 6, "order": "by name"},
}


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def training(**changes) -> dict:
    return node("StableKPTrain", backbone=["1", 0], images=["2", 0], **{**SMALL, **changes})


def saved(server, entry: dict, number: str) -> KeypointTokens:
    return KeypointTokens.load(entry["outputs"][number]["text"][0].removeprefix("saved "))


def from_model() -> dict:
    """Nodes 10 and 1: a checkpoint as ComfyUI loads it, and a backbone that looks through it."""
    return {
        "10": node("CheckpointLoaderSimple", ckpt_name="random_sd15.safetensors"),
        "1": node("StableKPBackboneFromModel", model=["10", 0], vae=["10", 2]),
    }


def generation(seed: int, text: str = "a face") -> dict:
    """Nodes 20 to 26: a small picture generated with checkpoint node 10; the last one shows it."""
    n = [str(20 + i) for i in range(6)]
    return {
        n[0]: node("CLIPTextEncode", clip=["10", 1], text=text),
        n[1]: node("CLIPTextEncode", clip=["10", 1], text=""),
        n[2]: node("EmptyLatentImage", width=64, height=64, batch_size=1),
        n[3]: node(
            "KSampler",
            model=["10", 0],
            positive=[n[0], 0],
            negative=[n[1], 0],
            latent_image=[n[2], 0],
            seed=seed,
            steps=2,
            cfg=2.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        ),
        n[4]: node("VAEDecode", samples=[n[3], 0], vae=["10", 2]),
        n[5]: node("PreviewImage", images=[n[4], 0]),
        "26": node("SaveLatent", samples=[n[3], 0], filename_prefix="latents/kept"),
    }


def newest_latent(server) -> np.ndarray:
    """What the sampler gave last, as float32: a picture would hide differences under its 8 bits."""
    files = sorted((server.base / "output" / "latents").glob("*.latent"), key=lambda path: path.stat().st_mtime_ns)
    return load_file(str(files[-1]))["latent_tensor"].numpy()


def test_import_is_fast_and_nothing_failed(server):
    log = server.log()
    line = next(line for line in log.splitlines() if "stable-keypoints" in line and "seconds" in line)
    assert "IMPORT FAILED" not in line
    assert float(line.split("seconds")[0].split()[-1]) < 1.5


def test_every_input_of_every_node_has_a_tooltip_and_a_help_page(server, object_info):
    ours = {name: info for name, info in object_info.items() if name.startswith("StableKP")}
    assert len(ours) >= 11
    for name, info in ours.items():
        for kind in ("required", "optional"):
            for key, spec in info["input"].get(kind, {}).items():
                assert spec[1].get("tooltip"), f"{name}.{key}"
        page = server.get(f"/extensions/stable-keypoints/docs/{name}.md", raw=True).decode()
        assert page.startswith(f"# {info['display_name']}")


def test_names_and_tooltips_are_translated(server, object_info):
    translations = server.get("/i18n")
    for language in ("en", "zh"):
        nodes = translations[language]["nodeDefs"]
        assert {name for name in object_info if name.startswith("StableKP")} <= set(nodes)


def test_training_from_a_file_learns_inside_comfyui_and_is_found_again(server):
    prompt = {
        "1": SD15,
        "2": FACES,
        "3": training(),
        "4": node("StableKPSaveTokens", tokens=["3", 0], name="file"),
        "5": node("LossGraphNode", loss=["3", 1], filename_prefix="x"),
        "6": node("PreviewImage", images=["3", 2]),
    }
    heard = server.hear(prompt)
    tokens = saved(server, heard.entry, "4")
    assert len(tokens.losses) == 3 and tokens.num_keypoints == 4
    assert server.images(heard.entry, "5") and server.images(heard.entry, "6")
    # Without gradients (ComfyUI's inference mode) Adam would leave the random start as it was.
    start = torch.randn(SMALL["tokens"], 768, generator=generator_for(SMALL["seed"], "tokens"))
    assert 1e-3 < (tokens.embeddings - start).abs().mean() < 0.1
    # The bar and the text go through all phases.
    told = iter(heard.texts["3"])
    for phase in ("reading the images", "step", "extracting", "choosing", "refining", "checking", "drawing"):
        assert any(text.startswith(phase) for text in told), phase
    shares = [share for number, share in heard.progress if number == "3"]
    assert shares == sorted(shares) and shares[-1] == 1 and len([share for share in shares if share > 0.75]) > 5
    # Nothing is left in ComfyUI's own cache, as after a restart.
    for _ in range(3):  # it is emptied between prompts, on a busy machine after the next one
        server.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(2)
        again = server.hear(prompt)
        if "3" not in server.cached_nodes(again.entry):
            break
    assert "3" not in server.cached_nodes(again.entry) and again.texts["3"][-1].startswith("Trained earlier")
    assert torch.equal(saved(server, again.entry, "4").embeddings, tokens.embeddings)


def test_training_through_the_graphs_model_gives_the_same_tokens_and_changes_nothing(server):
    by_file = server.run(
        {
            "1": SD15,
            "2": FACES,
            "3": training(),
            "4": node("StableKPSaveTokens", tokens=["3", 0], name="file2"),
        }
    )
    # Spaces at the end change nothing for CLIP, but make ComfyUI generate again instead of using its cache.
    server.run({**from_model(), **generation(3)})
    before = newest_latent(server)
    trained = server.run(
        {
            **from_model(),
            "2": FACES,
            "3": training(earlier_run="train anew"),  # the weights are the same, so the training by file would be found
            "4": node("StableKPSaveTokens", tokens=["3", 0], name="graph"),
        }
    )
    after = server.run({**from_model(), **generation(3, "a face ")})
    assert "10" in server.cached_nodes(after) and "23" not in server.cached_nodes(after)
    assert before.std() > 0.1
    np.testing.assert_array_equal(newest_latent(server), before)
    ours, theirs = saved(server, trained, "4"), saved(server, by_file, "4")
    assert ours.model_hash == theirs.model_hash
    np.testing.assert_allclose(ours.embeddings, theirs.embeddings, atol=2e-3)


def detection(tokens_file: str, seed: int, images: int = 6) -> dict:
    """Nodes that detect through the graph's MODEL; a new seed makes ComfyUI run them again."""
    return {
        **from_model(),
        "2": {**FACES, "inputs": {**FACES["inputs"], "max_images": images}},
        "7": node("StableKPLoadTokens", tokens_file=tokens_file),
        "8": node(
            "StableKPDetect",
            backbone=["1", 0],
            tokens=["7", 0],
            images=["2", 0],
            views=0,
            batch_size=6,
            sub_pixel=True,
            view_seed=seed,
        ),
        "9": node("StableKPToJSON", keypoints=["8", 0], format="COCO"),
    }


def some_tokens(server, name: str) -> str:
    save = node("StableKPSaveTokens", tokens=["3", 0], name=name, overwrite=True)
    server.run({"1": SD15, "2": FACES, "3": training(), "4": save})
    return f"{name}.safetensors"


def test_the_backbone_from_model_makes_no_second_copy(server):
    name = some_tokens(server, "copy")
    server.run(detection(name, 0))
    with safe_open(server.base / "models" / "checkpoints" / "random_sd15.safetensors", "pt") as file:
        shapes = [file.get_slice(k).get_shape() for k in file.keys() if not k.startswith("cond_stage_model.")]
    weights = sum(math.prod(shape) for shape in shapes) * 4 / 2**20  # MB of UNet and VAE in float32
    # A copy would be gone again after the run, so the most that is held while it runs is what tells.
    held = server.resident_mb()
    server.forget_peak()
    server.run(detection(name, 1))
    assert weights > 400
    assert server.peak_mb() - held < 0.4 * weights


def test_fifty_detections_do_not_grow(server):
    name = some_tokens(server, "fifty")
    for seed in range(10):
        server.run(detection(name, seed, images=1))
    warm = server.resident_mb()
    for seed in range(10, 60):
        server.run(detection(name, seed, images=1))
    assert server.resident_mb() - warm < 60


def until_step(events, step: int, images: int = 0) -> tuple[int, int, int]:
    """Listen until that step of a training is told and so many images have come: (images, first and last step told)."""
    seen, steps = 0, []
    deadline = time.monotonic() + 400
    while (seen < images or not steps or steps[-1] < step) and time.monotonic() < deadline:
        message = events.next()
        if isinstance(message, bytes) and int.from_bytes(message[:4], "big") == TEXT:
            steps += [int(number) for number in STEP.findall(message.decode("utf-8", "replace"))]
        elif isinstance(message, bytes):
            seen += 1
    return seen, steps[0], steps[-1]


def cancel(server, prompt_id: str) -> None:
    """Press Cancel; what is left to do takes less than 5 processor seconds."""
    asked = server.processor_seconds()
    server.post("/interrupt")
    with pytest.raises(Interrupted):
        server.wait(prompt_id, 120)
    assert server.processor_seconds() - asked < 5


def test_cancel_stops_soon_saves_and_can_be_continued(server):
    from comfy_graph import inputs_of

    prompt = {"1": DEMO, "2": FACES, "3": training(steps=5000), "4": node("PreviewImage", images=["3", 2])}
    events = server.events()
    prompt_id = server.queue(prompt)
    images, _, last = until_step(events, 3, images=1)
    assert images >= 1, "no preview image came while training"
    cancel(server, prompt_id)
    note = None
    while note is None:
        message = events.next()
        note = message["data"] if isinstance(message, dict) and message["type"] == "stable_keypoints.note" else None
    events.close()
    rescued = sorted((server.base / "output" / "keypoint_tokens").glob("interrupted_*.safetensors"))[-1]
    assert rescued.name in note["text"] and "go on from there" in note["text"] and note["node"] == "3"
    assert rescued.name in server.log()
    assert len(KeypointTokens.load(rescued).losses) >= last
    offered = inputs_of(server.get("/object_info/StableKPLoadTokens")["StableKPLoadTokens"])["tokens_file"]
    assert rescued.name in json.dumps(offered)
    # The same prompt goes on by itself, and a graph may also go on from the rescued file.
    events = server.events()
    prompt_id = server.queue(prompt)
    assert until_step(events, 1)[1] > last
    cancel(server, prompt_id)
    events.close()
    entry = server.run(
        {
            "1": DEMO,
            "2": FACES,
            "7": node("StableKPLoadTokens", tokens_file=rescued.name),
            "3": training(continue_from=["7", 0], steps=1),
            "4": node("StableKPSaveTokens", tokens=["3", 0], name="continued"),
        }
    )
    change = saved(server, entry, "4").embeddings - KeypointTokens.load(rescued).embeddings
    assert 0 < change.abs().max() <= 0.011  # one step of Adam from where the cancelled run stood


def test_only_what_changed_runs_again(server):
    folder = server.base / "input" / "changing"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((64, 48, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    prompt = {
        "2": node("StableKPLoadImageSet", folder="changing", max_images=10, order="by name"),
        "4": node("PreviewImage", images=["2", 0]),
    }
    assert len(server.images(server.run(prompt), "4")) == 3
    assert "2" in server.cached_nodes(server.run(prompt))
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(folder / "3.png")
    changed = server.run(prompt)
    assert "2" not in server.cached_nodes(changed)
    assert len(server.images(changed, "4")) == 4


def test_a_broken_file_is_skipped_and_named(server):
    folder = server.base / "input" / "broken"
    folder.mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "good.png")
    (folder / "bad.png").write_bytes(b"not a picture")
    entry = server.run(
        {
            "2": node("StableKPLoadImageSet", folder="broken", max_images=10, order="by name"),
            "4": node("PreviewImage", images=["2", 0]),
        }
    )
    assert len(server.images(entry, "4")) == 1
    assert "skipped bad.png" in server.log()


LOAD = {"folder": FACES["inputs"]["folder"], "max_images": 3, "order": "by name"}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"3": training(keypoints=40)}, ["40 keypoints", "8 candidates"]),
        ({"3": training(keypoints=40, candidates=60)}, ["40 keypoints", "30 tokens"]),
        ({"1": node("StableKPLoadBackbone", model="missing.safetensors")}, ["missing.safetensors"]),
        ({"2": node("StableKPLoadImageSet", **{**LOAD, "folder": "nowhere"})}, ["there is no folder 'nowhere'"]),
        ({"2": node("StableKPLoadImageSet", **{**LOAD, "folder": "../output"})}, ["outside"]),
        ({"4": node("StableKPSaveTokens", tokens=["3", 0], name="../../escape")}, ["cannot be used"]),
        (
            {
                "7": node("StableKPLoadTokens", tokens_file="nothing.safetensors"),
                "3": training(continue_from=["7", 0]),
            },
            ["nothing.safetensors"],
        ),
    ],
)
def test_what_cannot_work_is_told_when_it_is_queued(server, changes, words):
    with pytest.raises(NodeError) as caught:
        server.queue(
            {
                "1": SD15,
                "2": FACES,
                "3": training(),
                "4": node("StableKPSaveTokens", tokens=["3", 0], name="never"),
                **changes,
            }
        )
    for word in words:
        assert word in str(caught.value)
    # ComfyUI repeats a sentence for each widget that a check looks at.
    assert str(caught.value).count(words[0]) == (3 if "keypoints" in words[0] else 1)


def test_folders_elsewhere_are_not_read_unless_the_server_allows_it(server):
    prompt = {"2": node("StableKPLoadImageSet", **LOAD, other_path="/etc"), "4": node("PreviewImage", images=["2", 0])}
    with pytest.raises(NodeError, match="STABLEKP_ALLOW_ANY_PATH"):
        server.run(prompt)


def test_links_that_lead_out_of_input_are_refused(server):
    folder = server.base / "input" / "linked"
    folder.mkdir()
    (server.base / "secret.png").write_bytes(b"")
    (folder / "a.png").symlink_to(server.base / "secret.png")
    with pytest.raises(NodeError, match="a.png in the folder 'linked' is a link to outside"):
        server.queue(
            {
                "2": node("StableKPLoadImageSet", **{**LOAD, "folder": "linked"}),
                "4": node("PreviewImage", images=["2", 0]),
            }
        )


def test_thirty_keypoints_need_no_other_setting(server):
    prompt = {"1": DEMO, "2": FACES, "3": training(keypoints=30, candidates=0, tokens=40, steps=1)}
    entry = server.run({**prompt, "4": node("StableKPSaveTokens", tokens=["3", 0], name="thirty")})
    assert saved(server, entry, "4").num_keypoints == 30


def test_another_kind_of_model_is_refused_by_name(server):
    with pytest.raises(NodeError, match="inpainting"):
        server.run(
            {
                "10": node("CheckpointLoaderSimple", ckpt_name="random_inpainting.safetensors"),
                "1": node("StableKPBackboneFromModel", model=["10", 0], vae=["10", 2]),
                "2": FACES,
                "3": training(),
                "4": node("StableKPSaveTokens", tokens=["3", 0], name="never"),
            }
        )


def test_masks_and_tracks_come_out(server):
    entry = server.run(
        {
            "1": SD15,
            "2": FACES,
            "3": training(),
            "8": node(
                "StableKPDetect",
                backbone=["1", 0],
                tokens=["3", 0],
                images=["2", 0],
                views=0,
                batch_size=6,
                sub_pixel=True,
                heat_maps="off",
            ),
            "5": node("StableKPToMasks", keypoints=["8", 0], masks="one per keypoint", radius=5.0),
            "6": node("MaskPreview", mask=["5", 0]),
            "7": node("StableKPToTracks", keypoints=["8", 0], threshold=0.5),
            "9": node("PreviewAny", source=["7", 0]),
        }
    )
    assert len(server.images(entry, "6")) == 6 * SMALL["keypoints"]
    assert "track_path" in entry["outputs"]["9"]["text"][0]


def test_heat_maps_that_are_off_say_so_where_they_are_wired(server):
    """A blocked output is told to the page, not to the history: the other outputs of the graph still run."""
    detect = node(
        "StableKPDetect",
        backbone=["1", 0],
        tokens=["3", 0],
        images=["2", 0],
        views=0,
        batch_size=6,
        sub_pixel=True,
        heat_maps="off",
    )
    events = server.events()
    try:
        queued = server.queue(
            {"1": SD15, "2": FACES, "3": training(), "8": detect, "6": node("MaskPreview", mask=["8", 1])}
        )
        server.wait(queued)
        told = []
        while not any(kind == "execution_success" for kind, _ in told):
            message = events.next()
            if isinstance(message, dict) and message["data"].get("prompt_id") == queued:
                told.append((message["type"], message["data"]))
    finally:
        events.close()
    (error,) = [data for kind, data in told if kind == "execution_error"]
    assert error["node_type"] == "MaskPreview"
    assert "heat maps are off; set heat_maps on Detect Keypoints" in error["exception_message"]


def test_a_mask_where_an_image_should_be(server):
    with pytest.raises(NodeError, match="(?i)mask"):
        server.run(
            {
                "1": DEMO,
                "5": node("SolidMask", value=1.0, width=64, height=64),
                "3": node("StableKPTrain", backbone=["1", 0], images=["5", 0], **SMALL),
                "4": node("StableKPSaveTokens", tokens=["3", 0], name="never"),
            }
        )
