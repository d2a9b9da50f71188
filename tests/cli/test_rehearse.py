"""The rehearsal: a first run that judges itself and says how long a full one takes."""

import json
import re

import pytest

from stablekp_core.cli import program

SMALL = "--limit 14 --steps 2 --tokens 40 --keypoints 4 --map-size 32 --occluded-views 0 --batch-size 1"


def test_rehearsal_times_judges_and_shows_itself(tmp_path, capsys):
    out = tmp_path / "rehearsal"
    arguments = f"{SMALL} --selection-views 1 --learning-rate 0.05".split()
    assert program.main(["rehearse", "demo", *arguments, "--output", str(out)]) == 0
    said, shown = capsys.readouterr()
    report = json.loads((out / "report.json").read_text())
    assert report["verdict"] in ("good", "usable", "poor") and report["self_check"]["how"] == "left out"
    assert f"self-check on 4 images that were left out: {report['verdict']}" in said
    steps, after = 500 * report["seconds_per_step"], report["seconds_after_steps"]
    assert steps > 0 and after > 0  # eight rounds are checked on as many images as the result
    assert report["seconds_full_at_most"] == pytest.approx(steps + 9 * after)
    assert {"opening the model", "training", "extracting features", "refining keypoints", "checking the result"} <= set(
        report["seconds"]
    )
    assert "500 steps): at most" in said and "evaluate --dataset cub_001" in said
    assert "a rehearsal without --tokens, --batch-size, --map-size tells how long" in said
    assert "opening the model: 100%" in shown
    page = (out / "index.html").read_text()
    assert len(re.findall(r'<img src="data:image/(?:jpeg|png);base64,', page)) == 3  # two read-outs and the loss
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "which are read" in page
    assert (out / "tokens.safetensors").is_file()


def test_a_rehearsal_without_a_step_is_refused(tmp_path, capsys):
    try:
        code = program.main(["rehearse", "demo", "--steps", "0", "--output", str(tmp_path / "r")])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and "a whole number from 1 up" in capsys.readouterr().err
