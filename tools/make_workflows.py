"""Writes example_workflows/*.json: the graphs in the web UI's format, laid out and with notes.

    python tools/make_workflows.py

Widget values are given here by name and put into the order that each node's schema has, so the files
cannot fall out of step with the nodes: run it again after a schema has changed.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import fake_comfy
from guidance_workflows import GUIDANCE_WORKFLOWS
from pose_workflows import POSE_WORKFLOWS

#: Nodes of ComfyUI itself that the workflows use: sockets in, (name, value) widgets, sockets out.
CORE = {
    "CheckpointLoaderSimple": ([], ["ckpt_name"], ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": ([("clip", "CLIP")], ["text"], ["CONDITIONING"]),
    "EmptyLatentImage": ([], ["width", "height", "batch_size"], ["LATENT"]),
    "KSampler": (
        [
            ("model", "MODEL"),
            ("positive", "CONDITIONING"),
            ("negative", "CONDITIONING"),
            ("latent_image", "LATENT"),
        ],
        ["seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"],
        ["LATENT"],
    ),
    "VAEDecode": ([("samples", "LATENT"), ("vae", "VAE")], [], ["IMAGE"]),
    "SaveImage": ([("images", "IMAGE")], ["filename_prefix"], []),
    "PreviewImage": ([("images", "IMAGE")], [], []),
    "LoadImage": ([], ["image", "upload"], ["IMAGE", "MASK"]),
    "ControlNetLoader": ([], ["control_net_name"], ["CONTROL_NET"]),
    "ControlNetApplyAdvanced": (
        [
            ("positive", "CONDITIONING"),
            ("negative", "CONDITIONING"),
            ("control_net", "CONTROL_NET"),
            ("image", "IMAGE"),
            ("vae", "VAE"),
        ],
        ["strength", "start_percent", "end_percent"],
        ["positive", "negative"],
    ),
    "LatentBatchSeedBehavior": ([("samples", "LATENT")], ["seed_behavior"], ["LATENT"]),
    "LossGraphNode": ([("loss", "LOSS_MAP")], ["filename_prefix"], []),
    "PreviewAny": ([("source", "*")], [], []),
    "MaskToImage": ([("mask", "MASK")], [], ["IMAGE"]),
    "CreateVideo": ([("images", "IMAGE"), ("audio", "AUDIO")], ["fps"], ["VIDEO"]),
    "SaveVideo": ([("video", "VIDEO")], ["filename_prefix", "format", "codec"], []),
}
_OUTPUT_TYPES = {("ControlNetApplyAdvanced", name): "CONDITIONING" for name in ("positive", "negative")}
_BLUE, _GREEN, _YELLOW = ("#223", "#335"), ("#232", "#353"), ("#432", "#653")


class Graph:
    """Nodes and links of one workflow, built up one call at a time."""

    def __init__(self, schemas: dict):
        self.schemas, self.nodes, self.links = schemas, [], []

    def node(
        self,
        kind: str,
        at: tuple[int, int],
        size: tuple[int, int],
        title: str = "",
        *,
        color=None,
        wires: dict | None = None,
        **values,
    ) -> dict:
        """Add a node. `wires`: input name -> (node, output number). `values`: widgets by name; others
        get defaults.
        """
        sockets, widgets, outputs = self._describe(kind, values)
        node = {
            "id": len(self.nodes) + 1,
            "type": kind,
            "pos": list(at),
            "size": list(size),
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": [{"name": name, "type": io_type, "link": None} for name, io_type in sockets],
            "outputs": [{"name": name, "type": io_type, "links": []} for name, io_type in outputs],
            "properties": {"Node name for S&R": kind},
            "widgets_values": widgets,
        }
        if title:
            node["title"] = title
        if color:
            node["color"], node["bgcolor"] = color
        self.nodes.append(node)
        for name, (source, number) in (wires or {}).items():
            self._link(source, number, node, name)
        return node

    def note(self, at: tuple[int, int], size: tuple[int, int], text: str) -> None:
        node = self.node("MarkdownNote", at, size, "Note", color=_YELLOW)
        # Lines are wrapped in this file; in Markdown only paragraphs, list items and headings begin new ones.
        node["widgets_values"] = [re.sub(r"(?<!\n)\n(?!\n|\d+\. |## )", " ", text)]

    def _describe(self, kind: str, values: dict) -> tuple[list, list, list]:
        if kind == "MarkdownNote":
            return [], [], []
        if kind in CORE:
            sockets, names, outputs = CORE[kind]
            return (
                sockets,
                [values[name] for name in names],
                [(name, _OUTPUT_TYPES.get((kind, name), name)) for name in outputs],
            )
        schema = self.schemas[kind]
        ordered = sorted(schema.inputs, key=lambda i: i.optional)
        known = {i.id for i in ordered if i.is_widget}
        if set(values) - known:
            raise SystemExit(f"{kind} has no widget {sorted(set(values) - known)}")
        return (
            [(i.id, i.io_type) for i in ordered if not i.is_widget],
            [values.get(i.id, i.options.get("default")) for i in ordered if i.is_widget],
            [(o.options.get("display_name") or o.io_type, o.io_type) for o in schema.outputs],
        )

    def _link(self, source: dict, number: int, target: dict, name: str) -> None:
        slot = next((i for i, s in enumerate(target["inputs"]) if s["name"] == name), None)
        if slot is None:
            # A widget that is fed by a wire has a socket of its own.
            slot = len(target["inputs"])
            target["inputs"].append(
                {
                    "name": name,
                    "type": source["outputs"][number]["type"],
                    "widget": {"name": name},
                    "link": None,
                }
            )
        link = len(self.links) + 1
        target["inputs"][slot]["link"] = link
        source["outputs"][number]["links"].append(link)
        self.links.append([link, source["id"], number, target["id"], slot, source["outputs"][number]["type"]])

    def as_dict(self, name: str) -> dict:
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"stable-keypoints/{name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }


def try_it_now(g: Graph) -> None:
    g.note(
        (-20, 40),
        (400, 390),
        """## Try it now

