"""Train the embedded demo model: a latent diffusion model of Stable Diffusion 1.5's own classes, small enough to ship.

    python tools/train_tiny_sd.py --out build/tiny_sd            # start, or go on where it stopped
    python tools/train_tiny_sd.py --out build/tiny_sd --export stablekp_core/assets/tiny_sd
    python tools/train_tiny_sd.py --out build/words --words-of stablekp_core/assets/tiny_sd    # its caption words alone

Two stages: an autoencoder on generated images, then a UNet on its latents. A caption is one embedding per part
(part word + colour word) and one for the background. The UNet's loss is the usual noise prediction plus, with weight
`--grounding`, a grounding term that asks the cross-attention of the captured layers to put each part's token on that
part's pixels (TokenCompose, Wang et al., CVPR 2024). docs/tiny-sd.md tells why, and what it changes.

With `--words-of FOLDER` the UNet and VAE of a folder stay as they are, and only the caption words are learned, all at
once, by the same loss (textual inversion, Gal et al., ICLR 2023): how words are found again for a model whose own were
not kept. `--export` then writes `words/words.safetensors`.

Every batch is a function of the seed and the step alone, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stablekp_core.backbone.attention_processors import captured_layers, keys, queries
from stablekp_core.backbone.backbone import alphas_cumprod
from stablekp_core.guidance.words import FILE as WORDS_FILE
from stablekp_core.synthetic import (
    figures,
    generator,
)

SIZE, GRID, WIDTH = 128, 32, 64  # image side, latent side, width of a token
OFFSETS = {"faces": 0, "dolls": len(figures.FACE_PARTS) + 1}
WORDS = len(figures.FACE_PARTS) + len(figures.DOLL_PARTS) + 2
SLOTS = len(figures.DOLL_PARTS) + 1  # the longest caption, background first
VAE_CONFIG = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(16, 32, 64),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    layers_per_block=1,
    norm_num_groups=8,
    sample_size=SIZE,
    mid_block_add_attention=False,
)
UNET_CONFIG = dict(
    sample_size=GRID,
    in_channels=4,
    out_channels=4,
    layers_per_block=2,
    block_out_channels=(32, 64, 96),
    attention_head_dim=(2, 4, 4),
    cross_attention_dim=WIDTH,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    norm_num_groups=8,
)


def sample_at(seed: int, index: int, faces: float) -> generator.Sample:
    """Image number `index` of a run: a share `faces` of faces, variants 20 % plain, 60 % standard, 20 % wild."""
    rng = np.random.default_rng([seed, index])
    kind = "faces" if rng.random() < faces else "dolls"
    variant = str(rng.choice(generator.VARIANTS, p=(0.2, 0.6, 0.2)))
    return generator.render(kind, 10_000_000 + int(rng.integers(2**40)), SIZE, variant)


def to_tensor(samples: list[generator.Sample]) -> torch.Tensor:
    """float32 [B, 3, S, S] in [-1, 1]."""
    images = np.stack([s.image for s in samples])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


class Batches(torch.utils.data.Dataset):
    """Item i = batch i: latents [B, 4, 32, 32], part words, colour words [B, SLOTS], area shares [B, SLOTS, 32, 32]."""

    def __init__(self, vae, seed: int, batch: int, faces: float):
        self.vae, self.seed, self.batch, self.faces = vae, seed, batch, faces

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, step: int):
        samples = [sample_at(self.seed, step * self.batch + i, self.faces) for i in range(self.batch)]
        with torch.no_grad():
            latents = self.vae.encode(to_tensor(samples)).latent_dist.mean * self.vae.config.scaling_factor
        words = torch.full((self.batch, SLOTS), -1)
        colors = torch.zeros((self.batch, SLOTS), dtype=torch.long)
        shares = torch.zeros(self.batch, SLOTS, GRID, GRID)
        for i, s in enumerate(samples):
            n = len(s.colors) + 1
            words[i, :n] = torch.arange(n) + OFFSETS[s.kind]
            colors[i, :n] = torch.from_numpy(np.concatenate([[s.background], s.colors]))
            one_hot = F.one_hot(torch.from_numpy(s.labels).long(), SLOTS).permute(2, 0, 1).float()
            shares[i] = F.avg_pool2d(one_hot[None], SIZE // GRID)[0]
        return latents, words, colors, shares


class Captions(torch.nn.Module):
    """Part word + colour word -> token of unit variance, the distribution that learned tokens start from."""

    def __init__(self):
        super().__init__()
        self.part = torch.nn.Parameter(torch.randn(WORDS, WIDTH))
        self.color = torch.nn.Parameter(torch.randn(len(generator.COLORS), WIDTH))

    def forward(self, words: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
        token = (self.part[words.clamp(min=0)] + self.color[colors]) / math.sqrt(2)  # [B, SLOTS, D]
        return token


def grounding_loss(unet, found: dict, tokens, words, shares, weight) -> torch.Tensor:
    """Class-balanced cross-entropy between attention over the caption's tokens and each cell's share of parts."""
    total = 0.0
    for name, q in found.items():  # q [B, h, P, d]
        k = keys(unet, name, tokens)  # [B, h, SLOTS, d]
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # [B, h, P, SLOTS]
        logits = logits.masked_fill((words < 0)[:, None, None, :], -1e4)
        side = math.isqrt(q.shape[2])
        prob = logits.softmax(-1).mean(1).clamp(min=1e-6)  # [B, P, SLOTS]
        share = F.avg_pool2d(shares, GRID // side).flatten(2).transpose(1, 2)  # [B, P, SLOTS]
        area = share.sum(1)  # [B, SLOTS]
        per_part = -(share * prob.log()).sum(1) / area.clamp(min=1e-3)
        present = (area > 0.05).float()
        per_image = (per_part * present).sum(1) / present.sum(1)
        total = total + (per_image * weight).mean()
    return total / len(found)


def draw_timesteps(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Half towards high noise (1000 sqrt u), where colours must come from the caption, half at low noise."""
    u = torch.rand(batch, generator=generator)
    high = torch.rand(batch, generator=generator) < 0.5
    return torch.where(high, 999 * u.sqrt(), 250 * u).long()


