import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from stablekp_core.backbone.loading import load_backbone
from stablekp_core.cli import main
from stablekp_core.config import TrainConfig
from stablekp_core.errors import KeypointError
from stablekp_core.images.image_set import load_folder
from stablekp_core.keypoints.tokens import KeypointTokens
from stablekp_core.synthetic import generator
from stablekp_core.training.distributed import Ranks, launched_processes, process_group
from stablekp_core.training.train import train

ROOT = Path(__file__).parents[2]
# A batch of 3 on 2 processes: shares differ, so a mean over processes would not be the mean over the batch.
CONFIG = TrainConfig(
    keypoints=3,
    tokens=12,
    candidates=5,
    steps=6,
    batch_size=3,
    map_size=32,
    selection_images=3,
    selection_views=1,
    stop="fixed",
    check_share=0.0,
)
LAUNCHER_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

# What each of the two processes does: the whole run; half a run that is stopped; the rest of a run that one
# process began, from a checkpoint that only the first process can see, as a library call and by the command.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from stablekp_core.cli import main as cli
from stablekp_core.training import trainer as training
from stablekp_core.training.train import train
from stablekp_core.backbone.loading import load_backbone
from stablekp_core.config import TrainConfig
from stablekp_core.images.image_set import load_folder
from stablekp_core.training.distributed import process_group

folder, config = Path(sys.argv[1]), TrainConfig.from_dict(json.loads(sys.argv[2]))
batches, step = [], training.training_step
def counted(backbone, config, tokens, latents, *rest):
    batches.append(len(latents))
    return step(backbone, config, tokens, latents, *rest)
training.training_step = counted