Press **Run**. Nothing is downloaded, and a CPU is enough (a few minutes).

1. The small model that comes with the pack looks at 64 unlabelled paper dolls.
2. *Train* learns tokens whose attention marks the same place on every doll. Watch the picture on the node:
the dots settle on head, hands, knees.
3. *Detect* finds them on dolls it has never seen.

For your own pictures open the template **2 Train on my images**: it needs a Stable Diffusion 1.5
checkpoint.""",
    )
    backbone = g.node("StableKPLoadBackbone", (420, 40), (340, 110), color=_BLUE)
    learn = g.node(
        "StableKPLoadImageSet", (420, 230), (340, 200), "Pictures to learn from", folder=DOLLS, max_images=64
    )
    # The node grows while it shows its preview: room for that is left below its widgets.
    train = g.node(
        "StableKPTrain",
        (820, 40),
        (380, 900),
        color=_GREEN,
        wires={"backbone": (backbone, 0), "images": (learn, 0)},
        **DEMO_TRAINING,
    )
    sheet = {"images": (train, 2)}
    g.node("PreviewImage", (1260, 40), (560, 480), "Keypoints on the training pictures", wires=sheet)
    g.node("LossGraphNode", (1260, 600), (560, 340), wires={"loss": (train, 1)}, filename_prefix="keypoint_loss")
    fresh = g.node(
        "StableKPLoadImageSet",
        (420, 1030),
        (340, 200),
        "Pictures it has never seen",
        folder=NEW_DOLLS,
        max_images=12,
    )
    found = {"backbone": (backbone, 0), "tokens": (train, 0), "images": (fresh, 0), "names": (fresh, 1)}
    detect = g.node("StableKPDetect", (820, 1030), (380, 330), color=_GREEN, wires=found)
    draw = g.node(
        "StableKPDraw",
        (1260, 1030),
        (560, 330),
        wires={"keypoints": (detect, 0), "images": (fresh, 0)},
        out_width=256,
        out_height=256,
    )
    g.node("PreviewImage", (1880, 40), (900, 900), "Keypoints on new pictures", wires={"images": (draw, 0)})
    maps = g.node("MaskToImage", (1880, 1030), (320, 40), "Heat maps", wires={"mask": (detect, 1)})
    g.node("PreviewImage", (2260, 1030), (520, 330), "Heat maps", wires={"images": (maps, 0)})
    g.node("PreviewAny", (1880, 1150), (320, 210), "How sure", wires={"source": (detect, 2)})


def train_on_my_images(g: Graph) -> None:
    g.note(
        (-20, 0),
        (400, 420),
        """## Train on my images

