"""The documents keep their promises: links lead somewhere, examples import what exists, command lines parse."""

import ast
import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pytest

from stablekp_core.cli.program import build_parser

ROOT = Path(__file__).parents[1]
OUR_OWN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL = [*OUR_OWN, *sorted((ROOT / "web" / "docs").rglob("*.md"))]
DIARY = ROOT / "docs" / "experiments"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\\.)+)\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def _anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", _prose(path), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def _links(path: Path) -> list[tuple[str, str]]:
    return [(text, link or image) for text, link, image in LINK.findall(_prose(path))]


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_relative_links_and_anchors_exist(path):
    for _, link in _links(path):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{_id(path)} links to {link}"
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file), f"{_id(path)} links to {link}"


def test_every_equation_is_linked_to_code_that_exists():
    page = ROOT / "docs" / "how-it-works.md"
    assert {int(n) for n in re.findall(r"\\qquad \((\d+)\)", _prose(page))} == set(range(1, 12))
    linked = [
        (text, link) for text, link in _links(page) if re.fullmatch(r"`[\w.]+(?<!\.py)`", text) and link.endswith(".py")
    ]
    assert len(linked) > 30
    for text, link in linked:
        tree = ast.parse((page.parent / link).read_text(encoding="utf-8"))
        defined = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        assert set(text.strip("`").split(".")) <= defined, f"{text} is not in {link}"


def _code(language: str) -> list:
    """(page and number, text) of all blocks of a language."""
    found = [(path, n, b) for path in OUR_OWN for n, b in enumerate(FENCE.findall(path.read_text(encoding="utf-8")))]
    return [pytest.param(text, id=f"{_id(path)}-{n}") for path, n, (kind, text) in found if kind == language]


@pytest.mark.parametrize("text", _code("python"))
def test_python_examples_import_what_exists(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "stablekp_core":
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_python_examples_use_attributes_that_exist():
    from stablekp_core import Backbone, ImageSet, KeypointDetector, Keypoints, KeypointTokens
    from stablekp_core.detection.detector import Detection
    from stablekp_core.training.train import StepInfo, TrainResult

    kinds = {"keypoints": [Keypoints], "found": [Keypoints], "tokens": [KeypointTokens], "info": [StepInfo]}
    kinds |= {"detector": [KeypointDetector], "backbone": [Backbone], "birds": [ImageSet], "images": [ImageSet]}
    kinds |= {"result": [Detection, TrainResult]}
    instance = {"names", "skipped", "tokens"}  # set on instances that are no dataclasses
    seen = 0
    for param in _code("python"):
        for node in ast.walk(ast.parse(param.values[0])):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in kinds:
                known = {
                    name
                    for kind in kinds[node.value.id]
                    for name in [*dir(kind), *kind.__dict__.get("__annotations__", {})]
                }
                assert node.attr in known | instance, f"{param.id}: {ast.unparse(node)}"
                seen += 1
    assert seen > 30


def _lines(text: str) -> list[str]:
    """The command lines of a block, continued ones as one."""
    return re.sub(r"\\\n\s*", " ", text).splitlines()


@pytest.mark.parametrize("text", _code(""))
def test_command_lines_parse_and_scripts_exist(text, capsys):
    for line in _lines(text):
        words = (
            shlex.split(line, comments=True)
            if re.match(r"\s*(\S*python3?|stable-keypoints|\S+run|accel)", line)
            else []
        )
        if words and words[0].endswith("python") and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), line
        ours = words[1:] if words[:1] == ["stable-keypoints"] else words
        if "stablekp_core" in ours:
            ours = ours[ours.index("stablekp_core") + 1 :]
        elif words[:1] != ["stable-keypoints"]:
            continue
        try:
            build_parser().parse_args(ours)
        except SystemExit as end:
            assert end.code == 0, f"{line}\n{capsys.readouterr().err}"


def test_the_command_lines_of_every_command_are_shown():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    (commands,) = (a.choices for a in build_parser()._actions if a.dest == "command")
    missing = [name for name in commands if not re.search(rf"^stable-keypoints {name}\b", text, re.MULTILINE)]
    assert not missing


def test_options_and_settings_in_the_text_exist():
    from stablekp_core.config import DetectConfig, TrainConfig

    (commands,) = (a.choices for a in build_parser()._actions if a.dest == "command")
    options = {o for command in commands.values() for a in command._actions for o in a.option_strings}
    for name in ("README.md", "docs/cli.md", "docs/how-it-works.md", "docs/evaluation.md", "docs/python.md"):
        used = re.findall(r"`(--[a-z-]+)", _prose(ROOT / name))
        assert set(used) <= options, f"{name}: {set(used) - options}"
    page = re.sub(r"\[[^\]]*\]\([^)]*\)", "", _prose(ROOT / "docs" / "how-it-works.md"))
    settings = {f.name for kind in (TrainConfig, DetectConfig) for f in fields(kind)}
    used = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:=\w+)?`", page))
    assert len(used) > 5
    assert used <= settings, used - settings


def test_results_have_no_history():
    assert len((ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", [p for p in OUR_OWN if DIARY not in p.parents], ids=_id)
def test_the_words_of_the_field(path):
    """Words and options that went (CONTRIBUTING.md); names in code spans and in links are not prose."""
    prose = re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", _prose(path))
    old = re.findall(r"(?i)\b(pictures?|peers|partners|flip.symmetry|noise.draws?)\b", prose)
    assert not old
