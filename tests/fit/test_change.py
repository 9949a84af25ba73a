"""Change against a dense conditional mean, and in a fit whose truth is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_images import normal
from small_registrations import changing, register, simulated
from torch import Tensor

from s2sr.data.demo import Demo
from s2sr.fit.change import DETAIL, change, conditional_mean, cosines, explain, power_of_change, whitened
from s2sr.fit.module import Reconstruction
from s2sr.model.sampling import Sampling
from s2sr.observations import configuration
from s2sr.reconstruction import prepare, reconstruct

SHAPE = (7, 9)
VARIANCE = torch.full((2, 1, 1), 0.3, dtype=torch.float64)


def power() -> Tensor:
    rows, columns = (torch.arange(n, dtype=torch.float64) / (2 * n) for n in SHAPE)
    law = (0.1**2 + rows[:, None].square() + columns.square()).pow(-1.2)
    return torch.stack([0.02 * law, 0.1 * law])


def dense(residual: Tensor, valid: Tensor, power: Tensor, variance: Tensor) -> Tensor:
    """S M (M S M + v)^-1 M r with matrices, for one band."""
    basis = torch.kron(cosines(SHAPE[0]), cosines(SHAPE[1]))
    covariance = basis.T @ torch.diag(power.flatten()) @ basis
    seen = valid.flatten()
    inner = covariance[seen][:, seen] + variance * torch.eye(int(seen.sum()), dtype=torch.float64)
    return (covariance[:, seen] @ torch.linalg.solve(inner, residual.flatten()[seen])).view(SHAPE)


def test_the_cosines_are_orthonormal_and_those_of_frames_that_go_on_as_in_a_mirror():
    basis, x = cosines(8), normal(8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64))
    mirrored = torch.fft.rfft(torch.cat([x, x.flip(0)]))[:8]
    turned = (mirrored * torch.exp(-0.5j * torch.pi * torch.arange(8) / 8)).real / 4
    turned[0] /= 2**0.5
    torch.testing.assert_close(basis @ x, turned)


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_the_conditional_mean_is_the_dense_one(share):
    residual, valid = normal(2, *SHAPE), torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1)) < share
    found = conditional_mean(residual, valid, power(), VARIANCE, iterations=200, accuracy=1e-10)
    expected = torch.stack([dense(*one) for one in zip(residual, valid, power(), VARIANCE, strict=True)])
    torch.testing.assert_close(found, expected)


def test_a_band_without_a_gap_beside_one_with_a_gap():
    residual, valid = normal(2, *SHAPE), torch.ones(2, *SHAPE, dtype=torch.bool)
    valid[1, 2:6, 3:7] = False
    found = conditional_mean(residual, valid, power(), VARIANCE, iterations=200, accuracy=1e-10)
    expected = torch.stack([dense(*one) for one in zip(residual, valid, power(), VARIANCE, strict=True)])
    torch.testing.assert_close(found, expected)


def test_few_iterations_come_near_it():
    residual, valid = normal(2, *SHAPE), torch.ones(2, *SHAPE, dtype=torch.bool)
    valid[:, 2:6, 3:7] = False
    found, exact = (conditional_mean(residual, valid, power(), VARIANCE, accuracy=a) for a in (0.05, 1e-10))
    assert float((found - exact).square().mean() / exact.square().mean()) < 0.05**2


def test_what_is_not_valid_does_not_count():
    residual, valid = normal(2, *SHAPE), torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1)) < 0.7
    spoilt = torch.where(valid, residual, 1e3)
    torch.testing.assert_close(*(conditional_mean(r, valid, power(), VARIANCE) for r in (residual, spoilt)))


def test_a_band_of_20_m_changes_by_whole_blocks():
    scene = Demo(size=(20, 24), n_dates=4, bands=("B03", "B04"), seed=100).load()
    coarse = Sampling(2, 1, 0)
    frames = torch.stack([scene.frames[:, 0], coarse.repeat(scene.frames[:, 1])], 1)
    scene = dataclasses.replace(scene, frames=frames, bands=("B03", "B11"))
    module = prepare(scene, configuration("strategy=bayes", "c2f.levels=[2]", "holdout=null"))
    assert module.field.samplings == (Sampling(), coarse)
    residual = normal(*scene.frames.shape).float() * 0.01
    found = change(module, residual)
    rows, columns = coarse.slices()
    torch.testing.assert_close(found[:, 1], coarse.repeat(found[:, 1]))
    one = conditional_mean(
        residual[2, 1:, rows, columns],
        module.valid[2, 1:, rows, columns],
        module.change.detach()[2, 1:, None, None] * power_of_change(module, [1], coarse),
        module.noise.detach()[2, 1:, None, None].square(),
    )
    torch.testing.assert_close(found[2, 1:, rows, columns], one)
    # the variance of a sample is the detector's, whether every LR pixel has one or every block
    each, block = (
        float(power_of_change(module, [1], sampling).mean().detach()) for sampling in (Sampling(), Sampling(2))
    )
    assert block == pytest.approx(each, rel=0.02)


def test_change_counts_as_noise_by_its_power_in_detail():
    scene = changing(2.5)
    module, true = register(scene), scene.frames - simulated().frames
    white = module.noise.detach().clone()
    whitened(module)
    assert float(module.noise.detach().mean()) > 1.3 * float(white.mean())
    rows, columns = (torch.arange(n) / (2 * n) for n in scene.grid.shape)
    f = torch.hypot(rows[:, None], columns)
    spectra = cosines(len(rows)).float() @ true @ cosines(len(columns)).float().T
    power = spectra[..., (f >= DETAIL[0]) & (f < DETAIL[1])].square().mean(-1)
    ratio = module.noise.detach() / (white.square() + power).sqrt()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=0.15, rtol=0)


def test_it_is_what_differs_from_the_median_date_wherever_the_scene_is_now():
    """Two of five dates show a field, 0.1 brighter; the scene shows half of it."""
    scene = simulated(dates=5, spread=0.1)
    frames, field = scene.frames.clone(), torch.zeros(scene.grid.shape)
    field[10:30, 10:30] = 0.1
    frames[1:3] += field
    module = register(dataclasses.replace(scene, frames=frames))
    gain = module.field.radiometry.gain.detach()
    middle = (..., slice(15, 25), slice(15, 25))
    with torch.no_grad():
        module.log_change.fill_(-4)
        module.field.initialise(frames.mean(0) + field / 10)
    explain(module)
    found = (module.field.changed / gain[..., None, None])[middle].mean((-2, -1))
    expected = torch.tensor([0, 0.1, 0.1, 0, 0])[:, None].expand_as(found)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


SEASON = Demo(size=40, n_dates=8, bands=("B04", "B08"), seed=100, cloudy=0.0)


@pytest.fixture(scope="module")
def fits() -> dict[str, Reconstruction]:
    """Fits of a season in which fields turn green and are harvested, with their change and without."""
    settings = ("strategy=bayes", "c2f=2_4", "threads=1", "holdout.refit=false")
    starts = {"with": "s2sr.fit.change.explain", "without": "s2sr.fit.posterior.local_noise"}
    return {
        name: reconstruct(SEASON.load(), configuration(*settings, f"strategy.sharpen.start.path={start}"))
        for name, start in starts.items()
    }


def test_it_is_found_where_and_when_it_was(fits):
    found, module = fits["with"].field.changed, fits["with"]
    true = module.scene.frames - dataclasses.replace(SEASON, changing=0.0).load().frames  # all else is the same
    missed = (found - true).square()
    for samples, share in ((module.scene.valid, 0.2), (module.scene.judged, 0.7)):
        assert float(missed[samples].mean() / true[samples].square().mean()) < share
    assert not fits["without"].field.changed.any()


def test_frames_are_predicted_better_with_it_and_the_scene_is_none_the_worse(fits):
    judged, before = fits["with"].judgement, fits["without"].judgement
    assert judged["holdout_rmse_with_change"] < 0.85 * judged["holdout_rmse"]
    assert "holdout_rmse_with_change" not in before
    assert judged["holdout_rmse"] < 1.03 * before["holdout_rmse"]
