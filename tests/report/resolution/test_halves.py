from dataclasses import replace

import numpy as np
import pytest
import torch
from detailed_fields import NOISE, field_of, observed

from s2sr.data.demo import Demo
from s2sr.data.holdout import halves
from s2sr.observations import configuration
from s2sr.reconstruction import reconstruct, solve_again
from s2sr.report.figures import pixels
from s2sr.report.resolution import CRITERION, RINGS, TOGETHER, by_truth, ring_correlation
from s2sr.report.resolution.figure import curves
from s2sr.report.resolution.halves import POWER_LAW, by_halves, power_law, slopes, spectrum


@pytest.fixture(scope="module")
def shifts():
    return torch.from_numpy(np.random.default_rng(3).normal(0, 0.25, (12, 2)))


def rings_of(field):
    """The weights of every ring, and the power [b, ring]."""
    parts, power = zip(*spectrum(field), strict=True)
    return list(parts), np.stack(power, 1)


def _with(field, weights):
    other = field.unsolved(field.scale)
    with torch.no_grad():
        other.weights.copy_(weights)
    return other


def test_a_power_law_goes_on():
    power = 3 * RINGS**-2.4
    broken = np.where(np.arange(len(RINGS)) < POWER_LAW.stop, power, 7)
    assert power_law(RINGS, broken) == pytest.approx(power)


def test_rings_add_up_to_the_field(shifts):
    field = field_of(shifts, scale=2)
    parts, power = rings_of(field)
    corner = field.weights - sum(parts)
    assert float(corner.detach().std()) < 0.35 * float(field.weights.detach().std())  # beyond the last ring
    assert power.shape == (2, len(RINGS))
    assert np.isfinite(power).all()
    halved, quartered = rings_of(_with(field, 0.5 * field.weights))
    assert torch.allclose(halved[7], 0.5 * parts[7], atol=1e-6)
    assert quartered == pytest.approx(power / 4, rel=1e-4)


def test_detail_has_slope_one_and_invented_detail_none(shifts):
    field = field_of(shifts)
    scene = observed(field)
    noise = torch.full((len(scene), 2), NOISE)
    parts, power = rings_of(field)
    doubled = [2 * part if k >= 12 else part for k, part in enumerate(parts)]
    strange, _ = rings_of(field_of(shifts, seed=9))
    invented = [strange[k] if k == 13 else part for k, part in enumerate(parts)]
    for changed, expected in ((parts, {}), (doubled, dict.fromkeys(range(12, len(RINGS)), 0.5)), (invented, {13: 0.0})):
        slope, error, _ = slopes(field, zip(changed, power.T, strict=True), scene, noise)
        wanted = np.array([expected.get(k, 1.0) for k in range(len(RINGS))])
        seen = RINGS < 0.85
        z = ((slope - wanted) / error)[:, seen]
        # what lies beyond the rings is seen as well, a little
        assert abs(z).max() < 6
        assert error[:, 13].max() < 0.2
        assert error[:, -2].min() > 0.9  # at the zero of the footprint nothing is known
        assert slope[:, 0] == pytest.approx(slope[:, TOGETHER - 1])


def test_change_on_one_date_does_not_hide_the_detail_of_all(shifts):
    """A field that is bright on that date; counted as noise, it would make every error 3.6 times as large."""
    field = field_of(shifts)
    scene = observed(field)
    frames = scene.frames.clone()
    frames[4, :, 10:20, 12:22] += 0.1
    noise = torch.full((len(scene), 2), NOISE)
    rings = list(spectrum(field))
    told = [slopes(field, rings, seen, noise) for seen in (scene, replace(scene, frames=frames))]
    (slope, error, _), (changed, wider, _) = told
    assert wider == pytest.approx(error, rel=0.1)
    assert abs(changed - slope)[:, RINGS < 0.85].max() < 0.1


def test_halves_are_disjoint_and_interleaved():
    scene = observed(field_of(torch.zeros(7, 2), size=(12, 12)))
    one, other = halves(scene)
    assert not (one.valid & other.valid).any()
    assert torch.equal(one.valid | other.valid, scene.valid)
    assert one.valid.flatten(1).any(1).tolist() == [True, False] * 3 + [True]
    unordered = replace(scene, observations=scene.observations[::-1])
    assert halves(unordered)[0].valid.flatten(1).any(1).tolist() == [True, False] * 3 + [True]


@pytest.fixture(scope="module")
def told():
    """A fit of a scene with known truth, its two halves, and what they tell."""
    scene = Demo(size=(36, 40), n_dates=8, bands=("B04", "B08"), cloudy=0, seed=103).load()
    cfg = configuration("strategy=lbfgs", "c2f.levels=[2]", "threads=1")
    module = reconstruct(scene, cfg)
    scenes = halves(module.scene)
    fields = [solve_again(module, half, cfg) for half in scenes]
    return module, scenes, fields


def test_solved_again_nothing_but_the_weights_is_new(told):
    module, _, fields = told
    for field in fields:
        assert torch.allclose(field.shifts, module.field.shifts, atol=1e-6)
        assert torch.equal(field.radiometry.gain, module.field.radiometry.gain)
        assert torch.allclose(field.sigma_psf, module.field.sigma_psf)
        assert not torch.allclose(field.weights, module.field.weights, atol=1e-3)
    assert not torch.allclose(fields[0].weights, fields[1].weights, atol=1e-3)


def test_the_halves_tell_the_resolution(told):
    module, scenes, fields = told
    found = by_halves(module.field, fields, scenes, module.noise.detach())
    truth = by_truth(module.scene, module.field, (0.0, 0.0))
    assert found.frequencies.mean() == pytest.approx(truth.frequencies.mean(), rel=0.15)
    low = RINGS < 0.4
    assert found.correlation[:, low] == pytest.approx(1, abs=0.05)
    picture = pixels(curves(found, fields, truth=truth, forecast=0.7, metre=10.0))
    assert picture.shape == (600, 960, 3)


def test_a_half_of_twice_the_contrast_tells_the_same(told):
    """The slopes on it are half as large, and so are their errors."""
    module, scenes, (one, other) = told
    doubled = [_with(one, 2 * one.weights), other]
    expected, found = (by_halves(module.field, f, scenes, module.noise.detach()) for f in ((one, other), doubled))
    assert found.correlation == pytest.approx(expected.correlation, abs=1e-3, nan_ok=True)
    assert found.error == pytest.approx(expected.error, rel=1e-2, nan_ok=True)


def test_a_prior_that_invents_the_same_twice_is_found_out(told):
    """Both halves have the same wrong detail, and their own ring correlation calls it real."""
    module, scenes, fields = told
    strange, _ = rings_of(field_of(torch.zeros(2, 2), scale=2, size=module.scene.grid.shape))
    fooled = []
    for field in fields:
        parts, _ = rings_of(field)
        weights = field.weights.detach().clone()
        rows, columns = (slice(0, min(a, b)) for a, b in zip(weights.shape[1:], strange[0].shape[1:], strict=True))
        for k in range(11, len(RINGS)):  # from .55 on
            other = torch.zeros_like(weights)
            other[:, rows, columns] = strange[k][:, rows, columns]
            weights += other * parts[k].std() / other.std() - parts[k]
        fooled.append(_with(field, weights))
    plain = ring_correlation(*(f.render().numpy() for f in fooled), 2, np.ones(2))
    assert plain[:, 12:17].min() > 0.9
    found = by_halves(module.field, fooled, scenes, module.noise.detach())
    assert (found.frequencies < 0.62).all()
    assert found.correlation[:, 12:15].max() < CRITERION
