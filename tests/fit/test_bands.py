"""What bands have in common: the components, the coupled prior and its solve against dense ones, the correlation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_fits import SHIFTS, reconstruction, stage
from small_images import normal, power_law
from test_posterior import assert_solved_as_directly
from torch import Tensor
from torch.nn.functional import avg_pool2d

from s2sr.data.simulate import simulate_scene
from s2sr.fit.bands import components, covariances, mix
from s2sr.fit.correlation import correlation, coupled_form
from s2sr.fit.losses import Quadratic
from s2sr.fit.posterior import FourierMetric, GaussianPrior, closed_form
from s2sr.model.scene import Scene

R = torch.tensor([[1.0, 0.9, -0.3], [0.9, 1.0, 0.1], [-0.3, 0.1, 1.0]], dtype=torch.float64)
BANDS = ("B02", "B03", "B11")


def scene(
    bands=("B02", "B03", "B04"), *, alike: Tensor = R, noise: float = 0.003, side: int = 36, dates=SHIFTS
) -> Scene:
    """Power laws whose detail is correlated as `alike` says."""
    own = np.concatenate([power_law(side, 8, seed) - 0.2 for seed in range(len(bands))])
    sharp = 0.2 + np.einsum("bc,cyx->byx", np.linalg.cholesky(alike.numpy()), own)
    return simulate_scene(sharp, 8, bands=bands, shifts=dates, sigma_psf=0.4, noise=noise, seed=1, margin=9)


def fit(scene: Scene, alike: Tensor | None = None, *, level: int = 2, noise: float = 0.003):
    module = reconstruction(
        scene, stage(), levels=(level,), misfit=Quadratic(), noise=noise, start=scene.truth.shifts.numpy()
    ).double()
    if alike is not None:
        module.correlation.copy_(alike)
    return module


# --- components


def test_components_are_white_and_what_is_seen_of_them_is_independent():
    level = torch.tensor([30.0, 5.0, 0.1], dtype=torch.float64)
    found = components(R, level)
    torch.testing.assert_close(found @ found.T, R)
    seen = found.T * level @ found
    torch.testing.assert_close(seen, seen.diagonal().diag(), atol=1e-12, rtol=0)


def test_spectra_are_mixed_as_the_images_are(monkeypatch):
    monkeypatch.setattr("s2sr.fit.bands.BLOCK", 24)
    image, matrix = normal(3, 6, 7), normal(3, 3)
    expected = torch.fft.rfft2(torch.einsum("cb,byx->cyx", matrix, image))
    torch.testing.assert_close(mix(matrix, torch.fft.rfft2(image)), expected)


def test_a_component_is_known_as_well_as_the_bands_it_is_in():
    coupling = torch.tensor([3.0, 5.0], dtype=torch.complex128)[:, None, None]
    shares, one = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64), torch.ones(2, 1, 2, 2).double()
    found = covariances(coupling, one, shares, torch.complex128)[0, 0, :, 0, 0].real.reciprocal().tolist()
    assert found == pytest.approx([1 + 3 + 0.36 * 5, 1 + 0.64 * 5])


# --- the prior


def test_the_prior_is_a_normal_density_of_all_bands():
    """Its value and gradient against those of the dense covariance, mode by mode of the whole DFT."""
    module = fit(scene(side=20).crop(2), R)
    prior, weights = GaussianPrior.of(module), normal(*module.field.weights.shape).requires_grad_()
    rows, columns = module.field.lattice.shape
    column = torch.arange(columns)
    opposite = -torch.arange(rows) % rows
    half = prior.stiffness[0].shape[1]
    whole = torch.stack(
        [
            torch.where(column < half, k[:, column % half], k[opposite][:, -column % columns % half])
            for k in prior.stiffness
        ]
    )
    white = torch.fft.fft2(weights, norm="ortho") * whole.sqrt()
    energy = torch.einsum("byx,bc,cyx->yx", white.conj(), torch.linalg.inv(R).to(white.dtype), white).real
    expected = (energy.sum() - energy[0, 0]) / 2
    assert float(prior(weights).detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    (found,), (dense,) = (torch.autograd.grad(value, weights) for value in (prior(weights), expected))
    torch.testing.assert_close(found, dense, rtol=1e-8, atol=1e-8 * float(dense.abs().max()))


def test_bands_that_have_nothing_in_common_are_what_each_is_alone():
    whole = scene(BANDS)
    together = fit(whole)
    gradient = normal(*together.field.weights.shape)
    metric, prior = FourierMetric(together)(gradient.clone()), float(GaussianPrior.of(together)(gradient))
    sum_of_priors = 0.0
    for b, band in enumerate(BANDS):
        one = dataclasses.replace(whole, frames=whole.frames[:, [b]], valid=whole.valid[:, [b]], bands=(band,))
        alone = fit(one)
        alone.field.lattice = together.field.lattice
        alone.field.weights.data = together.field.weights.data[[b]].clone()
        alone.spectrum.coefficients.data = together.spectrum.coefficients.data[[b]].clone()
        torch.testing.assert_close(FourierMetric(alone)(gradient[[b]]), metric[[b]])
        sum_of_priors += float(GaussianPrior.of(alone)(gradient[[b]]))
    assert prior == pytest.approx(sum_of_priors, rel=1e-9)


def test_bands_that_are_seen_alike_fall_into_components_exactly():
    """With the same spectrum, noise and sigma in all bands, the metric is that of single bands whose power is R's
    eigenvalue.
    """
    module = fit(scene(), R)
    module.spectrum.coefficients.data[:] = module.spectrum.coefficients.data[0]
    module.field.log_sigma.data[:] = module.field.log_sigma.data[0]
    prior, gradient = GaussianPrior.of(module), normal(*module.field.weights.shape)
    values, directions = torch.linalg.eigh(R)
    each = GaussianPrior(prior.stiffness[0] / values[:, None, None], torch.eye(3, dtype=torch.float64))
    of_components = FourierMetric(module, each)(torch.einsum("bk,byx->kyx", directions, gradient))
    expected = torch.einsum("bk,kyx->byx", directions, of_components)
    torch.testing.assert_close(FourierMetric(module)(gradient), expected)


# --- the solve


@pytest.mark.parametrize("bands", [("B02", "B03", "B04"), BANDS])
def test_the_solve_of_coupled_bands_finds_what_a_direct_solve_finds(bands):
    """This also holds for a band with pixels of 20 m."""
    assert_solved_as_directly(fit(scene(bands, side=24).crop(4), R))


def test_what_drowns_in_one_band_is_found_in_the_others():
    """A band with four times the noise has a smaller error if its prior is coupled by the true R than if not."""
    seen = scene(noise=0.002, side=50)
    frames = seen.frames.clone()
    frames[:, 0] += 0.012 * normal(*frames[:, 0].shape).to(frames)
    seen = dataclasses.replace(seen, frames=frames)
    errors = []
    for alike in (torch.eye(3), R):
        module = fit(seen, alike, level=4, noise=torch.tensor([0.0122, 0.002, 0.002]))
        closed_form(module)
        truth = avg_pool2d(seen.truth.reflectance[None].double(), seen.truth.scale // 4)[0]
        errors.append((module.field.render() - truth).detach()[:, 24:-24, 24:-24].square().mean((1, 2)).sqrt())
    alone, coupled = errors
    assert coupled[0] < 0.85 * alone[0]
    assert (coupled[1:] < 1.005 * alone[1:]).all()


# --- the correlation


@pytest.mark.parametrize("noise", [0.001, 0.01])
def test_the_correlation_is_found_however_strong_the_noise(noise):
    module = fit(scene(noise=noise, side=50), noise=noise)
    closed_form(module)
    torch.testing.assert_close(correlation(module), R, atol=0.1, rtol=0)


def test_bands_that_have_nothing_in_common_are_found_to_have_nothing():
    module = fit(scene(alike=torch.eye(3, dtype=torch.float64), side=50))
    closed_form(module)
    torch.testing.assert_close(correlation(module), torch.eye(3, dtype=torch.float64), atol=0.1, rtol=0)


def test_a_coupled_start_is_the_closed_form_with_the_correlation_that_it_has_found():
    """Of the distance .47 is left: frames are not periodic, so that it is a step from where the weights were."""
    apart, coupled = (fit(scene()) for _ in range(2))
    coupled_form(coupled)
    closed_form(apart)
    known = fit(scene(), coupled.correlation)
    closed_form(known)
    weights = known.field.weights
    near, far = (float((x.field.weights - weights).detach().std()) for x in (coupled, apart))
    assert near < 0.6 * far


def test_a_band_alone_is_as_it_was():
    one = scene(("B02",), alike=R[:1, :1])
    found = []
    for start in (closed_form, coupled_form):
        module = fit(one)
        start(module)
        found.append(module.field.render())
    assert torch.equal(*found)
    assert module.correlation == 1


def test_bands_that_are_mixtures_of_others_leave_the_prior_finite():
    two = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    seen = scene(("B02", "B03"), alike=torch.eye(2, dtype=torch.float64))
    frames = 0.2 + torch.einsum("bc,tcyx->tbyx", two.to(seen.frames), seen.frames - 0.2)
    truth = dataclasses.replace(
        seen.truth, reflectance=torch.einsum("bc,cyx->byx", two.to(seen.frames), seen.truth.reflectance)
    )
    singular = dataclasses.replace(
        seen,
        frames=frames,
        valid=seen.valid[:, [0, 1, 1]],
        judged=None,
        validation=None,
        bands=("B02", "B03", "B04"),
        truth=truth,
    )
    module = fit(singular)
    coupled_form(module)
    values = torch.linalg.eigvalsh(module.correlation)
    assert 0.9e-4 < float(values[0]) < 0.01
    assert torch.isfinite(module.field.weights).all()
