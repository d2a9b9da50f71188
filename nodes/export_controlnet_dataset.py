"""Export ControlNet Dataset."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from stablekp_core.controlnet.pairs import FITS, STYLES, ExportSettings
from stablekp_core.errors import KeypointError

from .comfy import folders, sockets
from .comfy.batches import single_images
from .comfy.messages import show_text
from .comfy.runtime import Progress

#: The export's folders lie below this one in ComfyUI's output folder.
FOLDER = "controlnet_datasets"


def dataset_folder(name: str) -> Path:
    """Where a data set of that name goes; KeypointError for names that would leave the output folder."""
    return folders.save_path(Path(folder_paths.get_output_directory()) / FOLDER, name).with_suffix("")


class ExportControlNetDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.make_schema(
            node_id="StableKPExportControlNet",
            display_name="Export ControlNet Dataset",
            category="files",
            description="Writes pairs of image and drawn keypoints to train one's own ControlNet with, in the "
            "layout that diffusers' training example reads.",
            search_aliases=["training data", "image folder", "controlnet training", "stable keypoints"],
            is_input_list=True,
            is_output_node=True,
            inputs=_inputs(),
            outputs=[
                io.String.Output(display_name="path", tooltip="The data set's folder."),
                io.String.Output(display_name="report", tooltip="How many pairs, and what was left out."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name) -> bool | str:
        # Values on the node come in a list, as this node takes lists.
        return sockets.verdict(dataset_folder, name[0] if isinstance(name, list) else name)

    @classmethod
    def execute(cls, images, keypoints, names=None, captions=None, **settings) -> io.NodeOutput:
        from stablekp_core.controlnet.dataset import export_controlnet_dataset
        from stablekp_core.keypoints.keypoints import Keypoints

        options = {key: value[0] for key, value in settings.items()}
        folder = dataset_folder(options.pop("name"))
        caption, overwrite = options.pop("caption"), options.pop("overwrite", False)
        points = Keypoints.concat(keypoints)
        arrays = _named(single_images(images, "Export ControlNet Dataset (images)"), names, points)
        progress = Progress(len(arrays))
        done = export_controlnet_dataset(
            arrays,
            points,
            folder,
            ExportSettings(**options),
            captions=_captions(captions, arrays.names),
            caption=caption,
            overwrite=overwrite,
            on_progress=lambda phase, done, total: progress.step(done),
        )
        show_text(done.report())
        return io.NodeOutput(str(folder), done.report(), ui=ui.PreviewText(done.report()))


def _named(arrays, names, points):
    """A core ImageSet under the connected names, or those the keypoints carry, or numbers."""
    from stablekp_core.images.image_set import ImageSet

    if names and len(names) != len(arrays):
        raise KeypointError(
            f"{len(names)} names are connected to Export ControlNet Dataset for {len(arrays)} images; "
            "connect images and names of the same Load Image Set, or no names."
        )
    if not names:
        carried = dict(zip(points.image_index.tolist(), points.images, strict=True))
        names = [carried.get(i) or f"image_{i:05d}" for i in range(len(arrays))]
    return ImageSet.from_arrays(arrays, list(names))


def _captions(captions, names) -> dict[str, str] | None:
    if not captions:
        return None
    if len(captions) != len(names):
        raise KeypointError(
            f"{len(captions)} captions are connected to Export ControlNet Dataset for {len(names)} images; "
            "connect one for each, or none."
        )
    return dict(zip(names, captions, strict=True))


def _inputs() -> list:
    d, more = ExportSettings, {"optional": True, "extra_dict": sockets.ADVANCED}
    return [
        io.Image.Input("images", tooltip="The images to train on: a batch, or a list."),
        sockets.Points.Input(
            "keypoints",
            tooltip="Detected on them. scribble needs a skeleton, openpose and ap10k named joints.",
        ),
        io.String.Input(
            "name",
            default="my_dataset",
            tooltip=f"Folder below output/{FOLDER}. Run again, it goes on where it stopped.",
        ),
        io.Combo.Input(
            "style",
            options=list(STYLES),
            default=d.style,
            tooltip="What the hints look like. scribble: white skeleton. openpose, ap10k: as those ControlNets "
            "know them. keypoints: coloured dots and lines.",
        ),
        io.Int.Input(
            "size",
            default=d.size,
            min=64,
            max=4096,
            step=8,
            tooltip="Side of the images in pixels: the resolution to train at.",
        ),
        io.Combo.Input(
            "fit",
            options=list(FITS),
            default=d.fit,
            tooltip="crop: a square around the figures. keep: the whole image, its shorter side at size.",
        ),
        io.Float.Input(
            "threshold",
            default=d.threshold,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Points with a lower confidence are left out of the hints.",
        ),
        io.Float.Input(
            "validation",
            default=d.validation,
            min=0.0,
            max=0.9,
            step=0.01,
            tooltip="Share of the images that are set aside to look at the result with.",
        ),
        io.String.Input(
            "caption",
            default="",
            multiline=True,
            tooltip="The text of images without a caption of their own, such as: a photo of my mascot.",
        ),
        io.String.Input(
            "names",
            optional=True,
            force_input=True,
            tooltip="File names of the images, from Load Image Set.",
        ),
        io.String.Input(
            "captions",
            optional=True,
            force_input=True,
            tooltip="One text for each image, from a captioning node.",
        ),
        io.Int.Input(
            "line_width",
            default=d.line_width,
            min=1,
            max=100,
            **more,
            tooltip="Of the styles scribble and keypoints, in pixels.",
        ),
        sockets.seed_input("Decides which images are set aside.", **more),
        io.Boolean.Input(
            "overwrite",
            default=False,
            **more,
            tooltip="Allow other settings than those the folder was begun with; its old pairs are removed.",
        ),
    ]
