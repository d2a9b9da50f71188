"""Places the nodes of a template: groups with titles, each of columns of nodes, narrow enough to be read at once.

ComfyUI fits a template into the page when it is opened; text can be read from about 0.6 of its size on. So all of a
template has to lie within `ROOM`. Heights are those that the page gives the nodes in its taller drawing (Nodes 2.0).
"""

from __future__ import annotations

#: Width and height that a page of 1600 x 900 shows at 0.6 of the size (measured: it fits a graph into 1207 x 715).
ROOM = (2010, 1190)
WIDTH, GAP, BETWEEN, PADDING, TITLE = 300, 20, 66, 16, 56
#: Heights in pixels, measured in the page, for nodes of `WIDTH`; previews have room for an image.
HEIGHTS = {
    "StableKPLoadBackbone": 110,
    "StableKPLoadImageSet": 242,
    "StableKPTrain": 600,
    "StableKPDetect": 366,
    "StableKPDraw": 414,
    "MaskToImage": 34,
    "StableKPSaveTokens": 122,
    "StableKPLoadTokens": 138,
    "LoadImage": 350,
    "LoadVideo": 330,
    "GetVideoComponents": 110,
    "StableKPToJSON": 174,
    "CheckpointLoaderSimple": 126,
    "StableKPBackboneFromModel": 78,
    "CLIPTextEncode": 110,
    "ControlNetLoader": 86,
    "ControlNetApplyAdvanced": 198,
    "EmptyLatentImage": 118,
    "KSampler": 270,
    "VAEDecode": 54,
    "CreateVideo": 110,
    "StableKPFitLandmarks": 222,
    "StableKPSaveLandmarks": 122,
    "StableKPApplyLandmarks": 78,
    "StableKPToPose": 134,
    "StableKPMapByHand": 200,
    "StableKPSkeleton": 194,
    "StableKPReport": 154,
    "StableKPSmooth": 400,
    "StableKPFitGuidance": 350,
    "StableKPSaveGuidance": 130,
    "StableKPGuide": 390,
    "StableKPCompare": 260,
    "StableKPLabelJoints": 350,
    "StableKPEditKeypoints": 170,
    "LatentBatchSeedBehavior": 80,
}
_PREVIEWS = {"PreviewImage": 260, "SaveImage": 330, "SaveVideo": 400, "LossGraphNode": 240, "PreviewAny": 150}


def height(node: dict) -> int:
    """Height of a node; a note's follows its text."""
    if node["type"] == "MarkdownNote":
        text = node["widgets_values"][0]
        lines = sum(1 + len(line) // 42 for line in text.split("\n"))
        return 70 + 21 * lines
    return _PREVIEWS.get(node["type"]) or HEIGHTS.get(node["type"], 200)


def arrange(groups: list[tuple[str, list[dict]]]) -> list[dict]:
    """Give every node its `pos` and `size`; the groups as a workflow holds them. Nodes fill columns from top to bottom
    in the order given; every group begins a column of its own.
    """
    x, boxes = 0, []
    for title, nodes in groups:
        columns: list[list[dict]] = [[]]
        for node in nodes:
            used = sum(height(other) + BETWEEN for other in columns[-1])
            if columns[-1] and used + height(node) > ROOM[1] - TITLE - PADDING:
                columns.append([])
            columns[-1].append(node)
        bottom = 0
        for number, column in enumerate(columns):
            y = TITLE + 40
            for node in column:
                node["pos"], node["size"] = [x + PADDING + number * (WIDTH + GAP), y], [WIDTH, height(node)]
                y += height(node) + BETWEEN
            bottom = max(bottom, y - BETWEEN)
        width = 2 * PADDING + len(columns) * (WIDTH + GAP) - GAP
        boxes.append({"title": title, "bounding": [x, 0, width, bottom + PADDING], "color": "#3f789e", "font_size": 24})
        x += width + GAP
    return boxes
