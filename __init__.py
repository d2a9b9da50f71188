"""Stable Keypoints for ComfyUI: this folder, put under ComfyUI's `custom_nodes`, is the node pack.

Outside ComfyUI (a test run, an import by accident) the module is empty and harmless.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent


def _provide_core() -> None:
    """Make `stablekp_core` importable as the copy that lies beside this file.

    Only that one package is made known: putting the folder on `sys.path` would also offer `nodes`, `tests`
    and `web` to every other node pack.
    """
    if "stablekp_core" in sys.modules:
        return
    folder = _ROOT / "stablekp_core"
    spec = importlib.util.spec_from_file_location(
        "stablekp_core", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["stablekp_core"] = module
    spec.loader.exec_module(module)


def _inside_comfyui() -> bool:
    if importlib.util.find_spec("comfy_api") is None:
        return False
    if importlib.util.find_spec("comfy_api.latest") is None:
        logging.error("[Stable Keypoints] this ComfyUI is too old for the pack; ComfyUI 0.8.0 or newer is needed.")
        return False
    return True


if __package__ and _inside_comfyui():
    _provide_core()
    from .nodes import comfy_entrypoint  # noqa: F401  (ComfyUI looks it up here)

    WEB_DIRECTORY = "./web"
