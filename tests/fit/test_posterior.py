"""The posterior mean of the weights against a direct solve, and a whole blind fit on a toy."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from small_fits import SHIFTS, reconstruction, solve, stage, state
from small_images import power_law

from s2sr.data.simulate import simulate_scene
from s2sr.fit.evidence import Evidence
from s2sr.fit.evidence.information import Information
from s2sr.fit.losses import Quadratic
from s2sr.fit.posterior import FourierMetric, GaussianPrior, fourier_metric, posterior
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.model.scene import Scene
from s2sr.report.metrics import shift_rmse

WEIGHTS = [["weights"]]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A scene of 20 x 20 LR pixels, with a corner of one date masked."""
    scene = simulate_scene(
        power_law(28, 8), 8, bands=("B02",), shifts=SHIFTS, sigma_psf=0.4, noise=0.002, seed=1, margin=4
    )
    valid = scene.valid.clone()
    valid[1, :, :6, :8] = False
    return dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)


def direct(module) -> torch.Tensor:
    """The minimum of a quadratic objective, from as many gradients as there are unknowns."""
    weights = module.field.weights
    weights.requires_grad_(True)

    def gradient(w: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weights.copy_(w.view_as(weights))
        (found,) = torch.autograd.grad(sum(posterior(module)().values()), weights)
        return found.flatten()

    zero = torch.zeros(weights.numel(), dtype=weights.dtype)
    start = gradient(zero)
    hessian = torch.stack([gradient(row) - start for row in torch.eye(len(zero), dtype=weights.dtype)])
    return torch.linalg.solve(hessian, -start).view_as(weights)


def assert_solved_as_directly(module) -> None:
    metric, expected = fourier_metric(module), direct(module)
    weights, objective = module.field.weights, posterior(module)
    optimizer = QuasiNewton([weights], max_iter=1500, history=30, tolerance=1e-12, metric=metric)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.stack(list(objective().values())).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    seen = module.field.render()
    with torch.no_grad():
        weights.copy_(expected)
    torch.testing.assert_close(seen, module.field.render(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_solve_finds_what_a_direct_solve_finds(scene, scale):
    options = {"levels": (scale,), "misfit": Quadratic(), "noise": 0.004}
    assert_solved_as_directly(reconstruction(scene.crop(6), stage(), **options).double())


def test_the_metric_is_symmetric_and_positive(scene):
    module = reconstruction(scene, stage(), levels=(4,)).double()
    metric, weights = FourierMetric(module), module.field.weights
    torch.manual_seed(0)
    a, b = torch.randn_like(weights), torch.randn_like(weights)
    assert float((a * metric(b.clone())).sum()) == pytest.approx(float((b * metric(a.clone())).sum()), rel=1e-9)
    assert float((a * metric(a.clone())).sum()) > 0


def test_a_scene_of_the_prior_has_its_energy(scene):
    """The energy is half a nat per degree of freedom."""
    module = reconstruction(scene, stage(), levels=(4,)).double()
    prior, lattice = GaussianPrior.of(module), module.field.lattice
    torch.manual_seed(0)
    spectrum = torch.fft.rfft2(torch.randn(lattice.shape, dtype=torch.float64), norm="ortho")
    weights = torch.fft.irfft2(spectrum / prior.stiffness[0].sqrt(), s=lattice.shape, norm="ortho")
    freedom = weights.numel() - 1
    assert float(prior(weights[None])) == pytest.approx(freedom / 2, abs=4 * (freedom / 2) ** 0.5)


ALL = [["shifts", "psf", "noise", "spectrum"]]
METRIC = partial(Information, evidence=Evidence())


def test_a_blind_fit_recovers_shifts_sigma_and_noise():
    truth = np.array([(0.3, -0.2), (-0.2, 0.1), (0.1, 0.3), (-0.2, -0.2), (0.25, 0.15), (-0.25, -0.15)])
    scene = simulate_scene(power_law(72, 8), 8, bands=("B02",), shifts=truth, sigma_psf=0.45, noise=0.003, margin=4)
    register = stage(blocks=ALL, optimizer=QuasiNewton, levels="coarsest", objective=Evidence(), metric=METRIC)
    weights = stage(blocks=WEIGHTS, optimizer=QuasiNewton, levels="finest", objective=posterior, metric=fourier_metric)
    module = reconstruction(
        scene, register, weights, levels=(2,), learn=True, misfit=Quadratic(), start=truth + 0.03 * truth[:, ::-1]
    )
    solve(module)
    assert shift_rmse(module.field.shifts, scene.truth.shifts) < 0.004
    torch.testing.assert_close(module.noise.detach(), torch.full((6, 1), 0.003), rtol=0.08, atol=0)
    assert float(module.field.sigma_psf.detach()) == pytest.approx(0.45, rel=0.1)
    residual = module.residual()[..., 4:-4, 4:-4]
    assert float(residual.detach().std()) == pytest.approx(0.003, rel=0.25)


def test_what_lies_under_the_mask_does_not_enter(scene):
    junk = torch.where(scene.valid, scene.frames, torch.rand(scene.frames.shape))
    fits = []
    for one in (scene, dataclasses.replace(scene, frames=junk)):
        register = stage(blocks=ALL, optimizer=QuasiNewton, objective=Evidence(), metric=METRIC)
        weights = stage(blocks=WEIGHTS, optimizer=QuasiNewton, objective=posterior, metric=fourier_metric)
        fits.append(state(solve(reconstruction(one, register, weights, levels=(2,)))))
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
