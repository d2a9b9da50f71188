"""The demo command, with a model of random weights in place of the one that ships."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from tiny_models import CONFIG, make_unet, make_vae

from stablekp_core.backbone.backbone import Backbone
from stablekp_core.cli import demo_run as demo
from stablekp_core.cli import main

SMALL = dict(keypoints=3, candidates=5, tokens=12, map_size=16, selection_images=2, refine_images=4, occluded_views=1)
FIELDS = {
    "class error_trained error_untrained error_mean_baseline steps seed seconds_train seconds_detect_per_image "
    "other_class seconds_total peak_rss_mb device dtype torch threads"
}


@pytest.fixture
def small(monkeypatch):
    """The demo with a tiny model and few tokens."""
    monkeypatch.setattr(demo, "load_backbone", lambda name: Backbone(make_unet(), make_vae(), name, "0123abcd"))
    monkeypatch.setattr(demo, "QUICK", 6)
    monkeypatch.setattr(demo, "VIEWS", 0)
    monkeypatch.setattr(demo, "SETTINGS", {**SMALL, "image_size": CONFIG.image_size})


class Page(HTMLParser):
    """What a page shows: text, images, and whatever would be fetched from elsewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.images, self.text, self.opened, self.elsewhere = [], "", [], re.findall(r"https?:|@import|url\(", text)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.opened.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.elsewhere += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_demo_shows_what_it_made_on_one_page_that_needs_no_network(small, tmp_path, capsys):
    out = tmp_path / "вывод here"
    assert main(["demo", "--quick", "--steps", "3", "--output", str(out)]) == 0
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert set(" ".join(FIELDS).split()) <= set(report)
    assert report["error_untrained"] is None and report["other_class"] is None  # not measured
    assert report["error_trained"] > 0 and 12 < report["error_mean_baseline"] < 25 and report["steps"] == 3
    said, bars = capsys.readouterr()
    for name in ("sheet.jpg", "index.html"):
        assert str(out.resolve() / name) in said and (out / name).stat().st_size > 1000
    assert re.search(r"keypoints are found within \d+\.\d\d % of the image side", said)
    for phase in ("training", "extracting features", "choosing keypoints", "refining keypoints", "detecting"):
        assert f"dolls: {phase}: 100%" in bars, phase
    page = Page((out / "index.html").read_text("utf-8"))
    assert not page.elsewhere and not page.opened
    assert len(page.images) == 4 and all(image["alt"] for image in page.images)
    assert f"{report['error_trained']:.1f} % of the image side off on average; always guessing" in page.text


def test_compare_measures_untrained_tokens_and_the_second_class(small, tmp_path, capsys):
    assert main(["demo", "--quick", "--steps", "0", "--compare", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["error_untrained"] > 0 and report["other_class"]["class"] == "faces"
    assert report["other_class"]["error_untrained"] > 0 and (tmp_path / "faces_sheet.jpg").is_file()
    page = Page((tmp_path / "index.html").read_text("utf-8"))
    assert len(page.images) == 3  # no steps, no loss
    assert "error on faces" in page.text and "before training" in page.text
    assert capsys.readouterr().out.count("before training") == 2
