"""Save and Load Keypoint Tokens."""

from __future__ import annotations

from comfy_api.latest import io, ui

from stablekp_core.errors import KeypointError

from . import folders, types


class SaveKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPSaveTokens",
            display_name="Save Keypoint Tokens",
            description="Writes learned tokens to models/keypoint_tokens as one small .safetensors file.",
            search_aliases=["stable keypoints", "save keypoints"],
            is_output_node=True,
            inputs=[
                types.Tokens.Input("tokens", tooltip="From Train Keypoint Tokens."),
                io.String.Input(
                    "name",
                    default="my_keypoints",
                    tooltip="File name without ending; with / for a sub-folder. It cannot leave the tokens "
                    "folder.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace a file of that name. Off: a number is added to the new file's name.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file was written.")],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        if name is None:  # comes over a wire: looked at when the node runs
            return True
        try:
            folders.relative_save_path(name)
        except KeypointError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, tokens, name, overwrite=False) -> io.NodeOutput:
        path = folders.tokens_folder() / folders.relative_save_path(name)
        path = tokens.save(path if overwrite else folders.free_path(path))
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"saved {path}"))


class LoadKeypointTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return types.make_schema(
            node_id="StableKPLoadTokens",
            display_name="Load Keypoint Tokens",
            description="Tokens saved earlier, in models/keypoint_tokens or rescued from a cancelled "
            "training in "
            "output/keypoint_tokens.",
            search_aliases=["stable keypoints", "load keypoints"],
            inputs=[
                io.Combo.Input(
                    "tokens_file",
                    options=folders.token_files(),
                    tooltip="A .safetensors file written by Save Keypoint Tokens or the command line. "
                    "Press R to refresh the list.",
                ),
            ],
            outputs=[
                types.Tokens.Output(display_name="tokens", tooltip="For Detect Keypoints, or to train on.")
            ],
        )

    @classmethod
    def validate_inputs(cls, tokens_file) -> bool | str:
        if tokens_file is None:  # comes over a wire: looked at when the node runs
            return True
        try:
            folders.token_path(tokens_file)
        except KeypointError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, tokens_file) -> str:
        return folders.file_fingerprint(folders.token_path(tokens_file))

    @classmethod
    def execute(cls, tokens_file) -> io.NodeOutput:
        from stablekp_core.tokens import KeypointTokens

        return io.NodeOutput(KeypointTokens.load(folders.token_path(tokens_file)))
