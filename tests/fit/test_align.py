"""Alignment on the exact model: from shifts and offsets that are off, and its metric against differences."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from small_fits import reconstruction, solve, stage
from small_registrations import DATES, NOISE, SIGMA, simulated

from s2sr.errors import InputError
from s2sr.fit.align import AlignmentMetric, alignment
from s2sr.fit.losses import Quadratic
from s2sr.fit.posterior import FourierMetric, closed_form, posterior
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.model.spectrum import Spectrum
from s2sr.report.metrics import shift_rmse

OFFSETS = 0.004 * np.random.default_rng(3).normal(size=(DATES, 2))
OFFSETS -= OFFSETS.mean(0)


@pytest.fixture(scope="module")
def scene():
    return simulated(offsets=OFFSETS)


OPTIONS = {
    "blocks": [["weights", "shifts"]],
    "optimizer": partial(QuasiNewton, max_iter=4, tolerance=1e-5),
    "objective": alignment,
    "metric": AlignmentMetric,
    "start": closed_form,
    "rounds": 2,
}


@pytest.fixture(scope="module")
def module(scene):
    return aligned(scene, **OPTIONS)


def aligned(scene, **options):
    start = scene.truth.shifts.numpy() + 0.01 * np.random.default_rng(6).normal(size=scene.truth.shifts.shape)
    spectrum = Spectrum(torch.full((2,), 0.05**2))
    known = {"noise": NOISE, "spectrum": spectrum, "gain": True, "offset": True, "start": start}
    module = reconstruction(scene, stage(**options), levels=(2,), **known)
    with torch.no_grad():
        module.field.log_sigma.fill_(math.log(SIGMA))
    return solve(module)


def test_shifts_and_offsets_are_found(scene, module):
    assert module.evals < 16
    assert shift_rmse(module.field.shifts, scene.truth.shifts) < 0.003  # from .01, with a spectrum that is guessed
    radiometry = module.field.radiometry
    level = (radiometry.gain.detach() - 1) * 0.2 + radiometry.offset.detach()
    assert float((level - torch.as_tensor(OFFSETS)).std()) < 0.1 * OFFSETS.std()


def test_without_the_determinant_shifts_are_worse(scene, module):
    without = aligned(scene, **{**OPTIONS, "objective": posterior})
    true = scene.truth.shifts
    assert shift_rmse(without.field.shifts, true) > shift_rmse(module.field.shifts, true)


def test_the_metric_is_the_inverse_curvature_for_given_weights(module):
    """Of one observation; differences of the misfit's gradient, whose residuals bend it a little."""
    parameter, metric = module.field.raw_shifts, AlignmentMetric(module)
    parameter.requires_grad_(True)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(module.fidelity(rho=Quadratic()), parameter)[0]

    change = torch.zeros_like(parameter)
    change[2, 0], change[3, 0] = 1e-3, -1e-3  # the mean is gauge
    with torch.no_grad():
        parameter += change
    ahead = gradient()
    with torch.no_grad():
        parameter -= 2 * change
    bent = (ahead - gradient()) / 2
    with torch.no_grad():
        parameter += change
    (step,) = metric([parameter], [bent])
    assert float((step - change).norm() / change.norm()) < 0.1


def test_weights_alone_take_the_posterior_s_steps(module):
    """As where a half of the dates is solved with all else held fixed."""
    weights = module.field.weights
    gradient = torch.randn_like(weights)
    (step,) = AlignmentMetric(module)([weights], [gradient.clone()])
    torch.testing.assert_close(step, FourierMetric(module)(gradient))


def test_the_metric_refuses_what_it_does_not_know(module):
    gain = module.field.radiometry.raw_gain
    with pytest.raises(InputError, match=r"of weights and shifts.*regresses gain and offset itself"):
        AlignmentMetric(module)([module.field.weights, gain], [torch.ones_like(module.field.weights), gain])
