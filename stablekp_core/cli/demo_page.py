"""index.html of the demo: what it made, on one page that opens without a network and can be sent to somebody."""

from __future__ import annotations

import html
from pathlib import Path

from .page import figure, page, table

_GO_ON = """stable-keypoints train MY_IMAGES keypoints.safetensors --model sd15.safetensors
stable-keypoints detect MY_IMAGES --tokens keypoints.safetensors --model sd15.safetensors
stable-keypoints draw MY_IMAGES keypoints.json drawn"""


def demo_page(report: dict, folder: Path) -> str:
    """The page for a report (report.json's fields) and the images that lie in `folder`, which are put into it."""
    kind = html.escape(report["class"])
    loss = folder / "loss.png"
    loss = "<h2>The loss</h2>" + figure(loss, f"Over {report['steps']} steps.") if loss.is_file() else ""
    body = f"""<h1>Keypoints without labels</h1>
<p class="lead">{_summary(report)}</p>
{figure(folder / "sheet.jpg", "Images that were not trained on. The same number sits on the same part of every one.")}
<h2>One of them in detail</h2>
<div class="pair">{figure(folder / "overlay.png", "The keypoints found.")}
{figure(folder / "heatmaps.png", f"Where on the image of the {kind} each keypoint is: the map behind it.")}</div>
{loss}
<h2>In numbers</h2>
{table(_rows(report))}
<h2>Your own images</h2>
<p>The small model of the demo knows these cartoon images only. For photographs, give a Stable Diffusion 1.5
checkpoint:</p>
<pre>{html.escape(_GO_ON)}</pre>"""
    return page("Stable Keypoints: what the demo found", body)


def _summary(report: dict) -> str:
    """What came out, in words."""
    error, mean = report["error_trained"], report["error_mean_baseline"]
    return html.escape(
        f"Ten keypoints were learned from a folder of {report['class']} without labels. The joints of other "
        f"{report['class']}, predicted from them, are {error:.1f} % of the image side off on average; always guessing "
        f"the mean position of each joint is {mean:.1f} % off."
    )


def _rows(report: dict) -> list[tuple[str, str]]:
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
    return rows


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} % of the image side"
