"""What travels on KEYPOINT_BACKBONE: something that can be opened, for the time of one node, as a core
`Backbone`.

A backbone is not itself passed from node to node, because ComfyUI moves, unloads and re-patches models
between them: weights seen by one node may be gone when the next one runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as model_management
import torch

from stablekp_core.errors import KeypointError

from .runtime import plain_tensors

#: Room asked for beside the weights, in bytes per image that is worked on at once (512 px, four captured
#: layers).
WORK_BYTES = 1_500_000_000


class BackboneHandle:
    """Common part: `name` for messages, `open()` for use."""

    name: str

    @contextmanager
    def open(self, batch_size: int = 1) -> Iterator:
        """Yield a `stablekp_core` Backbone on ComfyUI's device; valid inside the `with` only."""
        raise NotImplementedError


class FileBackbone(BackboneHandle):
    """A model that the pack loaded itself; it rests in main memory and visits the device while it is open."""

    def __init__(self, loaded):
        self.name = loaded.name
        self._loaded = loaded

    @contextmanager
    def open(self, batch_size: int = 1) -> Iterator:
        from stablekp_core.backbone.loading import make_backbone

        unet, vae = self._loaded.unet, self._loaded.vae
        device = model_management.get_torch_device()
        if device.type != "cpu":
            model_management.free_memory(_size(unet, vae) + batch_size * WORK_BYTES, device)
        try:
            with plain_tensors():
                unet.to(device)
                vae.to(device)
                backbone = make_backbone(unet, vae, self.name, self._loaded.hash, device, self._loaded.dtype)
            yield backbone
        finally:
            if device.type != "cpu":
                with plain_tensors():
                    unet.to("cpu")
                    vae.to("cpu")
                model_management.soft_empty_cache()


class GraphBackbone(BackboneHandle):
    """The MODEL and VAE of the graph, seen through their own storage: nothing is copied and nothing is
    changed.
    """

    def __init__(self, model, vae, name: str):
        self.name = name
        self._model = _without_dynamic_loading(model)
        self._vae = vae
        self._vae_patcher = _without_dynamic_loading(vae.patcher)

    @contextmanager
    def open(self, batch_size: int = 1) -> Iterator:
        from stablekp_core.backbone.checkpoint import unet_from_ldm, vae_from_ldm, weights_hash
        from stablekp_core.backbone.devices import choose_dtype
        from stablekp_core.backbone.loading import make_backbone

        # Every time anew: loading is what applies LoRAs, and it replaces the parameters an older view
        # would hold.
        model_management.load_models_gpu(
            [self._model, self._vae_patcher], memory_required=batch_size * WORK_BYTES, force_full_load=True
        )
        for patcher, what in ((self._model, "MODEL"), (self._vae_patcher, "VAE")):
            _refuse_partial_load(patcher, what)
        if self._vae_patcher.load_device != self._model.load_device:
            raise KeypointError(
                f"the VAE runs on {self._vae_patcher.load_device} but the MODEL on "
                f"{self._model.load_device}, and both are needed in one place; start ComfyUI without "
                "--cpu-vae, or use Load Keypoint Backbone."
            )
        with plain_tensors():
            unet = unet_from_ldm(_weights(self._model.model.diffusion_model, "MODEL"), share=True)
            vae = vae_from_ldm(_weights(self._vae_patcher.model, "VAE"), share=True)
            device = self._model.load_device
            # Weights in half precision are computed with in bfloat16 where the device has it: gradients of
            # the tokens
            # are so small that they vanish in float16.
            dtype = unet.dtype if unet.dtype == torch.float32 else choose_dtype("auto", device)
            backbone = make_backbone(unet, vae, self.name, weights_hash(unet), device, dtype, shared=True)
        try:
            yield backbone
        finally:
            del backbone, unet, vae


def check_graph_models(model, vae) -> str:
    """Refuse, by name, a MODEL or VAE that the method does not work with; returns a name for the model.

    Looks at the model's kind and tensor shapes only, so a wrong wire is reported before anything is loaded.
    """
    from stablekp_core.backbone.checkpoint import ldm

    network = getattr(model.model, "diffusion_model", None)
    kind = type(getattr(model.model, "model_config", model.model)).__name__
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()} if network is not None else {}
    problem = ldm.unsupported_unet(shapes)
    if problem:
        raise KeypointError(
            f"the MODEL is {problem} (ComfyUI calls it {kind}), but keypoints are found with Stable "
            "Diffusion 1.4 or 1.5; connect a MODEL of that kind."
        )
    coder = getattr(vae, "first_stage_model", None)
    names = coder.state_dict() if coder is not None else {}
    wanted = ("encoder.down.0.block.0.conv2.weight", "encoder.conv_out.weight", "quant_conv.weight")
    if any(key not in names for key in wanted) or names["encoder.conv_out.weight"].shape[0] != 8:
        raise KeypointError(
            f"the VAE ({type(coder).__name__}) is not one of Stable Diffusion 1.5, which the method "
            "needs; connect the VAE that belongs to the MODEL's checkpoint."
        )
    return f"MODEL ({kind})"


def _without_dynamic_loading(patcher):
    """The same model under a patcher that can hold all weights on the device at once.

    Newer versions of ComfyUI bring weights to the card layer by layer while their own code runs; a view of
    them from outside would find them elsewhere.
    """
    is_dynamic = getattr(patcher, "is_dynamic", None)
    if is_dynamic is None or not is_dynamic():
        return patcher
    try:
        return patcher.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise KeypointError(
            "this MODEL or VAE is loaded piece by piece (dynamic VRAM) and cannot be loaded whole; "
            "start ComfyUI with --disable-dynamic-vram, or use Load Keypoint Backbone."
        ) from error


def _refuse_partial_load(patcher, what: str) -> None:
    """With part of the weights elsewhere, or patches pending in low-VRAM functions, results would be
    wrong.
    """
    network = patcher.model
    pending = any(
        getattr(part, "weight_function", None) or getattr(part, "bias_function", None) for part in network.modules()
    )
    device = patcher.load_device
    elsewhere = any(weight.device != device for weight in network.parameters())
    if getattr(network, "model_lowvram", False) or pending or elsewhere:
        raise KeypointError(
            f"the {what} does not fit on {device} as a whole, and a part of it gives wrong keypoints; "
            "free memory (a smaller batch, fewer models, no --lowvram or --novram) or run on the CPU."
        )


def _weights(network: torch.nn.Module, what: str) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    for key, value in state.items():
        if value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise KeypointError(
                f"the {what}'s weights are stored as {value.dtype} ({key}), which cannot be trained "
                "through; load the checkpoint with a weight dtype of fp16, bf16 or fp32."
            )
    return state


def _size(*modules: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
