"""A workflow that the page saved with an older pack opens with every value and every wire in its place.

tests/data/workflow_of_0.1.json is as ComfyUI 0.33 saved it when Draw and Smooth showed the fields of all their styles
and methods at once, Detect had noise_draws, and the pack's types were called KEYPOINTS, KEYPOINT_TOKENS and so on.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SAVED = Path(__file__).resolve().parents[1] / "data" / "workflow_of_0.1.json"
DRAW = {"threshold": 0.25, "which": "0-3", "out_width": 512, "out_height": 768, "fit": "crop"}
POINTS = {"canvas": "black", "dots": False, "numbers": True, "lines": False, "line_width": 4}
REST = {"fill": 7, "threshold": 0.2, "may_swap": "none"}


def below(choice: str, values: dict) -> dict:
    return {f"{choice}.{name}": value for name, value in values.items()}


#: Inputs by the node's number, in a prompt of today.
WANTED = {
    "4": {"views": 3, "batch_size": 2, "sub_pixel": True, "heat_maps": "off", "view_seed": 7, "crop_margin": 0.2}
    | {"isolate": "none", "backbone": ["1", 0], "tokens": ["2", 0], "images": ["3", 0], "names": ["3", 1]},
    "5": {"method": "one-euro", **below("method", {"fps": 25, "min_cutoff": 0.5, "beta": 0.1, "causal": True})}
    | {**REST, "keypoints": ["4", 0]},
    "6": {"method": "savitzky-golay", **below("method", {"window": 11, "order": 3}), **REST, "keypoints": ["4", 0]},
    "7": {"style": "points", **below("style", POINTS), **DRAW, "keypoints": ["5", 0], "images": ["3", 0]},
    "8": {"style": "scribble", "style.line_width": ["15", 0], **DRAW, "keypoints": ["6", 0]},
    "9": {"style": "openpose", **DRAW, "keypoints": ["4", 0]},
    "10": {"style": "animal openpose", **DRAW, "keypoints": ["4", 0], "images": ["3", 0]},
    "11": {"images": ["7", 0]},
    "12": {"images": ["8", 0]},
    "13": {"images": ["9", 0]},
    "14": {"images": ["10", 0]},
}


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])
def test_values_and_wires_are_in_their_places(open_page, shot, vue):
    page = open_page(vue=vue)
    page.open()
    page.load(json.loads(SAVED.read_text(encoding="utf-8")))
    shot(page, f"old_workflow_{'nodes2' if vue else 'classic'}")
    assert prompt_of(page) == WANTED
    saved = page.serialized()
    kinds = {slot["type"] for node in saved["nodes"] for slot in [*node["inputs"], *node["outputs"]]}
    assert "STABLEKP_KEYPOINTS" in kinds and not any(kind.startswith("KEYPOINT") for kind in kinds)
    page.load(saved)
    assert prompt_of(page) == WANTED, "saved and opened again"


def prompt_of(page) -> dict:
    prompt = page.page.evaluate("async () => (await app.graphToPrompt()).output")
    return {number: prompt[number]["inputs"] for number in WANTED}
