"""What other systems lack or do otherwise: modules of POSIX, the console's encoding, paths, releases of Python."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stablekp_core.cli import demo_run as demo
from stablekp_core.cli import main
from stablekp_core.keypoints.keypoints import Keypoints

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("stablekp_core", "nodes") for path in sorted((ROOT / folder).rglob("*.py"))]
POSIX_ONLY = ("resource", "fcntl", "pwd", "grp", "termios")

_IMPORT_ALL = f"""
import importlib, sys
for name in {POSIX_ONLY}:
    sys.modules[name] = None  # importing it raises ImportError
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def test_every_module_is_imported_without_the_modules_of_posix():
    modules = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "stablekp_core" and parts[-1] not in ("__main__", "triton_kernels"):
            modules.append(".".join(parts).removesuffix(".__init__"))
    assert len(modules) > 80
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, module) of every import of a parsed file, but for those that a handler of ImportError is there for."""
    minded = {
        id(node)
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        and any("ImportError" in ast.dump(handler.type) for handler in attempt.handlers if handler.type is not None)
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) not in minded and isinstance(node, ast.Import):
            found += [(node.lineno, item.name) for item in node.names]
        elif id(node) not in minded and isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node.lineno, node.module))
    return found


def test_modules_of_posix_are_imported_only_where_their_absence_is_minded():
    """Nodes cannot be imported without ComfyUI, and imports within functions are not seen by importing."""
    for path in SOURCES:
        for line, module in imported(ast.parse(path.read_text(encoding="utf-8"))):
            assert module not in POSIX_ONLY, f"{path}:{line}"
    assert imported(ast.parse("def f():\n import resource")) == [(2, "resource")]
    assert not imported(ast.parse("try:\n import resource\nexcept ImportError:\n pass"))


def drawn_folder(tmp_path: Path) -> tuple[Path, Path]:
    """A folder and a COCO file of an image, with blanks, letters that no Western console knows, and an emoji."""
    folder = tmp_path / "my каштаны 猫" / "a b"
    folder.mkdir(parents=True)
    name = "löwe № 1 猫🙂.png"
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(folder / name)
    points = Keypoints(
        xy=np.array([[[5.0, 6.0], [20.0, 10.0]]], np.float32),
        confidence=np.ones((1, 2), np.float32),
        sizes=np.array([[30, 20]]),
        names=("нос", "耳"),
        images=(name,),
    )
    path = folder.parent / "keypoints.json"
    path.write_bytes(points.to_json().encode())
    return folder, path


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp932", "utf-8"])
def test_commands_run_on_a_console_of_any_encoding(tmp_path, encoding):
    folder, points = drawn_folder(tmp_path)
    out = tmp_path / "вывод"
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "stablekp_core"]
    done = subprocess.run([*command, "draw", folder, points, out], cwd=ROOT, env=env, capture_output=True)
    said = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert done.returncode == 0 and "Traceback" not in said, said
    assert [path.name for path in out.iterdir()] == ["löwe № 1 猫🙂.png"]
    assert "1 images: " in said and "drawing: 100%" in said
    assert ("вывод" in said) == (encoding in ("utf-8", "cp932")) and ("\\u0432" in said) == ("вывод" not in said)
    done = subprocess.run([*command, "draw", folder, folder / "нет.json", out], cwd=ROOT, env=env, capture_output=True)
    assert done.returncode == 1 and b"Traceback" not in done.stderr and done.stderr.count(b"\n") == 1


def test_memory_is_told_where_there_is_no_resource_module(monkeypatch):
    assert 50 < demo.peak_rss_mb() < 100_000

    class Process:  # as psutil has it on Windows
        def memory_info(self):
            return type("Info", (), {"peak_wset": 3 << 20})()

    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setitem(sys.modules, "psutil", type("psutil", (), {"Process": Process}))
    assert demo.peak_rss_mb() == 3
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert demo.peak_rss_mb() is None


def test_without_torch_a_sentence_says_what_to_install(monkeypatch, capsys, tmp_path):
    code = "import sys; sys.modules['torch'] = None; from stablekp_core.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "demo", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "PyTorch is not installed; install it with" in done.stderr


def test_the_installed_command_is_there():
    (line,) = [
        x for x in (ROOT / "pyproject.toml").read_text("utf-8").splitlines() if x.startswith("stable-keypoints =")
    ]
    module, function = line.split('"')[1].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_what_is_installed_is_told_in_one_way():
    """requirements.txt, which ComfyUI installs, and pyproject.toml, which pip does."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = ast.literal_eval(project.split("\ndependencies = ")[1].split("\n]")[0] + "]")
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert listed == [line for line in lines if line and not line.startswith("#")]
    assert not any(re.match(r"torch\b", item) for item in listed)


def test_help_is_shown_on_a_console_that_cannot_write_all_of_it(monkeypatch, capsys):
    for command in ("train", "demo"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0 and capsys.readouterr().out.isascii()
