"""The visible modes against a plain transform of the weights, and against what a field observes of a wave."""

from __future__ import annotations

import math

import pytest
import torch

from s2sr.fit.modes import Modes
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF


@pytest.fixture(scope="module", params=[1, 2, 4])
def field(request) -> SplatField:
    grid = Grid(None, (1, 0, 0, 0, -1, 0), (13, 10))
    psf, shifts = PSF(0.4), torch.zeros(1, 2, dtype=torch.float64)
    field = SplatField(grid, ("B02", "B11"), scale=request.param, psf=psf, shifts=shifts, dtype=torch.float64)
    with torch.no_grad():
        field.weights.normal_(generator=torch.Generator().manual_seed(0))
    return field


def test_modes_are_those_of_the_whole_transform(field):
    modes = Modes(field)
    whole = torch.fft.fft2(field.weights.detach(), norm="ortho")
    cells = [n // field.scale for n in field.lattice.shape]
    rows, columns = ((f * n).round().long() % (n * field.scale) for f, n in zip(modes.aliases.each, cells, strict=True))
    torch.testing.assert_close(modes.of_images(field.weights.detach()), whole[:, rows, columns])


def test_the_transfer_is_the_amplitude_at_which_a_wave_is_observed(field):
    """On a lattice of one splat per LR pixel an alias is the frequency itself."""
    modes = Modes(field)
    found, frequencies = modes.transfer() * field.scale, modes.aliases.each
    y, x = (field.lattice.centres(axis) for axis in (0, 1))
    i, j = (torch.arange(n, dtype=torch.float64) + 0.5 for n in field.grid.shape)
    for alias in range(frequencies.shape[1]):
        row, column = frequencies[:, alias, 2, 3].tolist()
        with torch.no_grad():
            field.weights.copy_(torch.cos(2 * math.pi * (row * y[:, None] + column * x)))
            (frames,) = field()
        wave = torch.cos(2 * math.pi * (row * i[:, None] + column * j))
        amplitude = (frames * wave).sum((1, 2)) / wave.square().sum()
        torch.testing.assert_close(amplitude.abs(), found[:, alias, 2, 3], rtol=0, atol=2e-3)
