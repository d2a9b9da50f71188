"""What travels on STABLEKP_BACKBONE: something that can be opened, for the time of one node, as a core
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

    def beside(self, model) -> list:
        """Patchers of what has to be on the device beside a MODEL that is sampled, so that `seen` works meanwhile."""
        raise NotImplementedError

    def seen(self):
        """A `stablekp_core` Backbone of the weights as they lie on the device now; loads nothing. Stale as soon as
        ComfyUI moves or patches them.
        """
        raise NotImplementedError


class FileBackbone(BackboneHandle):
    """A model that the pack loaded itself. ComfyUI brings it to the device and takes it away again when it needs the
    memory, as it does with its own models.
    """

    def __init__(self, loaded):
        import comfy.model_patcher

        self.name = loaded.name
        self._loaded = loaded
        # Not the patcher that brings weights layer by layer: those would have to be modules of ComfyUI's own.
        self._patcher = comfy.model_patcher.ModelPatcher(
            KeypointBackboneModel(loaded.unet, loaded.vae), model_management.get_torch_device(), torch.device("cpu")
        )

    @contextmanager
    def open(self, batch_size: int = 1) -> Iterator:
        with plain_tensors():
            _load([self._patcher], batch_size)
        yield self.seen()

    def beside(self, model) -> list:
        return [self._patcher]

    def seen(self):
        from stablekp_core.backbone.ldm_conversion import without_inference_tensors
        from stablekp_core.backbone.loading import make_backbone

        unet, vae, device = self._loaded.unet, self._loaded.vae, self._patcher.load_device
        _refuse_partial_load(self._patcher, "model")
        with plain_tensors():
            for part in (unet, vae):  # ComfyUI may have moved some in inference mode
                without_inference_tensors(part)
            return make_backbone(unet, vae, self.name, self._loaded.hash, device, self._loaded.dtype)


class KeypointBackboneModel(torch.nn.Module):
    """Both networks as the one model that ComfyUI manages; `device` is where it says that they are."""

    def __init__(self, unet: torch.nn.Module, vae: torch.nn.Module):
        super().__init__()
        self.unet, self.vae, self.device = unet, vae, None


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
        # Every time anew: loading is what applies LoRAs, and it replaces the parameters an older view
        # would hold.
        _load([self._model, self._vae_patcher], batch_size)
        _refuse_partial_load(self._vae_patcher, "VAE")
        if self._vae_patcher.load_device != self._model.load_device:
            raise KeypointError(
                f"the VAE runs on {self._vae_patcher.load_device} but the MODEL on "
                f"{self._model.load_device}, and both are needed in one place; start ComfyUI without "
                "--cpu-vae, or use Load Keypoint Backbone."
            )
        backbone = self.seen()
        try:
            yield backbone
        finally:
            del backbone

    def beside(self, model) -> list:
        return [] if model.model is self._model.model else [self._model]

    def seen(self):
        from stablekp_core.backbone.checkpoint import weights_hash
        from stablekp_core.backbone.devices import choose_dtype
        from stablekp_core.backbone.ldm_conversion import unet_from_ldm, vae_from_ldm
        from stablekp_core.backbone.loading import make_backbone

        _refuse_partial_load(self._model, "MODEL")
        with plain_tensors():
            unet = unet_from_ldm(_weights(self._model.model.diffusion_model, "MODEL"), share=True)
            vae = vae_from_ldm(_weights(self._vae_patcher.model, "VAE"), share=True)
            device = self._model.load_device
            # Weights in half precision are computed with in bfloat16 where the device has it: gradients of
            # the tokens
            # are so small that they vanish in float16.
            dtype = unet.dtype if unet.dtype == torch.float32 else choose_dtype("auto", device)
            return make_backbone(unet, vae, self.name, weights_hash(unet), device, dtype, shared=True)


def check_model(model) -> str:
    """Refuse, by name, a MODEL that the method does not work with; returns a name for it.

    Looks at the model's kind and tensor shapes only, so a wrong wire is reported before anything is loaded.
    """
    from stablekp_core.backbone.recognition import unsupported_unet

    network = getattr(model.model, "diffusion_model", None)
    kind = type(getattr(model.model, "model_config", model.model)).__name__
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()} if network is not None else {}
    problem = unsupported_unet(shapes)
    if problem:
        raise KeypointError(
            f"the MODEL is {problem} (ComfyUI calls it {kind}), but keypoints are found with Stable "
            "Diffusion 1.4 or 1.5; connect a MODEL of that kind."
        )
    return f"MODEL ({kind})"


def check_graph_models(model, vae) -> str:
    """`check_model`, and the same for the VAE."""
    name = check_model(model)
    coder = getattr(vae, "first_stage_model", None)
    names = coder.state_dict() if coder is not None else {}
    wanted = ("encoder.down.0.block.0.conv2.weight", "encoder.conv_out.weight", "quant_conv.weight")
    if any(key not in names for key in wanted) or names["encoder.conv_out.weight"].shape[0] != 8:
        raise KeypointError(
            f"the VAE ({type(coder).__name__}) is not one of Stable Diffusion 1.5, which the method "
            "needs; connect the VAE that belongs to the MODEL's checkpoint."
        )
    return name


def _load(patchers: list, batch_size: int) -> None:
    """Bring models to the device as a whole, with room for a batch beside them; others make place for it."""
    model_management.load_models_gpu(patchers, memory_required=batch_size * WORK_BYTES, force_full_load=True)


def _without_dynamic_loading(patcher):
    """The same model under a patcher that can hold all weights on the device at once.

    With dynamic VRAM (the default on GPUs in newer versions of ComfyUI) weights come to the card layer by layer while
    ComfyUI's own code runs; a view of them from outside would find them elsewhere. ComfyUI then reads the weights
    from the file once more, for all who cannot work with dynamic ones, and keeps that second copy for the next time.
    """
    is_dynamic = getattr(patcher, "is_dynamic", None)
    if is_dynamic is None or not is_dynamic():
        return patcher
    try:
        delegate = getattr(patcher, "get_non_dynamic_delegate", None)
        return delegate() if delegate is not None else patcher.clone(disable_dynamic=True)
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
