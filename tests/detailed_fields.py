"""Fields with detail at all frequencies, and scenes in which they are observed."""

from __future__ import annotations

import numpy as np
import torch

from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF
from s2sr.model.scene import Observation, Scene

NOISE = 0.002


def field_of(shifts, *, scale=4, size=(40, 44), slope=1.2, seed=0):
    """A field with detail at all frequencies."""
    field = SplatField(Grid(None, (1, 0, 0, 0, -1, 0), size), ("B02", "B04"), scale=scale, psf=PSF(0.4), shifts=shifts)
    shape = field.lattice.shape
    f = np.hypot(np.fft.fftfreq(shape[0], 1 / scale)[:, None], np.fft.rfftfreq(shape[1], 1 / scale))
    coloured = np.fft.rfft2(np.random.default_rng(seed).normal(size=(2, *shape))) * (0.05**2 + f**2) ** (-slope / 2)
    image = np.fft.irfft2(coloured, s=shape)
    with torch.no_grad():
        field.weights.copy_(torch.from_numpy(0.2 + 0.05 * image / image.std()))
    return field


def observed(field, *, seed=0, noise=NOISE):
    frames = field().detach()
    frames = frames + noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed))
    names = tuple(Observation(f"{t}", f"2024-05-{t + 1:02d}", 1.0) for t in range(len(frames)))
    return Scene(frames, torch.ones_like(frames, dtype=torch.bool), field.grid, field.bands, names)
