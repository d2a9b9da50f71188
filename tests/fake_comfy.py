"""The few parts of ComfyUI that the nodes import, so that what they translate can be tested without ComfyUI.

Only shapes of calls are imitated, never results: a real ComfyUI runs the same nodes in tests/comfyui.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PACK = "stable_keypoints_pack"
#: A list whose choices bring inputs of their own.
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


class Cancelled(BaseException):
    """ComfyUI's InterruptProcessingException, with the base class it has since 0.20."""


class _Socket:
    def __init__(self, io_type: str, id: str | None = None, **options):
        self.io_type, self.id, self.options = io_type, id, options
        self.optional = bool(options.get("optional"))
        self.tooltip = options.get("tooltip")

    @property
    def is_widget(self) -> bool:
        kinds = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC)
        return self.io_type in kinds and not self.options.get("force_input")

    @property
    def default(self):
        """The value of a widget that nobody has touched."""
        return self.options["options"][0].key if self.io_type == DYNAMIC else self.options.get("default")


@dataclass
class _Option:
    """A choice of a dynamic list, and the inputs that it brings."""

    key: str
    inputs: list


def live_inputs(inputs: list[_Socket], values: dict) -> dict[str, _Socket]:
    """The inputs that the page shows for these values of widgets, in its order: required ones first, and what a
    choice brings after it, named `choice.input`."""
    out = {}
    for one in sorted(inputs, key=lambda i: i.optional):
        out[one.id] = one
        if one.io_type == DYNAMIC:
            chosen = values.get(one.id, one.default)
            brought = next(option.inputs for option in one.options["options"] if option.key == chosen)
            out |= {f"{one.id}.{i.id}": i for i in brought}
    return out


def all_inputs(inputs: list[_Socket]) -> dict[str, _Socket]:
    """All inputs that a page may show, those of every choice among them."""
    out = {}
    for one in inputs:
        for option in one.options["options"] if one.io_type == DYNAMIC else [None]:
            out |= live_inputs([one], {one.id: option.key} if option else {})
    return out


def _custom(io_type: str) -> type:
    def make(id=None, **options):
        return _Socket(io_type, id, **options)

    return type(io_type.title(), (), {"io_type": io_type, "Input": staticmethod(make), "Output": staticmethod(make)})


@dataclass
class Schema:
    """The fields of 0.8.0, no more: a node that needs a newer one would fail here."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    hidden: list = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui = args, ui

    def __getitem__(self, index):
        return self.args[index]


class ProgressBar:
    """Keeps what was reported, newest last, in `ProgressBar.calls`."""

    calls: list[tuple] = []

    def __init__(self, total, node_id=None):
        self.total = total

    def update_absolute(self, value, total=None, preview=None):
        ProgressBar.calls.append((value, total, preview))


class Page:
    """Keeps what was told to the page: texts on nodes, and events."""

    def __init__(self):
        self.texts, self.events = [], []

    def send_progress_text(self, text, node_id, sid=None):
        self.texts.append((node_id, text))

    def send_sync(self, event, data, sid=None):
        self.events.append((event, data))


class ModelPatcher:
    """A model under ComfyUI's management."""

    def __init__(self, model, load_device, offload_device):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device


def page() -> Page:
    return sys.modules["server"].PromptServer.instance


class _Preview:
    def __init__(self, value, cls=None, **_):
        self.value = value


def _module(name: str, **members) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(members)
    sys.modules[name] = module
    return module


def _folder_paths(base: Path) -> types.ModuleType:
    known = {name: [str(base / "models" / name)] for name in ("checkpoints", "diffusers")}

    def get_filename_list(kind):
        found = {str(p.relative_to(d)) for d in known[kind] for p in Path(d).rglob("*") if p.is_file()}
        return sorted(found)

    def get_full_path(kind, name):
        return next((str(Path(d) / name) for d in known[kind] if (Path(d) / name).is_file()), None)

    def get_input_subfolders():
        root = base / "input"
        return [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_dir()]

    return _module(
        "folder_paths",
        models_dir=str(base / "models"),
        known=known,
        add_model_folder_path=lambda kind, path, is_default=False: known.setdefault(kind, []).append(path),
        get_folder_paths=lambda kind: known[kind],
        get_filename_list=get_filename_list,
        get_full_path=get_full_path,
        get_full_path_or_raise=get_full_path,
        get_input_subfolders=get_input_subfolders,
        get_input_directory=lambda: str(base / "input"),
        get_output_directory=lambda: str(base / "output"),
        get_user_directory=lambda: str(base / "user"),
        get_temp_directory=lambda: str(base / "temp"),
    )


def install(base: Path) -> types.ModuleType:
    """Put the imitation and the pack into `sys.modules`; `base` holds models/, input/ and output/.
    Returns the pack.
    """
    for folder in ("models/checkpoints", "models/diffusers", "input", "output"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    sockets = {
        name: _custom(kind)
        for name, kind in (
            ("Image", "IMAGE"),
            ("Mask", "MASK"),
            ("Model", "MODEL"),
            ("Vae", "VAE"),
            ("String", "STRING"),
            ("Boolean", "BOOLEAN"),
            ("Int", "INT"),
            ("Float", "FLOAT"),
            ("Combo", "COMBO"),
            ("Video", "VIDEO"),
        )
    }
    sockets["DynamicCombo"] = _custom(DYNAMIC)
    sockets["DynamicCombo"].Option = _Option
    io = types.SimpleNamespace(
        Schema=Schema, NodeOutput=NodeOutput, ComfyNode=type("ComfyNode", (), {}), Custom=_custom, **sockets
    )
    ui = types.SimpleNamespace(PreviewText=_Preview, PreviewImage=_Preview)
    _module("comfy_api")
    _module("comfy_api.latest", io=io, ui=ui, ComfyExtension=type("ComfyExtension", (), {}))
    management = _module(
        "comfy.model_management",
        get_torch_device=lambda: torch.device("cpu"),
        free_memory=lambda *a, **k: None,
        intermediate_device=lambda: torch.device("cpu"),
        soft_empty_cache=lambda: None,
        throw_exception_if_processing_interrupted=lambda: None,
        load_models_gpu=lambda *a, **k: None,
    )
    _module("comfy.patcher_extension", WrappersMP=types.SimpleNamespace(OUTER_SAMPLE="outer_sample"))
    patcher = _module("comfy.model_patcher", ModelPatcher=ModelPatcher)
    utils = _module("comfy.utils", ProgressBar=ProgressBar)
    context = types.SimpleNamespace(node_id="7")
    _module("comfy_execution")
    _module("comfy_execution.graph_utils", ExecutionBlocker=_Preview)
    _module("comfy_execution.utils", get_executing_context=lambda: context)
    _module("server", PromptServer=types.SimpleNamespace(instance=Page()))
    _module("comfy", model_management=management, model_patcher=patcher, utils=utils)
    _folder_paths(base)
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = pack
    spec.loader.exec_module(pack)
    pack.nodes = sys.modules[f"{PACK}.nodes"]
    pack.nodes.folders.register_folders()
    return pack


def remove() -> None:
    """Take out of `sys.modules` all that `install` put in."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("comfy", "comfy_api", "comfy_execution", "server", "folder_paths", PACK):
            del sys.modules[name]
