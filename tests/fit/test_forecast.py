"""The forecast against what simulated fits reach, and its laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from s2sr.fit import forecast
from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence.likelihood import Frames, negative_log_evidence
from s2sr.fit.evidence.spectral_model import Model, planes
from s2sr.fit.forecast import Conditions, Forecast, Reach, crossing
from s2sr.model.spectrum import Spectrum

BANDS = ("B02", "B08")
SIGMA, S = 0.42, 4  # LR pixels; samples per LR pixel of the simulated scenes


def conditions(shifts, *, noise=0.004, side=64, contrast=0.05, slope=2.3) -> Conditions:
    shifts = torch.as_tensor(shifts, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return Conditions(
        bands=("B04",),
        shape=(side, side),
        shifts=shifts - shifts.mean(0),
        noise=noise * one.expand(len(shifts), -1),
        sigma=SIGMA * one,
        widths=one,
        spectrum=Spectrum(contrast**2 * one, slope=slope),
    )


def model(given: Conditions, aliases: Aliases) -> Model:
    """The model of frames of the first band."""
    power = given.spectrum(0, aliases.squared())[:, None].detach()
    noise = given.noise[:, :1].square()
    amplitude = aliases.transfer(given.sigma[:1], given.widths[:1]) * power.sqrt()
    unchanged = torch.zeros_like(noise), torch.zeros_like(power[0])
    return Model(aliases, given.shifts, torch.ones_like(noise), noise, *unchanged, amplitude)


def drawn(dates: int, jitter=(0.2, 0.2), seed: int = 0) -> Tensor:
    return torch.randn(dates, 2, generator=torch.Generator().manual_seed(seed)).double() * torch.tensor(jitter)


def simulated(given: Conditions, seed: int) -> tuple[Tensor, Tensor]:
    """A periodic scene of the given spectrum as its unitary DFT [S n, S n], and that of its frames [t, n, n / 2 + 1].

    They are made by products and a comb of the fine image, not by aliases.
    """
    n, random = given.shape[0], torch.Generator().manual_seed(seed)
    f = torch.fft.fftfreq(S * n, 1 / S, dtype=torch.float64)
    squared = f.square()[:, None] + f.square()
    white = torch.randn(S * n, S * n, generator=random, dtype=torch.float64)
    scene = torch.fft.fft2(white, norm="ortho") * given.spectrum(0, squared).detach().sqrt()
    transfer = torch.sinc(f) * torch.exp(-2 * (math.pi * SIGMA * f) ** 2)
    frames = []
    for (dy, dx), noise in zip(given.shifts, given.noise[:, 0], strict=True):
        moved = torch.exp(-2j * math.pi * (f * dy)[:, None] - 2j * math.pi * f * dx)
        fine = torch.fft.ifft2(scene * transfer[:, None] * transfer * moved).real * S * S * n
        frames.append(fine[::S, ::S] + noise * torch.randn(n, n, generator=random, dtype=torch.float64))
    return scene, torch.fft.rfft2(torch.stack(frames), norm="ortho")


def test_fits_scatter_as_the_bound_says():
    """The evidence is maximised over the shifts of 25 scenes of 12 x 12 pixels."""
    given = conditions(drawn(6), side=12, noise=0.006)
    aliases = Aliases.of(given.shape)
    moments = model(given, aliases)
    counts = aliases.counts.expand(12, -1)
    squares = []
    for seed in range(25):
        _, spectra = simulated(given, seed)

        def value_and_slope(x: np.ndarray, spectra: Tensor = spectra) -> tuple[float, np.ndarray]:
            shifts = torch.from_numpy(x).view(-1, 2).requires_grad_()
            frames = Frames(spectra[:, None], counts, moments.gain)
            loss = negative_log_evidence(frames, replace(moments, shifts=shifts))
            (slope,) = torch.autograd.grad(loss, shifts)
            return float(loss.detach()), slope.flatten().numpy()

        found = minimize(value_and_slope, given.shifts.flatten().numpy(), jac=True, method="L-BFGS-B").x.reshape(-1, 2)
        squares.append(np.square(found - found.mean(0) - given.shifts.numpy()).mean())
    assert 0.95 < math.sqrt(np.mean(squares)) / given.shift_error() < 1.4


def test_many_dates_know_each_shift_as_if_the_scene_were_known():
    """Then J = sum |2 pi f G|^2 P / v, and the mean shift, which is not determined, takes its share of 1 / t.

    By how much the bound exceeds this falls as 1 / sqrt(t): 6 % for 4 dates, 1.3 % for 60.
    """
    f = torch.fft.fftfreq(32, 1 / 2, dtype=torch.float64)
    squared = f.square()[:, None] + f.square()
    transfer = torch.sinc(f) * torch.exp(-2 * (math.pi * SIGMA * f) ** 2)

    def above(dates: int) -> float:
        given = conditions(drawn(dates), noise=0.01, side=16)
        signal = (transfer[:, None] * transfer).square() * given.spectrum(0, squared).detach()
        information = ((2 * math.pi * f[:, None]).square() * signal).sum() / 0.01**2
        return given.shift_error() / math.sqrt((1 - 1 / dates) / float(information)) - 1

    few, some, many = map(above, (4, 16, 60))
    assert 0 < many < 0.02
    assert few / some == pytest.approx(2, rel=0.15)
    assert some / many == pytest.approx(math.sqrt(60 / 16), rel=0.25)


def test_the_bound_goes_with_the_noise_and_the_root_of_the_area():
    given = conditions(drawn(10), noise=0.01)
    half = replace(given, noise=given.noise / 2)
    assert given.shift_error() / half.shift_error() == pytest.approx(2, rel=0.15)
    assert given.shift_error() == pytest.approx(2 * replace(given, shape=(128, 128)).shift_error(), rel=1e-6)


def test_few_frequencies_are_enough_for_the_bound():
    """With 16 x 16 frequencies instead of the scene's own it differs by 1.2 % for a scene of 48 x 48."""
    given = conditions(drawn(8), side=48)
    coarse = given.shift_error()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "COARSE", 48)
        assert coarse == pytest.approx(given.shift_error(), rel=0.03)


