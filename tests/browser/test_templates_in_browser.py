"""Every template in the real page: readable when it opens, nothing over anything else; the first one as people use it.

    STABLEKP_SHOTS=docs/images/templates make test-browser BROWSER=tests/browser/test_templates_in_browser.py

writes the screenshots of docs/images/templates.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(
    (path.stem for path in (ROOT / "example_workflows").glob("*.json")),
    key=lambda name: (int(re.match(r"\d+", name)[0]), name),
)
MODES = pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes2"])
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
#: The page is this large where the templates have to be readable.
VIEWPORT = (1600, 900)
#: The classic drawing leaves text out below this scale.
READABLE = 0.575
#: Milliseconds until the page must have shown something, and seconds for a run: machines that tests run on are busy.
WAIT, SECONDS = 120000, 3600
_SET_WIDGET = """([kind, name, value]) => {
  for (const node of app.graph._nodes.filter((node) => node.type === kind)) {
    node.widgets.find((widget) => widget.name === name).value = value;
  }
}"""


def file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name).lower()


@pytest.fixture()
def furnished(server):
    """What the templates ask for is there, by name: the page marks what is missing in red."""
    models, files = server.base / "models", server.base / "input"
    for name in (
        f"checkpoints/{CHECKPOINT}",
        "controlnet/control_v11p_sd15_scribble_fp16.safetensors",
        "controlnet/control_v11p_sd15_openpose_fp16.safetensors",
        "controlnet/control_sd15_animal_openpose_fp16.pth",
        "keypoint_tokens/my_keypoints.safetensors",
        "keypoint_landmarks/people.safetensors",
        "diffusion_models/z_image_turbo_bf16.safetensors",
        "text_encoders/qwen_3_4b.safetensors",
        "vae/ae.safetensors",
        "model_patches/Z-Image-Turbo-Fun-Controlnet-Union.safetensors",
    ):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).touch()
    dolls = sorted((ROOT / "stablekp_core" / "assets" / "pictures" / "dolls" / "test").glob("*.jpg"))
    for folder in ("my_images", "my_frames"):
        (files / folder).mkdir(exist_ok=True)
        shutil.copy(dolls[0], files / folder)
    (files / "my_labels.json").write_text("{}", encoding="utf-8")
    shutil.copy(Path(os.environ["COMFYUI_DIR"]).expanduser() / "input" / "example.png", files)


def complaints(layout: dict) -> list[str]:
    """What is wrong with a drawn graph: nodes over others or outside all groups, notes that are cut."""
    found = [f"the text of {name} is cut" for name in layout["cut"]]
    boxes = list(layout["boxes"].items())
    for i, (name, (left, top, right, bottom)) in enumerate(boxes):
        for other, (x0, y0, x1, y1) in boxes[:i]:
            if left < x1 - 1 and x0 < right - 1 and top < y1 - 1 and y0 < bottom - 1:
                found.append(f"{name} lies over {other}")
        inside = any(
            x <= left and y <= top and right <= x + width + 1 and bottom <= y + height + 1
            for x, y, width, height in layout["groups"]
        )
        if not inside:
            found.append(f"{name} leaves its group")
    return found


@MODES
def test_every_template_opens_readable_and_in_order(open_page, furnished, shot, vue):
    page, found = open_page(vue=vue, viewport=VIEWPORT), {}
    page.open()
    for name in NAMES:
        page.open_template(name)
        layout = page.layout()
        print(f"{name}: {layout['scale']:.2f}")
        shot(page, f"{file_name(name)}_{'nodes2' if vue else 'classic'}")
        found[name] = complaints(layout)
        if layout["scale"] < READABLE:
            found[name].append(f"opens at {layout['scale']:.2f}")
        assert "error" not in page.toasts().lower(), page.toasts()
    assert not any(found.values()), {name: what for name, what in found.items() if what}
    assert not page.errors


_NOTE = """() => {
  const node = app.graph._nodes.find((node) => node.type === 'MarkdownNote');
  return [node.properties.stable_keypoints_note, node.widgets[0].value];
}"""


@MODES
def test_notes_are_in_the_language_of_the_page_and_fit(open_page, furnished, shot, vue):
    page, found = open_page(vue=vue, viewport=VIEWPORT, language="zh"), {}
    page.open()
    for name in NAMES:
        page.open_template(name)
        texts, shown = page.page.evaluate(_NOTE)
        assert shown == texts["zh"] and page.page.get_by_text(shown.split("\n")[0].strip("# ")).first.is_visible()
        shot(page, f"{file_name(name)}_{'nodes2' if vue else 'classic'}_zh")
        found[name] = complaints(page.layout())
    assert not any(found.values()), {name: what for name, what in found.items() if what}


def test_a_note_that_was_edited_stays_and_one_that_was_not_follows_the_page(open_page, furnished):
    page = open_page(language="zh")
    page.open()
    page.open_template("9 Steady video")
    workflow = page.serialized()
    note = next(node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    texts = note["properties"]["stable_keypoints_note"]
    assert note["widgets_values"] == [texts["zh"]]
    note["widgets_values"] = ["my own words"]
    page.load(workflow)
    assert page.page.evaluate(_NOTE)[1] == "my own words"
    page.set("Comfy.Locale", "en")
    page.open()
    page.load(workflow)
    assert page.page.evaluate(_NOTE)[1] == "my own words"
    note["widgets_values"] = [texts["zh"]]
    page.load(workflow)
    assert page.page.evaluate(_NOTE)[1] == texts["en"]
    page.open_template("9 Steady video")
    assert page.page.evaluate(_NOTE)[1] == texts["en"]


def choose_template(page, name: str) -> None:
    """As a person does: Templates, the pack, the template."""
    page.page.get_by_role("button", name="Templates").first.click()
    page.page.get_by_text("stable-keypoints").first.click(timeout=WAIT)
    page.page.get_by_text(name, exact=True).first.click(timeout=WAIT)
    page.page.wait_for_function("(n) => app.graph._nodes.length >= n", arg=5, timeout=WAIT)
    page.page.wait_for_timeout(3000)


def press_run(page) -> None:
    page.page.get_by_role("button", name="Run", exact=True).first.click()


def test_the_first_template_is_an_app(open_page):
    page = open_page(viewport=VIEWPORT)
    page.open()
    choose_template(page, "1 Try it now")
    # Few images and steps: what is asked is whether fields and results are where they belong.
    page.page.evaluate(_SET_WIDGET, ["StableKPLoadImageSet", "max_images", 4])
    page.page.get_by_role("button", name="Enter app mode").first.click()
    fields = page.page.get_by_test_id("app-mode-widget-item")
    fields.first.wait_for(timeout=WAIT)
    page.page.keyboard.press("Escape")  # the tour that begins on a first visit
    page.page.wait_for_timeout(1000)
    shown = [field.inner_text().split("\n") for field in fields.all()]
    assert [words[0] for words in shown] == ["folder", "keypoints", "steps", "folder"]
    assert shown[0][1] == "Images to learn from" and shown[3][1] == "Images it has never seen"
    steps = fields.nth(2).locator("input")
    steps.fill("2")
    steps.press("Enter")
    run = page.page.get_by_test_id("linear-run-button").get_by_role("button", name="Run", exact=True)
    done = page.run_by(run.click, SECONDS)
    assert done["kind"] == "execution_success", done["detail"]
    result = page.page.get_by_test_id("linear-center-panel").get_by_test_id("linear-image-output")
    result.first.wait_for(timeout=WAIT)


def test_a_missing_model_is_told_with_its_download(open_page, server, shot):
    (server.base / "models" / "checkpoints" / CHECKPOINT).unlink(missing_ok=True)
    page = open_page(viewport=VIEWPORT)
    page.open()
    choose_template(page, "2 Train on my images")
    page.page.get_by_text("View details").first.click(timeout=WAIT)
    download = page.page.get_by_role("button", name=f"Download {CHECKPOINT}")
    download.wait_for(timeout=WAIT)
    shot(page, "missing_model")
    assert download.is_enabled()


def test_more_keypoints_than_candidates_are_told_when_queued(open_page, server, shot):
    page = open_page(viewport=VIEWPORT)
    page.open()
    choose_template(page, "1 Try it now")
    for name, value in (("keypoints", 30), ("candidates", 25)):
        page.page.evaluate(_SET_WIDGET, ["StableKPTrain", name, value])
    press_run(page)
    page.page.get_by_text("View details").first.click(timeout=WAIT)
    page.page.get_by_role("button", name="Info for Train Keypoint Tokens - keypoints").click(timeout=WAIT)
    page.page.get_by_text("30 keypoints out of 25 candidates").first.wait_for(timeout=WAIT)
    shot(page, "keypoints_over_candidates")
    queue = server.get("/queue")
    assert not queue["queue_running"] and not queue["queue_pending"]


def test_cancel_names_the_rescued_file_on_the_page(open_page, server, shot):
    page = open_page(viewport=VIEWPORT)
    page.open()
    choose_template(page, "1 Try it now")
    page.page.evaluate(
        """() => { window.texts = [];
        app.api.addEventListener('progress_text', ({ detail }) => window.texts.push(detail.text)); }"""
    )

    def start_and_cancel():
        press_run(page)
        page.page.wait_for_function("() => window.texts.some((t) => /step ([3-9]|\\d\\d)/.test(t))", timeout=5 * WAIT)
        page.page.get_by_role("button", name="Cancel current run").first.click()

    assert page.run_by(start_and_cancel, SECONDS)["kind"] == "execution_interrupted"
    page.page.get_by_text("Training stopped").first.wait_for(timeout=WAIT)
    shot(page, "cancelled")
    told = re.search(r"interrupted_[\d_-]+\.safetensors", page.toasts())
    assert told, page.toasts()
    assert list((server.base / "output" / "keypoint_tokens").glob(told[0]))


@pytest.mark.parametrize("name", ["3 Detect and draw", "5 Video", "9 Steady video"])
@MODES
def test_a_template_that_needs_nothing_runs_and_its_results_lie_over_nothing(open_page, shot, name, vue):
    page = open_page(vue=vue, viewport=VIEWPORT)
    page.open()
    page.open_template(name)
    done = page.run_by(lambda: press_run(page), SECONDS)
    assert done["kind"] == "execution_success", done["detail"]
    page.page.wait_for_timeout(3000)
    shot(page, f"{file_name(name)}_{'nodes2' if vue else 'classic'}_run")
    assert not complaints(page.layout())


def test_the_first_template_runs_from_the_list_to_its_end(open_page, shot):
    page = open_page(viewport=VIEWPORT)
    page.open()
    choose_template(page, "1 Try it now")
    before = time.monotonic()
    done = page.run_by(lambda: press_run(page), SECONDS)
    print(f"1 Try it now: {time.monotonic() - before:.0f} s")
    assert done["kind"] == "execution_success", done["detail"]
    page.page.wait_for_timeout(3000)
    shot(page, "1_try_it_now_run")
    images = [len(out["images"]) for out in done["outputs"].values() if out.get("images")]
    assert sum(images) >= 14  # the contact sheet, the loss, twelve new images
    assert not complaints(page.layout())
    page.page.get_by_role("button", name="Enter app mode").first.click()
    page.page.get_by_test_id("app-mode-widget-item").first.wait_for(timeout=WAIT)
    page.page.keyboard.press("Escape")
    page.page.mouse.move(*VIEWPORT)  # away from what tells its use
    page.page.wait_for_timeout(3000)
    shot(page, "1_try_it_now_app")
