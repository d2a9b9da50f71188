"""The example workflows around poses: named joints, skeletons and video. make_workflows.py writes them."""

from __future__ import annotations

_BLUE, _GREEN = ("#223", "#335"), ("#232", "#353")
_SD15 = "v1-5-pruned-emaonly.safetensors"
_TOKENS = "my_keypoints.safetensors"
_ANIMAL_TABLE = "left eye = 0\nright eye = 1\nnose = 2\nneck = 3\ntail root = 4"


def _loaders(g) -> tuple[dict, dict, dict]:
    """One checkpoint that finds and generates, and the learned tokens."""
    model = g.node("CheckpointLoaderSimple", (420, 40), (340, 110), color=_BLUE, ckpt_name=_SD15)
    backbone = g.node(
        "StableKPBackboneFromModel",
        (420, 240),
        (340, 60),
        color=_BLUE,
        wires={"model": (model, 0), "vae": (model, 2)},
    )
    tokens = g.node("StableKPLoadTokens", (420, 390), (340, 60), color=_BLUE, tokens_file=_TOKENS)
    return model, backbone, tokens


def _detect(g, at, backbone, tokens, images, names=None, title="", **values) -> dict:
    wires = {"backbone": (backbone, 0), "tokens": tokens, "images": (images, 0)}
    if names:
        wires["names"] = (images, 1)
    return g.node("StableKPDetect", at, (360, 330), title, color=_GREEN, wires=wires, **values)


def _hint(g, at, points, style: str) -> dict:
    """The hint in the size that is generated, and a look at it."""
    hint = g.node(
        "StableKPDraw",
        at,
        (340, 330),
        f"Hint: {style}",
        color=_GREEN,
        style=style,
        out_width=512,
        out_height=512,
        wires={"keypoints": points},
    )
    g.node("PreviewImage", (at[0], at[1] + 420), (340, 340), "Hint", wires={"images": (hint, 0)})
    return hint


def _generate(g, x: int, model, hint, control_net: str, text: str, name: str) -> None:
    """A ControlNet generation from the hint, in three columns from `x` on."""
    positive = g.node("CLIPTextEncode", (x, 40), (340, 130), text=text, wires={"clip": (model, 1)})
    negative = g.node("CLIPTextEncode", (x, 260), (340, 110), "Not wanted", text="blurry", wires={"clip": (model, 1)})
    control = g.node("ControlNetLoader", (x, 460), (340, 60), color=_BLUE, control_net_name=control_net)
    latent = g.node("EmptyLatentImage", (x, 610), (340, 110), width=512, height=512, batch_size=1)
    applied = g.node(
        "ControlNetApplyAdvanced",
        (x + 400, 40),
        (340, 190),
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
        wires={
            "positive": (positive, 0),
            "negative": (negative, 0),
            "control_net": (control, 0),
            "image": (hint, 0),
            "vae": (model, 2),
        },
    )
    sampler = g.node(
        "KSampler",
        (x + 400, 320),
        (340, 270),
        seed=1,
        control_after_generate="fixed",
        steps=20,
        cfg=7.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
        wires={
            "model": (model, 0),
            "positive": (applied, 0),
            "negative": (applied, 1),
            "latent_image": (latent, 0),
        },
    )
    decode = g.node("VAEDecode", (x + 400, 680), (340, 50), wires={"samples": (sampler, 0), "vae": (model, 2)})
    g.node("SaveImage", (x + 800, 40), (520, 560), filename_prefix=name, wires={"images": (decode, 0)})


def people_to_openpose(g) -> None:
    g.note(
        (-20, 0),
        (400, 470),
        """## People to OpenPose

The keypoints learned on your pictures get names, and then an OpenPose ControlNet (control_v11p_sd15_openpose)
understands them.

1. Label 5 to 20 of the pictures in `input/my_images`: eyes, neck, shoulders and so on, in any tool that writes
COCO keypoints, and put the file at `input/my_labels.json`. A POSE_KEYPOINT of a pose detector in *labels* does
as well.
2. *Fit Landmark Map* learns where the joints are. Its report says how far off they are on pictures it has not
seen.
3. The pose of any new picture comes out as OpenPose, at the size that is generated.""",
    )
    _people(g, by_hand=False)


