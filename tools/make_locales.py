"""Writes locales/en/nodeDefs.json from the schemas of the nodes, and the Chinese help pages from the Chinese locale.

    python tools/make_locales.py

Other languages are translated by hand, in locales; tests say which entries they lack.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import fake_comfy


def locale_key(name: str) -> str:
    """Under what the page looks up an input; what a choice brings is named `choice.input`."""
    return name.replace(".", "_")


def node_definitions(schemas) -> dict:
    """Names and tooltips of the schemas, in the layout of ComfyUI's nodeDefs.json."""
    return {
        schema.node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {
                locale_key(name): {"name": i.id, "tooltip": i.tooltip}
                for name, i in fake_comfy.all_inputs(schema.inputs).items()
            },
            "outputs": {
                str(n): {"name": o.options["display_name"], "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)
            },
        }
        for schema in schemas
    }


def help_page(entry: dict, names: list[str], of: str, inputs: str, outputs: str, meaning: str) -> str:
    """A help page in Markdown from a node's entry in a locale and the names of its inputs; the other words are the
    headings of its tables."""

    def table(heading: str, rows: dict) -> str:
        lines = [f"| **{row['name']}** (`{key}`) | {_cell(row['tooltip'])} |" for key, row in rows.items()]
        return "\n".join([f"| {heading} | {meaning} |", "|---|---|", *lines])

    named = {name: entry["inputs"][locale_key(name)] for name in names}
    parts = [f"# {entry['display_name']}", entry["description"], table(inputs, named)]
    if entry["outputs"]:
        named = {f"{of} {number}": row for number, row in entry["outputs"].items()}
        parts.append(table(outputs, named))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        pack = fake_comfy.install(Path(base))
        schemas = [node.define_schema() for node in pack.nodes.NODES]
        text = json.dumps(node_definitions(schemas), indent=2, ensure_ascii=False)
        names = {schema.node_id: list(fake_comfy.all_inputs(schema.inputs)) for schema in schemas}
    path = ROOT / "locales" / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    for node_id, entry in chinese.items():
        page = ROOT / "web" / "docs" / node_id / "zh.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(help_page(entry, names[node_id], "输出", "输入", "输出", "说明"), encoding="utf-8")


if __name__ == "__main__":
    main()
