"""What the nodes hold in memory, measured inside ComfyUI's own modules, without its server. The model is in float32, as
the node loads it on a CPU: a frame takes ten times as long in the float16 of its file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Puts ComfyUI's modules and the pack up as ComfyUI does, on the CPU.
START = """
import importlib.util, json, resource, sys
sys.path.insert(0, sys.argv[1])
import utils.extra_config  # first, as in ComfyUI: there are other modules called utils
from comfy.cli_args import args
args.cpu = True
import torch
import comfy.model_management as model_management
root = sys.argv[2]
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
from pack.nodes.comfy.backbones import FileBackbone
from stablekp_core.backbone.checkpoint import load_model
"""


def run(code: str, *more: str) -> dict:
    """What the code prints as JSON, run in ComfyUI's environment."""
    done = subprocess.run(
        [
            os.environ.get("COMFYUI_PYTHON", sys.executable),
            "-c",
            START + code,
            os.environ["COMFYUI_DIR"],
            str(ROOT),
            *more,
        ],
        capture_output=True,
        text=True,
        cwd=os.environ["COMFYUI_DIR"],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_file_backbone_is_managed_freed_on_demand_and_trained_through_afterwards():
    seen = run("""
def held():
    return any(loaded.model is handle._patcher for loaded in model_management.current_loaded_models)

def gradient():
    with handle.open(1) as model, torch.inference_mode(False), torch.enable_grad():
        tokens = torch.zeros(4, model.width, requires_grad=True)
        side = model.input_side() // model.factor
        sum(q.sum() for q in model.queries(torch.zeros(1, 4, side, side), 0, tokens)).backward()
        return bool(tokens.grad.abs().sum() > 0)

with torch.inference_mode():  # as in a prompt
    handle = FileBackbone(load_model("demo", torch.float32))
    before = held()
    first, during = gradient(), held()
    model_management.free_memory(1e30, handle._patcher.load_device)
    after = held()
    second = gradient()
# What goes between nodes has the type that ComfyUI was started with, where it can be told.
import numpy as np
from pack.nodes.comfy.batches import image_tensor
args.fp16_intermediates = True
halved = image_tensor(np.zeros((1, 4, 4, 3), np.uint8)).dtype == torch.float16
print(json.dumps([before, first, during, after, second, halved == hasattr(model_management, "intermediate_dtype")]))
""")
    assert seen == [False, True, True, False, True, True]


def test_a_long_video_never_lies_in_memory_as_a_whole(tmp_path):
    """60 frames of 1080p are 1.5 GB as images; detection on the video holds a few of them, however many there are."""
    count = int(os.environ.get("STABLEKP_TEST_FRAMES", "60"))
    seen = run(
        """
import av, numpy as np
from comfy_api.input_impl import VideoFromFile
from stablekp_core.keypoints.tokens import KeypointTokens
from pack.nodes.detect_keypoints import DetectKeypoints
frames, path = int(sys.argv[4]), sys.argv[3]
with av.open(path, "w") as container:
    stream = container.add_stream("mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
    picture = np.zeros((1080, 1920, 3), np.uint8)
    for number in range(frames):
        picture[:, : 15 * (number % 128)] = number % 256
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())
handle = FileBackbone(load_model("demo", torch.float32))
with handle.open(1) as model:
    width = model.width
tokens = KeypointTokens(torch.randn(30, width, generator=torch.Generator().manual_seed(0)), (0, 1, 2))
settings = dict(views=[0], batch_size=[1], sub_pixel=[True], heat_maps=["as computed"])
warm = DetectKeypoints.execute([handle], [tokens], [torch.rand(1, 1080, 1920, 3)], **settings)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = DetectKeypoints.execute([handle], [tokens], video=[VideoFromFile(path)], **settings)[0]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(found), found.sizes[0].tolist(), found.images[-1], (peak - before) / 1024, peak / 1024]))
""",
        str(tmp_path / "long.mp4"),
        str(count),
    )
    assert seen[:3] == [count, [1920, 1080], f"frame_{count - 1:06d}"]
    print(f"{count} frames: {seen[3]:.0f} MB more at the most, {seen[4]:.0f} MB in all")
    assert seen[3] < 300 and seen[4] < 2000
