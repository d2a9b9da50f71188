"""Colours for keypoints: distinct for up to 32 points, also to readers with red-green colour blindness."""

from __future__ import annotations

import numpy as np

from ..errors import KeypointError

# How these were chosen. Candidates: the sRGB grid in steps of 17 with CIELAB lightness 32..94 (visible on
# black and on white with the thin outline that dots have) and chroma of at least 25 (48 for the first ten).
# The distance of two colours is the smallest CIEDE2000 difference over normal vision and full protanopia
# and deuteranopia, simulated by the matrices of Machado, Oliveira and Fernandes (2009). Farthest-point
# picking with swaps maximised the smallest distance of the first 10, then of the first 20 with those ten
# kept, then of all 32. Each block is in farthest-point order, so that every prefix is spread out too.
# Smallest distances: 16.4 (10), 10.1 (20), 7.9 (32).
_COLORS = (
    (170, 255, 17),
    (170, 0, 170),
    (85, 102, 0),
    (17, 255, 255),
    (34, 187, 136),
    (0, 170, 255),
    (204, 136, 17),
    (238, 85, 170),
    (187, 51, 102),
    (136, 255, 187),
    (17, 136, 136),
    (255, 170, 204),
    (187, 204, 102),
    (0, 51, 255),
    (221, 0, 51),
    (153, 0, 102),
    (34, 119, 255),
    (136, 51, 68),
    (221, 119, 102),
    (119, 204, 255),
    (187, 102, 102),
    (68, 153, 170),
    (102, 119, 68),
    (221, 34, 136),
    (0, 221, 170),
    (238, 238, 136),
    (204, 136, 204),
    (170, 85, 187),
    (221, 170, 0),
    (119, 187, 170),
    (34, 102, 85),
    (153, 255, 221),
)


def palette(k: int) -> tuple[tuple[int, int, int], ...]:
    """k RGB colours (0..255), the first 32 all different; after that they repeat. Raises KeypointError for k < 0."""
    if k < 0:
        raise KeypointError(f"{k} colours were asked for, but the number must not be negative.")
    return tuple(_COLORS[i % len(_COLORS)] for i in range(k))


#: The colour map "inferno" (Smith and van der Walt, CC0) at 18 even steps: brightness alone tells the order.
_HEAT = """
000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b
c63d4d d94d3d e9612b f47918 fa9407 fcb014 f8cd37 f2ea69 fcffa4
"""


def heat_colors(level: np.ndarray) -> np.ndarray:
    """Colours of values in [0, 1], from black over red to pale yellow: [...] -> float64 [..., 3] in 0 to 255."""
    stops = np.array([tuple(bytes.fromhex(color)) for color in _HEAT.split()], dtype=np.float64)  # [18, 3]
    at = np.linspace(0.0, 1.0, len(stops))
    return np.stack([np.interp(level, at, stops[:, channel]) for channel in range(3)], axis=-1)