@pytest.mark.parametrize("jitter", [(0.2, 0.2), (0.3, 0.05)])
def test_errors_of_the_posterior_mean_reach_a_quarter_of_the_power_where_it_says(jitter):
    """Measured on eight scenes: the mean over directions, and along each axis frequencies up to 3 away from it."""
    given = conditions(drawn(8, jitter, seed=1), side=48, noise=0.003)
    n, aliases = 48, Aliases.of(given.shape)
    power = given.spectrum(0, aliases.squared()).detach()
    moments = model(given, aliases)
    rows = torch.cat([aliases.rows[a] for a, _ in aliases.pairs]).view(4, n, 1).expand(-1, -1, n // 2 + 1)
    columns = torch.cat([aliases.columns[c] for _, c in aliases.pairs]).view(4, 1, -1).expand(-1, n, -1)
    error, signal = torch.zeros_like(power), torch.zeros_like(power)
    for seed in range(8):
        scene, spectra = simulated(given, seed)
        estimate = power.sqrt() * moments.posterior().mean(planes(spectra[:, None] * moments.turn))[:, 0]
        truth = scene[(rows * n).round().long() % (S * n), (columns * n).round().long() % (S * n)]
        error += (estimate - truth).abs().square()
        signal += truth.abs().square()

    def measured(frequency: Tensor, inside: Tensor) -> float:
        rings = (frequency[inside] * 25).round().long()
        ratio = torch.bincount(rings, error[inside]) / torch.bincount(rings, signal[inside])
        return crossing(torch.arange(len(ratio)) / 25, ratio)

    reach = given.reach(0)
    squared = rows.square() + columns.square()
    assert measured(squared.sqrt(), squared > 0) == pytest.approx(reach.all, rel=0.1)
    assert measured(rows.abs(), (columns.abs() < 3.5 / n) & (squared > 0)) == pytest.approx(reach.y, rel=0.15)
    assert measured(columns.abs(), (rows.abs() < 3.5 / n) & (squared > 0)) == pytest.approx(reach.x, rel=0.15)
    if jitter[0] > jitter[1]:
        assert reach.y > 1.1 * reach.x


def test_nothing_in_pure_noise_and_nothing_beyond_the_nyquist_frequency_without_shifts():
    assert conditions(drawn(10), noise=1e6).reach(0) == Reach(0, 0, 0)
    assert max(conditions(torch.zeros(10, 2), noise=1e-4).reach(0)) <= 0.5
    assert max(conditions(torch.ones(10, 2) * torch.tensor([3, -2]), noise=1e-4).reach(0)) <= 0.5  # whole pixels


def test_dates_jitter_and_contrast_bring_detail_and_the_footprint_ends_it():
    def detail(dates=8, jitter=0.15, **more):
        return conditions(drawn(dates, (jitter, jitter)), **more).frequency

    assert detail(4) < detail(8) < detail(16) < detail(32) < 1
    assert detail(jitter=0.05) < detail(jitter=0.1) < detail(jitter=0.3)
    assert detail(contrast=0.02) < detail(contrast=0.05) < detail(contrast=0.2)
    assert detail(60, noise=1e-5) == 1


def test_one_date_with_a_spectrum_below_its_noise_has_the_wiener_filters_reach():
    """Where aliases are weak, e = 1 / (1 + G^2 P / v) is 1/4 where G^2 P = 3 v."""
    given = conditions(torch.zeros(1, 2), noise=0.2, contrast=0.1, slope=4)
    f = torch.linspace(0.01, 0.5, 5000, dtype=torch.float64)
    signal = (torch.sinc(f) * torch.exp(-2 * (math.pi * SIGMA * f) ** 2)) ** 2 * given.spectrum(0, f.square()).detach()
    expected = float(f[(signal < 3 * 0.2**2).nonzero()[0]])
    assert given.reach(0).y == pytest.approx(expected, rel=0.05)


def test_a_detector_of_twice_the_width_makes_everything_twice_as_coarse():
    """The scene is twice as large, except for the corner of its spectrum, which stays."""
    fine = conditions(drawn(8), side=24, slope=2.0)
    coarse = replace(fine, shape=(48, 48), shifts=2 * fine.shifts, sigma=2 * fine.sigma, widths=2 * fine.widths)
    assert [2 * f for f in coarse.reach(0)] == pytest.approx(list(fine.reach(0)), rel=0.02)
    assert coarse.shift_error() == pytest.approx(2 * fine.shift_error(), rel=0.02)
    still = replace(coarse, shifts=0 * coarse.shifts, noise=1e-2 * coarse.noise)
    assert max(still.reach(0)) <= 0.25  # cycles per LR pixel, the Nyquist frequency of 20 m


def test_bands_of_two_grids_know_the_shifts_together():
    one, both = conditions(drawn(5), side=24), ("B04", "B11")
    twin = replace(one, bands=both, noise=one.noise.expand(-1, 2), sigma=one.sigma.expand(2), widths=one.widths)
    twin = replace(twin, spectrum=Spectrum(0.05**2 * torch.ones(2).double(), slope=2.3))
    same, mixed = (replace(twin, widths=torch.tensor([1.0, w], dtype=torch.float64)).shift_error() for w in (1, 2))
    assert same == pytest.approx(one.shift_error() / 2**0.5, rel=1e-6)
    assert same < mixed < one.shift_error()


@pytest.mark.parametrize(("finest", "scale"), [(0.3, 1), (0.5, 1), (0.51, 2), (1.0, 2)])
def test_the_useful_scale_covers_the_finest_band_and_axis(finest, scale):
    found = Forecast(0.002, 0.3, {"B02": Reach(0.3, 0.2, 0.3), "B04": Reach(0.3, finest, 0.3)})
    assert found.scale == scale
    assert f"scale {scale} shows it all" in str(found)


def test_half_a_period_in_metres():
    found = Forecast(0.0021, 0.625, {"B02": Reach(0.625, 0.6, 0.6)})
    assert found.metrics() == {
        "forecast_shift_px": 0.0021,
        "forecast_frequency": 0.625,
        "forecast_resolution_m": 8.0,
    }
    assert "shifts to 0.0021 px; detail to 0.62 cycles per pixel (8.0 m per half period)" in str(found)


def test_crossing_is_the_first():
    f = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8])
    assert crossing(f, torch.tensor([0.0, 0.1, 0.3, 0.2, 0.9])) == pytest.approx(0.35)
    assert crossing(f.flip(0), torch.tensor([0.9, 0.2, 0.3, 0.1, 0.0])) == pytest.approx(0.35)
    assert crossing(f, torch.zeros(5)) == 1
    assert crossing(f, torch.ones(5)) == 0
