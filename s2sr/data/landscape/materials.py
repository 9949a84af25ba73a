"""What the landscape is made of: its materials, their reflectance and the light on them.

Reflectances are plausible values for a clear summer day, not measured spectra.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

BANDS = ("B02", "B03", "B04", "B08")
REFLECTANCE = {  # in the order of BANDS
    "wheat": (0.030, 0.065, 0.035, 0.46),
    "maize": (0.028, 0.060, 0.032, 0.42),
    "beet": (0.033, 0.075, 0.038, 0.50),
    "ripe": (0.070, 0.110, 0.130, 0.31),
    "rape": (0.050, 0.140, 0.120, 0.42),
    "meadow": (0.040, 0.080, 0.055, 0.37),
    "lawn": (0.036, 0.082, 0.045, 0.43),
    "dry grass": (0.065, 0.105, 0.105, 0.33),
    "brown soil": (0.070, 0.098, 0.130, 0.200),
    "pale soil": (0.110, 0.150, 0.195, 0.285),
    "stubble": (0.095, 0.140, 0.180, 0.310),
    "dirt": (0.140, 0.185, 0.230, 0.300),
    "gravel": (0.140, 0.160, 0.180, 0.215),
    "broadleaf": (0.026, 0.055, 0.032, 0.42),
    "conifer": (0.018, 0.034, 0.021, 0.25),
    "water": (0.042, 0.050, 0.034, 0.014),
    "silt": (0.070, 0.085, 0.080, 0.050),
    "reed": (0.040, 0.070, 0.060, 0.28),
    "asphalt": (0.085, 0.095, 0.105, 0.125),
    "kerb": (0.210, 0.240, 0.260, 0.290),
    "red tile": (0.070, 0.100, 0.190, 0.280),
    "brown tile": (0.075, 0.090, 0.125, 0.180),
    "slate": (0.090, 0.098, 0.105, 0.125),
    "metal": (0.340, 0.355, 0.365, 0.375),
    "fibre cement": (0.230, 0.250, 0.265, 0.290),
    "glass": (0.260, 0.300, 0.290, 0.380),
    "white": (0.450, 0.460, 0.460, 0.450),
    "black": (0.030, 0.030, 0.030, 0.040),
    "red": (0.050, 0.055, 0.250, 0.330),
    "blue": (0.200, 0.130, 0.080, 0.150),
}
SUN = np.array([0.88, 0.47])  # towards the sun (south, east): mid-morning


class Material(IntEnum):
    """What a pixel is."""

    GRASS = 0
    FIELD = 1
    TREE = 2
    WATER = 3
    ROAD = 4
    BARE = 5
    ROOF = 6


def spectrum(colour: str) -> np.ndarray:
    """[4, 1, 1] float32 reflectance in the order of BANDS."""
    return np.array(REFLECTANCE[colour], np.float32)[:, None, None]
