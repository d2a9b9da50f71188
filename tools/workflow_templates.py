"""The first five example workflows: from the first try to video. make_workflows.py writes them."""

from __future__ import annotations

BLUE, GREEN = ("#223", "#335"), ("#232", "#353")
SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
SCRIBBLE = "control_v11p_sd15_scribble_fp16.safetensors"
DEMO, DEMO_TOKENS = "demo model (built in)", "built in: paper dolls"
DOLLS, NEW_DOLLS = "built in: paper dolls, to learn from", "built in: paper dolls, unseen"
EXAMPLE_VIDEO = "stable_keypoints_paper_doll.mp4"
#: For the small model that comes with the pack.
DEMO_TRAINING = {"steps": 100, "tokens": 200, "learning_rate": 0.05, "batch_size": 4, "map_size": 64}


def try_it_now(g) -> None:
    g.group("Learn from images without labels")
    g.note(
        """## Try it now

Press **Run**. Nothing is downloaded, and a CPU is enough (some minutes).

1. The small model that comes with the pack looks at 64 unlabelled paper dolls.
2. *Train* learns tokens whose attention marks the same place on every doll. Watch the image on the node: the dots
settle on head, hands, knees.
3. *Detect* finds them on dolls it has never seen.

For your own images open the template **2 Train on my images**."""
    )
    backbone = g.node("StableKPLoadBackbone", color=BLUE)
    learn = g.node("StableKPLoadImageSet", "Images to learn from", folder=DOLLS, max_images=64)
    train = g.node(
        "StableKPTrain",
        color=GREEN,
        wires={"backbone": (backbone, 0), "images": (learn, 0)},
        **DEMO_TRAINING,
    )
    g.group("What was learned")
    g.node("StableKPSaveTokens", wires={"tokens": (train, 0)}, name="try_it_now", overwrite=True)
    g.node("PreviewImage", "Keypoints on the training images", wires={"images": (train, 2)})
    g.node("LossGraphNode", wires={"loss": (train, 1)}, filename_prefix="keypoint_loss")
    g.group("Find them on new images")
    fresh = g.node("StableKPLoadImageSet", "Images it has never seen", folder=NEW_DOLLS, max_images=12)
    found = {"backbone": (backbone, 0), "tokens": (train, 0), "images": (fresh, 0), "names": (fresh, 1)}
    detect = g.node("StableKPDetect", color=GREEN, wires=found)
    draw = g.node("StableKPDraw", wires={"keypoints": (detect, 0), "images": (fresh, 0)}, out_width=256, out_height=256)
    g.node("PreviewImage", "Keypoints on new images", wires={"images": (draw, 0)})
    g.node("PreviewAny", "How sure", wires={"source": (detect, 2)})


def train_on_my_images(g) -> None:
    g.group("Your images")
    g.note(
        """## Train on my images

1. Make a folder below ComfyUI's *input* folder, put 20 to 100 images of **one kind of thing** into it (your
character, your dog, a chair), press R, and choose it in *Load Image Set*. No labels are needed. Crop the images so
that the thing fills most of each.
2. Choose a Stable Diffusion 1.4 or 1.5 checkpoint.
3. Press **Run**. On a graphics card 500 steps take some minutes. **Cancel** keeps what was learned; **Run** goes on
from there.

Use the saved tokens with the template **3 Detect and draw**."""
    )
    backbone = g.node("StableKPLoadBackbone", color=BLUE, model=SD15)
    images = g.node("StableKPLoadImageSet", folder="my_images", max_images=100)
    g.group("Learn and save")
    train = g.node("StableKPTrain", color=GREEN, wires={"backbone": (backbone, 0), "images": (images, 0)})
    g.node("StableKPSaveTokens", wires={"tokens": (train, 0)}, name="my_keypoints")
    g.group("Look")
    g.node("PreviewImage", "Keypoints on the training images", wires={"images": (train, 2)})
    g.node("LossGraphNode", wires={"loss": (train, 1)}, filename_prefix="keypoint_loss")