def train_vae(args, out: Path):
    from diffusers import AutoencoderKL

    if (out / "vae" / "config.json").exists():
        return AutoencoderKL.from_pretrained(out / "vae", local_files_only=True).requires_grad_(False)
    torch.manual_seed(args.seed)
    vae = AutoencoderKL(**VAE_CONFIG)
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)
    bank = to_tensor([sample_at(args.seed + 1, i, 0.5) for i in range(args.vae_images)])
    start, rng = time.time(), np.random.default_rng(args.seed)
    for step in range(args.vae_steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / args.vae_steps))
        top, left = rng.integers(0, SIZE // 2 + 1, 2)  # crops: the autoencoder is convolutional
        x = bank[rng.integers(len(bank), size=16), :, top : top + SIZE // 2, left : left + SIZE // 2]
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-5 * posterior.kl().mean() / (GRID * GRID * 4)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"vae {step} loss {loss.item():.4f} {time.time() - start:.0f} s", flush=True)
    with torch.no_grad():
        z = torch.cat([vae.encode(x).latent_dist.mean for x in bank[:256].split(32)])
        psnr = -10 * torch.log10(F.mse_loss(vae.decode(z[:64]).sample, bank[:64]) / 4)
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 5))
    print(f"vae scaling {vae.config.scaling_factor} psnr {psnr:.2f} dB", flush=True)
    vae.save_pretrained(out / "vae")
    return vae.requires_grad_(False)


class Run:
    """UNet, captions, their moving averages and the optimiser: what a checkpoint holds."""

    def __init__(self, args):
        from diffusers import UNet2DConditionModel

        torch.manual_seed(args.seed)
        self.unet = UNet2DConditionModel(**UNET_CONFIG)
        for name, module in self.unet.named_modules():
            if name.endswith("attn2"):  # logits of std 2, so that attention starts out uneven
                module.to_q.weight.data *= 3
                module.to_k.weight.data *= 3
        self.captions = Captions()
        self.modules = torch.nn.ModuleList([self.unet, self.captions]).to(args.device)
        self.average = {k: v.detach().clone() for k, v in self.modules.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.modules.parameters(), lr=args.lr, weight_decay=1e-4)
        self.step = 0

    def save(self, path: Path) -> None:
        state = dict(
            step=self.step,
            average=self.average,
            modules=self.modules.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.step, self.average = state["step"], state["average"]
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])

    def update_average(self, decay: float) -> None:
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for k, v in self.modules.state_dict().items():
                self.average[k].lerp_(v.float(), 1 - decay)


