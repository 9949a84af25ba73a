"""The spectrum as a law of power, bent or not."""

from __future__ import annotations

import math

import pytest
import torch

from s2sr.model.spectrum import BEND, CORNER, RIPPLE, RIPPLES, Spectrum


def bent(log_power: float, slope: float, bend: float) -> Spectrum:
    spectrum = Spectrum(torch.ones(1))
    with torch.no_grad():
        spectrum.coefficients[0, :3] = torch.tensor([log_power, slope, bend])
    return spectrum


def test_the_level_is_the_power_at_nyquist():
    assert float(bent(-3.0, 2.5, 0.2)(0, torch.tensor(0.25, dtype=torch.float64)).detach()) == pytest.approx(
        math.exp(-3)
    )


@pytest.mark.parametrize(("bend", "slopes"), [(0.0, (2.5, 2.5)), (0.2, (2.14, 2.78))])
def test_the_slope_is_that_at_nyquist_and_bends(bend, slopes):
    spectrum = bent(0.0, 2.5, bend)
    for f, slope in zip((0.2, 1.0), slopes, strict=True):
        low, high = (spectrum(0, torch.tensor((f * k) ** 2, dtype=torch.float64)).log() for k in (0.99, 1.01))
        assert float((low - high).detach()) / math.log(1.01 / 0.99) == pytest.approx(slope, abs=0.04)


def test_a_bend_costs_nats():
    assert float(bent(0.0, 2.5, 0.0).prior().detach()) == 0
    assert float(bent(0.0, 2.5, -2 * BEND).prior().detach()) == pytest.approx(2)


def test_a_ripple_is_where_it_belongs_and_costs_nats():
    rippled, plain = bent(0.0, 2.5, 0.0), bent(0.0, 2.5, 0.0)
    with torch.no_grad():
        rippled.coefficients[0, 3 + 2] = 3 * RIPPLE
    at = torch.tensor(RIPPLES, dtype=torch.float64).square()
    expected = torch.zeros(len(RIPPLES), dtype=torch.float64)
    expected[2] = 3 * RIPPLE
    found = (rippled(0, at) / plain(0, at)).log().detach()
    basis = rippled.basis(at) @ rippled.coefficients[0].detach().double()
    torch.testing.assert_close(rippled(0, at).detach().log(), basis)
    torch.testing.assert_close(found, expected, atol=0.02 * RIPPLE, rtol=0)
    assert float(rippled.prior().detach()) == pytest.approx(4.5)
    between = torch.tensor(RIPPLES[2] * RIPPLES[3], dtype=torch.float64)
    assert float((rippled(0, between) / plain(0, between)).log().detach()) == pytest.approx(1.5 * RIPPLE, rel=0.05)


def test_power_is_finite_at_zero():
    assert float(bent(0.0, 2.5, 0.1)(0, torch.zeros(())).detach()) < (0.5 / CORNER) ** 3


@pytest.mark.parametrize("slope", [1.5, 2.0, 2.0 + 1e-8, 2.5, 4.0])
def test_the_first_guess_has_the_variance_that_lr_pixels_show(slope):
    """That is the integral of P over |f| < 1/2, computed on rings."""
    spectrum = Spectrum(torch.tensor([0.003, 0.01], dtype=torch.float64), slope=slope)
    f = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 400_000
    for band, variance in enumerate((0.003, 0.01)):
        rings = spectrum(band, f.square()).detach() * 2 * math.pi * f / 400_000
        assert float(rings.sum()) == pytest.approx(variance, rel=1e-4)
        assert float(spectrum.variance()[band].detach()) == pytest.approx(variance, rel=1e-6)


def test_power_is_that_at_the_nyquist_frequency_and_falls_with_the_slope():
    spectrum = Spectrum(torch.tensor([0.003], dtype=torch.float64), slope=3.0)
    half, whole = (float(spectrum(0, torch.tensor(f**2, dtype=torch.float64)).detach()) for f in (0.5, 1.0))
    assert half == pytest.approx(float(spectrum.coefficients[0, 0].detach().exp()))
    assert half / whole == pytest.approx(2**3.0, rel=0.005)  # but for the corner


def test_many_frequencies_come_from_a_table():
    spectrum = bent(-3.0, 2.5, 0.2)
    with torch.no_grad():
        spectrum.coefficients[0, 3:] = torch.linspace(-0.4, 0.4, len(RIPPLES))
        squared = torch.linspace(0, 4, 20_000, dtype=torch.float64).square()
        exact = (spectrum.basis(squared) @ spectrum.coefficients[0].double()).exp()
        torch.testing.assert_close(spectrum(0, squared), exact, rtol=2e-5, atol=0)
