"""The edge-preserving prior: its energy, what sets its numbers, and what it does to scenes with edges and without."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from small_fits import SHIFTS, reconstruction, solve, stage
from small_images import normal, power_law
from torch import Tensor

from s2sr.data.simulate import simulate_scene
from s2sr.fit import losses
from s2sr.fit.edges import (
    EdgePrior,
    dimensions,
    edge_energy,
    edge_metric,
    gradients_of_mean,
    mean_size,
    tail_exponent,
    visible_gradients,
)
from s2sr.fit.losses import differences
from s2sr.fit.posterior import FourierMetric, GaussianPrior, closed_form, fourier_metric, posterior
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.fit.schedules import Constant
from s2sr.model.psf import transfer
from s2sr.report.scores import scores


def test_the_size_of_gradients_is_their_mean_over_bands():
    gradients = normal(2, 1, 7, 6).expand(2, 3, 7, 6)
    one = torch.hypot(*gradients[:, 0])
    torch.testing.assert_close(mean_size(gradients, torch.eye(3, dtype=torch.float64)), one)


def test_the_energy_is_that_of_all_rows_at_once(monkeypatch):
    w = normal(2, 7, 6)
    whole = energy(w, 3, 0.7, 0.3)
    monkeypatch.setattr(losses, "BLOCK", 24)
    assert energy(w, 3, 0.7, 0.3) == pytest.approx(whole, rel=1e-13)


def energy(weights: Tensor, scale: int, exponent: float, delta: float) -> float:
    form = torch.eye(len(weights), dtype=weights.dtype)
    return float(edge_energy(weights, scale, form=form, exponent=exponent, delta=delta))


# --- its energy


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize(("exponent", "delta"), [(2.0, 0.5), (1.0, 0.1), (0.7, 0.3)])
def test_the_energy_has_its_gradient(exponent, delta, rows, monkeypatch):
    """However many rows are taken at a time, the gradient is that of the energy."""
    monkeypatch.setattr(losses, "BLOCK", 2 * 6 * rows)
    form = torch.tensor([[6.0, -2.0], [-2.0, 3.0]], dtype=torch.float64)
    w = normal(2, 5, 6).requires_grad_()
    prior = {"form": form, "exponent": exponent, "delta": delta, "factor": 1.7}
    assert torch.autograd.gradcheck(lambda w: edge_energy(w, 3, **prior), (w,))


def test_bands_that_are_alike_cost_the_sum_of_their_own():
    w = normal(1, 9, 11)
    assert energy(w.expand(3, -1, -1), 2, 0.8, 0.3) == pytest.approx(3 * energy(w, 2, 0.8, 0.3), rel=1e-12)


def test_an_edge_costs_less_where_another_band_has_one():
    step = (torch.arange(12) >= 6).double().expand(12, 12)
    together, apart = torch.stack((step, step)), torch.stack((step, step.T))
    assert energy(together, 2, 1.0, 0.1) < 0.8 * energy(apart, 2, 1.0, 0.1)
    assert energy(together, 2, 2.0, 0.1) == pytest.approx(energy(apart, 2, 2.0, 0.1)), "not so for a Gaussian"


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_an_edge_costs_its_length_times_its_height_at_every_level(scale):
    """For an exponent of 1 and an edge of 0.2 along 6 LR pixels; the smoothing takes delta per splat at most."""
    w = torch.zeros(1, 6 * scale, 6 * scale, dtype=torch.float64)
    w[..., 3 * scale :] = 0.2
    assert energy(w, scale, 1.0, 0.01) == pytest.approx(1.2, rel=0.05)


# --- what sets its numbers


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("exponent", [0.7, 1.0, 2.0])
def test_the_exponent_of_a_generalised_gaussian_is_found(exponent, n):
    rng = np.random.default_rng(0)
    size = torch.from_numpy(rng.gamma(n / exponent, size=400_000) ** (1 / exponent))
    assert tail_exponent(size, n) == pytest.approx(exponent, rel=0.03)


def test_tails_lighter_than_a_gaussian_count_as_one_and_no_gradient_at_all_too():
    assert tail_exponent(torch.ones(100), 2.0) == 2.0
    assert tail_exponent(torch.zeros(100), 1.0) == 2.0
    assert tail_exponent(torch.eye(1000)[0], 1.0) == 0.3


def test_the_dimensions_that_vary_are_counted():
    white = normal(6, 100_000)
    assert dimensions(white) == pytest.approx(6, rel=0.01)
    assert dimensions(white[:1].expand(6, -1)) == pytest.approx(1)


def scene(image: np.ndarray, noise: float = 0.003):
    return simulate_scene(image, 8, bands=("B02",), shifts=SHIFTS, sigma_psf=0.4, noise=noise, seed=1, margin=4)


def edged(side: int = 28, seed: int = 2) -> np.ndarray:
    """[1, side * 8, side * 8] an image of rectangles."""
    rng = np.random.default_rng(seed)
    image = np.full((1, side * 8, side * 8), 0.15)
    for y, x, h, w in rng.integers((0, 0, 12, 12), (side * 8, side * 8, 80, 80), (60, 4)):
        image[:, y : y + h, x : x + w] = rng.uniform(0.05, 0.4)
    return image


@pytest.mark.parametrize("masked", [False, True])
def test_at_the_finest_visible_detail_observations_and_prior_tell_as_much(masked):
    """Half of every date is masked, or nothing is."""
    seen = scene(power_law(28, 8))
    if masked:
        valid = (torch.arange(seen.valid.shape[-1]) % 2 == 0).expand(seen.valid.shape)
        seen = dataclasses.replace(seen, valid=valid, frames=seen.frames * valid)
    module = reconstruction(seen, stage(), levels=(4,), noise=0.003).double()
    unit, sigma = float(visible_gradients(module)), float(module.field.sigma_psf.detach())
    f = torch.linspace(0.1, 0.9, 801, dtype=torch.float64)
    power = module.spectrum(0, f.square()).detach()
    ratio = len(SHIFTS) / (1 + masked) / 0.003**2 * power * transfer(f, sigma).square()
    last = int((ratio > 1).sum()) - 1
    assert unit == pytest.approx(float(2 * math.pi * f[last] * power[last].sqrt()), rel=0.03)


def test_where_gradients_are_normal_the_prior_is_gaussian_and_else_it_is_not():
    for image, gaussian in ((power_law(28, 8), True), (edged(), False)):
        module = reconstruction(scene(image), stage(), levels=(4,), noise=0.003).double()
        module.tv, weights = 1.0, module.field.weights
        parts = EdgePrior()(module)
        with torch.no_grad():
            weights.copy_(weights - weights.mean())
            once = float(parts()["edges"])
            weights.mul_(2)
            ratio = float(parts()["edges"]) / once
        assert ratio == pytest.approx(4, rel=0.1) if gaussian else ratio < 2.2


@pytest.mark.parametrize("scale", [2, 6])
def test_gradients_of_the_posterior_mean_are_those_of_its_lattice(scale):
    """They are computed at two splats per LR pixel and axis."""
    module = reconstruction(scene(edged()), stage(), levels=(scale,), noise=0.003).double()
    found, cut = gradients_of_mean(module), module.field.lattice.margin * scale
    closed_form(module)
    every = slice(cut, -cut, scale // 2)
    expected = scale * differences(module.field.weights.detach())[..., every, every]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7 * float(expected.abs().max()))


def test_its_numbers_are_the_posterior_means_and_not_of_the_weights_it_finds():
    """So the stage may follow any other, and a part of it may follow the part before."""
    starts = (stage(**SOLVE, optimizer=lambda p, metric: QuasiNewton(p, metric=metric, max_iter=3)), sharpen())
    modules = [reconstruction(scene(edged()), stage(), levels=(4,), start=SHIFTS, noise=0.003)]
    modules += [fitted(edged(), one) for one in starts]
    found = []
    for module in modules:
        module.tv, parts = 1.0, EdgePrior()(module)
        with torch.no_grad():
            module.field.weights.copy_(normal(*module.field.weights.shape) / 10)
        found.append(float(parts()["edges"].detach()))
    assert found == pytest.approx([found[0]] * 3, rel=0.06)


@pytest.mark.parametrize("scale", [1, 4])
def test_the_metric_is_symmetric_and_positive(scale):
    module = reconstruction(scene(edged()), stage(), levels=(scale,), noise=0.003).double()
    metric, weights = edge_metric(module), module.field.weights
    step = lambda gradient: metric([], [gradient.clone()])[0]  # noqa: E731
    a, b = normal(*weights.shape), normal(*weights.shape).flip(-1)
    assert float((a * step(b)).sum()) == pytest.approx(float((b * step(a)).sum()), rel=1e-9)
    assert float((a * step(a)).sum()) > 0


def test_the_metric_with_the_gaussian_stiffness_is_the_posteriors():
    module = reconstruction(scene(edged()), stage(), levels=(4,), noise=0.003).double()
    a = normal(*module.field.weights.shape)
    same = FourierMetric(module, GaussianPrior.of(module))
    assert torch.equal(same(a.clone()), FourierMetric(module)(a))


# --- what it does


SOLVE = {"blocks": [["weights"]], "objective": posterior, "metric": fourier_metric, "start": closed_form}


def sharpen(**options):
    defaults = {
        "blocks": [["weights"]],
        "tv": Constant(1.0),
        "objective": EdgePrior(),
        "metric": edge_metric,
        "optimizer": lambda p, metric: QuasiNewton(p, metric=metric, max_iter=12, history=3),
    }
    return stage(**{**defaults, **options})


def psnr(module) -> float:
    field = module.field
    return scores(module.scene, field.render(), field.scale, field.shifts.detach())["psnr"]


def fitted(image: np.ndarray, *stages):
    return solve(reconstruction(scene(image), *stages, levels=(4,), start=SHIFTS, noise=0.003))


def test_edges_gain_and_texture_does_not_lose():
    mean = stage(**SOLVE, optimizer=lambda p, metric: QuasiNewton(p, metric=metric, max_iter=3))
    for image, least in ((edged(), 0.5), (power_law(28, 8), -0.1)):
        gaussian, both, alone = (fitted(image, *stages) for stages in ((mean,), (mean, sharpen()), (sharpen(),)))
        assert psnr(both) > psnr(gaussian) + least
        assert psnr(alone) > psnr(both) - 0.15, "it needs no stage before it"


def test_it_ends_where_the_gradient_is_small():
    """Small is meant in the metric, whose unit is a nat. Twelve iterations gain most of what six times as many do."""
    module = fitted(edged(), sharpen())
    long = fitted(edged(), sharpen(optimizer=lambda p, metric: QuasiNewton(p, metric=metric, max_iter=72)))
    start = reconstruction(scene(edged()), sharpen(), levels=(4,), start=SHIFTS, noise=0.003)
    left = []
    for one in (start, module, long):
        one.tv, weights = 1.0, one.field.weights.requires_grad_(True)
        (gradient,) = torch.autograd.grad(sum(EdgePrior()(one)().values()), weights)
        left.append(float((gradient * edge_metric(one)([], [gradient.clone()])[0]).sum()))
    assert left[1] < 0.01 * left[0]
    assert left[2] < 0.2 * left[1]
    mean = psnr(fitted(edged(), stage(**SOLVE, optimizer=lambda p, metric: QuasiNewton(p, metric=metric))))
    assert psnr(module) - mean > 0.6 * (psnr(long) - mean) > 0.6
