"""Fields of white noise and of waves, and what a dense operator makes of them, written out from the formula."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from s2sr.model.field import SplatField
from s2sr.model.footprint import pixel_integral
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF

MIXED = ("B02", "B11")  # 10 and 20 m
SHIFTS = ((0.31, -0.17), (-0.42, 0.05), (0.11, 0.12))
EXACT = {torch.float32: 2e-6, torch.float64: 1e-13}  # relative


def grid(rows: int, columns: int) -> Grid:
    return Grid("EPSG:32631", (10, 0, 500_000, 0, -10, 5_600_000), (rows, columns))


def field_of(
    shape: tuple[int, int] = (7, 9),
    *,
    bands: tuple[str, ...] = MIXED,
    scale: int = 2,
    shifts: object = SHIFTS,
    sigma: float = 0.4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **options: bool,
) -> SplatField:
    """A field of white noise, which is the hardest for every law."""
    psf = PSF(sigma, learn=options.pop("learn", False))
    shifts = torch.as_tensor(shifts, dtype=dtype).view(-1, 2)
    field = SplatField(grid(*shape), bands, scale=scale, psf=psf, shifts=shifts, dtype=dtype, **options)
    with torch.no_grad():
        field.weights.normal_(generator=torch.Generator().manual_seed(seed))
    return field


def smoothed(field: SplatField, cycles: float = 0.35) -> SplatField:
    """The field with weights that hold a few sinusoids of up to `cycles` per LR pixel, 0.1 to 0.5."""
    rng = np.random.default_rng(1)
    y, x = (field.lattice.centres(axis) for axis in (0, 1))
    with torch.no_grad():
        for w in field.weights:
            waves = [
                torch.cos(2 * math.pi * (f * y[:, None] + g * x) + p)
                for f, g, p in zip(*rng.uniform(-cycles, cycles, (2, 8)), rng.uniform(0, 6, 8), strict=True)
            ]
            w.copy_(0.3 + 0.2 * torch.stack(waves).mean(0))
    return field


def range_of(w: Tensor) -> float:
    return float((w.max() - w.min()).detach())


def dense(field: SplatField) -> Tensor:
    """The frames by A_y @ W @ A_x.T, A from the formula over all splats: not truncated, not normalised, no margin."""
    s, frames = field.scale, []
    for b, w in enumerate(field.weights):
        width = field.widths[b]
        sigma = torch.hypot(width * field.log_sigma[b].exp(), torch.tensor(0.6 / s, dtype=w.dtype))
        sides = []
        for axis, n in enumerate(field.grid.shape):
            pixels = torch.arange(n, dtype=w.dtype) + 0.5
            u = pixels[:, None] - field.shifts[:, axis, None, None] - field.lattice.centres(axis).to(w)
            sides.append(pixel_integral(u, width, sigma) / s)  # [t, n, k]
        frames.append(sides[0] @ w @ sides[1].mT)
    return field.radiometry(torch.stack(frames, 1))
