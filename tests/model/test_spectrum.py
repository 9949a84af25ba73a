import math

import pytest
import torch

from s2sr.model.spectrum import Spectrum


@pytest.mark.parametrize("slope", [1.5, 2.0, 2.0 + 1e-8, 2.5, 4.0])
def test_the_first_guess_has_the_variance_that_lr_pixels_show(slope):
    """The integral of P over |f| < 1/2, on rings."""
    spectrum = Spectrum(torch.tensor([0.003, 0.01], dtype=torch.float64), slope=slope)
    f = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 400_000
    for band, variance in enumerate((0.003, 0.01)):
        rings = spectrum(band, f.square()).detach() * 2 * math.pi * f / 400_000
        assert float(rings.sum()) == pytest.approx(variance, rel=1e-4)
        assert float(spectrum.variance()[band].detach()) == pytest.approx(variance, rel=1e-6)


def test_power_is_that_at_the_nyquist_frequency_and_falls_with_the_slope():
    spectrum = Spectrum(torch.tensor([0.003], dtype=torch.float64), slope=3.0, corner=1e-4)
    half, whole = (float(spectrum(0, torch.tensor(f**2, dtype=torch.float64)).detach()) for f in (0.5, 1.0))
    assert half == pytest.approx(float(spectrum.log_power.detach().exp()))
    assert half / whole == pytest.approx(2**3.0, rel=1e-6)
