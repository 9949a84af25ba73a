"""What the window leaves of waves, and its adjoint."""

from __future__ import annotations

import math

import pytest
import torch

from s2sr.fit.evidence.window import Window


def test_high_pass_and_window_leave_the_middle_of_the_spectrum():
    """A wave shorter than the taper keeps its power."""
    n = 96
    wave = torch.cos(2 * math.pi * 30 / n * torch.arange(n, dtype=torch.float64)).expand(n, n)[None, None]
    window = Window((n, n), torch.zeros(1, 2).double(), taper=5, lowest=0.05)
    total = (window.spectra(wave).abs().square() * window.counts).sum()
    assert float(total) == pytest.approx(float(wave.square().sum()), rel=0.05)


def test_the_window_moves_with_the_scene():
    """Otherwise frames of the same ground would differ at their borders, and the difference would pass for noise."""
    n, d = 64, torch.tensor([[0.3, -0.2], [-0.3, 0.2]], dtype=torch.float64)
    x = torch.arange(n, dtype=torch.float64) + 0.5
    wave = [torch.outer(*(torch.cos(2 * math.pi * 9.3 / n * (x - shift)) for shift in pair)) for pair in d]
    rows, columns = torch.fft.fftfreq(n), torch.fft.rfftfreq(n)
    spectra = Window((n, n), d, taper=20, lowest=0).spectra(torch.stack(wave)[:, None])[:, 0]
    back = [torch.exp(2j * math.pi * (rows[:, None] * dy + columns * dx)) for dy, dx in d]
    one, other = (y * phase for y, phase in zip(spectra, back, strict=True))
    assert float((one - other).abs().square().sum() / one.abs().square().sum()) < 1e-5


@pytest.mark.parametrize("shape", [(40, 40), (41, 30)])
def test_the_adjoint_of_the_spectra(shape):
    """The product runs over the frequencies that real frames have, those of both signs."""
    torch.manual_seed(0)
    frames = torch.randn(3, 2, *shape, dtype=torch.float64)
    spectra = torch.fft.rfft2(torch.randn(frames.shape, dtype=torch.float64), norm="ortho")
    window = Window(shape, 0.3 * torch.randn(3, 2, dtype=torch.float64), taper=5, lowest=0.1)
    seen = (window.spectra(frames) * spectra.conj()).real * window.aliases.counts
    assert float((frames * window.adjoint(spectra)).sum()) == pytest.approx(float(seen.sum()), rel=1e-10)
