"""The spectrum as a law of power, bent or not."""

from __future__ import annotations

import math

import pytest
import torch

from s2sr.model.spectrum import BEND, CORNER, Spectrum


def bent(log_power: float, slope: float, bend: float) -> Spectrum:
    spectrum = Spectrum(torch.ones(1))
    with torch.no_grad():
        spectrum.coefficients.copy_(torch.tensor([[log_power, slope, bend]]))
    return spectrum


def test_the_level_is_the_power_at_nyquist():
    assert float(bent(-3.0, 2.5, 0.2)(0, torch.tensor(0.25, dtype=torch.float64))) == pytest.approx(math.exp(-3))


@pytest.mark.parametrize(("bend", "slopes"), [(0.0, (2.5, 2.5)), (0.2, (2.14, 2.78))])
def test_the_slope_is_that_at_nyquist_and_bends(bend, slopes):
    spectrum = bent(0.0, 2.5, bend)
    for f, slope in zip((0.2, 1.0), slopes, strict=True):
        low, high = (spectrum(0, torch.tensor((f * k) ** 2, dtype=torch.float64)).log() for k in (0.99, 1.01))
        assert float(low - high) / math.log(1.01 / 0.99) == pytest.approx(slope, abs=0.04)


def test_the_first_guess_has_the_variance_of_the_scene():
    """Over all frequencies, but for the bend that scenes have."""
    spectrum = bent(*Spectrum(torch.tensor([0.04])).coefficients[0, :2].tolist(), 0.0)
    f = torch.logspace(-4, 3, 4000, dtype=torch.float64)
    variance = torch.trapezoid(spectrum(0, f.square()) * 2 * math.pi * f, f)
    assert float(variance.detach()) == pytest.approx(0.04, rel=0.02)


def test_a_bend_costs_nats():
    assert float(bent(0.0, 2.5, BEND[0]).prior().detach()) == 0
    assert float(bent(0.0, 2.5, BEND[0] - 2 * BEND[1]).prior().detach()) == pytest.approx(2)


def test_power_is_finite_at_zero():
    assert float(bent(0.0, 2.5, 0.1)(0, torch.zeros(()))) < (0.5 / CORNER) ** 3