with process_group("cpu") as (ranks, device):
    torch.set_num_threads(1)
    me = folder / f"rank{ranks.rank}"
    me.mkdir()
    run = lambda **how: train(load_backbone("demo", device=device),
                                       load_folder(folder / "images"), config, **how)
    whole = run()
    whole_batches = list(batches)
    def stop(info):
        if info.step == 3:
            raise KeyboardInterrupt
    try:
        run(on_step=stop, checkpoint=me / "half")
    except KeyboardInterrupt:
        pass
    begun = folder / "begun_by_one" if ranks.first else me / "absent"
    with ranks.first_copy(begun) as checkpoint:
        resumed_from = checkpoint.is_file()
        rest = run(checkpoint=checkpoint, resume=True)
    with ranks.first_copy(folder / "nothing") as nothing:
        absent = not nothing.exists()
    torch.save({"size": ranks.size, "device": device, "batches": whole_batches, "absent": absent,
                "resumed_from": resumed_from, "whole": whole.tokens.embeddings, "chosen": whole.tokens.chosen,
                "losses": whole.losses, "rest": rest.tokens.embeddings, "rest_losses": rest.losses},
               me / "result.pt")
    sys.exit(cli(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "images").mkdir()
    for seed in range(5):
        Image.fromarray(generator.render("faces", seed).image).save(folder / "images" / f"{seed}.png")
    return folder


def run_alone(folder, steps=CONFIG.steps, **how):
    return train(
        load_backbone("demo", device="cpu"),
        load_folder(folder / "images"),
        CONFIG.replace(steps=steps),
        **how,
    )


def stop_at_step_3(info):
    if info.step == 3:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def alone(folder):
    with pytest.raises(KeyboardInterrupt):
        run_alone(folder, on_step=stop_at_step_3, checkpoint=folder / "begun_by_one")
    return run_alone(folder)


@pytest.fixture(scope="module")
def command(folder, alone):
    """The two processes under `accelerate launch`; their standard output and error."""
    script, out = folder / "script.py", folder / "command"
    script.write_text(SCRIPT)
    out.mkdir()
    (out / "out.checkpoint").write_bytes((folder / "begun_by_one").read_bytes())
    flags = ["--resume", "--device", "cpu", "--model", "demo"]
    for name, value in CONFIG.to_dict().items():
        if value != TrainConfig().to_dict()[name]:
            flags += [f"--{name.replace('_', '-')}", value]
    line = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        2,
        "--main_process_port",
        0,
        script,
        folder,
        json.dumps(CONFIG.to_dict()),
        "train",
        folder / "images",
        out / "out.safetensors",
        *flags,
    ]
    env = {k: v for k, v in os.environ.items() if k not in LAUNCHER_VARIABLES}
    env |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(folder),
    }  # no configuration of Accelerate's
    done = subprocess.run(list(map(str, line)), env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def two(folder, command):
    return [torch.load(folder / f"rank{i}" / "result.pt") for i in range(2)]


def assert_same_tokens(found, expected):
    """To within a thousandth of the way that six steps carry a value, which is at most six learning rates."""
    assert (found - expected).abs().max() < 1e-3 * CONFIG.steps * CONFIG.learning_rate


def first_moment(path):
    with safe_open(path, "pt") as file:
        return file.get_tensor("exp_avg")


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(folder, alone, two):
    assert [r["size"] for r in two] == [2, 2] and [r["device"] for r in two] == ["cpu", "cpu"]
    untrained = run_alone(folder, steps=0)
    assert (
        alone.tokens.embeddings - untrained.tokens.embeddings
    ).abs().max() > 0.5 * CONFIG.steps * CONFIG.learning_rate
    for result in two:
        assert_same_tokens(result["whole"], alone.tokens.embeddings)
        np.testing.assert_allclose(result["losses"], alone.losses, rtol=1e-5)
        assert result["chosen"] == alone.tokens.chosen
    assert torch.equal(two[0]["whole"], two[1]["whole"])


@pytest.mark.slow
def test_each_process_sees_its_share_of_the_images(two):
    assert two[0]["batches"] == [2] * CONFIG.steps
    assert two[1]["batches"] == [1] * CONFIG.steps


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two(alone, two):
    for result in two:
        assert result["resumed_from"] and result["absent"]
        assert_same_tokens(result["rest"], alone.tokens.embeddings)
        assert len(result["rest_losses"]) == CONFIG.steps
        np.testing.assert_allclose(result["rest_losses"], alone.losses, rtol=1e-5)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_with_one(folder, alone, two):
    assert not (folder / "rank1" / "half").exists()  # only the first process writes
    rest = run_alone(folder, checkpoint=folder / "rank0" / "half", resume=True)
    assert_same_tokens(rest.tokens.embeddings, alone.tokens.embeddings)
    np.testing.assert_allclose(rest.losses, alone.losses, rtol=1e-5)


@pytest.mark.slow
def test_gradients_are_those_of_the_whole_batch(folder, two):
    expected, found = first_moment(folder / "begun_by_one"), first_moment(folder / "rank0" / "half")
    assert (found - expected).norm() < 1e-5 * expected.norm()  # Adam alone would hide a wrong scale


@pytest.mark.slow
def test_the_command_resumes_and_only_the_first_process_prints_and_writes(folder, command, alone):
    assert command.stdout.count("tokens:") == 1
    assert command.stderr.count(f"{CONFIG.steps}/{CONFIG.steps} [") > 0
    started = [line for line in command.stderr.splitlines() if line.startswith("training:  50%")]
    assert len(started) == 1, started  # where the run goes on, shown by one process
    out = folder / "command"
    assert_same_tokens(KeypointTokens.load(out / "out.safetensors").embeddings, alone.tokens.embeddings)
    assert sorted(p.name for p in out.iterdir()) == ["out.safetensors", "out_keypoints.jpg", "out_loss.png"]


def test_shares_cover_every_item_once():
    for size in (1, 2, 3, 7):
        shares = [Ranks(rank, size).share(5) for rank in range(size)]
        assert sorted(i for share in shares for i in share) == list(range(5))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_a_launcher_nothing_changes(monkeypatch, tmp_path):
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)  # importing it would fail
    with process_group("cuda:3") as (ranks, device):
        assert (ranks, device) == (Ranks(0, 1), "cuda:3") and ranks.first
        with ranks.first_copy(tmp_path / "x") as path:
            assert path == tmp_path / "x"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched_processes() == 1


def test_what_several_processes_cannot_do_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(KeypointError, match="cuda:0.*2 processes"), process_group("cuda:0"):
        pass
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(KeypointError, match="pip install accelerate"), process_group("cpu"):
        pass
    (tmp_path / "images").mkdir()
    tokens = tmp_path / "t.safetensors"
    assert main(["train", str(tmp_path / "images"), str(tokens), "--device", "cpu"]) == 1
    assert "pip install accelerate" in capsys.readouterr().err
