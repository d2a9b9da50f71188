"""Seeded generator of pictures with known joints: cartoon *faces* (easy) and articulated paper *dolls* (hard).

Every part of a figure has a random colour of its own and the background is cluttered, so colour tells nothing
about which part a pixel belongs to; only shape and arrangement do. The embedded demo model is trained on these
pictures, and tests, benchmarks and the demo use them because their joints are exact. Nothing else in the package
knows that these pictures exist.

Frame: figures are built in unit coordinates (x right, y down, the picture is [0, 1] x [0, 1]); samples report
joints in pixels. *Left* and *right* are the figure's own, as in COCO; every figure faces the viewer, so its left
hand is on the right of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from .errors import KeypointError

FACE_PARTS = (
    "head",
    "left ear",
    "right ear",
    "left eye",
    "right eye",
    "left brow",
    "right brow",
    "nose",
    "mouth",
    "hat",
)
FACE_JOINTS = (
    "left eye",
    "right eye",
    "left brow",
    "right brow",
    "nose",
    "mouth left",
    "mouth right",
    "left ear",
    "right ear",
    "chin",
    "hat top",
)
FACE_BONES = ((0, 1), (2, 3), (0, 4), (1, 4), (4, 5), (4, 6), (5, 6), (5, 9), (6, 9), (0, 7), (1, 8), (2, 10), (3, 10))
DOLL_PARTS = (
    "head",
    "left eye",
    "right eye",
    "torso",
    "left upper arm",
    "left lower arm",
    "left hand",
    "right upper arm",
    "right lower arm",
    "right hand",
    "left upper leg",
    "left lower leg",
    "left foot",
    "right upper leg",
    "right lower leg",
    "right foot",
)
DOLL_JOINTS = (
    "left eye",
    "right eye",
    "neck",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
DOLL_BONES = (
    (0, 1),
    (0, 2),
    (1, 2),
    (2, 3),
    (2, 4),
    (3, 5),
    (5, 7),
    (4, 6),
    (6, 8),
    (2, 9),
    (2, 10),
    (9, 10),
    (9, 11),
    (11, 13),
    (10, 12),
    (12, 14),
)
KINDS = ("faces", "dolls")
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


@dataclass(frozen=True)
class Sample:
    """One picture and everything that is known about it.

    image: uint8 [S, S, 3] RGB. joints: float32 [L, 2] pixels (x, y). visible: bool [L], False where a bar hides the
    joint or it lies outside. labels: uint8 [S, S], the part at each pixel centre (0 background or bar, i + 1 for
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


@dataclass
class _Figure:
    """Polygons in painting order, each with its part index, and the joints, all in unit coordinates."""

    shapes: list[tuple[int, np.ndarray]] = field(default_factory=list)
    joints: list[np.ndarray] = field(default_factory=list)

    def transformed(self, matrix: np.ndarray, shift: np.ndarray) -> _Figure:
        return _Figure([(p, v @ matrix.T + shift) for p, v in self.shapes], [j @ matrix.T + shift for j in self.joints])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        points = np.concatenate([v for _, v in self.shapes])
        return points.min(0), points.max(0)


def part_names(kind: str) -> tuple[str, ...]:
    """Names of the coloured parts of a kind, in label order."""
    return {"faces": FACE_PARTS, "dolls": DOLL_PARTS}[_known(kind)]


def landmark_names(kind: str) -> tuple[str, ...]:
    """Names of the annotated joints of a kind, in joint order."""
    return {"faces": FACE_JOINTS, "dolls": DOLL_JOINTS}[_known(kind)]


def landmark_skeleton(kind: str) -> tuple[tuple[int, int], ...]:
    """Pairs of joint indices that are joined by a bone."""
    return {"faces": FACE_BONES, "dolls": DOLL_BONES}[_known(kind)]


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise KeypointError(f"There is no generated class {kind!r}; the classes are {', '.join(KINDS)}.")
    return kind


def _ellipse(center, rx: float, ry: float, angle: float = 0.0, n: int = 28) -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, n, endpoint=False)
    c, s = math.cos(angle), math.sin(angle)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return np.stack([center[0] + c * x - s * y, center[1] + s * x + c * y], 1)


