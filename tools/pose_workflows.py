"""The example workflows around poses: named joints, skeletons and steady video. make_workflows.py writes them."""

from __future__ import annotations

from workflow_templates import (
    BLUE,
    GREEN,
    SCRIBBLE,
    SD15,
    detected,
    drawn_hint,
    generate,
    loaders,
    sampled,
    video_loaders,
)

_ANIMAL_TABLE = "left eye = 0\nright eye = 1\nnose = 2\nneck = 3\ntail root = 4"


def people_to_openpose(g) -> None:
    g.group("Checkpoint, tokens, images")
    g.note(
        """## People to OpenPose

The keypoints learned on your images get names, and then an OpenPose ControlNet understands them.

1. Label 5 to 20 of the images in *input/my_images*: eyes, neck, shoulders and so on, in any tool that writes COCO
keypoints, and put the file at *input/my_labels.json*. A POSE_KEYPOINT of a pose detector in *labels* does as well.
2. *Fit Landmark Map* learns where the joints are. Its report says how far off they are on images it has not seen.
3. The pose of any new image comes out as OpenPose, at the size that is generated; *Keypoints to Pose* makes a
POSE_KEYPOINT of it for other packs."""
    )
    _people(g, by_hand=False)


def people_labelled_here(g) -> None:
    g.group("Checkpoint, tokens, images")
    g.note(
        """## People to OpenPose, labelled here

As template 6, but the labels are made in ComfyUI, without another program.

1. Run it once: the keypoints of the images in *input/my_images* are found.
2. Press *Label joints…* on *Label Joints* and click the joints on three images. *Apply and run* guesses the others:
correct them, accept each with Enter, until 5 to 20 are done.
3. *Fit Landmark Map* learns where the joints are.
4. The pose of any new image comes out as OpenPose. Is a joint wrong? Press *Edit points…* on *Edit Keypoints*."""
    )
    _people(g, by_hand=True)


def _people(g, by_hand: bool) -> None:
    """Joints learned from labels of a file, or made here; then the pose of a new image."""
    model, backbone, tokens = loaders(g)
    known = g.node("StableKPLoadImageSet", "Labelled images", folder="my_images", max_images=100)
    if not by_hand:
        g.group("Learn the joints once")
    found = detected(g, backbone, (tokens, 0), known, names=True)
    g.group("Learn the joints once")
    wires = {"keypoints": (found, 0)}
    if by_hand:
        sources = {"images": (known, 0), "names": (known, 1), "keypoints": (found, 0)}
        label = g.node("StableKPLabelJoints", color=GREEN, wires=sources)
        wires["labels"] = (label, 0)
    fit = g.node("StableKPFitLandmarks", color=GREEN, labels_file="" if by_hand else "my_labels.json", wires=wires)
    g.node("StableKPSaveLandmarks", name="people", wires={"landmark_map": (fit, 0)})
    g.group("A new image's pose" if by_hand else "Checkpoint, tokens, images")
    new = g.node("LoadImage", "The pose to take", image="example.png", upload="image")
    g.group("A new image's pose")
    wanted = detected(g, backbone, (tokens, 0), new, "Detect on the new one")
    joints = {"keypoints": (wanted, 0), "landmark_map": (fit, 0)}
    named = g.node("StableKPApplyLandmarks", color=GREEN, wires=joints)
    if by_hand:
        named = g.node("StableKPEditKeypoints", color=GREEN, wires={"keypoints": (named, 0), "images": (new, 0)})
    text, control = "a photo of a dancer on a stage", "control_v11p_sd15_openpose_fp16.safetensors"
    generate(g, "A new image's pose", model, (named, 0), "openpose", control, text, "people_pose")


def animals_to_ap10k(g) -> None:
    g.group("Checkpoint, tokens, image")
    g.note(
        """## Animals to AP-10K

For the animal ControlNet, which knows 17 points.

Look at the numbers in *Which is which*, and write into the table which keypoint is which joint. Joints that are not
mentioned stay away. With labels, *Fit Landmark Map* of template 6 reads AP-10K too, and finds joints that no keypoint
sits on."""
    )
    model, backbone, tokens = loaders(g)
    image = g.node("LoadImage", "The pose to take", image="example.png", upload="image")
    g.group("Which keypoint is which joint")
    found = detected(g, backbone, (tokens, 0), image)
    numbers = g.node("StableKPDraw", "Draw numbers", wires={"keypoints": (found, 0), "images": (image, 0)})
    g.node("PreviewImage", "Which is which", wires={"images": (numbers, 0)})
    named = g.node(
        "StableKPMapByHand",
        color=GREEN,
        pose="AP-10K (animals)",
        table=_ANIMAL_TABLE,
        wires={"keypoints": (found, 0)},
    )
    text = "a photo of a fox in the snow"
    generate(
        g,
        "Which keypoint is which joint",
        model,
        (named, 0),
        "animal openpose",
        "control_sd15_animal_openpose_fp16.pth",
        text,
        "animal_pose",
    )


