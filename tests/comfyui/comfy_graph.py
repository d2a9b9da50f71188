"""Workflow files of the web UI, read without the web UI: checks against schemas, and the form the HTTP
API takes.
"""

from __future__ import annotations

from typing import Any

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
#: A choice that brings inputs of its own, whose names in a prompt are `choice.input`.
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
#: Nodes that only exist in the browser.
FRONTEND_ONLY = ("Note", "MarkdownNote", "Reroute", "PrimitiveNode")
#: The browser adds a widget behind these, for what happens to the number after a run.
_SEED_NAMES = ("seed", "noise_seed")
_AFTER_RUN = ("fixed", "increment", "decrement", "randomize")


def is_widget(spec: list) -> bool:
    """Whether an input of /object_info is a value on the node (an INT, a list to choose from, …), not a
    socket.
    """
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    return (isinstance(kind, list) or kind in (*WIDGETS, DYNAMIC)) and not options.get("forceInput")


def inputs_of(info: dict[str, Any]) -> dict[str, list]:
    """All inputs of a node in the browser's order: required ones first."""
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Widget name -> value, from the positional `widgets_values` of a workflow file."""
    values, result = list(node.get("widgets_values") or []), {}
    waiting = list(inputs_of(info).items())
    while waiting:
        name, spec = waiting.pop(0)
        if not is_widget(spec):
            continue
        options = spec[1] if len(spec) > 1 else {}
        if not values:
            # A widget that a newer version of ComfyUI has added to a node of its own: the browser takes
            # the default.
            if node["type"].startswith("StableKP") or not {"default", "options"} & set(options):
                raise ValueError(f"{node['type']} {node['id']} has no value for {name}")
            if spec[0] == DYNAMIC:
                result[name] = options["options"][0]["key"]
                waiting[:0] = _inner(name, result[name], options)
            continue
        result[name] = values.pop(0)
        if spec[0] == DYNAMIC:
            waiting[:0] = _inner(name, result[name], options)
        if options.get("control_after_generate", name in _SEED_NAMES) and values and values[0] in _AFTER_RUN:
            values.pop(0)
        if any(options.get(key) for key in ("image_upload", "video_upload")) and values:
            values.pop(0)  # the upload button
    if values:
        raise ValueError(f"{node['type']} {node['id']} has {len(values)} values too many: {values}")
    return result


def _inner(name: str, choice: str, options: dict[str, Any]) -> list[tuple[str, list]]:
    """Inputs that a choice of a dynamic list brings."""
    chosen = next(option for option in options["options"] if option["key"] == choice)
    return [(f"{name}.{key}", spec) for key, spec in inputs_of({"input": chosen["inputs"]}).items()]


def to_api(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """A workflow file as the prompt that `POST /prompt` takes. Muted and browser-only nodes are left out."""
    links = {link[0]: (str(link[1]), link[2]) for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY or node.get("mode", 0) != 0:
            continue
        info = object_info[node["type"]]
        inputs: dict[str, Any] = dict(widget_values(node, info))
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                inputs[socket["name"]] = list(links[socket["link"]])
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
