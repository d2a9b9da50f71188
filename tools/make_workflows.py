"""Writes example_workflows/*.json and subgraphs/*.json: the graphs in the web UI's format, templates with notes.

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
VERSION = re.search(r'version = "(.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
sys.path.insert(0, str(ROOT / "tests"))

import fake_comfy
from blueprints import BLUEPRINTS
from guidance_workflows import GUIDANCE_WORKFLOWS
from pose_workflows import POSE_WORKFLOWS
from workflow_layout import arrange
from workflow_templates import WORKFLOWS as FIRST_WORKFLOWS

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
    "UNETLoader": ([], ["unet_name", "weight_dtype"], ["MODEL"]),
    "CLIPLoader": ([], ["clip_name", "type", "device"], ["CLIP"]),
    "VAELoader": ([], ["vae_name"], ["VAE"]),
    "ModelPatchLoader": ([], ["name"], ["MODEL_PATCH"]),
    "QwenImageDiffsynthControlnet": (
        [("model", "MODEL"), ("model_patch", "MODEL_PATCH"), ("vae", "VAE"), ("image", "IMAGE"), ("mask", "MASK")],
        ["strength"],
        ["MODEL"],
    ),
    "ModelSamplingAuraFlow": ([("model", "MODEL")], ["shift"], ["MODEL"]),
    "ConditioningZeroOut": ([("conditioning", "CONDITIONING")], [], ["CONDITIONING"]),
    "EmptySD3LatentImage": ([], ["width", "height", "batch_size"], ["LATENT"]),
    "LatentBatchSeedBehavior": ([("samples", "LATENT")], ["seed_behavior"], ["LATENT"]),
    "LossGraphNode": ([("loss", "LOSS_MAP")], ["filename_prefix"], []),
    "PreviewAny": ([("source", "*")], [], []),
    "MaskToImage": ([("mask", "MASK")], [], ["IMAGE"]),
    "CreateVideo": ([("images", "IMAGE"), ("audio", "AUDIO")], ["fps"], ["VIDEO"]),
    "LoadVideo": ([], ["file", "upload"], ["VIDEO"]),
    "GetVideoComponents": ([("video", "VIDEO")], [], ["images", "audio", "fps"]),
    "SaveVideo": ([("video", "VIDEO")], ["filename_prefix", "format", "codec"], []),
}
_OUTPUT_TYPES = {("ControlNetApplyAdvanced", name): "CONDITIONING" for name in ("positive", "negative")}
_OUTPUT_TYPES |= {
    ("GetVideoComponents", name): kind for name, kind in (("images", "IMAGE"), ("audio", "AUDIO"), ("fps", "FLOAT"))
}
_YELLOW = ("#432", "#653")
#: Where the files of the templates can be had: the page offers them for download when they are missing.
_SD15_ADDRESS = "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main"
_CONTROL_ADDRESS = "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main"
_Z_IMAGE_ADDRESS = "https://huggingface.co/Comfy-Org/z_image_turbo/resolve/main/split_files"
_Z_CONTROL_ADDRESS = "https://huggingface.co/alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union/resolve/main"
MODELS = {
    "v1-5-pruned-emaonly-fp16.safetensors": (f"{_SD15_ADDRESS}/v1-5-pruned-emaonly-fp16.safetensors", "checkpoints"),
    "control_v11p_sd15_scribble_fp16.safetensors": (
        f"{_CONTROL_ADDRESS}/control_v11p_sd15_scribble_fp16.safetensors",
        "controlnet",
    ),
    "control_v11p_sd15_openpose_fp16.safetensors": (
        f"{_CONTROL_ADDRESS}/control_v11p_sd15_openpose_fp16.safetensors",
        "controlnet",
    ),
    "control_sd15_animal_openpose_fp16.pth": (
        "https://huggingface.co/huchenlei/animal_openpose/resolve/main/control_sd15_animal_openpose_fp16.pth",
        "controlnet",
    ),
    "z_image_turbo_bf16.safetensors": (
        f"{_Z_IMAGE_ADDRESS}/diffusion_models/z_image_turbo_bf16.safetensors",
        "diffusion_models",
    ),
    "qwen_3_4b.safetensors": (f"{_Z_IMAGE_ADDRESS}/text_encoders/qwen_3_4b.safetensors", "text_encoders"),
    "ae.safetensors": (f"{_Z_IMAGE_ADDRESS}/vae/ae.safetensors", "vae"),
    "Z-Image-Turbo-Fun-Controlnet-Union.safetensors": (
        f"{_Z_CONTROL_ADDRESS}/Z-Image-Turbo-Fun-Controlnet-Union.safetensors",
        "model_patches",
    ),
}
#: The template that is saved as an app: its fields and its result alone.
APP = "1 Try it now"


def _origin(kind: str) -> dict[str, str]:
    """Which pack a node comes from, so that the page can offer to install it."""
    if kind == "MarkdownNote":
        return {}
    return {"cnr_id": "stable-keypoints", "ver": VERSION} if kind.startswith("StableKP") else {"cnr_id": "comfy-core"}


def _models(kind: str, values: dict) -> dict[str, list]:
    """The model file that a node names, with its folder and address."""
    found = [
        {"name": value, "url": MODELS[value][0], "directory": MODELS[value][1]}
        for value in values.values()
        if isinstance(value, str) and value in MODELS
    ]
    return {"models": found} if found else {}


def _app(nodes: list[dict]) -> dict:
    """What app mode shows: [node, field, what stands below it] of its inputs, and the node whose result it shows."""
    learn, new = (node["id"] for node in nodes if node["type"] == "StableKPLoadImageSet")
    train = next(node["id"] for node in nodes if node["type"] == "StableKPTrain")
    result = [node["id"] for node in nodes if node["type"] == "PreviewImage"][-1]
    fields = [
        [learn, "folder", {"description": "Images to learn from"}],
        [train, "keypoints"],
        [train, "steps"],
        [new, "folder", {"description": "Images it has never seen"}],
    ]
    return {"linearMode": False, "linearData": {"inputs": fields, "outputs": [result]}}


def chinese_notes() -> dict[str, str]:
    """{template: its note in Chinese}."""
    text = (Path(__file__).parent / "notes.zh.md").read_text(encoding="utf-8")
    parts = re.split(r"^# (.+)$", text, flags=re.MULTILINE)[1:]
    return {name: note.strip() for name, note in zip(parts[::2], parts[1::2], strict=True)}


class Graph:
    """Nodes and links of one workflow, built up one call at a time."""

    def __init__(self, schemas: dict):
        self.schemas, self.nodes, self.links, self.groups = schemas, [], [], {}

    def group(self, title: str) -> None:
        """Nodes that are added from here on lie in the group of that title; it is made where there is none yet."""
        if title not in self.groups:
            self.groups[title] = []
        self.current = self.groups[title]

    def node(
        self,
        kind: str,
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
            "pos": [0, 0],
            "size": [0, 0],
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": [{"name": name, "type": io_type, "link": None} for name, io_type in sockets],
            "outputs": [{"name": name, "type": io_type, "links": []} for name, io_type in outputs],
            "properties": {"Node name for S&R": kind, **_origin(kind), **_models(kind, values)},
            "widgets_values": widgets,
        }
        if title:
            node["title"] = title
        if color:
            node["color"], node["bgcolor"] = color
        self.nodes.append(node)
        self.current.append(node)
        for name, (source, number) in (wires or {}).items():
            self._link(source, number, node, name)
        return node

    def note(self, text: str) -> None:
        """A note in Markdown."""
        node = self.node("MarkdownNote", "Note", color=_YELLOW)
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
        live = fake_comfy.live_inputs(schema.inputs, values)
        widgets = {i.id: i for i in live.values() if i.is_widget}
        if set(values) - set(widgets):
            raise SystemExit(f"{kind} has no widget {sorted(set(values) - set(widgets))}")
        return (
            [(name, i.io_type) for name, i in live.items() if not i.is_widget],
            [values.get(name, i.default) for name, i in widgets.items()],
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
        """The workflow file, with every node in its place."""
        chinese = chinese_notes()[name]
        for node in self.nodes:
            if node["type"] == "MarkdownNote":
                node["properties"]["stable_keypoints_note"] = {"en": node["widgets_values"][0], "zh": chinese}
        groups = arrange(list(self.groups.items()))
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"stable-keypoints/{name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": groups,
            "config": {},
            "extra": _app(self.nodes) if name == APP else {},
            "version": 0.4,
        }


WORKFLOWS = {**FIRST_WORKFLOWS, **POSE_WORKFLOWS, **GUIDANCE_WORKFLOWS}


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        pack = fake_comfy.install(Path(base))
        schemas = {schema.node_id: schema for schema in (node.define_schema() for node in pack.nodes.NODES)}
        for name, build in WORKFLOWS.items():
            graph = Graph(schemas)
            build(graph)
            _write(ROOT / "example_workflows" / f"{name}.json", graph.as_dict(name))
        for name, build in BLUEPRINTS.items():
            _write(ROOT / "subgraphs" / f"{name}.json", build(Graph(schemas)).as_dict(name))


def _write(path: Path, workflow: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