def people_labelled_here(g) -> None:
    g.note(
        (-20, 0),
        (400, 470),
        """## People to OpenPose, labelled here

As template 6, but the labels are made in ComfyUI, without another program.

1. Run it once: the keypoints of the pictures in `input/my_images` are found.
2. Press *Label joints…* on *Label Joints* and click the joints on three pictures. *Apply and run* guesses the others:
correct them, accept each with Enter, until 5 to 20 are done.
3. *Fit Landmark Map* learns where the joints are. Its report says how far off they are on pictures it has not
seen.
4. The pose of any new picture comes out as OpenPose, at the size that is generated. Is a joint wrong? Press
*Edit points…* on *Edit Keypoints*.""",
    )
    _people(g, by_hand=True)


def _people(g, by_hand: bool) -> None:
    """Joints learned from labels of a file, or made here; then the pose of a new picture."""
    model, backbone, tokens = _loaders(g)
    known = g.node(
        "StableKPLoadImageSet", (420, 540), (340, 210), "Labelled pictures", folder="my_images", max_images=100
    )
    new = g.node("LoadImage", (420, 840), (340, 340), "The pose to take", image="example.png", upload="image")
    found = _detect(g, (820, 40), backbone, (tokens, 0), known, names=True, heat_maps="off")
    wanted = _detect(g, (820, 840), backbone, (tokens, 0), new, title="Detect on the new one", heat_maps="off")
    wires = {"keypoints": (found, 0)}
    if by_hand:
        sources = {"images": (known, 0), "names": (known, 1), "keypoints": (found, 0)}
        label = g.node("StableKPLabelJoints", (820, 430), (360, 330), color=_GREEN, wires=sources)
        wires["labels"] = (label, 0)
    fit = g.node(
        "StableKPFitLandmarks",
        (1240, 40),
        (360, 230),
        color=_GREEN,
        labels_file="" if by_hand else "my_labels.json",
        wires=wires,
    )
    g.node("PreviewAny", (1240, 370), (360, 210), "How far off", wires={"source": (fit, 1)})
    g.node("StableKPSaveLandmarks", (1240, 670), (360, 110), name="people", wires={"landmark_map": (fit, 0)})
    named = g.node(
        "StableKPApplyLandmarks",
        (1240, 880),
        (360, 60),
        color=_GREEN,
        wires={"keypoints": (wanted, 0), "landmark_map": (fit, 0)},
    )
    if by_hand:
        sources = {"keypoints": (named, 0), "images": (new, 0)}
        named = g.node("StableKPEditKeypoints", (1660, 840), (340, 150), color=_GREEN, wires=sources)
    pose = g.node("StableKPToPose", (1240, 1030), (360, 110), wires={"landmarks": (named, 0)})
    g.node("PreviewAny", (1660, 1030), (340, 150), "POSE_KEYPOINT", wires={"source": (pose, 1)})
    hint = _hint(g, (1660, 40), (named, 0), "openpose")
    text = "a photo of a dancer on a stage"
    _generate(g, 2060, model, hint, "control_v11p_sd15_openpose.pth", text, "people_pose")


def animals_to_ap10k(g) -> None:
    g.note(
        (-20, 0),
        (400, 330),
        """## Animals to AP-10K

For the animal ControlNet (control_sd15_animal_openpose), which knows 17 points.

Look at the numbers in *Which is which*, and write into the table which keypoint is which joint. Joints
that are not mentioned stay away. With labels, *Fit Landmark Map* of template 6 reads AP-10K too, and finds
joints that no keypoint sits on.""",
    )
    model, backbone, tokens = _loaders(g)
    image = g.node("LoadImage", (420, 540), (340, 340), "The pose to take", image="example.png", upload="image")
    found = _detect(g, (820, 40), backbone, (tokens, 0), image, heat_maps="off")
    numbers = g.node(
        "StableKPDraw",
        (820, 460),
        (360, 330),
        "Draw numbers",
        wires={"keypoints": (found, 0), "images": (image, 0)},
    )
    g.node("PreviewImage", (1240, 460), (360, 420), "Which is which", wires={"images": (numbers, 0)})
    named = g.node(
        "StableKPMapByHand",
        (1240, 40),
        (360, 320),
        color=_GREEN,
        pose="AP-10K (animals)",
        table=_ANIMAL_TABLE,
        wires={"keypoints": (found, 0)},
    )
    hint = _hint(g, (1660, 40), (named, 0), "animal openpose")
    text = "a photo of a fox in the snow"
    _generate(g, 2060, model, hint, "control_sd15_animal_openpose_fp16.pth", text, "animal_pose")


