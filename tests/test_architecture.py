"""The rules of the house, read from the imports: arrows between packages point one way, and no module is too long."""

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "stablekp_core"
#: From the bottom up; a package may import those before it and itself. Those of one line do not know each other.
FLOORS = (
    {"errors"},
    {"files", "randomness", "progress"},
    {"config"},
    {"drawing", "synthetic"},
    {"keypoints"},
    {"backbone"},
    {"attention"},
    {"images"},
    {"selection"},
    {"training", "detection"},
    {"pose"},
    {"video", "controlnet", "guidance", "scale"},
    {"evaluation"},
    {"cli"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = sorted(path for path in CORE.rglob("*.py") if path.parent != CORE or path.stem in FLOOR)


def imports(path: Path, typing_too: bool) -> set[str]:
    """The modules of the core that a file imports, at its top or inside functions, as dotted names below the core."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            typing_only |= {id(child) for child in ast.walk(node)}
    here, found = path.relative_to(CORE).with_suffix("").parts, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and (typing_too or id(node) not in typing_only):
            base = (*here[: len(here) - node.level], *(node.module.split(".") if node.module else ()))
            found |= {".".join((*base, alias.name)) for alias in node.names} if not node.module else {".".join(base)}
            found |= {
                ".".join((*base, alias.name))
                for alias in node.names
                if (CORE.joinpath(*base) / f"{alias.name}.py").is_file()
            }
        assert not (
            isinstance(node, ast.ImportFrom) and not node.level and str(node.module).startswith("stablekp_core")
        )
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(CORE)))
def test_imports_point_down(path):
    package = path.relative_to(CORE).with_suffix("").parts[0]
    for name in imports(path, typing_too=True):
        other = name.split(".")[0]
        if other in FLOOR and other != package:
            assert FLOOR[other] < FLOOR[package], f"{path.relative_to(CORE)} imports {name}"


def test_no_circle_within_a_package():
    graph = {
        ".".join(path.relative_to(CORE).with_suffix("").parts): imports(path, typing_too=False) for path in MODULES
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_detour_by_a_module_level_getattr():
    for path in MODULES:
        names = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")}
        assert "__getattr__" not in names, path


def test_the_core_has_few_modules_of_its_own_and_none_is_long():
    assert len(list(CORE.glob("*.py"))) <= 8
    long = {str(p.relative_to(CORE)): n for p in CORE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 300}
    assert not long
    nodes = CORE.parent / "nodes"
    assert not [p for p in nodes.rglob("*.py") if len(p.read_text().splitlines()) > 300]


def test_each_package_says_what_goes_in_and_what_comes_out():
    for init in CORE.glob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        assert "Out:" in text or "in and out:" in text.lower(), init
