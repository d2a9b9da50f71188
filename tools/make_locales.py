"""Writes locales/en/nodeDefs.json from the schemas of the nodes.

    python tools/make_locales.py

Other languages are translated by hand; tests say which entries they lack.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import fake_comfy


def node_definitions(schemas) -> dict:
    """Names and tooltips of the schemas, in the layout of ComfyUI's nodeDefs.json."""
    return {
        schema.node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {i.id: {"name": i.id, "tooltip": i.tooltip} for i in schema.inputs},
            "outputs": {
                str(n): {"name": o.options["display_name"], "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)
            },
        }
        for schema in schemas
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as base:
        pack = fake_comfy.install(Path(base))
        text = json.dumps(
            node_definitions([node.define_schema() for node in pack.nodes.NODES]),
            indent=2,
            ensure_ascii=False,
        )
    path = ROOT / "locales" / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
