"""The blueprints in subgraphs/*.json: several nodes that ComfyUI's list of nodes offers as one. make_workflows.py makes
the files.
"""

from __future__ import annotations

import uuid

from workflow_templates import BLUE, DEMO, DEMO_TOKENS, GREEN

_INPUT, _OUTPUT = -10, -20  # what ComfyUI calls the two ends of a subgraph
_COLUMN = 340


class Blueprint:
    """A subgraph: nodes of a Graph, and what of them is seen from outside.

    graph: as make_workflows.Graph. description: what is read in the list of nodes.
    """

    def __init__(self, graph, description: str):
        self.graph, self.description = graph, description
        self.inputs, self.outputs, self.widgets = [], [], []
        graph.group("")

    def takes(self, name: str, *sockets: tuple[dict, str]) -> None:
        """An input of the whole, for one or more (node, input name)."""
        slots = [
            (node, next(i for i, s in enumerate(node["inputs"]) if s["name"] == wanted)) for node, wanted in sockets
        ]
        self.inputs.append((name, slots))

    def gives(self, name: str, node: dict, number: int) -> None:
        """An output of the whole, from that of a node."""
        self.outputs.append((name, [(node, number)]))

    def shows(self, node: dict, *widgets: str) -> None:
        """Widgets of a node on the whole."""
        self.widgets += [[str(node["id"]), widget] for widget in widgets]

    def as_dict(self, name: str) -> dict:
        """The file: one node, and the definition of its kind."""
        kind = _id(name)
        nodes, links = self.graph.nodes, list(self.graph.links)
        for number, node in enumerate(nodes):
            node["pos"], node["size"] = [number * _COLUMN, 0], [300, 300]
        inputs = [_end(name, end, place, links, inward=True) for place, end in enumerate(self.inputs)]
        outputs = [_end(name, end, place, links, inward=False) for place, end in enumerate(self.outputs)]
        ends = {_INPUT: -300, _OUTPUT: len(nodes) * _COLUMN}
        shown = {
            "id": 1,
            "type": kind,
            "pos": [0, 0],
            "size": [320, 200],
            "flags": {},
            "order": 0,
            "mode": 0,
            "title": name,
            "inputs": [{"name": i["name"], "type": i["type"], "link": None} for i in inputs],
            "outputs": [{"name": o["name"], "type": o["type"], "links": []} for o in outputs],
            "properties": {"proxyWidgets": self.widgets},
            "widgets_values": [],
        }
        subgraph = {
            "id": kind,
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": len(nodes),
                "lastLinkId": max(link[0] for link in links),
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": name,
            "inputNode": {"id": _INPUT, "bounding": [ends[_INPUT], 0, 120, 40 + 20 * len(inputs)]},
            "outputNode": {"id": _OUTPUT, "bounding": [ends[_OUTPUT], 0, 120, 40 + 20 * len(outputs)]},
            "inputs": inputs,
            "outputs": outputs,
            "widgets": [],
            "nodes": nodes,
            "groups": [],
            "links": [dict(zip(_LINK, link, strict=True)) for link in links],
            "extra": {},
            "category": "Keypoints",
            "description": self.description,
        }
        return {
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [shown],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [subgraph]},
            "extra": {},
        }


def _end(blueprint: str, end: tuple, place: int, links: list, *, inward: bool) -> dict:
    """One input or output of the whole, the number `place`; its links are added to `links` and to the nodes."""
    (name, slots), numbers = end, []
    for node, slot in slots:
        number = len(links) + 1
        numbers.append(number)
        socket = node["inputs" if inward else "outputs"][slot]
        if inward:
            socket["link"] = number
            links.append([number, _INPUT, place, node["id"], slot, socket["type"]])
        else:
            socket["links"].append(number)
            links.append([number, node["id"], slot, _OUTPUT, place, socket["type"]])
    kind = "input" if inward else "output"
    return {"id": _id(f"{blueprint}/{kind}/{name}"), "name": name, "type": socket["type"], "linkIds": numbers}


_LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"stable-keypoints/blueprint/{name}"))


def image_to_keypoints(graph) -> Blueprint:
    blueprint = Blueprint(graph, "Finds learned keypoints on images and draws them.")
    backbone = graph.node("StableKPLoadBackbone", color=BLUE, model=DEMO)
    tokens = graph.node("StableKPLoadTokens", color=BLUE, tokens_file=DEMO_TOKENS, newest=True)
    wires = {"backbone": (backbone, 0), "tokens": (tokens, 0)}
    detect = graph.node("StableKPDetect", color=GREEN, heat_maps="off", wires=wires)
    draw = graph.node("StableKPDraw", color=GREEN, wires={"keypoints": (detect, 0)})
    blueprint.takes("images", (detect, "images"), (draw, "images"))
    blueprint.gives("keypoints", detect, 0)
    blueprint.gives("image", draw, 0)
    blueprint.shows(backbone, "model")
    blueprint.shows(tokens, "tokens_file")
    blueprint.shows(draw, "style")
    return blueprint


def train_on_a_folder(graph) -> Blueprint:
    blueprint = Blueprint(graph, "Learns keypoints from a folder of images without labels, and saves them.")
    backbone = graph.node("StableKPLoadBackbone", color=BLUE, model=DEMO)
    images = graph.node("StableKPLoadImageSet", max_images=100)
    wires = {"backbone": (backbone, 0), "images": (images, 0)}
    train = graph.node("StableKPTrain", color=GREEN, wires=wires)
    graph.node("StableKPSaveTokens", name="my_keypoints", wires={"tokens": (train, 0)})
    blueprint.gives("tokens", train, 0)
    blueprint.gives("contact sheet", train, 2)
    blueprint.shows(backbone, "model")
    blueprint.shows(images, "folder", "max_images")
    blueprint.shows(train, "keypoints", "steps", "seed")
    blueprint.shows(graph.nodes[-1], "name")
    return blueprint


def keypoints_to_hint(graph) -> Blueprint:
    blueprint = Blueprint(graph, "Draws keypoints as a hint image for ControlNet, as large as what is generated.")
    draw = graph.node("StableKPDraw", color=GREEN, style="points", canvas="black", numbers=False)
    blueprint.takes("keypoints", (draw, "keypoints"))
    blueprint.takes("size", (draw, "size_from"))
    blueprint.gives("image", draw, 0)
    blueprint.shows(draw, "style", "fit")
    return blueprint


BLUEPRINTS = {
    "Image to Keypoints": image_to_keypoints,
    "Keypoints to ControlNet Hint": keypoints_to_hint,
    "Train Keypoints on a Folder": train_on_a_folder,
}