def mascot_to_scribble(g) -> None:
    g.group("Checkpoint, tokens, images")
    g.note(
        """## Mascot to scribble

A mascot, a toy, a chair: no pose ControlNet knows it, but every **scribble** ControlNet follows white lines.

1. *Discover Skeleton* looks at 30 or more images of it and joins the keypoints that move together.
2. The tokens keep the skeleton; save them to have it next time.
3. The skeleton of a new image is drawn white on black, at the size that is generated.

To change lines, copy the text into *edges* and edit it."""
    )
    model, backbone, tokens = loaders(g)
    many = g.node("StableKPLoadImageSet", "Many poses", folder="my_images", max_images=100)
    found = detected(g, backbone, (tokens, 0), many)
    g.group("Discover the skeleton once")
    bones = g.node("StableKPSkeleton", color=GREEN, wires={"keypoints": (found, 0), "tokens": (tokens, 0)})
    g.node("StableKPSaveTokens", name="my_keypoints_with_skeleton", wires={"tokens": (bones, 0)})
    report = {"keypoints": (bones, 1), "tokens": (bones, 0), "images": (many, 0)}
    g.node("StableKPReport", wires=report)
    g.group("A new image's skeleton")
    new = g.node("LoadImage", "The pose to take", image="example.png", upload="image")
    wanted = detected(g, backbone, (bones, 0), new, "Detect on the new one")
    generate(
        g,
        "A new image's skeleton",
        model,
        (wanted, 0),
        "scribble",
        SCRIBBLE,
        "a plush mascot on a desk, studio light",
        "mascot_pose",
    )


def steady_video(g) -> None:
    g.group("Model, tokens, video")
    g.note(
        """## Steady video

Keypoints found frame by frame tremble. *Smooth Keypoints* takes the jitter out without lag, fills short gaps and puts
back points that were swapped for a moment. Its report says how much jitter is left.

It runs as it is, on a short video that the pack puts into the *input* folder. For hints in place of the overlay,
choose a style in *Draw* and disconnect the images."""
    )
    backbone, tokens, clip, parts = video_loaders(g)
    g.group("Find and smooth")
    wires = {"backbone": (backbone, 0), "tokens": (tokens, 0), "video": (clip, 0)}
    found = g.node("StableKPDetect", color=GREEN, views=2, heat_maps="off", wires=wires)
    smooth = g.node("StableKPSmooth", color=GREEN, wires={"keypoints": (found, 0)})
    g.node("PreviewAny", "Jitter", wires={"source": (smooth, 1)})
    for title, source, name in (("Smoothed", smooth, "smooth"), ("As detected", found, "raw")):
        g.group(title)
        draw = g.node("StableKPDraw", numbers=False, wires={"keypoints": (source, 0), "images": (parts, 0)})
        made = g.node("CreateVideo", fps=15.0, wires={"images": (draw, 0)})
        g.node(
            "SaveVideo",
            title,
            filename_prefix=f"video/keypoints_{name}",
            format="auto",
            codec="auto",
            wires={"video": (made, 0)},
        )


def people_to_z_image(g) -> None:
    g.group("The pose of a person")
    g.note(
        """## People to Z-Image-Turbo

The model that finds the pose need not be the one that generates: here the hint goes to a newer model.

1. Learn keypoints with template 2 and their joints with template 6, which saves them as *people*.
2. Choose the image whose pose is taken, and say what to generate.

*Draw Keypoints* takes its size from the latent. The ControlNet knows OpenPose's figures and edges. For what is not a
person, load tokens with a skeleton (template 8), connect *Detect* with *Draw* and choose the style *scribble*.

The ControlNet's authors advise a *strength* of 0.65 to 0.8 and a detailed prompt."""
    )
    backbone = g.node("StableKPLoadBackbone", color=BLUE, model=SD15)
    tokens = g.node("StableKPLoadTokens", color=BLUE, tokens_file="my_keypoints.safetensors", newest=True)
    landmarks = g.node("StableKPLoadLandmarks", color=BLUE, landmarks_file="people.safetensors")
    image = g.node("LoadImage", "The pose to take", image="example.png", upload="image")
    found = detected(g, backbone, (tokens, 0), image)
    joints = {"keypoints": (found, 0), "landmark_map": (landmarks, 0)}
    named = g.node("StableKPApplyLandmarks", color=GREEN, wires=joints)
    g.group("Z-Image-Turbo")
    model = g.node("UNETLoader", color=BLUE, unet_name="z_image_turbo_bf16.safetensors", weight_dtype="default")
    clip = g.node("CLIPLoader", color=BLUE, clip_name="qwen_3_4b.safetensors", type="lumina2", device="default")
    vae = g.node("VAELoader", color=BLUE, vae_name="ae.safetensors")
    patch = g.node("ModelPatchLoader", color=BLUE, name="Z-Image-Turbo-Fun-Controlnet-Union.safetensors")
    latent = g.node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1)
    g.group("The pose of a person")
    hint = drawn_hint(g, (named, 0), "openpose", latent)
    g.group("Generate")
    g.node("PreviewImage", "Hint", wires={"images": (hint, 0)})
    text = "a photo of a dancer on a stage, red dress, warm light from above, an audience in the dark"
    positive = g.node("CLIPTextEncode", "What to generate", text=text, wires={"clip": (clip, 0)})
    negative = g.node("ConditioningZeroOut", wires={"conditioning": (positive, 0)})
    control = {"model": (model, 0), "model_patch": (patch, 0), "vae": (vae, 0), "image": (hint, 0)}
    controlled = g.node("QwenImageDiffsynthControlnet", "Apply the hint", strength=0.75, wires=control)
    shifted = g.node("ModelSamplingAuraFlow", shift=3.0, wires={"model": (controlled, 0)})
    turbo = dict(steps=9, cfg=1.0, sampler_name="res_multistep", scheduler="simple")
    decode = sampled(g, (shifted, 0), (positive, 0), (negative, 0), (latent, 0), (vae, 0), **turbo)
    g.node("SaveImage", filename_prefix="people_z_image", wires={"images": (decode, 0)})


POSE_WORKFLOWS = {
    "6 People to OpenPose": people_to_openpose,
    "6b People to OpenPose, labelled here": people_labelled_here,
    "7 Animals to AP-10K": animals_to_ap10k,
    "8 Mascot to scribble": mascot_to_scribble,
    "9 Steady video": steady_video,
    "12 People to Z-Image-Turbo": people_to_z_image,
}
