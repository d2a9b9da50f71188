"""index.html of the demo: what it made, on one page that opens without a network and can be sent to somebody."""

from __future__ import annotations

import base64
import html
from pathlib import Path

_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
img { max-width: 100%; height: auto; display: block }
figure { margin: 1rem 0 } figcaption { opacity: .75; font-size: .9rem; margin-top: .4rem }
.lead { font-size: 1.15rem }
.pair { display: flex; flex-wrap: wrap; gap: 1rem } .pair > * { flex: 1 1 18rem; margin: 0 }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem 1.5rem .15rem 0; font-weight: normal }
td { font-variant-numeric: tabular-nums } th { opacity: .75 }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8886; border-radius: .3rem }
"""

_GO_ON = """stable-keypoints train MY_IMAGES keypoints.safetensors --model sd15.safetensors
stable-keypoints detect MY_IMAGES --tokens keypoints.safetensors --model sd15.safetensors
stable-keypoints draw MY_IMAGES keypoints.json drawn"""


def demo_page(report: dict, folder: Path) -> str:
    """The page for a report (report.json's fields) and the images that lie in `folder`, which are put into it."""
    kind = html.escape(report["class"])
    loss = folder / "loss.png"
    loss = "<h2>The loss</h2>" + _figure(loss, f"Over {report['steps']} steps.") if loss.is_file() else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Stable Keypoints: what the demo found</title><style>{_STYLE}</style></head><body>
<h1>Keypoints without labels</h1>
<p class="lead">{_summary(report)}</p>
{_figure(folder / "sheet.jpg", "Images that were not trained on. The same number sits on the same part of every one.")}
<h2>One of them in detail</h2>
<div class="pair">{_figure(folder / "overlay.png", "The keypoints found.")}
{_figure(folder / "heatmaps.png", f"Where on the image of the {kind} each keypoint is: the map behind it.")}</div>
{loss}
<h2>In numbers</h2>
{_table(report)}
<h2>Your own images</h2>
<p>The small model of the demo knows these cartoon images only. For photographs, give a Stable Diffusion 1.5
checkpoint:</p>
<pre>{html.escape(_GO_ON)}</pre>
</body></html>
"""


def _summary(report: dict) -> str:
    """What came out, in words."""
    error, mean = report["error_trained"], report["error_mean_baseline"]
    return html.escape(
        f"Ten keypoints were learned from a folder of {report['class']} without labels. The joints of other "
        f"{report['class']}, predicted from them, are {error:.1f} % of the image side off on average; always guessing "
        f"the mean position of each joint is {mean:.1f} % off."
    )


def _table(report: dict) -> str:
    rows = [
        ("error on held-out images", _percent(report["error_trained"])),
        ("the same with tokens before training", _percent(report["error_untrained"])),
        ("always guessing the mean", _percent(report["error_mean_baseline"])),
        ("training", f"{report['steps']} steps, seed {report['seed']}, {report['seconds_train']:.0f} s"),
        ("detection", f"{report['seconds_detect_per_image']:.2f} s an image"),
        ("everything", f"{report['seconds_total']:.0f} s, {report['seconds_processor']:.0f} processor seconds"),
        ("memory at most", f"{report['peak_rss_mb']:.0f} MB" if report["peak_rss_mb"] else ""),
        ("machine", f"{report['device']}, {report['threads']} threads, {report['dtype']}, torch {report['torch']}"),
    ]
    if report["other_class"]:
        other = report["other_class"]
        rows.insert(3, (f"error on {other['class']}, trained likewise", _percent(other["error_trained"])))
    cells = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows if b)
    return f"<table>{cells}</table>"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} % of the image side"


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    source = f"data:{_TYPES[path.suffix]};base64,{data}"
    text = html.escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
