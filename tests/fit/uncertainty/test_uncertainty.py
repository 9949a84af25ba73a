"""The standard deviation of simulated products, and what makes it larger."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from small_fits import SHIFTS, reconstruction, solve, stage
from small_images import power_law

from s2sr.data.simulate import simulate_scene
from s2sr.fit.losses import Quadratic
from s2sr.fit.posterior import fourier_metric, posterior
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.fit.uncertainty import departure, level_variance, standard_deviation
from s2sr.fit.uncertainty.settle import settle
from s2sr.model.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    """28 x 28 LR pixels on four dates; two of them do not see a block of 10 x 10, and none sees 5 x 5 of it."""
    scene = simulate_scene(
        power_law(36, 8), 8, bands=("B02",), shifts=SHIFTS, sigma_psf=0.4, noise=0.004, seed=1, margin=4
    )
    valid = scene.valid.clone()
    valid[:2, :, 14:24, 14:24] = False
    valid[:, :, 19:24, 19:24] = False
    return dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)


@pytest.fixture(scope="module")
def solved(scene):
    """A fit of the posterior mean with known shifts."""
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


def test_noise_that_is_known_stays(scene):
    known = torch.tensor([[0.003], [0.005], [0.004], [0.009]])
    module = reconstruction(scene, stage(), levels=(2,), start=SHIFTS, noise=known)
    settle(module)
    torch.testing.assert_close(module.noise.detach(), known)


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
    """They may have gone astray or have estimated neither, so both are estimated anew by the evidence."""
    image = solved.field.render()
    expected = standard_deviation(solved, image, 2)
    made = [solved.log_noise, solved.log_change, solved.change_slope, solved.spectrum.coefficients]
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


def test_what_dates_share_over_many_pixels_does_not_average_out(scene, solved):
    """Dates that are brighter or darker as a whole."""
    levels, gain = torch.tensor([0.01, -0.01, 0.02, -0.02]), torch.tensor([1.2, 0.8, 1.1, 0.9])
    image = solved.field.render()

    def with_levels(frames, by=1):
        added = frames + (by * levels)[:, None, None, None]
        module = reconstruction(dataclasses.replace(scene, frames=added), stage(), levels=(2,), start=SHIFTS)
        with torch.no_grad():
            module.field.weights.copy_(solved.field.weights)
        return module

    with torch.no_grad():
        exact = with_levels(gain[:, None, None, None] * solved.field(), gain)
        exact.field.radiometry.raw_gain.copy_(gain[:, None])
        variance = level_variance(exact)[0]
    expected = math.pi / 2 * levels.square().sum() / 4**2
    torch.testing.assert_close(variance[2:10, 2:10], expected.expand(8, 8), rtol=1e-3, atol=0)
    found, before = (
        standard_deviation(module, image, 2)[0, 4:20, 4:20] for module in (with_levels(scene.frames), solved)
    )
    torch.testing.assert_close(found.square() - before.square(), expected.expand_as(found), rtol=0.1, atol=0)


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


def test_a_sigma_that_a_stage_has_found_by_the_evidence_is_not_looked_for_again(scene):
    found = stage(blocks=[["weights"], ["psf", "spectrum"]])
    for stages, kept in (((found,), True), ((stage(),), False)):
        module = reconstruction(scene, *stages, levels=(2,), start=SHIFTS, learn=True)
        module.field.log_sigma.data.fill_(math.log(0.6))
        settle(module)
        assert (float(module.field.sigma_psf.detach()) == pytest.approx(0.6)) == kept
