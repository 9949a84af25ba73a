"""The standard deviation against a dense posterior, and what makes it larger."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_fits import SHIFTS, reconstruction, solve, stage
from small_images import power_law

from s2sr.data.simulate import simulate_scene
from s2sr.fit.losses import Quadratic
from s2sr.fit.posterior import fourier_metric, posterior
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.fit.uncertainty import (
    ACTIVITIES,
    FREQUENCIES,
    activity,
    clear_count,
    departure,
    energies,
    frequencies,
    gradient_energy,
    posterior_variance,
    settle,
    standard_deviation,
    variances,
)
from s2sr.model.sampling import Sampling
from s2sr.model.scene import Scene


def test_the_count_is_that_of_the_samples_at_the_pixels_centres():
    valid = torch.ones(3, 1, 2, 3, dtype=torch.bool)
    valid[1, 0, 0, 1] = False
    shifts = torch.tensor([(0.0, 0.0), (0.3, -0.3), (-0.3, 1.0)])
    # centres .25 .75 1.25 1.75 (2.25 2.75) + d: rows 0 1 1 - of the second, - 0 0 1 of the third
    expected = torch.zeros(4, 6, dtype=torch.uint8)
    expected += 1
    expected[:3, 1:] += 1  # columns - 0 0 1 1 2
    expected[0, 3:5] -= 1  # the masked one
    expected[1:, :4] += 1  # columns 1 1 2 2 - -
    assert torch.equal(clear_count(valid, shifts, 2)[0], expected)


def test_the_count_knows_bands_and_many_observations():
    valid = torch.ones(300, 2, 1, 1, dtype=torch.bool)
    valid[:290, 1] = False
    assert clear_count(valid, torch.zeros(300, 2), 1).flatten().tolist() == [300, 10]


def test_the_frequencies_are_all_aliases_of_half_of_them():
    f = frequencies(3)
    assert f.shape == (9, FREQUENCIES**2 // 2, 2)
    assert float(f.abs().max()) < 1.5
    assert len(torch.cat([f, -f]).flatten(0, 1).mul(1e6).round().unique(dim=0)) == 9 * FREQUENCIES**2
    whole = f - f[:1]
    torch.testing.assert_close(whole, whole.round())


N = 6
NOISE = torch.tensor([0.02, 0.03, 0.05, 0.02], dtype=torch.float64)


def periodic() -> tuple[torch.Tensor, ...]:
    """A periodic scene of twice the LR pixels: [4, f, 2] frequencies, G, P and a blur there."""
    f = torch.fft.fftfreq(N, dtype=torch.float64)
    steps = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 2)[:, None]
    points = torch.remainder(torch.cartesian_prod(f, f) + steps + 1, 2) - 1
    squared = points.square().sum(-1)
    transfer = torch.sinc(points).prod(-1) * torch.exp(-2 * (math.pi * 0.4) ** 2 * squared)
    return points, transfer, 0.01 * (0.05 + squared) ** -1.25, torch.exp(-0.9 * squared)


@pytest.mark.parametrize("keep", [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
def test_it_is_the_variance_of_a_dense_posterior(keep):
    """Of its mean less S x, x a periodic scene, y its shifted frames and S a blur, in the mean."""
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


def test_samples_that_a_file_repeats_are_those_of_their_own_grid():
    """Every 20 m sample once from each of 2 x 2 places, or every place sampled once: the same observations."""
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


@pytest.mark.parametrize("off", [-0.3, 0.2])
def test_it_is_the_error_of_a_product_made_with_another_sigma(off):
    """Of a periodic scene that was seen through G exp(-x) and has the power P exp(2 x): the frames cannot tell."""
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
    """By the mean over what sigma may be, the spectrum following it."""
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


def test_activity_is_of_mean_one_and_follows_edges():
    image = torch.zeros(40, 40)
    image[:, 20:] = 0.1
    everywhere, energy = torch.ones_like(image), gradient_energy(image, 1.4)
    found = activity(energy, everywhere)
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    assert found[:, 19:21].min() > 5
    assert found[:, :10].max() < 0.1
    there = everywhere.clone()
    there[:, :15] = 0
    assert (activity(energy, there)[:, :15] == 1).all()


def test_where_the_same_goes_on_everywhere_activity_is_one():
    everywhere = torch.ones(90, 90)
    torch.testing.assert_close(activity(gradient_energy(0.3 * everywhere, 1.4), everywhere), everywhere)
    texture = torch.from_numpy(np.random.default_rng(0).normal(size=(90, 90))).float()
    assert activity(gradient_energy(texture, 1.4), everywhere).std() < 0.05


def test_the_energy_is_that_of_the_gradient_under_a_gaussian():
    image = np.random.default_rng(0).normal(size=(90, 70))
    gradient = np.stack(np.gradient(image))
    near = partial(ndimage.gaussian_filter, sigma=1.4, mode="constant", truncate=5 / 1.4)
    tensor = np.array([[near(a * b) / near(np.ones_like(image)) for a in gradient] for b in gradient])
    tensor = tensor.transpose(2, 3, 0, 1)
    expected = 2 * np.sqrt(np.linalg.det(tensor) + 0.01 * np.trace(tensor, axis1=-2, axis2=-1) ** 2)
    np.testing.assert_allclose(gradient_energy(torch.from_numpy(image), 1.4).numpy(), expected, rtol=1e-10)


def test_a_corner_has_more_of_it_than_a_straight_edge_however_that_is_turned():
    y, x = torch.meshgrid(*[torch.arange(41.0) - 20] * 2, indexing="ij")
    upright, slanted = (gradient_energy(torch.sigmoid(d), 1.4)[20, 20] for d in (x, 0.6 * x + 0.8 * y))
    torch.testing.assert_close(slanted, upright, rtol=0.05, atol=0)
    assert gradient_energy(torch.sigmoid(x) * torch.sigmoid(y), 1.4).max() > 1.5 * upright


def test_where_another_band_has_detail_there_is_some_energy():
    texture = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 40, 40))).float()
    texture[0, :, :20] = 0
    texture[1, :, 20:] = 0
    one, other = energies(texture, torch.full((2,), 1.4))
    for quiet, busy in ((one[:, :10], other[:, :10]), (other[:, 30:], one[:, 30:])):
        assert 0.05 < float(quiet.mean() / busy.mean()) < 0.15


@pytest.fixture(scope="module")
def scene() -> Scene:
    """28 x 28 LR pixels of four dates; two of them do not see a block of 10, none sees 5 x 5 of it."""
    scene = simulate_scene(
        power_law(36, 8), 8, bands=("B02",), shifts=SHIFTS, sigma_psf=0.4, noise=0.004, seed=1, margin=4
    )
    valid = scene.valid.clone()
    valid[:2, :, 14:24, 14:24] = False
    valid[:, :, 19:24, 19:24] = False
    return dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)


@pytest.fixture(scope="module")
def solved(scene):
    """The posterior mean, known shifts."""
    mean = stage(blocks=[["weights"]], optimizer=QuasiNewton, steps=3, objective=posterior, metric=fourier_metric)
    return solve(reconstruction(scene, mean, levels=(2,), misfit=Quadratic(), start=SHIFTS))


def test_fewer_observations_make_it_larger(solved):
    image = solved.field.render()
    found = standard_deviation(solved, image, 2)[0]
    clear, fewer, none = found[8:24, 8:24].median(), found[30:36, 30:36].median(), found[42:44, 42:44].median()
    assert found.shape == image.shape[1:]
    assert fewer > 1.05 * clear
    assert none > 3 * clear
    assert found[0].median() > found[1:4].median()  # half of the border's footprints are outside


def test_the_noise_is_found_and_more_of_it_makes_it_larger(solved, scene):
    noisy = simulate_scene(
        power_law(36, 8), 8, bands=("B02",), shifts=SHIFTS, sigma_psf=0.4, noise=0.016, seed=1, margin=4
    )
    other = reconstruction(noisy, stage(), levels=(2,), start=SHIFTS)
    image = solved.field.render()
    before = solved.noise.detach().clone()
    found = standard_deviation(solved, image, 2)
    assert torch.equal(solved.noise, before)
    settle(solved)
    torch.testing.assert_close(solved.noise.detach(), torch.full((4, 1), 0.004), rtol=0.2, atol=0)
    with torch.no_grad():
        other.field.weights.copy_(solved.field.weights)
    settle(other)
    torch.testing.assert_close(other.noise.detach(), torch.full((4, 1), 0.016), rtol=0.2, atol=0)
    assert float(standard_deviation(other, image, 2).mean()) > 1.1 * float(found.mean())


def test_change_that_was_taken_off_counts_as_if_it_were_there(solved):
    image = solved.field.render()
    expected = standard_deviation(solved, image, 2)
    change = 0.01 * torch.randn(solved.field.changed.shape, generator=torch.Generator().manual_seed(0))
    solved.field.changed.copy_(change)
    found = standard_deviation(solved, image, 2)
    assert torch.equal(solved.field.changed, change)
    solved.field.changed.zero_()
    torch.testing.assert_close(found, expected)


def test_what_stages_made_of_noise_and_spectrum_does_not_matter(solved):
    """They may have gone astray, or never asked: the evidence is asked anew."""
    image = solved.field.render()
    expected = standard_deviation(solved, image, 2)
    made = [solved.log_noise, solved.log_change, solved.spectrum.coefficients]
    kept = [p.detach().clone() for p in made]
    with torch.no_grad():
        for p in made:
            p.add_(2.0)
    found = standard_deviation(solved, image, 2)
    for p, value in zip(made, kept, strict=True):
        assert torch.equal(p.detach(), value + 2.0), "it only asks"
        p.data.copy_(value)
    torch.testing.assert_close(found, expected)


def test_where_places_change_it_is_larger(scene, solved):
    """Three of four dates show something else in a block; the image is the same."""
    there, image = (slice(None, 3), slice(None), slice(2, 12), slice(2, 12)), solved.field.render()
    frames = scene.frames.clone()
    frames[there] += 0.05 * torch.randn(frames[there].shape, generator=torch.Generator().manual_seed(0))
    changing = reconstruction(dataclasses.replace(scene, frames=frames), stage(), levels=(2,), start=SHIFTS)
    with torch.no_grad():
        changing.field.weights.copy_(solved.field.weights)
    found, before = (standard_deviation(module, image, 2)[0] for module in (changing, solved))
    ratio = found / before
    assert ratio[8:20, 8:20].median() > 1.05 * ratio[30:, :10].median(), "most of it is detail that no date shows"


def test_the_posterior_mean_does_not_depart_from_itself_and_ringing_does(solved):
    settle(solved)
    still = float(departure(solved, solved.field.render(), 2).square().mean().sqrt())
    own = solved.field.weights.detach().clone()
    torch.manual_seed(0)
    with torch.no_grad():
        solved.field.weights.add_(0.03 * torch.randn_like(own))
    moved = departure(solved, solved.field.render(), 2)
    kept = standard_deviation(solved, solved.field.render(), 2).mean()
    with torch.no_grad():
        added = solved.field.render()
        solved.field.weights.copy_(own)
        added = added - solved.field.render()
    assert still < 0.3 * float(added.square().mean().sqrt())
    assert float((moved * added).mean() / added.square().mean()) == pytest.approx(1, abs=0.1)
    assert float(kept) > 1.3 * float(standard_deviation(solved, solved.field.render(), 2).mean())


def test_a_product_of_a_sigma_that_is_not_the_most_probable_departs_by_that(scene):
    mean = stage(blocks=[["weights"]], optimizer=QuasiNewton, steps=3, objective=posterior, metric=fourier_metric)
    found = []
    for start in (0.4, 0.6):
        module = reconstruction(scene, mean, levels=(2,), misfit=Quadratic(), start=SHIFTS, learn=True)
        with torch.no_grad():
            module.field.log_sigma.fill_(math.log(start))
        solve(module)
        own = module.field.log_sigma.detach().clone()
        found.append(standard_deviation(module, module.field.render(), 2))
        assert torch.equal(module.field.log_sigma.detach(), own)
        settle(module)
        assert float(module.field.sigma_psf.detach()) == pytest.approx(0.4, abs=0.04)
    right, wrong = found
    assert float(wrong.mean()) > 1.2 * float(right.mean())
