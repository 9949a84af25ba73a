"""The error to expect of the posterior mean against a dense posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_fits import SHIFTS, reconstruction, stage
from small_images import power_law

from s2sr.data.simulate import simulate_scene
from s2sr.fit.uncertainty.error_variance import ACTIVITIES, FREQUENCIES, frequencies, posterior_variance, variances
from s2sr.model.sampling import Sampling

N = 6
NOISE = torch.tensor([0.02, 0.03, 0.05, 0.02], dtype=torch.float64)


def periodic() -> tuple[torch.Tensor, ...]:
    """[4, f, 2] the frequencies of a periodic scene of twice the LR pixels, and G, P and a blur at them."""
    f = torch.fft.fftfreq(N, dtype=torch.float64)
    steps = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 2)[:, None]
    points = torch.remainder(torch.cartesian_prod(f, f) + steps + 1, 2) - 1
    squared = points.square().sum(-1)
    transfer = torch.sinc(points).prod(-1) * torch.exp(-2 * (math.pi * 0.4) ** 2 * squared)
    return points, transfer, 0.01 * (0.05 + squared) ** -1.25, torch.exp(-0.9 * squared)


@pytest.mark.parametrize("keep", [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
def test_it_is_the_variance_of_a_dense_posterior(keep):
    """It is that of the posterior mean minus S x, for a periodic scene x, shifted frames of it, and a blur S."""
    points, transfer, power, blur = periodic()
    shifts = torch.as_tensor(SHIFTS, dtype=torch.float64)
    weights = torch.tensor(keep) / NOISE.square()
    flat = points.flatten(0, 1)
    place = torch.cartesian_prod(*[torch.arange(N, dtype=torch.float64)] * 2)
    activities = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    found = posterior_variance(
        activities,
        weights[None],
        phases=torch.exp(2j * math.pi * (points @ shifts.T)),
        amplitude=transfer * power.sqrt(),
        found=(2 * blur - 1) * power,
        prior=(blur.square() * power).sum() / N**2,
    )
    frames = [transfer.flatten() * torch.exp(2j * math.pi * ((place - d) @ flat.T)) / N for d in shifts]
    for a, value in zip(activities, found[0], strict=True):
        precision = torch.diag(1 / (a * power.flatten())).to(torch.complex128)
        for w, matrix in zip(weights, frames, strict=True):
            precision += w * matrix.mH @ matrix
        left = torch.linalg.inv(precision)
        known = torch.diag(a * power.flatten()).to(left) - left  # the covariance of the mean over all y
        blurred, rest = torch.diag(blur.flatten()).to(left), torch.diag(1 - blur.flatten()).to(left)
        fine = torch.cartesian_prod(*[torch.arange(2 * N, dtype=torch.float64) / 2] * 2)
        waves = torch.exp(2j * math.pi * (fine @ flat.T)) / N
        dense = (waves @ (blurred @ left @ blurred + rest @ known @ rest) @ waves.mH).diagonal().real
        torch.testing.assert_close(dense.mean(), value, rtol=1e-9, atol=0)
        torch.testing.assert_close(dense, value.expand_as(dense), rtol=0.2, atol=0)  # where in an LR pixel says little


def test_where_noise_limits_it_the_variance_is_that_of_the_noise():
    points, transfer, power, _ = periodic()
    phases = torch.exp(2j * math.pi * (points @ torch.as_tensor(SHIFTS, dtype=torch.float64).T))
    seen = power * (transfer.abs() > 0.05)  # of what no footprint passes, nothing is ever known
    given = {"amplitude": transfer * power.sqrt(), "found": seen, "prior": seen.sum() / N**2}
    lots = torch.tensor([1e7], dtype=torch.float64)
    weights = torch.stack([NOISE**-2, (2 * NOISE) ** -2])
    one, double = posterior_variance(lots, weights, phases=phases, **given)[:, 0].tolist()
    assert double == pytest.approx(4 * one, rel=0.01)


@pytest.mark.parametrize("off", [-0.3, 0.2])
def test_it_is_the_error_of_a_product_made_with_another_sigma(off):
    """A scene of the power P exp(2 x) was seen through G exp(-x), which the frames cannot tell from P and G."""
    points, transfer, power, blur = periodic()
    x = off * points.square().sum(-1)
    shifts = torch.as_tensor(SHIFTS, dtype=torch.float64)
    weights = NOISE**-2
    found = posterior_variance(
        torch.ones(1, dtype=torch.float64),
        weights[None],
        phases=torch.exp(2j * math.pi * (points @ shifts.T)),
        amplitude=transfer * power.sqrt(),
        found=(2 * blur * x.exp() - 1) * power,
        prior=(blur.square() * power * (2 * x).exp()).sum() / N**2,
    )
    flat, factor = points.flatten(0, 1), x.flatten().exp()
    place = torch.cartesian_prod(*[torch.arange(N, dtype=torch.float64)] * 2)
    frames = [transfer.flatten() * torch.exp(2j * math.pi * ((place - d) @ flat.T)) / N for d in shifts]
    prior = torch.diag(power.flatten()).to(torch.complex128)
    information = sum(w * matrix.mH @ matrix for w, matrix in zip(weights, frames, strict=True))
    mean = torch.linalg.inv(torch.linalg.inv(prior) + information)  # of what the frames, weighted and turned, sum up to
    true = torch.diag(power.flatten() * factor.square()).to(prior)
    seen = mean @ information @ torch.diag(1 / factor).to(prior)  # of the true scene
    error = seen - torch.diag(blur.flatten()).to(prior)
    covariance = error @ true @ error.mH + mean @ information @ mean.mH
    assert float(covariance.diagonal().real.sum() / N**2) == pytest.approx(float(found), rel=1e-9)


def test_a_psf_that_is_not_known_makes_it_larger():
    """It is the mean over what sigma may be, with the spectrum that belongs to each sigma."""
    scene = simulate_scene(
        power_law(36, 8), 8, bands=("B02",), shifts=SHIFTS, sigma_psf=0.4, noise=0.004, seed=1, margin=4
    )
    module = reconstruction(scene, stage(), levels=(2,), start=SHIFTS)
    weight = torch.full((1, 4), 0.004**-2, dtype=torch.float64)
    known, guessed = (variances(module, 0, weight, 2, sigma_error=e)[0] for e in (0.0, 0.05))
    assert (guessed > known).all()
    one = (guessed - known) / 0.05**2
    less = variances(module, 0, weight, 2, sigma_error=0.005)[0] - known
    assert (less < 0.005**2 * one).all()  # the mean of an exponential
    torch.testing.assert_close(less, 0.005**2 * one, rtol=0.2, atol=0)


def test_samples_that_a_file_repeats_are_those_of_their_own_grid():
    """One 20 m sample from each of 2 x 2 places, or all places sampled once: the observations are the same."""
    scene = simulate_scene(
        power_law(36, 8), 8, bands=("B11",), shifts=np.zeros((4, 2)), sigma_psf=0.4, noise=0.004, seed=1, margin=5
    )
    places = np.array([(0, 0), (0, 1), (1, 0), (1, 1)]) - 0.5
    own = reconstruction(scene, stage(), levels=(2,), start=places, samplings=[Sampling(2)])
    every = reconstruction(scene, stage(), levels=(2,), start=np.zeros((4, 2)))
    weight = torch.full((1, 4), 0.004**-2, dtype=torch.float64)
    once, four = variances(own, 0, weight, 2), variances(every, 0, weight / 4, 2)
    assert float(once[0, ACTIVITIES == 1]) < 0.9 * float(variances(own, 0, weight / 100, 2)[0, ACTIVITIES == 1])
    torch.testing.assert_close(once, four, rtol=0.05, atol=0)


def test_the_frequencies_are_all_aliases_of_half_of_them():
    f = frequencies(3)
    assert f.shape == (9, FREQUENCIES**2 // 2, 2)
    assert float(f.abs().max()) < 1.5
    assert len(torch.cat([f, -f]).flatten(0, 1).mul(1e6).round().unique(dim=0)) == 9 * FREQUENCIES**2
    whole = f - f[:1]
    torch.testing.assert_close(whole, whole.round())