1. Make a folder below ComfyUI's `input` folder, put 20 to 100 pictures of **one kind of thing** into it
(your character, your dog, a chair), press R, and choose it in *Load Image Set*. No labels are needed. Crop
the pictures so that the thing fills most of each.
2. Choose a Stable Diffusion 1.4/1.5 checkpoint
(`.safetensors`).
3. Press **Run**. On a graphics card 500 steps take some minutes. **Cancel** keeps what
was learned so far in `output/keypoint_tokens`; *Load Keypoint Tokens* into *continue_from* goes on from
there.

The tokens are saved to `models/keypoint_tokens`; use them with the template **3 Detect and draw**.""",
    )
    backbone = g.node("StableKPLoadBackbone", (420, 40), (340, 110), color=_BLUE, model=SD15)
    images = g.node("StableKPLoadImageSet", (420, 230), (340, 210), folder="my_images", max_images=100)
    train = g.node(
        "StableKPTrain",
        (820, 40),
        (380, 580),
        color=_GREEN,
        wires={"backbone": (backbone, 0), "images": (images, 0)},
    )
    save = g.node("StableKPSaveTokens", (1260, 40), (420, 110), wires={"tokens": (train, 0)}, name="my_keypoints")
    g.node("PreviewAny", (1260, 240), (420, 115), "Where the tokens are", wires={"source": (save, 0)})
    g.node("LossGraphNode", (1260, 420), (420, 420), wires={"loss": (train, 1)}, filename_prefix="keypoint_loss")
    g.node(
        "PreviewImage",
        (1740, 40),
        (800, 800),
        "Keypoints on the training pictures",
        wires={"images": (train, 2)},
    )


def detect_and_draw(g: Graph) -> None:
    g.note(
        (-20, 0),
        (400, 260),
        """## Detect and draw

Finds keypoints that were learned earlier (template 2) on new pictures.

Use the model they were learned with, or a fine-tune of it. *Draw* on black makes a picture for other tools;
*JSON* is COCO, with coordinates in pixels of the original picture.""",
    )
    backbone = g.node("StableKPLoadBackbone", (420, 40), (340, 110), color=_BLUE, model=SD15)
    tokens = g.node(
        "StableKPLoadTokens", (420, 230), (340, 60), color=_BLUE, tokens_file="my_keypoints.safetensors", newest=True
    )
    image = g.node("LoadImage", (420, 370), (340, 340), image="example.png", upload="image")
    detect = g.node(
        "StableKPDetect",
        (820, 40),
        (360, 330),
        color=_GREEN,
        heat_maps="image size",
        wires={"backbone": (backbone, 0), "tokens": (tokens, 0), "images": (image, 0)},
    )
    draw = g.node("StableKPDraw", (1240, 40), (340, 330), wires={"keypoints": (detect, 0), "images": (image, 0)})
    g.node("PreviewImage", (1640, 40), (420, 440), "Overlay", wires={"images": (draw, 0)})
    black = g.node(
        "StableKPDraw",
        (1240, 570),
        (340, 330),
        "Draw on black",
        canvas="black",
        wires={"keypoints": (detect, 0)},
    )
    g.node("PreviewImage", (1640, 570), (420, 440), "On black", wires={"images": (black, 0)})
    maps = g.node("MaskToImage", (820, 450), (360, 40), "Heat maps", wires={"mask": (detect, 1)})
    g.node("PreviewImage", (820, 570), (360, 440), "Heat maps", wires={"images": (maps, 0)})
    text = g.node("StableKPToJSON", (2120, 40), (420, 110), wires={"keypoints": (detect, 0)})
    g.node("PreviewAny", (2120, 240), (420, 240), "COCO JSON", wires={"source": (text, 0)})
    g.node("PreviewAny", (2120, 570), (420, 440), "How sure", wires={"source": (detect, 2)})


def pose_conditioned(g: Graph) -> None:
    g.note(
        (-20, 0),
        (400, 420),
        """## Pose-conditioned generation

