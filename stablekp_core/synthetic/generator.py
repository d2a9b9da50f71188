"""Seeded generator of images with known joints: cartoon *faces* (easy) and articulated paper *dolls* (hard).

Every part of a figure has a random colour of its own and the background is cluttered, so that a part cannot be
recognised by colour, only by shape and arrangement. The embedded demo model is trained on these
images, and tests, benchmarks and the demo use them because their joints are exact. Nothing else in the package
knows that these images exist.

Frame: figures (figures.py) are placed in unit coordinates (x right, y down, the image is [0, 1] x [0, 1]);
samples report joints in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..errors import KeypointError
from .figures import BUILDERS, KINDS, Figure, ellipse, known, part_names

VARIANTS = ("plain", "standard", "wild")

#: The 16 part colours (RGB); a sample jitters each a little. The colour's index is the "colour word" of a caption.
COLORS = np.array(
    [
        (214, 39, 40),
        (44, 160, 44),
        (31, 119, 180),
        (255, 221, 51),
        (148, 103, 189),
        (255, 127, 14),
        (23, 190, 207),
        (227, 119, 194),
        (140, 86, 75),
        (20, 20, 24),
        (240, 240, 240),
        (127, 127, 127),
        (160, 220, 120),
        (20, 60, 110),
        (250, 190, 160),
        (120, 20, 60),
    ],
    dtype=np.float32,
)
#: Their names, as single words.
COLOR_NAMES = (
    "red",
    "green",
    "blue",
    "yellow",
    "violet",
    "orange",
    "cyan",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
    "lime",
    "navy",
    "peach",
    "maroon",
)


@dataclass(frozen=True)
class Sample:
    """One image and its exact labels.

    image: uint8 [S, S, 3] RGB. joints: float32 [L, 2] pixels (x, y). visible: bool [L], False where a bar occludes
    the joint or it lies outside. labels: uint8 [S, S], the part at each pixel centre (0 background or bar, i + 1 for
    part i). covered: bool [S, S], pixels under a bar. colors: int [P], index of each part's colour in `COLORS`;
    background: index of the nearest one there.
    """

    kind: str
    image: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    labels: np.ndarray
    covered: np.ndarray
    colors: np.ndarray
    background: int


_SCALES = {"plain": (0.7, 0.95), "standard": (0.6, 0.95), "wild": (0.25, 1.0)}


def _placed(kind: str, variant: str, rng: np.random.Generator) -> Figure:
    """A figure, turned by up to 20 degrees, scaled to a share of the image and put where all of it is inside."""
    fig = BUILDERS[kind](rng)
    angle = math.radians(rng.uniform(-20, 20))
    c, s = math.cos(angle), math.sin(angle)
    fig = fig.transformed(np.array([[c, -s], [s, c]]), np.zeros(2))
    low, high = fig.bounds()
    scale = rng.uniform(*_SCALES[variant]) * 0.98 / float((high - low).max())
    room = 1.0 - (high - low) * scale
    shift = rng.uniform(0, 1, 2) * room - low * scale
    return fig.transformed(np.eye(2) * scale, shift)


def _clutter(rng: np.random.Generator, variant: str, n: int) -> tuple[np.ndarray, int]:
    """Float [n, n, 3] clutter in 0..255 and the index of its main colour."""
    main = int(rng.integers(len(COLORS)))
    a = COLORS[main] + rng.normal(0, 12, 3)
    b = a + rng.normal(0, 12 if variant == "plain" else 60, 3)
    angle = rng.uniform(0, 2 * math.pi)
    grid = (np.arange(n, dtype=np.float32) + 0.5) / n
    ramp = np.clip(0.5 + (grid[None] - 0.5) * math.cos(angle) + (grid[:, None] - 0.5) * math.sin(angle), 0, 1)
    out = a + (b - a) * ramp[..., None]
    if variant != "plain":
        coarse = rng.normal(0, rng.uniform(0, 30), (8, 8, 3)).astype(np.float32)
        smooth = [
            np.asarray(Image.fromarray(coarse[..., i]).resize((n, n), Image.Resampling.BICUBIC)) for i in range(3)
        ]
        out = out + np.stack(smooth, -1)
    return out.astype(np.float32), main


def _distractors(rng: np.random.Generator, kind: str, variant: str) -> list[np.ndarray]:
    """Polygons drawn behind the figure; in the wild they include limbs of two other figures."""
    if variant == "plain":
        return []
    polygons = []
    for _ in range(int(rng.integers(0, 5))):
        c, r = rng.uniform(0, 1, 2), rng.uniform(0.03, 0.16)
        if rng.random() < 0.5:
            polygons.append(ellipse(c, r, r * rng.uniform(0.4, 1), rng.uniform(0, 3)))
        else:
            t = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 6))))
            polygons.append(c + r * np.stack([np.cos(t), np.sin(t)], 1))
    if variant == "wild":
        for _ in range(2):
            other = _placed(kind, "wild", rng)
            picked = rng.permutation(len(other.shapes))[:5]
            polygons += [other.shapes[i][1] for i in picked]
    return polygons


def background(
    rng: np.random.Generator, kind: str, size: int, variant: str = "standard", over: int = 1
) -> tuple[Image.Image, int]:
    """What lies behind a figure of a kind: an RGB image of `size * over` pixels a side, of clutter made for `size`
    pixels with the distractor shapes drawn on it, and the index of its main colour in `COLORS`. `variant` as for
    `render`, `over` is the supersampling of the shapes' edges; `rng` is drawn from."""
    clutter, main = _clutter(rng, variant, size)
    canvas = Image.fromarray(np.clip(clutter, 0, 255).astype(np.uint8)).resize((size * over,) * 2)
    pen = ImageDraw.Draw(canvas)
    for polygon in _distractors(rng, kind, variant):
        _draw(pen, polygon * size * over, rng.integers(0, 256, 3))
    return canvas, main