def detect_and_draw(g) -> None:
    g.group("Model, tokens, images")
    g.note(
        """## Detect and draw

Finds keypoints that were learned earlier on new images. It runs as it is, with the small model and tokens that come
with the pack.

For your own, choose the model and the tokens of template 2, and an image of yours. *JSON* is COCO, in pixels of the
image."""
    )
    backbone = g.node("StableKPLoadBackbone", color=BLUE, model=DEMO)
    tokens = g.node("StableKPLoadTokens", color=BLUE, tokens_file=DEMO_TOKENS, newest=True)
    images = g.node("StableKPLoadImageSet", folder=NEW_DOLLS, max_images=4)
    g.group("Find")
    found = {"backbone": (backbone, 0), "tokens": (tokens, 0), "images": (images, 0), "names": (images, 1)}
    detect = g.node("StableKPDetect", color=GREEN, heat_maps="image size", wires=found)
    g.node("PreviewAny", "How sure", wires={"source": (detect, 2)})
    maps = g.node("MaskToImage", "Heat maps", wires={"mask": (detect, 1)})
    g.node("PreviewImage", "Heat maps", wires={"images": (maps, 0)})
    g.group("Draw and export")
    draw = g.node("StableKPDraw", wires={"keypoints": (detect, 0), "images": (images, 0)})
    g.node("PreviewImage", "Overlay", wires={"images": (draw, 0)})
    black = g.node("StableKPDraw", "Draw on black", canvas="black", wires={"keypoints": (detect, 0)})
    g.node("PreviewImage", "On black", wires={"images": (black, 0)})
    text = g.node("StableKPToJSON", wires={"keypoints": (detect, 0)})
    g.node("PreviewAny", "COCO JSON", wires={"source": (text, 0)})


def loaders(g) -> tuple[dict, dict, dict]:
    """One checkpoint that finds and generates, and the learned tokens."""
    model = g.node("CheckpointLoaderSimple", color=BLUE, ckpt_name=SD15)
    backbone = g.node("StableKPBackboneFromModel", color=BLUE, wires={"model": (model, 0), "vae": (model, 2)})
    tokens = g.node("StableKPLoadTokens", color=BLUE, tokens_file="my_keypoints.safetensors", newest=True)
    return model, backbone, tokens


def detected(g, backbone, tokens, images, title="", names=False, **values) -> dict:
    """Detect Keypoints without heat maps. tokens: a wire; names: take the images' names from their node as well."""
    wires = {"backbone": (backbone, 0), "tokens": tokens, "images": (images, 0)}
    if names:
        wires["names"] = (images, 1)
    return g.node("StableKPDetect", title, color=GREEN, wires=wires, heat_maps="off", **values)