def mascot_to_scribble(g) -> None:
    g.note(
        (-20, 0),
        (400, 400),
        """## Mascot to scribble

A mascot, a toy, a chair: no pose ControlNet knows it, but every **scribble** ControlNet
(control_v11p_sd15_scribble) follows white lines.

1. *Discover Skeleton* looks at 30 or more pictures of it and joins the keypoints that move together.
2. The tokens keep the skeleton; save them to have it next time.
3. The skeleton of a new picture is drawn white on black, at the size that is generated.

To change lines, copy the text into *edges* and edit it.""",
    )
    model, backbone, tokens = _loaders(g)
    many = g.node("StableKPLoadImageSet", (420, 540), (340, 210), "Many poses", folder="my_images", max_images=100)
    new = g.node("LoadImage", (420, 840), (340, 340), "The pose to take", image="example.png", upload="image")
    found = _detect(g, (820, 40), backbone, (tokens, 0), many, heat_maps="off")
    bones = g.node(
        "StableKPSkeleton",
        (1240, 40),
        (360, 210),
        color=_GREEN,
        wires={"keypoints": (found, 0), "tokens": (tokens, 0)},
    )
    g.node("PreviewAny", (1240, 340), (360, 120), "Skeleton as text", wires={"source": (bones, 2)})
    g.node(
        "StableKPSaveTokens",
        (1240, 550),
        (360, 110),
        name="my_keypoints_with_skeleton",
        wires={"tokens": (bones, 0)},
    )
    report = g.node(
        "StableKPReport",
        (820, 460),
        (360, 150),
        wires={"keypoints": (bones, 1), "tokens": (bones, 0), "images": (many, 0)},
    )
    g.node("PreviewImage", (1240, 750), (360, 430), "How consistent", wires={"images": (report, 0)})
    wanted = _detect(g, (820, 840), backbone, (bones, 0), new, title="Detect on the new one", heat_maps="off")
    hint = _hint(g, (1660, 40), (wanted, 0), "scribble")
    text = "a plush mascot on a desk, studio light"
    _generate(g, 2060, model, hint, "control_v11p_sd15_scribble.pth", text, "mascot_pose")


def steady_video(g) -> None:
    g.note(
        (-20, 0),
        (400, 330),
        """## Steady video

Keypoints found frame by frame tremble. *Smooth Keypoints* takes the jitter out without lag, fills short gaps
and puts back points that were swapped for a moment. Its report says how much jitter is left.

The frames lie in `input/my_frames`. For hints in place of the overlay, choose a style in *Draw* and disconnect
the images.""",
    )
    backbone = g.node("StableKPLoadBackbone", (420, 40), (340, 110), color=_BLUE, model=_SD15)
    tokens = g.node("StableKPLoadTokens", (420, 240), (340, 60), color=_BLUE, tokens_file=_TOKENS)
    frames = g.node("StableKPLoadImageSet", (420, 390), (340, 210), "Frames", folder="my_frames", max_images=2000)
    found = _detect(g, (820, 40), backbone, (tokens, 0), frames, names=True, views=4, heat_maps="off")
    smooth = g.node("StableKPSmooth", (820, 470), (360, 330), color=_GREEN, wires={"keypoints": (found, 0)})
    g.node("PreviewAny", (820, 890), (360, 115), "Jitter", wires={"source": (smooth, 1)})
    for row, (title, source, name) in enumerate(
        (("Smoothed", smooth, "video/keypoints_smooth"), ("As detected", found, "video/keypoints_raw"))
    ):
        y = 40 + 520 * row
        draw = g.node(
            "StableKPDraw",
            (1240, y),
            (340, 330),
            title,
            numbers=False,
            wires={"keypoints": (source, 0), "images": (frames, 0)},
        )
        video = g.node("CreateVideo", (1240, y + 380), (340, 105), fps=12.0, wires={"images": (draw, 0)})
        g.node(
            "SaveVideo",
            (1640, y),
            (460, 460),
            filename_prefix=name,
            format="auto",
            codec="auto",
            wires={"video": (video, 0)},
        )


POSE_WORKFLOWS = {
    "6 People to OpenPose": people_to_openpose,
    "6b People to OpenPose, labelled here": people_labelled_here,
    "7 Animals to AP-10K": animals_to_ap10k,
    "8 Mascot to scribble": mascot_to_scribble,
    "9 Steady video": steady_video,
}
