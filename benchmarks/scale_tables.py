"""Write the tables of docs/scale.md from docs/results/scale.json; scale.py does so at its end.

python benchmarks/scale_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS = {"Human3.6M, all frames": 900_000, "100 million images": 100_000_000}
#: bf16 peak of the maker's data sheet, TFLOP/s (dense), and the share of it that is assumed to be reached.
GPUS = {"A100": 312.0, "H100 SXM": 989.0, "RTX 4090": 165.0}
SHARE = 0.35
STAGES = {
    "decode": "decode a 128 px PNG",
    "resize": "resize to 128 px",
    "vae_per_view": "VAE, per view",
    "unet_per_view": "UNet, per view",
    "maps_per_view": "logits and token maps, per view",
    "write": "Parquet, per row",
    "decode_1000px_jpeg": "decode a 1000 px JPEG",
    "resize_1000px_to_512": "resize 1000 px to 512 px",
}
VIEWS = (11, 1)  # the default (10 views and the image itself), and the image alone


def measured(r: dict) -> str:
    one, two = r["one_worker"], r["two_workers"]
    bare = sum(r["bare_rows_per_second"]) / len(r["bare_rows_per_second"])
    m, model = r["machine"], r["cost_model"]
    return "\n".join(
        [
            f"{m['cores']} cores ({m['cpu']}), torch {m['torch']}, Ray {m['ray']}; demo model, 128 px, one thread per "
            f"worker, {r['views']} view per image, {r['images']} dolls.",
            "",
            "| what | value | wanted |",
            "|---|---|---|",
            f"| bare loop, 1 process | {bare:.2f} rows/s | |",
            f"| engine, 1 worker | {one['rows_per_second']:.2f} rows/s | |",
            f"| engine, 2 workers | {two['rows_per_second']:.2f} rows/s | |",
            f"| speed-up from 1 to 2 workers | {r['workers_2_speedup']:.2f} | at least 1.7 |",
            f"| cost of the engine against the bare loop | {100 * r['engine_overhead']:.1f} % | at most 15 % |",
            f"| growth of a worker's memory per 10 000 of its images ({r['images_memory']} in all) | "
            f"{r['rss_growth_mb_per_10k_images']:.1f} MB | flat |",
            f"| start-up, once per run, 1 and 2 workers | {r['start_up_seconds']['one']:.0f} s, "
            f"{r['start_up_seconds']['two']:.0f} s | |",
            f"| rows/s with {model['views']} views: predicted by the cost model, measured | "
            f"{model['predicted_rows_per_second']:.2f}, {model['measured_rows_per_second']:.2f} | |",
        ]
    )


def stages(r: dict) -> str:
    lines = ["| stage | ms on one core |", "|---|---|"]
    return "\n".join(lines + [f"| {text} | {r['milliseconds'][name]:.2f} |" for name, text in STAGES.items()])


def plan(r: dict) -> str:
    flops = r["flops_per_view"]["Stable Diffusion 1.5, 512 px"]
    view = sum(flops.values())
    lines = [
        f"Per view of Stable Diffusion 1.5 at 512 px: VAE {flops['vae'] / 1e12:.2f}, UNet {flops['unet'] / 1e12:.2f}, "
        f"maps {flops['maps'] / 1e12:.3f} TFLOP. Written: {r['bytes_per_row']:.0f} bytes per row.",
        "",
        "| data set | views | EFLOP | " + " | ".join(f"{gpu}, GPU-hours" for gpu in GPUS) + " | Parquet |",
        "|---|---|---|" + "---|" * (len(GPUS) + 1),
    ]
    for name, images in SETS.items():
        for views in VIEWS:
            total = images * views * view
            hours = (f"{total / (peak * 1e12 * SHARE) / 3600:,.0f}" for peak in GPUS.values())
            size = images * r["bytes_per_row"] / 1e9
            lines.append(f"| {name} | {views} | {total / 1e18:,.1f} | " + " | ".join(hours) + f" | {size:.1f} GB |")
    return "\n".join(lines)


def fill(path: Path, result: dict) -> None:
    """Put the tables between `<!-- NAME -->` and `<!-- end -->` of a page."""
    text = path.read_text(encoding="utf-8")
    for table in (measured, stages, plan):
        head, _, rest = text.partition(f"<!-- {table.__name__} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        if not end:
            raise SystemExit(f"{path} has no place for the table {table.__name__}.")
        text = f"{head}<!-- {table.__name__} -->\n{table(result)}\n{end}{tail}"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    fill(ROOT / "docs" / "scale.md", json.loads((ROOT / "docs" / "results" / "scale.json").read_text()))