The pose of one picture, drawn into another one. **One checkpoint serves both**: *Keypoint Backbone from
MODEL* looks through the MODEL that also generates, LoRAs included, and does not change it.

The keypoints of your own object have no names, so no OpenPose ControlNet understands them. They are drawn
on black as dots and lines for a **scribble** ControlNet (control_v11p_sd15_scribble); with a skeleton in
the tokens, choose the style *scribble* in *Draw*.

*Draw* makes the picture in the size that is generated: keep *out_width* and *out_height* the same as in
*Empty Latent Image*.""",
    )
    model = g.node("CheckpointLoaderSimple", (420, 40), (340, 110), color=_BLUE, ckpt_name=SD15)
    backbone = g.node(
        "StableKPBackboneFromModel",
        (820, 40),
        (320, 60),
        color=_GREEN,
        wires={"model": (model, 0), "vae": (model, 2)},
    )
    tokens = g.node(
        "StableKPLoadTokens", (420, 230), (340, 60), color=_BLUE, tokens_file="my_keypoints.safetensors", newest=True
    )
    image = g.node("LoadImage", (420, 370), (340, 340), "The pose to take", image="example.png", upload="image")
    detect = g.node(
        "StableKPDetect",
        (820, 190),
        (320, 330),
        color=_GREEN,
        heat_maps="off",
        wires={"backbone": (backbone, 0), "tokens": (tokens, 0), "images": (image, 0)},
    )
    draw = g.node(
        "StableKPDraw",
        (1200, 190),
        (320, 330),
        "Hint for ControlNet",
        canvas="black",
        numbers=False,
        out_width=512,
        out_height=512,
        wires={"keypoints": (detect, 0)},
    )
    g.node("PreviewImage", (1200, 610), (320, 320), "Hint", wires={"images": (draw, 0)})
    positive = g.node(
        "CLIPTextEncode",
        (420, 800),
        (340, 130),
        "What to generate",
        wires={"clip": (model, 1)},
        text="a wooden puppet standing in a workshop, soft light, photo",
    )
    negative = g.node(
        "CLIPTextEncode",
        (820, 800),
        (320, 130),
        "What to avoid",
        wires={"clip": (model, 1)},
        text="blurry, text, watermark",
    )
    control = g.node(
        "ControlNetLoader",
        (1200, 40),
        (320, 60),
        color=_BLUE,
        control_net_name="control_v11p_sd15_scribble.safetensors",
    )
    apply = g.node(
        "ControlNetApplyAdvanced",
        (1580, 40),
        (320, 190),
        color=_GREEN,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
        wires={
            "positive": (positive, 0),
            "negative": (negative, 0),
            "control_net": (control, 0),
            "image": (draw, 0),
            "vae": (model, 2),
        },
    )
    latent = g.node("EmptyLatentImage", (1580, 320), (320, 110), width=512, height=512, batch_size=1)
    sampler = g.node(
        "KSampler",
        (1580, 520),
        (320, 270),
        seed=1,
        control_after_generate="fixed",
        steps=20,
        cfg=7.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
        wires={
            "model": (model, 0),
            "positive": (apply, 0),
            "negative": (apply, 1),
            "latent_image": (latent, 0),
        },
    )
    decode = g.node("VAEDecode", (1580, 880), (320, 50), wires={"samples": (sampler, 0), "vae": (model, 2)})
    g.node("SaveImage", (1960, 40), (520, 560), filename_prefix="keypoint_pose", wires={"images": (decode, 0)})


def video_frames(g: Graph) -> None:
    g.note(
        (-20, 0),
        (400, 330),
        """## A batch of video frames

