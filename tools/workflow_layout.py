"""Places the nodes of a template: groups with titles, each of columns of nodes, narrow enough to be read at once.

ComfyUI fits a template into the page when it is opened; text can be read from 0.58 of its size on: the classic drawing
leaves it out below. Heights are those that the page gives the nodes in its taller drawing (Nodes 2.0).
"""

from __future__ import annotations

import textwrap

#: Width and height into which a page of 1600 x 900 fits a graph (measured), and the scale that should be had.
PAGE, SCALE = (1207, 715), 0.6
#: Widths of nodes: the second where the first makes a template too wide.
WIDTHS = (280, 260)
#: Between nodes of a column there is a title (30), in the classic drawing with the pack's badge above it.
GAP, BETWEEN, PADDING, TITLE = 20, 52, 16, 50
#: Heights in pixels that nodes need in the page, whichever of its two drawings needs more, with the text
#: they show after a run; measured in ComfyUI 0.33 by `tests/browser/test_templates_in_browser.py`.
HEIGHTS = {
    "StableKPLoadBackbone": 110,
    "StableKPLoadImageSet": 306,
    "StableKPTrain": 880,
    "StableKPDetect": 408,
    "StableKPDraw": 370,
    "MaskToImage": 34,
    "StableKPSaveTokens": 122,
    "StableKPLoadTokens": 178,
    "LoadImage": 330,
    "LoadVideo": 390,
    "GetVideoComponents": 114,
    "StableKPToJSON": 250,
    "CheckpointLoaderSimple": 126,
    "StableKPBackboneFromModel": 78,
    "CLIPTextEncode": 110,
    "ControlNetLoader": 86,
    "ControlNetApplyAdvanced": 198,
    "EmptyLatentImage": 118,
    "KSampler": 264,
    "VAEDecode": 54,
    "CreateVideo": 110,
    "UNETLoader": 110,
    "CLIPLoader": 142,
    "VAELoader": 86,
    "ModelPatchLoader": 86,
    "EmptySD3LatentImage": 118,
    "QwenImageDiffsynthControlnet": 166,
    "ModelSamplingAuraFlow": 86,
    "ConditioningZeroOut": 54,
    "StableKPLoadLandmarks": 86,
    "StableKPFitLandmarks": 286,
    "StableKPSaveLandmarks": 122,
    "StableKPApplyLandmarks": 78,
    "StableKPMapByHand": 180,
    "StableKPSkeleton": 258,
    "StableKPReport": 218,
    "StableKPSmooth": 390,
    "StableKPFitGuidance": 190,
    "StableKPSaveGuidance": 122,
    "StableKPGuide": 282,
    "StableKPCompare": 178,
    "StableKPLabelJoints": 322,
    "StableKPEditKeypoints": 246,
    "LatentBatchSeedBehavior": 62,
}
_PREVIEWS = {"PreviewImage": 260, "SaveImage": 330, "SaveVideo": 400, "LossGraphNode": 270, "PreviewAny": 150}


def height(node: dict, width: int) -> int:
    """Height of a node of that width; a note's follows its text."""
    if node["type"] == "MarkdownNote":
        paragraphs, room = [line for line in node["widgets_values"][0].split("\n") if line], width // 6
        lines = sum(len(textwrap.wrap(line, room - 4 if line[0].isdigit() else room)) for line in paragraphs)
        return 50 + 16 * lines + 6 * len(paragraphs)
    return _PREVIEWS.get(node["type"]) or HEIGHTS.get(node["type"], 200)


def arrange(groups: list[tuple[str, list[dict]]]) -> list[dict]:
    """Give every node its `pos` and `size`; the groups as a workflow holds them. Nodes fill columns from top to bottom
    in the order given; every group begins a column of its own. How high columns are is tried out: what the page shows
    largest is taken.
    """
    best = (0.0, 0, 0)
    for width in WIDTHS:
        for most in range(700, 1300, 10):
            shown = _scale(_arrange(groups, width, most))
            if shown > best[0]:
                best = (shown, width, most)
        if best[0] >= SCALE:
            break
    return _arrange(groups, *best[1:])


def _scale(boxes: list[dict]) -> float:
    """How large the page shows groups when it opens them."""
    width = sum(boxes[-1]["bounding"][::2])
    return min(PAGE[0] / width, PAGE[1] / max(box["bounding"][3] for box in boxes))


def _arrange(groups: list[tuple[str, list[dict]]], width: int, most: int) -> list[dict]:
    """`arrange` with nodes of that width in columns of at most that height."""
    x, top, boxes = 0, TITLE + 40, []
    for title, nodes in groups:
        columns: list[list[dict]] = [[]]
        for node in nodes:
            used = sum(height(other, width) + BETWEEN for other in columns[-1])
            if columns[-1] and top + used + height(node, width) + PADDING > most:
                columns.append([])
            columns[-1].append(node)
        bottom = 0
        for number, column in enumerate(columns):
            y = top
            for node in column:
                node["pos"], node["size"] = [x + PADDING + number * (width + GAP), y], [width, height(node, width)]
                y += height(node, width) + BETWEEN
            bottom = max(bottom, y - BETWEEN)
        wide = 2 * PADDING + len(columns) * (width + GAP) - GAP
        boxes.append({"title": title, "bounding": [x, 0, wide, bottom + PADDING], "color": "#3f789e", "font_size": 24})
        x += wide + GAP
    return boxes
