"""Edit Keypoints in the real page: the coordinates that leave the node are those that were dragged to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stablekp_core.keypoints.keypoints import Keypoints

SIDE, COUNT = 512, 4
MODES = pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])


def build(page, count=COUNT, side=SIDE, preview=True):
    """Dolls -> Edit Keypoints -> JSON and preview; ids of the edit node and of the node that shows JSON."""
    nodes = [
        ["TestDolls", {"count": count, "side": side}, [0, 0]],
        ["StableKPEditKeypoints", {}, [320, 0]],
        ["TestKeep", {}, [760, 0]],
        ["PreviewImage", {}, [760, 220]],
    ]
    wires = [[0, 0, 1, "keypoints"], [0, 1, 1, "images"], [1, 0, 2, "keypoints"], [1, 1, 3, "images"]]
    _, edit, text, *_ = page.build(nodes[: 3 + preview], wires[: 3 + preview])
    return edit, text


def run(page, text_node, queue=None) -> Keypoints:
    done = page.run_by(queue) if queue else page.run()
    assert done["kind"] == "execution_success", done["detail"]
    return Keypoints.from_json(done["outputs"][str(text_node)]["coco"][0])


@MODES
def test_drag_delete_undo_redo_next_frame_apply_run_save_reload(open_page, shot, vue):
    page = open_page(vue=vue)
    page.open()
    edit, text = build(page)
    before = run(page, text)
    page.page.wait_for_timeout(500)
    editor = page.press_button(edit, "Edit points")
    shot(page, f"editor_{'nodes2' if vue else 'classic'}")
    wrist, moved = before.xy[0, 7], before.xy[0, 7] + [40.0, -25.0]
    editor.drag(tuple(wrist), tuple(moved), SIDE)
    assert "edited" in editor.point(7)
    editor.choose(3)
    editor.key("Delete")
    assert "deleted" in editor.point(3)
    editor.key("Control+z")
    assert "deleted" not in editor.point(3)
    editor.key("Control+y")
    assert "deleted" in editor.point(3)
    editor.key("PageDown")
    editor.drag(tuple(before.xy[1, 0]), tuple(before.xy[1, 0] + [-30.0, 10.0]), SIDE)
    editor.choose(5)
    editor.key("o")
    editor.key("ArrowRight")
    shot(page, f"edited_{'nodes2' if vue else 'classic'}")
    editor.press("apply")
    page.page.wait_for_timeout(300)
    assert editor.gone

    after = run(page, text)
    check(before, after)
    # Ctrl+Z in the editor was none of the page's business, and the edits are in the workflow.
    saved = page.serialized()
    kept = next(node for node in saved["nodes"] if node["type"] == "StableKPEditKeypoints")
    assert json.loads(kept["widgets_values"][0])["version"] == 1
    assert kept["widgets_values"][1:3] == ["as detected", 0.3]  # in the order of the node's inputs

    page.open()  # a new page, as the next day
    page.load(saved)
    check(before, run(page, text))
    page.page.wait_for_timeout(300)
    editor = page.press_button(edit, "Edit points")
    assert "deleted" in editor.point(3) and "4 points edited in 2 images" in editor.status
    shot(page, f"reopened_{'nodes2' if vue else 'classic'}")
    editor.press("resetAll")
    again = run(page, text, lambda: editor.press("run"))
    np.testing.assert_allclose(again.xy, before.xy, atol=1e-3)


def check(before: Keypoints, after: Keypoints) -> None:
    wanted = before.xy.copy()
    wanted[0, 7] += [40, -25]
    wanted[1, 0] += [-30, 10]
    wanted[1, 5] += [1, 0]
    assert after.confidence[0, 3] == 0
    there = after.confidence > 0
    assert there.sum() == (before.confidence > 0).sum() - 1
    distance = np.linalg.norm(after.xy - wanted, axis=-1)[there]
    assert distance.max() < 0.5, distance.max()
    assert after.confidence[0, 7] == after.confidence[1, 0] == 1


def test_before_a_first_run_it_says_to_run_once(open_page):
    page = open_page()
    edit, _ = build(page)
    with pytest.raises(Exception, match="(?i)timeout"):
        page.press_button(edit, "Edit points", wait=1500)
    page.page.get_by_text("Run the workflow once").first.wait_for()


def test_keys_boxes_zoom_missing_points_and_copies(open_page, shot):
    page = open_page()
    edit, text = build(page)
    before = run(page, text)
    editor = page.press_button(edit, "Edit points")
    # A box around everything, moved by arrows: the whole figure.
    editor.drag((1, 1), (SIDE - 1, SIDE - 1), SIDE)
    assert editor.status == "14 points chosen"
    editor.key("Shift+ArrowUp")
    editor.key("ArrowLeft")
    editor.key("Escape")
    # A missing point: chosen in the list, then put where it belongs.
    assert "missing" in editor.point(14)
    editor.choose(14)
    assert "click where it is" in editor.status
    spot = editor.on_screen(200, 300, SIDE)
    page.page.mouse.click(*spot)
    assert "edited" in editor.point(14)
    # Zoomed in at the pointer, what is under it stays, and points are moved by as much less.
    page.page.mouse.move(*spot)
    page.page.mouse.wheel(0, -800)
    page.page.wait_for_timeout(200)
    page.page.mouse.down()
    page.page.mouse.move(spot[0] + 30, spot[1])
    page.page.mouse.up()
    shot(page, "zoomed")
    editor.key("0")
    editor.press("copy")
    assert "Copied to 3 images" in editor.status
    after = run(page, text, lambda: editor.press("run"))
    shift = np.array([-1.0, -10.0])
    np.testing.assert_allclose(after.xy[0, :14], before.xy[0, :14] + shift, atol=0.02)
    assert np.linalg.norm(after.xy[3, 14] - after.xy[0, 14]) < 1e-3 and after.confidence[3, 14] == 1
    moved = after.xy[0, 14] - [200, 300]
    assert 2 < moved[0] < 20 and abs(moved[1]) < 0.6


def test_touch(open_page):
    page = open_page()
    edit, text = build(page)
    before = run(page, text)
    editor = page.press_button(edit, "Edit points")
    start = editor.on_screen(*before.xy[0, 7], SIDE)
    end = editor.on_screen(*(before.xy[0, 7] + [50, 0]), SIDE)
    client = page.context.new_cdp_session(page.page)
    for kind, places in (("touchStart", [start]), ("touchMove", [end]), ("touchEnd", [])):
        points = [{"x": x, "y": y} for x, y in places]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    # Two fingers move apart: the view grows, and no point moves.
    spread = [[(500, 400), (600, 400)], [(450, 400), (650, 400)], []]
    for kind, places in zip(("touchStart", "touchMove", "touchEnd"), spread, strict=True):
        client.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]},
        )
    assert "1 points edited" in editor.status or "left wrist" in editor.status
    editor.press("apply")
    page.page.wait_for_timeout(300)
    after = run(page, text)
    assert np.linalg.norm(after.xy[0, 7] - before.xy[0, 7] - [50, 0]) < 0.5
    assert np.abs(np.delete(after.xy[0], 7, 0) - np.delete(before.xy[0], 7, 0)).max() < 1e-3


def test_copy_and_paste_of_the_node_keeps_its_edits(open_page):
    page = open_page()
    edit, text = build(page)
    before = run(page, text)
    editor = page.press_button(edit, "Edit points")
    editor.drag(tuple(before.xy[0, 7]), tuple(before.xy[0, 7] + [40, -25]), SIDE)
    editor.press("apply")
    copied = page.page.evaluate(
        """async (id) => {
          app.canvas.selectItems?.([app.graph.getNodeById(id)]);
          app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard();
          const other = app.graph._nodes.filter((node) => node.comfyClass === 'StableKPEditKeypoints');
          return other.map((node) => node.widgets.find((w) => w.name === 'edits').value);
        }""",
        edit,
    )
    assert len(copied) == 2 and copied[0] == copied[1] and "left wrist" in copied[0]


def test_controls_have_names_fit_a_small_screen_and_speak_chinese(open_page, shot):
    page = open_page(language="zh")
    page.open()
    edit, text = build(page)
    run(page, text)
    editor = page.press_button(edit, "编辑关键点")
    for button in editor.frame.locator("button").all():
        if button.is_visible():
            assert button.get_attribute("aria-label") or button.inner_text().strip()
            box = button.bounding_box()
            inside = 0 <= box["x"] and box["x"] + box["width"] <= 1280 and 0 <= box["y"]
            assert inside and (box["y"] + box["height"] <= 720 or button.get_attribute("role") == "option")
    assert editor.frame.locator('button[data-name="apply"]').inner_text() == "应用"
    assert "缺失" in editor.point(14)
    shot(page, "editor_zh")


def test_two_hundred_large_frames_open_at_once_and_few_are_kept(open_page, server):
    page = open_page()
    edit, text = build(page, 200, 1024, preview=False)
    run(page, text)
    requests = []
    page.page.on("request", lambda request: requests.append(request.url))
    clock = page.page.evaluate("performance.now()")
    editor = page.press_button(edit, "Edit points")
    editor.frame.locator("canvas").wait_for()
    opened = page.page.evaluate("performance.now()") - clock - 400  # the fixture waits that long itself
    images = [url for url in requests if ".jpg" in url]
    print(f"opened in {opened:.0f} ms, {len(images)} images loaded")
    assert opened < 2000 and len(images) <= 2
    for _ in range(20):
        editor.key("PageDown")
    kept = editor.frame.locator("canvas").evaluate("(canvas) => canvas.stablekpStage.images.size")
    assert kept <= 6
    heap = page.page.evaluate("performance.memory?.usedJSHeapSize / 2**20")
    print(f"after 20 frames {kept} images kept, JavaScript heap {heap:.0f} MiB")
