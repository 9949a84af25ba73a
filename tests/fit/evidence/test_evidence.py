"""What maximising the evidence recovers: of clear, masked, clouded and changing scenes."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from small_fits import reconstruction, solve, stage
from small_images import power_law
from small_registrations import ALL, DATES, EVIDENCE, NOISE, SIGMA, register, simulated, without

from s2sr.data.simulate import simulate_scene
from s2sr.fit.evidence.information import Information, sigma_errors
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.model.scene import Scene
from s2sr.report.metrics import shift_rmse


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulated()


@pytest.fixture(scope="module")
def clear(scene):
    return register(scene)


def assert_sigma(module, tolerance: float = 2.5) -> None:
    """Sigma is right within `tolerance` standard errors, and these are not too large."""
    errors = sigma_errors(module)
    assert float(errors.max()) < 0.15 * SIGMA
    away = (module.field.sigma_psf.detach() / module.field.widths - SIGMA) / errors
    assert float(away.abs().max()) < tolerance, away


def assert_noise(module, tolerance: float = 0.05) -> None:
    torch.testing.assert_close(module.noise.detach().mean(0), torch.full((2,), NOISE), rtol=tolerance, atol=0)


def test_a_clear_scene(scene, clear):
    assert shift_rmse(clear.field.shifts, scene.truth.shifts) < 0.004
    assert_sigma(clear)
    assert_noise(clear)
    torch.testing.assert_close(clear.field.radiometry.gain.detach(), torch.ones(DATES, 2), atol=0.015, rtol=0)
    assert clear.evals < 40


def test_masked_blocks_cost_what_they_held(scene, clear):
    masked = register(without(scene))
    assert_sigma(masked)
    assert_noise(masked)
    best, found = (shift_rmse(module.field.shifts, scene.truth.shifts) for module in (clear, masked))
    assert found < 1.6 * best


def test_what_lies_under_a_mask_does_not_matter(scene):
    masked = without(scene)
    withheld = dataclasses.replace(masked, frames=scene.frames)
    one, other = (register(s, rounds=1) for s in (masked, withheld))
    assert torch.equal(one.trusted, other.trusted)
    assert torch.equal(one.field.shifts, other.field.shifts)
    assert torch.equal(one.field.log_sigma, other.field.log_sigma)


def test_a_cloud_that_no_mask_has_seen_is_left_out(scene):
    frames, cloud = scene.frames.clone(), torch.zeros(40, 40)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    cloud = 0.8 * torch.exp(-(((y - 14) ** 2 + (x - 22) ** 2) / 60))
    frames[3] = frames[3] * (1 - cloud) + 0.5 * cloud
    module = register(dataclasses.replace(scene, frames=frames))
    assert (~module.trusted[3][:, cloud > 0.2]).float().mean() > 0.9
    assert module.trusted[[0, 1, 2, 4, 5, 6, 7]].float().mean() > 0.98
    assert_noise(module, 0.08)
    assert_sigma(module)


def test_change_is_not_taken_for_noise():
    """Two of eight dates differ by a tenth of the scene's contrast, with its spectrum."""
    scene = simulated()
    other = simulate_scene(
        np.concatenate([power_law(50, 8, seed=k) for k in (7, 8)]),
        *(8,),
        bands=("B02", "B03"),
        shifts=scene.truth.shifts.numpy(),
        sigma_psf=SIGMA,
        noise=1e-9,
        margin=5,
    )
    frames = scene.frames.clone()
    frames[[1, 6]] += 0.1 * (other.frames - other.frames.mean((-2, -1), keepdim=True))[[1, 6]]
    module = register(dataclasses.replace(scene, frames=frames))
    with torch.no_grad():  # at .1 cycles per pixel, where it is seen
        basis = module.spectrum.basis(torch.tensor(0.01))
        change = module.change * (module.change_slope * basis[1] - module.spectrum.coefficients @ basis).exp()
    change = change.mean(1)
    torch.testing.assert_close(change[[1, 6]], torch.full((2,), 0.01), rtol=0.5, atol=0)
    assert float(change[[0, 2, 3, 4, 5, 7]].max()) < 0.002
    assert_noise(module)
    assert_sigma(module)


@pytest.mark.parametrize(("dates", "bands", "spread"), [(2, ("B02",), 0.3), (5, ("B04", "B11"), 1.2)])
def test_few_dates_wide_shifts_and_a_20_m_band(dates, bands, spread):
    scene = simulated(dates, bands, spread)
    module = register(scene)
    assert shift_rmse(module.field.shifts, scene.truth.shifts) < 0.006
    torch.testing.assert_close(module.noise.detach(), torch.full((dates, len(bands)), NOISE), rtol=0.25, atol=0)
    assert torch.isfinite(sigma_errors(module)).all()


def test_gains_are_found():
    gains = 1 + 0.05 * np.random.default_rng(2).normal(size=(DATES, 2))
    gains /= gains.mean(0)
    module = register(simulated(gains=gains))
    expected = torch.as_tensor(gains, dtype=torch.float32)
    torch.testing.assert_close(module.field.radiometry.gain.detach(), expected, atol=0.015, rtol=0)


def test_a_fixed_psf_stays(scene):
    fit = stage(blocks=ALL, optimizer=QuasiNewton, objective=EVIDENCE, metric=partial(Information, evidence=EVIDENCE))
    module = solve(reconstruction(scene, fit, levels=(2,), start=scene.truth.shifts.numpy()))
    assert module.field.sigma_psf.tolist() == pytest.approx([0.4, 0.4])


def test_a_20_m_band_that_repeats_its_samples_is_seen_on_its_own_grid():
    """Noise and sigma are those of what was measured: the repetitions are no measurements."""
    scene = simulated(bands=("B02", "B11"))
    measured = scene.frames[:, 1, ::2, ::2]
    repeats = measured.repeat_interleave(2, 1).repeat_interleave(2, 2)
    scene = dataclasses.replace(scene, frames=torch.stack((scene.frames[:, 0], repeats), 1))
    module = register(scene, samplings=scene.samplings)
    assert [s.pitch for s in module.field.samplings] == [1, 2]
    assert shift_rmse(module.field.shifts, scene.truth.shifts) < 0.006
    assert_noise(module, 0.1)
    away = (module.field.sigma_psf.detach() / module.field.widths - SIGMA) / sigma_errors(module)
    assert float(away.abs().max()) < 2.5, away
