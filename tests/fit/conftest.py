from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_fits import SHIFTS

from s2sr.data.simulate import simulate_scene
from s2sr.model.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A scene of rectangles, 14 x 17 LR pixels in a 10 m and a 20 m band, with a corner of one date masked."""
    rng = np.random.default_rng(0)
    sharp = np.full((2, 32 * 8, 35 * 8), 0.15)
    for y, x, h, w in rng.integers((0, 0, 8, 8), (256, 280, 64, 64), (60, 4)):
        sharp[:, y : y + h, x : x + w] = rng.uniform(0.05, 0.4, (2, 1, 1))
    scene = simulate_scene(sharp, 8, bands=("B02", "B11"), shifts=SHIFTS, sigma_psf=0.4, noise=0.002, margin=9)
    valid = scene.valid.clone()
    valid[1, :, :4, :5] = False
    return dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)