Put the frames of a video (frame1.png, frame2.png, …) into a folder below ComfyUI's `input` folder.

*heat_maps* is **off**: they would fill the memory on long videos. Fewer *views* are faster, more are
steadier.

The JSON holds one list of points for each keypoint over time, as the spline editors of other packs read it;
*Keypoints to TRACKS* makes ComfyUI's own tracks of them.""",
    )
    backbone = g.node("StableKPLoadBackbone", (420, 40), (340, 110), color=_BLUE, model=SD15)
    tokens = g.node(
        "StableKPLoadTokens", (420, 230), (340, 60), color=_BLUE, tokens_file="my_keypoints.safetensors", newest=True
    )
    frames = g.node("StableKPLoadImageSet", (420, 370), (340, 210), "Frames", folder="my_frames", max_images=2000)
    detect = g.node(
        "StableKPDetect",
        (820, 40),
        (360, 330),
        color=_GREEN,
        views=4,
        heat_maps="off",
        wires={"backbone": (backbone, 0), "tokens": (tokens, 0), "images": (frames, 0), "names": (frames, 1)},
    )
    draw = g.node(
        "StableKPDraw",
        (1240, 40),
        (340, 330),
        canvas="image",
        numbers=False,
        wires={"keypoints": (detect, 0), "images": (frames, 0)},
    )
    video = g.node("CreateVideo", (1640, 40), (320, 105), fps=12.0, wires={"images": (draw, 0)})
    g.node(
        "SaveVideo",
        (1640, 220),
        (560, 710),
        filename_prefix="video/keypoints",
        format="auto",
        codec="auto",
        wires={"video": (video, 0)},
    )
    text = g.node(
        "StableKPToJSON",
        (1240, 460),
        (340, 110),
        format="tracks over all images",
        wires={"keypoints": (detect, 0)},
    )
    g.node("PreviewAny", (1240, 660), (340, 270), "Tracks as JSON", wires={"source": (text, 0)})
    g.node("PreviewAny", (820, 450), (360, 480), "How sure", wires={"source": (detect, 2)})


SD15 = "v1-5-pruned-emaonly.safetensors"
DOLLS, NEW_DOLLS = "built in: paper dolls, to learn from", "built in: paper dolls, unseen"
#: For the small model that comes with the pack.
DEMO_TRAINING = dict(steps=150, tokens=200, learning_rate=0.05, batch_size=4, map_size=64)
WORKFLOWS = {
    "1 Try it now": try_it_now,
    "2 Train on my images": train_on_my_images,
    "3 Detect and draw": detect_and_draw,
    "4 Pose-conditioned generation": pose_conditioned,
    "5 A batch of video frames": video_frames,
    **POSE_WORKFLOWS,
    **GUIDANCE_WORKFLOWS,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        pack = fake_comfy.install(Path(base))
        schemas = {schema.node_id: schema for schema in (node.define_schema() for node in pack.nodes.NODES)}
        for name, build in WORKFLOWS.items():
            graph = Graph(schemas)
            build(graph)
            path = ROOT / "example_workflows" / f"{name}.json"
            path.write_text(json.dumps(graph.as_dict(name), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