def _capsule(a, b, wa: float, wb: float, n: int = 8) -> np.ndarray:
    """A rounded limb from a (half-width wa) to b (half-width wb)."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    theta = math.atan2(b[1] - a[1], b[0] - a[0])
    ta = np.linspace(theta + math.pi / 2, theta + 3 * math.pi / 2, n)
    tb = np.linspace(theta - math.pi / 2, theta + math.pi / 2, n)
    return np.concatenate(
        [a + wa * np.stack([np.cos(ta), np.sin(ta)], 1), b + wb * np.stack([np.cos(tb), np.sin(tb)], 1)]
    )


def _face(rng: np.random.Generator) -> _Figure:
    """A cartoon head of height 2 around the origin; its left side is at positive x."""
    u = rng.uniform
    width = u(0.75, 1.0)
    eye_y, eye_x, eye_r = u(-0.25, -0.1), u(0.32, 0.42) * width, u(0.13, 0.18)
    brow_y, brow_tilt = eye_y - u(0.25, 0.33), u(-0.25, 0.25)
    nose_y, mouth_y, mouth_w = eye_y + u(0.33, 0.43), u(0.52, 0.66), u(0.28, 0.42) * width
    ear_y, ear_r = u(-0.15, 0.1), u(0.17, 0.24)
    look, nod = u(-0.1, 0.1) * width, u(-0.06, 0.06)  # a slight turn of the head moves the inner parts together
    fig = _Figure()
    for part, side in ((1, 1), (2, -1)):
        fig.shapes.append((part, _ellipse((side * (width + 0.06), ear_y), ear_r * 0.8, ear_r * 1.2)))
    fig.shapes.append((0, _ellipse((0, 0), width, 1.0, n=40)))
    for part, side in ((3, 1), (4, -1)):
        fig.shapes.append((part, _ellipse((side * eye_x + look, eye_y + nod), eye_r, eye_r * u(0.75, 1.0))))
    for part, side in ((5, 1), (6, -1)):
        c = np.array([side * eye_x + look, brow_y + nod])
        d = np.array([0.19, 0.19 * brow_tilt * side])
        fig.shapes.append((part, _capsule(c - d, c + d, 0.065, 0.065)))
    nose = np.array([look * 1.4, nose_y + nod])
    fig.shapes.append((7, nose + np.array([[0, -0.2], [0.15, 0.1], [-0.15, 0.1]]) * u(0.8, 1.15)))
    t = np.linspace(-1, 1, 12)
    curve = u(-0.1, 0.18) * (1 - t**2)
    top = np.stack([look + mouth_w * t, mouth_y + nod + curve - 0.075 * np.sqrt(1.05 - t**2)], 1)
    low = np.stack([look + mouth_w * t, mouth_y + nod + curve + 0.075 * np.sqrt(1.05 - t**2)], 1)
    fig.shapes.append((8, np.concatenate([top, low[::-1]])))
    brim_y, brim_w, crown_w, crown_h = -0.78, width * u(0.95, 1.15), width * u(0.5, 0.75), u(0.45, 0.7)
    fig.shapes.append(
        (
            9,
            np.array(
                [
                    [-brim_w, brim_y],
                    [-brim_w, brim_y - 0.16],
                    [-crown_w, brim_y - 0.16],
                    [-crown_w * 0.9, brim_y - crown_h],
                    [crown_w * 0.9, brim_y - crown_h],
                    [crown_w, brim_y - 0.16],
                    [brim_w, brim_y - 0.16],
                    [brim_w, brim_y],
                ]
            ),
        )
    )
    fig.joints = [
        np.array(p)
        for p in (
            (eye_x + look, eye_y + nod),
            (-eye_x + look, eye_y + nod),
            (eye_x + look, brow_y + nod),
            (-eye_x + look, brow_y + nod),
            nose,
            (look + mouth_w, mouth_y + nod),
            (look - mouth_w, mouth_y + nod),
            (width + 0.06, ear_y),
            (-width - 0.06, ear_y),
            (0.0, 1.0),
            (0.0, brim_y - crown_h),
        )
    ]
    return fig


def _doll(rng: np.random.Generator) -> _Figure:
    """An articulated figure with its neck at (0, -1) and hips near (0, 0); its left side is at positive x."""
    u = rng.uniform
    shoulder, hip = u(0.38, 0.5), u(0.22, 0.32)
    arm, fore, thigh, shin = u(0.5, 0.62), u(0.45, 0.58), u(0.6, 0.74), u(0.58, 0.72)
    w_arm, w_leg, head_r = u(0.085, 0.11), u(0.11, 0.14), u(0.27, 0.34)
    neck, lean = np.array([0.0, -1.0]), u(-0.12, 0.12)
    fig, joints = _Figure(), {}
    limbs, extremities = [], []
    for side, base in ((1, 4), (-1, 7)):
        s = neck + np.array([side * shoulder, 0.1])
        a1 = u(-0.5, 2.5)  # 0 hangs down, pi/2 points sideways
        a2 = a1 + u(-0.3, 1.6)
        e = s + arm * np.array([side * math.sin(a1), math.cos(a1)])
        w = e + fore * np.array([side * math.sin(a2), math.cos(a2)])
        joints[("shoulder", side)], joints[("elbow", side)], joints[("wrist", side)] = s, e, w
        limbs += [(base, _capsule(s, e, w_arm * 1.15, w_arm)), (base + 1, _capsule(e, w, w_arm, w_arm * 0.8))]
        extremities.append((base + 2, _ellipse(w + 0.06 * (w - e) / fore, w_arm * 1.3, w_arm * 1.3, n=16)))
    for side, base in ((1, 10), (-1, 13)):
        h = np.array([side * hip * 0.75, 0.0])
        a1 = u(-0.15, 0.9)
        a2 = a1 - u(-0.15, 0.9)
        k = h + thigh * np.array([side * math.sin(a1), math.cos(a1)])
        a = k + shin * np.array([side * math.sin(a2), math.cos(a2)])
        joints[("hip", side)], joints[("knee", side)], joints[("ankle", side)] = h, k, a
        limbs += [(base, _capsule(h, k, w_leg * 1.1, w_leg)), (base + 1, _capsule(k, a, w_leg, w_leg * 0.75))]
        extremities.append((base + 2, _ellipse(a + np.array([side * 0.09, 0.05]), 0.19, 0.1, side * 0.1, n=16)))
    fig.shapes += extremities[2:] + limbs[4:]
    fig.shapes.append((3, np.array([[-shoulder, -0.98], [shoulder, -0.98], [hip, 0.12], [-hip, 0.12]])))
    head = neck + np.array([lean * head_r, -head_r * 0.95])
    fig.shapes.append((0, _ellipse(head, head_r, head_r * 1.1)))
    look = u(-0.08, 0.08)
    for part, side in ((1, 1), (2, -1)):
        c = head + np.array([side * 0.13 + look, -0.02])
        joints[("eye", side)] = c
        fig.shapes.append((part, _ellipse(c, 0.085, 0.085, n=16)))
    fig.shapes += limbs[:4] + extremities[:2]
    fig.joints = [joints[("eye", 1)], joints[("eye", -1)], neck]
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        fig.joints += [joints[(name, 1)], joints[(name, -1)]]
    return fig


_BUILDERS = {"faces": _face, "dolls": _doll}
_SCALES = {"plain": (0.7, 0.95), "standard": (0.6, 0.95), "wild": (0.25, 1.0)}


def _placed(kind: str, variant: str, rng: np.random.Generator) -> _Figure:
    """A figure, turned by up to 20 degrees, scaled to a share of the picture and put where all of it is inside."""
    fig = _BUILDERS[kind](rng)
    angle = math.radians(rng.uniform(-20, 20))
    c, s = math.cos(angle), math.sin(angle)
    fig = fig.transformed(np.array([[c, -s], [s, c]]), np.zeros(2))
    low, high = fig.bounds()
    scale = rng.uniform(*_SCALES[variant]) * 0.98 / float((high - low).max())
    room = 1.0 - (high - low) * scale
    shift = rng.uniform(0, 1, 2) * room - low * scale
    return fig.transformed(np.eye(2) * scale, shift)


def _background(rng: np.random.Generator, variant: str, n: int) -> tuple[np.ndarray, int]:
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
            polygons.append(_ellipse(c, r, r * rng.uniform(0.4, 1), rng.uniform(0, 3)))
        else:
            t = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 6))))
            polygons.append(c + r * np.stack([np.cos(t), np.sin(t)], 1))
    if variant == "wild":
        for _ in range(2):
            other = _placed(kind, "wild", rng)
            picked = rng.permutation(len(other.shapes))[:5]
            polygons += [other.shapes[i][1] for i in picked]
    return polygons


def _bars(rng: np.random.Generator, variant: str) -> list[np.ndarray]:
    """Bars in front of the figure (wild only)."""
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
    """Draw the figure number `seed` of a kind as a `size` x `size` picture; the same arguments, the same picture.

    `variant`: "plain" (flat background), "standard" (gradients, noise, distractor shapes) or "wild" (scale 0.25-1,
    limbs of two other figures behind, one or two bars in front that hide joints).
    """
    if variant not in VARIANTS:
        raise KeypointError(f"There is no variant {variant!r}; the variants are {', '.join(VARIANTS)}.")
    rng = np.random.default_rng([KINDS.index(_known(kind)), VARIANTS.index(variant), seed])
    figure = _placed(kind, variant, rng)
    parts = part_names(kind)
    colors = rng.permutation(len(COLORS))[: len(parts)]  # distinct within a figure
    rgb = np.clip(COLORS[colors] + rng.normal(0, 10, (len(parts), 3)), 0, 255).astype(np.uint8)
    over = 3  # supersampling for smooth edges
    clutter, main = _background(rng, variant, size)
    base = Image.fromarray(np.clip(clutter, 0, 255).astype(np.uint8)).resize((size * over,) * 2)
    pen, label = ImageDraw.Draw(base), Image.new("L", (size, size))
    label_pen = ImageDraw.Draw(label)

    def paint(polygon: np.ndarray, color: np.ndarray, part: int | None) -> None:
        pen.polygon([tuple(v) for v in (polygon * size * over).tolist()], fill=tuple(int(c) for c in color))
        if part is not None:
            label_pen.polygon([tuple(v) for v in (polygon * size - 0.5).tolist()], fill=part)

    for polygon in _distractors(rng, kind, variant):
        paint(polygon, rng.integers(0, 256, 3), None)
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