def _draw(pen: ImageDraw.ImageDraw, polygon: np.ndarray, color: np.ndarray) -> None:
    """Fill a polygon [V, 2], in pixels, with an RGB colour [3]."""
    pen.polygon([tuple(v) for v in polygon.tolist()], fill=tuple(int(c) for c in color))


def _bars(rng: np.random.Generator, variant: str) -> list[np.ndarray]:
    """Bars that occlude the figure (wild only)."""
    if variant != "wild":
        return []
    bars = []
    for _ in range(int(rng.integers(1, 3))):
        c, angle = rng.uniform(0.15, 0.85, 2), rng.uniform(0, math.pi)
        d = 0.9 * np.array([math.cos(angle), math.sin(angle)])
        w = rng.uniform(0.03, 0.06) * np.array([-math.sin(angle), math.cos(angle)])
        bars.append(np.stack([c - d - w, c + d - w, c + d + w, c - d + w]))
    return bars


def _inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """bool [L]: even-odd test of points [L, 2] against a polygon [V, 2]."""
    a, b = polygon[None], np.roll(polygon, -1, 0)[None]  # [1, V, 2]
    x, y = points[:, :1], points[:, 1:]  # [L, 1]
    crosses = (a[..., 1] > y) != (b[..., 1] > y)  # [L, V]
    with np.errstate(divide="ignore", invalid="ignore"):
        at = a[..., 0] + (y - a[..., 1]) * (b[..., 0] - a[..., 0]) / (b[..., 1] - a[..., 1])
    return (crosses & (x < at)).sum(1) % 2 == 1


def render(kind: str, seed: int, size: int = 128, variant: str = "standard") -> Sample:
    """Draw the figure number `seed` of a kind as a `size` x `size` image; the same arguments, the same image.

    `variant`: "plain" (flat background), "standard" (gradients, noise, distractor shapes) or "wild" (scale 0.25-1,
    limbs of two other figures behind, one or two bars in front that occlude joints). Raises KeypointError for an
    unknown kind or variant.
    """
    if variant not in VARIANTS:
        raise KeypointError(f"There is no variant {variant!r}; the variants are {', '.join(VARIANTS)}.")
    rng = np.random.default_rng([KINDS.index(known(kind)), VARIANTS.index(variant), seed])
    figure = _placed(kind, variant, rng)
    parts = part_names(kind)
    colors = rng.permutation(len(COLORS))[: len(parts)]  # distinct within a figure
    rgb = np.clip(COLORS[colors] + rng.normal(0, 10, (len(parts), 3)), 0, 255).astype(np.uint8)
    over = 3  # supersampling for smooth edges
    base, main = background(rng, kind, size, variant, over)
    pen, label = ImageDraw.Draw(base), Image.new("L", (size, size))
    label_pen = ImageDraw.Draw(label)

    def paint(polygon: np.ndarray, color: np.ndarray, part: int) -> None:
        _draw(pen, polygon * size * over, color)
        label_pen.polygon([tuple(v) for v in (polygon * size - 0.5).tolist()], fill=part)

    for part, polygon in figure.shapes:
        paint(polygon, rgb[part], part + 1)
    joints = np.stack(figure.joints)  # [L, 2] unit
    visible = ((joints >= 0) & (joints < 1)).all(1)
    covered = Image.new("1", (size, size))
    for bar in _bars(rng, variant):
        paint(bar, rng.integers(0, 256, 3), 0)
        ImageDraw.Draw(covered).polygon([tuple(v) for v in (bar * size - 0.5).tolist()], fill=1)
        visible &= ~_inside(bar, joints)
    image = np.asarray(base.reduce(over)).astype(np.float32)
    if variant != "plain":
        image = image + rng.normal(0, rng.uniform(0, 8), image.shape)
    return Sample(
        kind,
        np.clip(image, 0, 255).astype(np.uint8),
        (joints * size).astype(np.float32),
        visible,
        np.array(label),
        np.array(covered, dtype=bool),
        colors,
        main,
    )
