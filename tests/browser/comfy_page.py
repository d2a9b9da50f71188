"""ComfyUI's page in headless Chromium, and the editor in it, in the words of the tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
_QUIET += ("--disable-component-update", "--disable-sync")
#: Node classes, wires (from, output, to, input name) and widgets of the graph that the tests run.
_BUILD = """async ([nodes, wires]) => {
  app.graph.clear();
  const made = nodes.map(([kind, widgets, pos]) => {
    const node = LiteGraph.createNode(kind);
    node.pos = pos;
    app.graph.add(node);
    for (const [name, value] of Object.entries(widgets)) node.widgets.find((w) => w.name === name).value = value;
    return node;
  });
  for (const [from, output, to, input] of wires) {
    made[from].connect(output, made[to], made[to].inputs.findIndex((slot) => slot.name === input));
  }
  app.canvas.ds.scale = 1; app.canvas.ds.offset = [60, 120];
  app.canvas.setDirty(true, true);
  return made.map((node) => node.id);
}"""
#: From here on until a run has ended; `window.stablekpRun` is what it came to.
_LISTEN = """(seconds) => {
  const outputs = {}, api = app.api, kinds = ['execution_success', 'execution_error', 'execution_interrupted'];
  window.stablekpRun = new Promise((resolve, reject) => {
    const heard = ({ detail }) => { outputs[detail.node] = detail.output; };
    const ended = (event) => {
      api.removeEventListener('executed', heard);
      for (const kind of kinds) api.removeEventListener(kind, ended);
      setTimeout(() => resolve({ kind: event.type, detail: event.detail, outputs }), 300);
    };
    api.addEventListener('executed', heard);
    for (const kind of kinds) api.addEventListener(kind, ended);
    setTimeout(() => reject(new Error(`no run has ended within ${seconds} s`)), 1000 * seconds);
  });
}"""


#: Boxes [left, top, right, bottom] of the nodes as the page draws them, titles included, and notes with text cut off.
_LAYOUT = """() => {
  const { ds } = app.canvas, origin = app.canvas.canvas.getBoundingClientRect();
  const boxes = {}, cut = [];
  for (const node of app.graph._nodes) {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    const name = `${node.id} ${node.title}`;
    if (LiteGraph.vueNodesMode) {
      const { left, top, right, bottom } = element.getBoundingClientRect();
      const [dx, dy] = [origin.left + ds.offset[0] * ds.scale, origin.top + ds.offset[1] * ds.scale];
      boxes[name] = [(left - dx) / ds.scale, (top - dy) / ds.scale, (right - dx) / ds.scale, (bottom - dy) / ds.scale];
    } else {
      const [x, y] = node.pos, [width, height] = node.size;
      boxes[name] = [x, y - 30, x + width, y + height];
    }
    if (node.type !== 'MarkdownNote') continue;
    const frame = LiteGraph.vueNodesMode ? element : node.widgets[0].element;
    const last = frame.querySelector('.tiptap, .comfy-markdown-content').lastElementChild.getBoundingClientRect();
    if (last.height && last.bottom > frame.getBoundingClientRect().bottom) cut.push(name);
  }
  return { scale: ds.scale, boxes, cut, groups: app.graph._groups.map((group) => [...group._bounding]) };
}"""


def launch(playwright):
    return playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(_QUIET))


class ComfyPage:
    """A tab with ComfyUI. vue: Nodes 2.0 on or off. language: of the texts."""

    def __init__(self, browser, port: int, *, vue: bool = False, language: str = "en", viewport=(1280, 720)):
        size = {"width": viewport[0], "height": viewport[1]}
        self.context = browser.new_context(viewport=size, has_touch=True)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.open(f"http://127.0.0.1:{port}/")
        self.set("Comfy.VueNodes.Enabled", vue)
        self.set("Comfy.Locale", language)
        self.set("Comfy.Minimap.Visible", False)
        self.set("Comfy.RightSidePanel.IsOpen", False)

    def open(self, url: str | None = None) -> None:
        if url:
            self.page.goto(url, wait_until="domcontentloaded")
        else:
            self.page.reload(wait_until="domcontentloaded")
        self.page.wait_for_function("window.app?.graph && window.LiteGraph && app.extensionManager", timeout=150000)
        self.page.wait_for_timeout(2500)
        self.page.keyboard.press("Escape")  # the templates that open on a first visit
        self.page.wait_for_timeout(500)

    def set(self, name: str, value) -> None:
        self.page.evaluate(
            "async ([name, value]) => { try { await app.extensionManager.setting.set(name, value); } catch {} }",
            [name, value],
        )

    def build(self, nodes: list, wires: list) -> list:
        return self.page.evaluate(_BUILD, [nodes, wires])

    def run(self, seconds: float = 1800) -> dict:
        """Queue the graph and wait; {"kind", "detail", "outputs" by node id}."""
        return self.run_by(lambda: self.page.evaluate("() => { app.queuePrompt(0, 1); }"), seconds)

    def run_by(self, queue, seconds: float = 1800) -> dict:
        """What comes of the run that `queue()` starts, for example by a button of the editor; as `run`."""
        self.page.evaluate(_LISTEN, seconds)
        queue()
        return self.page.evaluate("window.stablekpRun")

    def serialized(self) -> dict:
        return json.loads(self.page.evaluate("JSON.stringify(app.graph.serialize())"))

    def load(self, workflow: dict) -> None:
        self.page.evaluate("async (data) => { await app.loadGraphData(data); }", workflow)
        self.page.wait_for_timeout(800)

    def open_template(self, name: str) -> None:
        """Open one of the pack's templates as a click in the list of templates does."""
        self.page.evaluate(
            """async (name) => {
              const file = `/workflow_templates/stable-keypoints/${encodeURIComponent(name)}.json`;
              const answer = await app.api.fetchApi(file);
              await app.loadGraphData(await answer.json(), true, true, name, { openSource: 'template' });
            }""",
            name,
        )
        self.page.wait_for_timeout(3000)

    def toasts(self) -> str:
        """The notes in the corner of the page."""
        return "\n".join(self.page.locator(".p-toast-message, [role=alert]").all_inner_texts())

    def layout(self) -> dict:
        """Scale, boxes of the nodes as they are drawn, notes with text that is cut off, boxes of the groups."""
        return self.page.evaluate(_LAYOUT)

    def press_button(self, node_id, label: str, wait: int = 10000) -> Editor:
        """Press a button of a node as a person does: where it stands on the canvas, or in the Vue node."""
        if self.page.evaluate("Boolean(LiteGraph.vueNodesMode)"):
            self.page.locator("button", has_text=label).first.click()
        else:
            spot = self.page.evaluate(
                """(id) => {
                  const node = app.graph.getNodeById(id), canvas = app.canvas;
                  const widget = node.widgets.find((w) => w.type === 'button');
                  const [x, y] = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10];
                  const bounds = canvas.canvas.getBoundingClientRect();
                  const { scale, offset } = canvas.ds;
                  return [bounds.left + (x + offset[0]) * scale, bounds.top + (y + offset[1]) * scale];
                }""",
                node_id,
            )
            self.page.mouse.click(*spot)
        return Editor(self.page, wait)

    def shot(self, path: Path) -> None:
        self.page.screenshot(path=str(path), **({"quality": 60} if path.suffix == ".jpg" else {}))


