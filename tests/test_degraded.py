"""benchmarks/degraded.py: what it makes of 10 m frames is what a detector of 20 m sees, and it scores what is new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF
from s2sr.model.scene import Scene

BANDS, SIGMA = ("B02", "B04"), torch.tensor([0.387, 0.451])
SHIFTS = torch.tensor([[0.2, -0.3], [-0.4, 0.1], [0.3, 0.25], [-0.1, -0.05]])  # pixels of 10 m
PHASES = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
INSIDE = (..., slice(7, -7), slice(7, -7))


@pytest.fixture
def degraded(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import degraded

    return degraded


@pytest.fixture
def field() -> SplatField:
    """Noise on a lattice of LR pixels of 20 m; its PSF is that of the degraded frames."""
    sigma = dict(zip(BANDS, (SIGMA / 2).tolist(), strict=True))
    field = SplatField(Grid(None, (20, 0, 0, 0, -20, 0), (22, 25)), BANDS, scale=4, psf=PSF(sigma), shifts=SHIFTS)
    with torch.no_grad():
        field.weights.normal_(0.2, 0.05, generator=torch.Generator().manual_seed(0))
    return field


def stack_of(degraded, field):
    frames = degraded.twice(degraded.through(field, width=0.5, sigma=SIGMA), SHIFTS / 2)
    dates = [f"2024-06-0{t + 1}" for t in range(len(SHIFTS))]
    return degraded.Stack(Scene.of(frames, bands=BANDS, dates=dates), SHIFTS, SIGMA)


@torch.no_grad()
def test_block_means_are_what_a_detector_of_20_m_sees(degraded, field):
    low = stack_of(degraded, field).degraded(PHASES, blur=False)
    rows, columns = low.grid.shape
    expected = field.observed((SHIFTS - PHASES) / 2)[..., :rows, :columns]
    assert torch.allclose(low.frames, expected, atol=2e-6)
    assert low.valid.all()


@torch.no_grad()
def test_blurred_they_have_the_published_sigma_in_pixels_of_20_m(degraded, field):
    low = stack_of(degraded, field).degraded(PHASES, blur=True)
    rows, columns = low.grid.shape
    wide = degraded.through(field, sigma=SIGMA)((SHIFTS - PHASES) / 2)[..., :rows, :columns]
    assert wide[INSIDE].std() > 5e-3
    # what of this white noise the 10 m frames alias is blurred where it came to lie
    assert (low.frames - wide)[INSIDE].square().mean().sqrt() < 0.05 * wide[INSIDE].std()


@torch.no_grad()
def test_frames_are_moved_to_one_place(degraded, field):
    blur = 1.5 * torch.ones(2)  # pixels of 10 m: hardly anything is aliased
    stack = stack_of(degraded, field)
    centre = ((SHIFTS - PHASES) / 2).mean(0)
    found = degraded.passed(stack.scene.frames, blur, 2 * centre - SHIFTS)
    sigma = (blur.square() + SIGMA.square()).sqrt()
    expected = degraded.twice(degraded.through(field, width=0.5, sigma=sigma), centre[None])
    away = (found - expected)[..., 16:-16, 16:-16]
    assert away.square().mean().sqrt() < 0.02 * expected[..., 16:-16, 16:-16].std()


def test_what_lacks_the_new_octave_scores_nothing_there(degraded):
    rows, columns = np.mgrid[:64, :72]
    coarse = np.sin(2 * np.pi * 0.11 * rows) * np.cos(2 * np.pi * 0.07 * columns)  # cycles per pixel of 10 m
    truth = (coarse + 0.3 * np.cos(2 * np.pi * 0.37 * columns))[None]
    same, without = degraded.compared(truth, truth), degraded.compared(coarse[None], truth)
    assert same["new"] == pytest.approx(0, abs=1e-12)
    assert same["corr"] == pytest.approx(1)
    assert without["new"] == pytest.approx(1, abs=0.02)
    assert without["low"] < 0.02