def caption_losses(unet, layers, captions, batch, alpha, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise prediction and grounding of a batch (see `Batches`) under its captions, timesteps and noise drawn."""
    latents, words, colors, shares = batch
    t = draw_timesteps(len(latents), generator).to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    a = alpha[t][:, None, None, None]
    tokens = captions(words, colors)
    with queries(unet, layers, stop=False) as found:
        mask = torch.where(words < 0, -1e4, 0.0)[:, None, :]
        predicted = unet(
            a.sqrt() * latents + (1 - a).sqrt() * noise, t, tokens, cross_attention_kwargs={"mask": mask}
        ).sample
    return F.mse_loss(predicted, noise), grounding_loss(unet, found, tokens, words, shares, alpha[t])


def train_unet(args, run: Run, vae, out: Path) -> None:
    loader = torch.utils.data.DataLoader(
        Batches(vae, args.seed, args.batch, args.faces),
        batch_size=None,
        num_workers=args.workers,
        sampler=range(run.step, args.steps),
        prefetch_factor=4 if args.workers else None,
    )
    alpha = alphas_cumprod().to(args.device)
    layers, start = captured_layers(run.unet), time.time()
    for batch in loader:
        batch = [x.to(args.device) for x in batch]
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
        denoise, ground = caption_losses(run.unet, layers, run.captions, batch, alpha, generator)
        rate = (
            args.lr
            * min(1, (run.step + 1) / 100)
            * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * run.step / args.steps)))
        )
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.zero_grad(set_to_none=True)
        (denoise + args.grounding * ground).backward()
        torch.nn.utils.clip_grad_norm_(run.modules.parameters(), 1.0)
        run.optimizer.step()
        run.step += 1
        run.update_average(0.998)
        if run.step % 20 == 0:
            line = dict(
                step=run.step,
                denoise=round(denoise.item(), 4),
                ground=round(ground.item(), 4),
                seconds=round(time.time() - start),
            )
            print(json.dumps(line), flush=True)
        if run.step % 200 == 0 or run.step == args.steps:
            run.save(out / "state.pt")


def export(run: Run, vae, folder: Path) -> None:
    """Write the averaged weights as a diffusers folder in fp16."""
    run.modules.load_state_dict(run.average)
    run.unet.half().save_pretrained(folder / "unet")
    vae.half().save_pretrained(folder / "vae")
    export_words(run.captions, folder)


def export_words(captions: Captions, folder: Path) -> None:
    """Write part words [28, D] and colour words [16, D] in fp32; the header names the rows (see guidance.words)."""
    from safetensors.torch import save_file

    kinds = {kind: [OFFSETS[kind], ["background", *figures.part_names(kind)]] for kind in figures.KINDS}
    path = folder / WORDS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in captions.state_dict().items()}
    save_file(tensors, path, metadata={"kinds": json.dumps(kinds), "colors": json.dumps(generator.COLOR_NAMES)})


def train_words(args, folder: Path, out: Path) -> Captions:
    """Caption words of the frozen model in `folder`, from a bank of `--bank` batches seen again with other noise.
    Goes on from `out`/words.pt."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(args.seed)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True).float().requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True).float().requires_grad_(False)
    captions, done = Captions(), 0
    average = {k: v.detach().clone() for k, v in captions.state_dict().items()}
    optimizer = torch.optim.Adam(captions.parameters(), lr=args.lr, betas=(0.9, 0.99))
    path = out / "words.pt"
    if path.exists():
        state = torch.load(path, map_location="cpu", weights_only=True)
        done, average = state["step"], state["average"]
        captions.load_state_dict(state["captions"])
        optimizer.load_state_dict(state["optimizer"])
    batches = Batches(vae, args.seed, args.batch, args.faces)
    bank = [batches[i] for i in range(args.bank if done < args.steps else 0)]
    alpha, layers, start = alphas_cumprod(), captured_layers(unet), time.time()
    for step in range(done, args.steps):
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        denoise, ground = caption_losses(unet, layers, captions, bank[step % len(bank)], alpha, generator)
        for group in optimizer.param_groups:
            group["lr"] = (
                args.lr * min(1, (step + 1) / 20) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / args.steps)))
            )
        optimizer.zero_grad(set_to_none=True)
        (denoise + args.grounding * ground).backward()
        optimizer.step()
        with torch.no_grad():
            decay = min(0.98, (1 + step) / (10 + step))
            for k, v in captions.state_dict().items():
                average[k].lerp_(v, 1 - decay)
        if (step + 1) % 20 == 0:
            line = dict(step=step + 1, denoise=denoise.item(), ground=ground.item(), seconds=time.time() - start)
            print(json.dumps({k: round(v, 4) for k, v in line.items()}), flush=True)
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            state = dict(step=step + 1, average=average, captions=captions.state_dict())
            torch.save(state | dict(optimizer=optimizer.state_dict()), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
    captions.load_state_dict(average)
    return captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoints and the autoencoder")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--faces", type=float, default=0.6, help="share of faces among the images, the rest is dolls")
    parser.add_argument(
        "--grounding", type=float, default=0.3, help="weight of the grounding term; 0 = diffusion alone"
    )
    parser.add_argument("--vae-steps", type=int, default=700)
    parser.add_argument("--vae-images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw and encode images")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the training process, 0 = all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words-of", type=Path, help="learn only caption words, for the model in this folder")
    parser.add_argument("--bank", type=int, default=64, help="batches of pictures that words are learned on")
    parser.add_argument("--export", type=Path, help="write the trained model to this folder and stop")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.words_of:
        captions = train_words(args, args.words_of, args.out)
        export_words(captions, args.export or args.out)
        return
    vae, run = train_vae(args, args.out), Run(args)
    if (args.out / "state.pt").exists():
        run.load(args.out / "state.pt")
    if args.export:
        export(run, vae, args.export)
    else:
        train_unet(args, run, vae, args.out)


if __name__ == "__main__":
    main()
