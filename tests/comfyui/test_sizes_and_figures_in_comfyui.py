"""In a real ComfyUI, with the built-in model and its tokens: figures, boxes, sizes, long text, the newest of a name."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from comfy_server import NodeError
from PIL import Image
from test_nodes_in_comfyui import node

from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.synthetic.generator import render

TOKENS, DEMO = "built in: paper dolls", "demo model (built in)"
COUNT, POINTS = 3, 10
WIDTH, HEIGHT = 160, 128
#: What is found under these words, by the search of the page.
WORDS = {
    "openpose": {"StableKPDraw", "StableKPToPose"},
    "pose": {"StableKPDetect", "StableKPToPose"},
    "scribble": {"StableKPDraw"},
    "landmarks": {"StableKPTrain", "StableKPDetect", "StableKPFitLandmarks"},
}


@pytest.fixture(scope="module", autouse=True)
def dolls(server):
    """Three images of 160 x 128 pixels and a photo of 1600 x 1200, in folders of their own."""
    for name in ("wide_dolls", "photos"):
        (server.base / "input" / name).mkdir()
    for number in range(COUNT):
        image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
        image[:, 16:144] = render("dolls", number, 128).image
        Image.fromarray(image).save(server.base / "input" / "wide_dolls" / f"doll{number}.png")
    photo = Image.fromarray(render("dolls", 7, 128).image).resize((1600, 1200))
    photo.save(server.base / "input" / "photos" / "photo.jpg")


def detection(images: int = COUNT, number: int = 0, **more) -> dict:
    """Nodes 1 to 4, tens of `number` added to 2 and 4: keypoints of so many dolls at node 4."""
    load, detect = str(10 * number + 2), str(10 * number + 4)
    return {
        "1": node("StableKPLoadBackbone", model=DEMO),
        "3": node("StableKPLoadTokens", tokens_file=TOKENS),
        load: node("StableKPLoadImageSet", folder="wide_dolls", max_images=images, order="by name"),
        detect: node(
            "StableKPDetect",
            **{"backbone": ["1", 0], "tokens": ["3", 0], "images": [load, 0], "names": [load, 1]},
            **{"views": 0, "batch_size": 4, "sub_pixel": True, "heat_maps": "off", **more},
        ),
    }


def halves() -> dict:
    """Nodes 50 to 57: a MASK for the left and one for the right half of an image."""
    size = {"width": WIDTH // 2, "height": HEIGHT}
    paste = dict(destination=["51", 0], source=["50", 0], y=0, operation="add")
    return {
        "50": node("SolidMask", value=1.0, **size),
        "51": node("SolidMask", value=0.0, width=WIDTH, height=HEIGHT),
        "52": node("MaskComposite", x=0, **paste),
        "53": node("MaskComposite", x=WIDTH // 2, **paste),
        "54": node("MaskToImage", mask=["52", 0]),
        "55": node("MaskToImage", mask=["53", 0]),
        "56": node("ImageBatch", image1=["54", 0], image2=["55", 0]),
        "57": node("ImageToMask", image=["56", 0], channel="red"),
    }


def text(entry: dict, number: str):
    return json.loads(entry["outputs"][number]["text"][0])


def shown(server, entry: dict, number: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in server.images(entry, number)]


def test_two_figures_on_one_image_are_two_tracks_and_their_boxes_go_for_all_images(server):
    prompt = {
        **detection(images=1, masks=["57", 0]),
        **halves(),
        "5": node("StableKPToJSON", keypoints=["4", 0], format="tracks over all images"),
        "6": node("PreviewAny", source=["5", 0]),
        "7": node("StableKPToBoxes", keypoints=["4", 0], margin=0.1, threshold=0.0),
        **detection(number=1, boxes=["7", 0]),
        "15": node("StableKPToJSON", keypoints=["14", 0], format="tracks over all images"),
        "16": node("PreviewAny", source=["15", 0]),
        "17": node("StableKPToJSON", keypoints=["14", 0], format="points of a chosen image", image=2, threshold=0.01),
        "18": node("PreviewAny", source=["17", 0]),
        "19": node("StableKPToMasks", keypoints=["14", 0], masks="one per image", radius=4.0),
        "20": node("MaskPreview", mask=["19", 0]),
        "21": node("StableKPToTracks", keypoints=["14", 0], threshold=0.0),
        "22": node("StableKPToJSON", keypoints=["14", 0], format="COCO"),
        "23": node("PreviewAny", source=["22", 0]),
        "24": node("PreviewAny", source=["21", 0]),
    }
    entry = server.run(prompt)
    single, several = text(entry, "6"), text(entry, "16")
    assert [len(track) for track in single] == [1] * 2 * POINTS
    assert [len(track) for track in several] == [COUNT] * 2 * POINTS
    chosen = text(entry, "18")
    assert 0 < len(chosen) <= 2 * POINTS and all(0 <= point["x"] <= WIDTH for point in chosen)
    assert [(mask.shape, bool(mask.any())) for mask in shown(server, entry, "20")] == [
        ((HEIGHT, WIDTH, 3), True)
    ] * COUNT
    coco = text(entry, "23")
    assert len(coco["images"]) == COUNT and len(coco["annotations"]) == 2 * COUNT
    assert coco["images"][0]["file_name"] == "doll0.png"


def test_a_box_drawn_on_the_pages_canvas_is_taken(server, object_info):
    if "CreateBoundingBoxes" not in object_info:
        pytest.skip("this ComfyUI has no canvas for boxes")
    box = {"x": 16, "y": 0, "width": 128, "height": 128, "metadata": {"type": "obj"}}
    prompt = {
        "40": node("CreateBoundingBoxes", width=WIDTH, height=HEIGHT, editor_state={"__value__": [box]}),
        **detection(boxes=["40", 1]),
        "5": node("StableKPToJSON", keypoints=["4", 0], format="COCO"),
        "6": node("PreviewAny", source=["5", 0]),
    }
    coco = text(server.run(prompt), "6")
    assert len(coco["annotations"]) == COUNT
    kinds = object_info["StableKPDetect"]["input"]["optional"]["boxes"][0]
    assert set(kinds.split(",")) == {"BOUNDING_BOX", "BOUNDING_BOXES"}


def nothing(below: str) -> dict:
    """Settings of Draw Keypoints that draw no point; what the style brings is named `below` and its own name."""
    own = dict(canvas="image", dots=False, numbers=False, lines=False, line_width=0.0)
    return {"style": "points", **{below + name: value for name, value in own.items()}, "threshold": 0.0, "which": ""}


def test_inputs_of_a_style_are_its_own_and_prompts_from_before_they_were_still_run(server, object_info):
    sizes = {"out_width": 0, "out_height": 0, "keypoints": ["4", 0], "images": ["2", 0]}
    prompt = {
        **detection(images=1),
        "30": node("PreviewImage", images=["2", 0]),
        "31": node("StableKPDraw", **nothing("style."), **sizes),
        "32": node("StableKPDraw", style="points", threshold=0.0, which="", **sizes),
        "33": node("StableKPDraw", **nothing(""), **sizes),
        **{str(number + 10): node("PreviewImage", images=[str(number), 0]) for number in (31, 32, 33)},
    }
    entry = server.run(prompt)
    plain, nested, default, flat = (shown(server, entry, number)[0] for number in ("30", "41", "42", "43"))
    assert np.array_equal(nested, plain) and not np.array_equal(default, plain)
    if "search_aliases" in object_info["StableKPDraw"]:  # 0.8.0 passes on no value that a node does not name
        assert np.array_equal(flat, plain)
    draw = {"style": "openpose", "threshold": 0.0, "which": "", **sizes}
    with pytest.raises(NodeError, match="18"):
        server.run({**detection(images=1), "31": node("StableKPDraw", **draw), "41": prompt["41"]})


def test_hints_take_the_size_of_a_latent_and_are_not_stretched(server):
    latent = node("EmptyLatentImage", width=256, height=256, batch_size=1)
    draw = {**nothing("style."), "out_width": 0, "out_height": 0, "keypoints": ["4", 0], "images": ["2", 0]}
    prompt = {**detection(images=1), "30": latent, "2b": node("PreviewImage", images=["2", 0])}
    for number, fit in enumerate(("contain", "crop", "stretch")):
        prompt[str(31 + number)] = node("StableKPDraw", **draw, fit=fit, size_from=["30", 0])
        prompt[str(41 + number)] = node("PreviewImage", images=[str(31 + number), 0])
    entry = server.run(prompt)
    contain, crop, stretch = (shown(server, entry, str(41 + number))[0] for number in range(3))
    assert contain.shape == crop.shape == stretch.shape == (256, 256, 3)
    bars = round((256 - 256 * HEIGHT / WIDTH) / 2)
    assert (
        not contain[: bars - 1].any()
        and not contain[-bars + 1 :].any()
        and contain[bars + 2 : -bars - 2].any(-1).mean() > 0.99
    )
    assert (
        crop.any(-1).mean() > 0.99 and stretch.any(-1).mean() > 0.99 and np.abs(crop.astype(int) - stretch).mean() > 2
    )


def test_tracks_are_cut_as_video_nodes_cut_their_start_image(server):
    size = dict(width=64, height=64, threshold=0.0)
    prompt = {
        **detection(),
        "5": node("StableKPToTracks", keypoints=["4", 0], **size, fit="crop"),
        "6": node("PreviewAny", source=["5", 0]),
        "7": node("StableKPToTracks", keypoints=["4", 0], **size, fit="stretch"),
        "8": node("PreviewAny", source=["7", 0]),
    }
    entry = server.run(prompt)
    crop, stretch = (entry["outputs"][number]["text"][0] for number in ("6", "8"))
    assert "track_path" in crop and "track_path" in stretch and crop != stretch


def test_large_images_are_made_smaller_when_they_are_loaded(server):
    load = dict(folder="photos", max_images=5, order="by name")
    prompt = {
        "2": node("StableKPLoadImageSet", **load, max_side=320),
        "5": node("PreviewImage", images=["2", 0]),
        "6": node("StableKPLoadImageSet", **load, max_side=0),
        "7": node("PreviewImage", images=["6", 0]),
    }
    heard = server.hear(prompt)
    assert [image.shape for image in shown(server, heard.entry, "5")] == [(240, 320, 3)]
    assert [image.shape for image in shown(server, heard.entry, "7")] == [(1200, 1600, 3)]
    assert "1 made smaller, to 320 pixels" in heard.texts["2"][-1]


def test_long_text_is_shown_on_the_node_and_not_kept_in_the_history(server):
    prompt = {**detection(), "5": node("StableKPToJSON", keypoints=["4", 0], format="COCO")}
    heard = server.hear(prompt)
    assert "doll0.png: mean" in heard.texts["4"][-1]
    assert heard.texts["5"][-1].startswith("{") and len(heard.texts["5"][-1]) <= 4001
    assert len(json.dumps(heard.entry["outputs"])) < 1000


def test_the_newest_of_a_name_is_followed_and_otherwise_named(server):
    folder = server.base / "models" / "keypoint_tokens"
    built_in = KeypointTokens.load(
        server.base / "custom_nodes/stable-keypoints/stablekp_core/assets/tokens/paper_dolls.safetensors"
    )
    built_in.save(folder / "cat.safetensors")
    load = {"5": node("StableKPReport", keypoints=["4", 0], max_pictures=1, threshold=0.3, tokens=["3", 0])}
    prompt = {**detection(images=1), **load, "6": node("PreviewImage", images=["5", 0])}

    def told(newest: bool) -> str:
        prompt["3"] = node("StableKPLoadTokens", tokens_file="cat.safetensors", newest=newest)
        return server.hear(prompt).texts.get("3", ["(from the cache)"])[-1]

    assert told(True) == f"cat.safetensors: {POINTS} keypoints"
    assert told(True) == "(from the cache)"
    built_in.drop([0]).save(folder / "cat_00002.safetensors")
    assert told(True) == f"cat_00002.safetensors: {POINTS - 1} keypoints"
    assert "cat_00002.safetensors is newer; turn newest on" in told(False)


def test_groups_search_words_and_types_of_the_nodes(object_info):
    ours = {name: info for name, info in object_info.items() if name.startswith("StableKP")}
    assert {info["category"] for info in ours.values()} == {
        f"keypoints/{group}" for group in ("train", "detect", "pose", "video", "files")
    }
    if "search_aliases" not in next(iter(ours.values())):
        pytest.skip("this ComfyUI does not search by other words")
    for word, nodes in WORDS.items():
        found = {name for name, info in ours.items() if any(word in alias for alias in info["search_aliases"])}
        assert nodes <= found, word
