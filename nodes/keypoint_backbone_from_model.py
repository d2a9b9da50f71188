"""Keypoint Backbone from MODEL."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import sockets
from .comfy.backbones import GraphBackbone, check_graph_models


class KeypointBackboneFromModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPBackboneFromModel",
            display_name="Keypoint Backbone from MODEL",
            category="train",
            description="Uses the MODEL and VAE of the graph, LoRAs included, without changing them. Their weights are "
            "shared; only with dynamic VRAM, ComfyUI reads them once more (1.9 GB in fp16). Patches that other nodes "
            "put into the attention are not applied.",
            search_aliases=["stable keypoints", "keypoint backbone"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.4 or 1.5 MODEL; a LoRA on it counts."),
                io.Vae.Input("vae", tooltip="The VAE that belongs to it."),
            ],
            outputs=[
                sockets.Backbone.Output(
                    display_name="backbone",
                    tooltip="Connect it to Train Keypoint Tokens and Detect Keypoints.",
                )
            ],
        )

    @classmethod
    def execute(cls, model, vae) -> io.NodeOutput:
        return io.NodeOutput(GraphBackbone(model, vae, check_graph_models(model, vae)))
