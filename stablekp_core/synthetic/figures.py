"""Parts, joints and shapes of the generated figures: cartoon *faces* (easy) and articulated paper *dolls* (hard).

Frame: unit coordinates, x right, y down, the figure around the origin. *Left* and *right* are the figure's own, as in
COCO; every figure faces the viewer, so its left hand is on the right. Nothing here knows of images or colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..errors import KeypointError

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


@dataclass
class Figure:
    """Polygons in painting order, each with its part index, and the joints, all in unit coordinates."""

    shapes: list[tuple[int, np.ndarray]] = field(default_factory=list)
    joints: list[np.ndarray] = field(default_factory=list)

    def transformed(self, matrix: np.ndarray, shift: np.ndarray) -> Figure:
        """The figure with every point p moved to matrix [2, 2] @ p + shift [2]."""
        return Figure([(p, v @ matrix.T + shift) for p, v in self.shapes], [j @ matrix.T + shift for j in self.joints])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (x, y) of the polygons, each [2], in unit coordinates."""
        points = np.concatenate([v for _, v in self.shapes])
        return points.min(0), points.max(0)


def part_names(kind: str) -> tuple[str, ...]:
    """Names of the coloured parts of a kind, in label order."""
    return {"faces": FACE_PARTS, "dolls": DOLL_PARTS}[known(kind)]


def landmark_names(kind: str) -> tuple[str, ...]:
    """Names of the annotated joints of a kind, in joint order."""
    return {"faces": FACE_JOINTS, "dolls": DOLL_JOINTS}[known(kind)]


def landmark_skeleton(kind: str) -> tuple[tuple[int, int], ...]:
    """Pairs of joint indices that are joined by a bone."""
    return {"faces": FACE_BONES, "dolls": DOLL_BONES}[known(kind)]


def known(kind: str) -> str:
    """`kind`, when it is one of KINDS; else KeypointError."""
    if kind not in KINDS:
        raise KeypointError(f"There is no generated class {kind!r}; the classes are {', '.join(KINDS)}.")
    return kind


def ellipse(center, rx: float, ry: float, angle: float = 0.0, n: int = 28) -> np.ndarray:
    """Polygon [n, 2] of an ellipse with radii rx and ry, turned by `angle` radians."""
    t = np.linspace(0, 2 * math.pi, n, endpoint=False)
    c, s = math.cos(angle), math.sin(angle)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return np.stack([center[0] + c * x - s * y, center[1] + s * x + c * y], 1)


