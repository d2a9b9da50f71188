"""Figures of docs/performance.md from docs/results/speed.json; what was not measured is not drawn."""

from __future__ import annotations

from pathlib import Path


def draw(numbers: dict, folder: Path) -> list[Path]:
    """speed.png (ratios) and growth.png; returns what was written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if "sd15" in numbers:
        figure, axes = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
        bars = _ratios(numbers)
        found = axes.barh(list(bars), list(bars.values()), color="#3b7dd8")
        axes.bar_label(found, fmt="%.1f×", padding=3)
        axes.invert_yaxis()
        axes.axvline(1, color="grey", linewidth=1)
        axes.set_xlabel("times faster than the naive implementation (memory: times smaller)")
        axes.spines[["top", "right"]].set_visible(False)
        written.append(folder / "speed.png")
        figure.savefig(written[-1], dpi=120)
        pyplot.close(figure)
    if "growth" in numbers:
        written.append(_growth(numbers["growth"], folder / "growth.png", pyplot))
    return written


def _ratios(numbers: dict) -> dict[str, float]:
    stage = numbers["map_stage"]
    bars = {"map stage, time": stage["speedup"], "map stage, memory": stage["memory_ratio"]}
    bars |= {f"training step, {name}": row["speedup"] for name, row in numbers["sd15"]["steps"].items()}
    return {**bars, f"detection, {numbers['sd15']['views']} views": numbers["detect"]["speedup"]}


def _growth(rows: dict, path: Path, pyplot) -> Path:
    labels = {
        "tokens": "tokens N",
        "map_size": "map side R",
        "keypoints": "keypoints K",
        "batch": "batch (demo model)",
        "pictures": "images (demo model)",
    }
    figure, axes = pyplot.subplots(1, len(labels), figsize=(15, 3.2), layout="constrained")
    for axis, (name, label) in zip(axes, labels.items(), strict=True):
        x = [r["x"] for r in rows[name]]
        for key, color in (("naive_seconds", "#c0504d"), ("seconds", "#3b7dd8")):
            if key in rows[name][0]:
                axis.plot(
                    x,
                    [r[key] for r in rows[name]],
                    "o-",
                    color=color,
                    label="naive" if key.startswith("naive") else "this package",
                )
        axis.set_xlabel(label)
        axis.set_ylabel("seconds")
        axis.set_ylim(bottom=0)
        if name == "pictures":
            axis.set_xscale("log")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
