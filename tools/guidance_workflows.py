"""The example workflows that generate in a pose of learned keypoints, without ControlNet. make_workflows.py writes
them."""

from __future__ import annotations

from workflow_templates import BLUE, GREEN, detected, loaders, sampled


def _guidance(g, backbone, tokens) -> dict:
    """Guidance fitted on the user's images, and saved."""
    images = g.node("StableKPLoadImageSet", "Images learned from", folder="my_images", max_images=100)
    fit = g.node(
        "StableKPFitGuidance",
        color=GREEN,
        wires={"backbone": (backbone, 0), "tokens": (tokens, 0), "images": (images, 0)},
    )
    g.node("StableKPSaveGuidance", wires={"guidance": (fit, 0)}, name="my_guidance")
    return fit


def _sampled(g, model, guide, text: str, latent) -> dict:
    """Generation with the guided MODEL, the decoded images."""
    positive = g.node("CLIPTextEncode", "What to generate", text=text, wires={"clip": (model, 1)})
    negative = g.node("CLIPTextEncode", "Not wanted", text="blurry", wires={"clip": (model, 1)})
    return sampled(g, (guide, 0), (positive, 0), (negative, 0), (latent, 0), (model, 2), steps=30)


def _guide(g, model, backbone, fit, pose, tokens) -> dict:
    wires = {"model": (model, 0), "backbone": (backbone, 0), "guidance": (fit, 0), "pose": pose, "tokens": (tokens, 0)}
    return g.node("StableKPGuide", color=GREEN, wires=wires)


def generate_in_a_pose(g) -> None:
    g.group("Learn the guidance once")
    g.note(
        """## Generate in a pose

The keypoints of your own object steer the sampling itself: no ControlNet, no labels.

1. Learn keypoints with template 2 and put the same images into *input/my_images*.
2. *Fit Keypoint Guidance* learns to read them in noise. Once is enough: afterwards replace it by *Load Keypoint
Guidance*.
3. Choose the image whose pose is taken, and say what to generate.

**Does it work with your model?** *Compare Keypoints* finds the keypoints again on the result and says how far they are
from the pose. Run once more with *strength* 0: that is what chance gives. Five minutes, and you know.

More *strength* follows the pose more closely; *end_percent* later too. If the image suffers, lower them. With *points*
some keypoints guide and the others stay free.""",
    )
    model, backbone, tokens = loaders(g)
    fit = _guidance(g, backbone, tokens)
    g.group("Guide")
    image = g.node("LoadImage", "The pose to take", image="example.png", upload="image")
    pose = detected(g, backbone, (tokens, 0), image)
    guide = _guide(g, model, backbone, fit, (pose, 0), tokens)
    latent = g.node("EmptyLatentImage", width=512, height=512, batch_size=1)
    g.group("Generate")
    decode = _sampled(g, model, guide, "a wooden puppet standing in a workshop, soft light, photo", latent)
    g.node("SaveImage", filename_prefix="in_a_pose", wires={"images": (decode, 0)})
    g.group("Does it work?")
    found = detected(g, backbone, (tokens, 0), decode, "Detect on the result")
    g.node("StableKPCompare", color=GREEN, wires={"found": (found, 0), "pose": (pose, 0)})
    for title, points in (("Asked for", pose), ("Found", found)):
        drawn = g.node("StableKPDraw", title, wires={"keypoints": (points, 0), "images": (decode, 0)})
        g.node("PreviewImage", f"{title}, on the result", wires={"images": (drawn, 0)})


def animate_a_character(g) -> None:
    g.group("Learn the guidance once")
    g.note(
        """## Animate a character

Every frame of a video gives a pose, and every pose makes an image from **the same noise** and the same prompt: only the
pose differs. *Latent Batch Seed Behavior* set to *fixed* sees to that.

*Guide by Keypoints* says how many poses there are; that number is the latent's *batch_size*. Begin with few frames:
all of them are sampled as one batch.

*Smooth Keypoints* takes out the jitter first. What the pose does not fix (clothes, background) may still flicker;
an image or reference model beside it helps, as with any frame-by-frame method.""",
    )
    model, backbone, tokens = loaders(g)
    fit = _guidance(g, backbone, tokens)
    g.group("Guide")
    frames = g.node("StableKPLoadImageSet", "The movement", folder="my_frames", max_images=16)
    found = detected(g, backbone, (tokens, 0), frames)
    smooth = g.node("StableKPSmooth", color=GREEN, wires={"keypoints": (found, 0)})
    guide = _guide(g, model, backbone, fit, (smooth, 0), tokens)
    size = {"batch_size": (guide, 1)}
    empty = g.node("EmptyLatentImage", width=512, height=512, batch_size=1, wires=size)
    latent = g.node(
        "LatentBatchSeedBehavior",
        color=BLUE,
        seed_behavior="fixed",
        wires={"samples": (empty, 0)},
    )
    g.group("Generate")
    decode = _sampled(g, model, guide, "a wooden puppet dancing in a workshop, soft light, photo", latent)
    g.node("SaveImage", filename_prefix="animated", wires={"images": (decode, 0)})
    video = g.node("CreateVideo", fps=12.0, wires={"images": (decode, 0)})
    g.node(
        "SaveVideo",
        filename_prefix="animated",
        format="auto",
        codec="auto",
        wires={"video": (video, 0)},
    )
    g.group("Does it work?")
    again = detected(g, backbone, (tokens, 0), decode, "Detect on the result")
    g.node("StableKPCompare", color=GREEN, wires={"found": (again, 0), "pose": (smooth, 0)})


GUIDANCE_WORKFLOWS = {"10 Generate in a pose": generate_in_a_pose, "11 Animate a character": animate_a_character}