def capsule(a, b, wa: float, wb: float, n: int = 8) -> np.ndarray:
    """Polygon [2n, 2] of a rounded limb from point a (half-width wa) to point b (half-width wb)."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    theta = math.atan2(b[1] - a[1], b[0] - a[0])
    ta = np.linspace(theta + math.pi / 2, theta + 3 * math.pi / 2, n)
    tb = np.linspace(theta - math.pi / 2, theta + math.pi / 2, n)
    return np.concatenate(
        [a + wa * np.stack([np.cos(ta), np.sin(ta)], 1), b + wb * np.stack([np.cos(tb), np.sin(tb)], 1)]
    )


def face(rng: np.random.Generator) -> Figure:
    """A cartoon head of height 2 around the origin; its left side is at positive x."""
    u = rng.uniform
    width = u(0.75, 1.0)
    eye_y, eye_x, eye_r = u(-0.25, -0.1), u(0.32, 0.42) * width, u(0.13, 0.18)
    brow_y, brow_tilt = eye_y - u(0.25, 0.33), u(-0.25, 0.25)
    nose_y, mouth_y, mouth_w = eye_y + u(0.33, 0.43), u(0.52, 0.66), u(0.28, 0.42) * width
    ear_y, ear_r = u(-0.15, 0.1), u(0.17, 0.24)
    look, nod = u(-0.1, 0.1) * width, u(-0.06, 0.06)  # a slight turn of the head moves the inner parts together
    fig = Figure()
    for part, side in ((1, 1), (2, -1)):
        fig.shapes.append((part, ellipse((side * (width + 0.06), ear_y), ear_r * 0.8, ear_r * 1.2)))
    fig.shapes.append((0, ellipse((0, 0), width, 1.0, n=40)))
    for part, side in ((3, 1), (4, -1)):
        fig.shapes.append((part, ellipse((side * eye_x + look, eye_y + nod), eye_r, eye_r * u(0.75, 1.0))))
    for part, side in ((5, 1), (6, -1)):
        c = np.array([side * eye_x + look, brow_y + nod])
        d = np.array([0.19, 0.19 * brow_tilt * side])
        fig.shapes.append((part, capsule(c - d, c + d, 0.065, 0.065)))
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


def doll(rng: np.random.Generator) -> Figure:
    """An articulated figure with its neck at (0, -1) and hips near (0, 0); its left side is at positive x."""
    u = rng.uniform
    shoulder, hip = u(0.38, 0.5), u(0.22, 0.32)
    arm, fore, thigh, shin = u(0.5, 0.62), u(0.45, 0.58), u(0.6, 0.74), u(0.58, 0.72)
    w_arm, w_leg, head_r = u(0.085, 0.11), u(0.11, 0.14), u(0.27, 0.34)
    neck, lean = np.array([0.0, -1.0]), u(-0.12, 0.12)
    fig, joints = Figure(), {}
    limbs, extremities = [], []
    for side, base in ((1, 4), (-1, 7)):
        s = neck + np.array([side * shoulder, 0.1])
        a1 = u(-0.5, 2.5)  # 0 hangs down, pi/2 points sideways
        a2 = a1 + u(-0.3, 1.6)
        e = s + arm * np.array([side * math.sin(a1), math.cos(a1)])
        w = e + fore * np.array([side * math.sin(a2), math.cos(a2)])
        joints[("shoulder", side)], joints[("elbow", side)], joints[("wrist", side)] = s, e, w
        limbs += [(base, capsule(s, e, w_arm * 1.15, w_arm)), (base + 1, capsule(e, w, w_arm, w_arm * 0.8))]
        extremities.append((base + 2, ellipse(w + 0.06 * (w - e) / fore, w_arm * 1.3, w_arm * 1.3, n=16)))
    for side, base in ((1, 10), (-1, 13)):
        h = np.array([side * hip * 0.75, 0.0])
        a1 = u(-0.15, 0.9)
        a2 = a1 - u(-0.15, 0.9)
        k = h + thigh * np.array([side * math.sin(a1), math.cos(a1)])
        a = k + shin * np.array([side * math.sin(a2), math.cos(a2)])
        joints[("hip", side)], joints[("knee", side)], joints[("ankle", side)] = h, k, a
        limbs += [(base, capsule(h, k, w_leg * 1.1, w_leg)), (base + 1, capsule(k, a, w_leg, w_leg * 0.75))]
        extremities.append((base + 2, ellipse(a + np.array([side * 0.09, 0.05]), 0.19, 0.1, side * 0.1, n=16)))
    fig.shapes += extremities[2:] + limbs[4:]
    fig.shapes.append((3, np.array([[-shoulder, -0.98], [shoulder, -0.98], [hip, 0.12], [-hip, 0.12]])))
    head = neck + np.array([lean * head_r, -head_r * 0.95])
    fig.shapes.append((0, ellipse(head, head_r, head_r * 1.1)))
    look = u(-0.08, 0.08)
    for part, side in ((1, 1), (2, -1)):
        c = head + np.array([side * 0.13 + look, -0.02])
        joints[("eye", side)] = c
        fig.shapes.append((part, ellipse(c, 0.085, 0.085, n=16)))
    fig.shapes += limbs[:4] + extremities[:2]
    fig.joints = [joints[("eye", 1)], joints[("eye", -1)], neck]
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        fig.joints += [joints[(name, 1)], joints[(name, -1)]]
    return fig


BUILDERS = {"faces": face, "dolls": doll}