def sampled(g, model, positive, negative, latent, vae, **values) -> dict:
    """Images sampled from noise and decoded. model, positive, negative, latent, vae: wires; values: KSampler's widgets
    that are not as usual."""
    usual = dict(cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    wires = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    sampler = g.node("KSampler", seed=1, control_after_generate="fixed", wires=wires, **{**usual, **values})
    return g.node("VAEDecode", wires={"samples": (sampler, 0), "vae": vae})


def drawn_hint(g, points, style: str, latent) -> dict:
    """Keypoints, a wire, drawn on black in the size of what is generated."""
    own = {"canvas": "black", "numbers": False} if style == "points" else {}
    wires = {"keypoints": points, "size_from": (latent, 0)}
    return g.node("StableKPDraw", f"Hint: {style}", color=GREEN, style=style, wires=wires, **own)


def generate(g, hints: str, model, points, style: str, control_net: str, text: str, name: str) -> None:
    """The hint in the size that is generated, in the group `hints`, and a ControlNet generation from it."""
    g.group("Generate")
    latent = g.node("EmptyLatentImage", width=512, height=512, batch_size=1)
    g.group(hints)
    hint = drawn_hint(g, points, style, latent)
    g.group("Generate")
    g.node("PreviewImage", "Hint", wires={"images": (hint, 0)})
    positive = g.node("CLIPTextEncode", "What to generate", text=text, wires={"clip": (model, 1)})
    negative = g.node("CLIPTextEncode", "What to avoid", text="blurry, text", wires={"clip": (model, 1)})
    control = g.node("ControlNetLoader", color=BLUE, control_net_name=control_net)
    apply = {"positive": (positive, 0), "negative": (negative, 0), "control_net": (control, 0), "image": (hint, 0)}
    applied = g.node(
        "ControlNetApplyAdvanced",
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
        wires={**apply, "vae": (model, 2)},
    )
    conditions = (applied, 0), (applied, 1)
    decode = sampled(g, (model, 0), *conditions, (latent, 0), (model, 2), steps=20)
    g.node("SaveImage", filename_prefix=name, wires={"images": (decode, 0)})


def pose_conditioned(g) -> None:
    g.group("One checkpoint for both")
    g.note(
        """## Pose-conditioned generation

The pose of one image, drawn into another one. *Keypoint Backbone from MODEL* looks through the MODEL that also
generates, LoRAs included, and does not change it.

The keypoints of your own object have no names, so no OpenPose ControlNet understands them. They are drawn on black as
dots and lines for a **scribble** ControlNet; with a skeleton in the tokens, choose the style *scribble*.

*Draw* takes its size from the latent that is generated."""
    )
    model, backbone, tokens = loaders(g)
    image = g.node("LoadImage", "The pose to take", image="example.png", upload="image")
    g.group("Keypoints to a hint")
    found = {"backbone": (backbone, 0), "tokens": (tokens, 0), "images": (image, 0)}
    detect = g.node("StableKPDetect", color=GREEN, heat_maps="off", wires=found)
    text = "a wooden puppet standing in a workshop, soft light, photo"
    generate(g, "Keypoints to a hint", model, (detect, 0), "points", SCRIBBLE, text, "keypoint_pose")


def video_loaders(g) -> tuple[dict, dict, dict, dict]:
    """The demo model and tokens, a video, and its frames as images to draw on."""
    backbone = g.node("StableKPLoadBackbone", color=BLUE, model=DEMO)
    tokens = g.node("StableKPLoadTokens", color=BLUE, tokens_file=DEMO_TOKENS, newest=True)
    video = g.node("LoadVideo", file=EXAMPLE_VIDEO, upload="image")
    parts = g.node("GetVideoComponents", wires={"video": (video, 0)})
    return backbone, tokens, video, parts


def video(g) -> None:
    g.group("Model, tokens, video")
    g.note(
        """## Video

Keypoints over time. It runs as it is, on a short video that the pack puts into the *input* folder; choose your own
video, model and tokens.

*Detect* reads the frames one at a time, so the length of the video does not matter; only drawing on the frames needs
them all. Fewer *views* are faster, more are steadier.

*Keypoints to TRACKS* and the JSON go to nodes that move things along paths."""
    )
    backbone, tokens, clip, parts = video_loaders(g)
    g.group("Find")
    found = {"backbone": (backbone, 0), "tokens": (tokens, 0), "video": (clip, 0)}
    detect = g.node("StableKPDetect", color=GREEN, views=2, heat_maps="off", wires=found)
    text = g.node("StableKPToJSON", format="tracks over all images", wires={"keypoints": (detect, 0)})
    g.node("PreviewAny", "Tracks as JSON", wires={"source": (text, 0)})
    g.group("Draw")
    draw = g.node("StableKPDraw", canvas="image", numbers=False, wires={"keypoints": (detect, 0), "images": (parts, 0)})
    made = g.node("CreateVideo", fps=15.0, wires={"images": (draw, 0)})
    g.node("SaveVideo", filename_prefix="video/keypoints", format="auto", codec="auto", wires={"video": (made, 0)})


WORKFLOWS = {
    "1 Try it now": try_it_now,
    "2 Train on my images": train_on_my_images,
    "3 Detect and draw": detect_and_draw,
    "4 Pose-conditioned generation": pose_conditioned,
    "5 Video": video,
}