class Editor:
    """The editor over the page."""

    def __init__(self, page, wait: int = 10000):
        page.locator("dialog.stablekp-editor").wait_for(timeout=wait)
        self.page = page
        self.frame = page.frame_locator("dialog.stablekp-editor iframe")
        self.canvas = self.frame.locator("canvas")
        self.frame.locator(".list button").first.wait_for(timeout=10000)
        page.wait_for_timeout(400)

    def press(self, name: str) -> None:
        self.frame.locator(f'button[data-name="{name}"]').click()

    def key(self, keys: str) -> None:
        self.page.keyboard.press(keys)
        self.page.wait_for_timeout(60)

    def choose(self, k: int) -> None:
        self.frame.locator(".list button").nth(k).click()
        self.canvas.focus()

    def point(self, k: int) -> str:
        """The words of point k in the list."""
        return self.frame.locator(".list button").nth(k).inner_text()

    @property
    def status(self) -> str:
        return self.frame.locator(".status").inner_text()

    def on_screen(self, x: float, y: float, side: int) -> tuple[float, float]:
        """Where a place in pixels of a square image is on the screen while the whole image is shown."""
        box = self.canvas.bounding_box()
        scale = 0.94 * min(box["width"], box["height"]) / side
        left, top = box["width"] - side * scale, box["height"] - side * scale
        return float(box["x"] + left / 2 + x * scale), float(box["y"] + top / 2 + y * scale)

    def drag(self, start: tuple[float, float], end: tuple[float, float], side: int) -> None:
        self.page.mouse.move(*self.on_screen(*start, side))
        self.page.mouse.down()
        middle = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
        self.page.mouse.move(*self.on_screen(*middle, side))
        self.page.mouse.move(*self.on_screen(*end, side))
        self.page.mouse.up()

    @property
    def gone(self) -> bool:
        return self.page.locator("dialog.stablekp-editor").count() == 0
