import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from s2sr.data.demo import Demo
from s2sr.data.holdout import halves
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF
from s2sr.model.scene import Observation, Scene
from s2sr.observations import configuration
from s2sr.reconstruction import reconstruct, solve_again
from s2sr.report.figures import pixels
from s2sr.report.resolution import (
    CRITERION,
    EDGES,
    KNOWN,
    POWER_LAW,
    RINGS,
    TOGETHER,
    Resolution,
    by_halves,
    by_truth,
    crossing,
    curves,
    falling,
    power_law,
    ring_correlation,
    slopes,
    spectrum,
)

NOISE = 0.002


def white(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def ones(n):
    return np.ones(n)


@pytest.mark.parametrize("shape", [(48, 48), (40, 61)])
def test_identical_images_correlate_fully_and_independent_ones_not(shape):
    bands, scale = 30, 2
    a, b = (white(bands, *(scale * n for n in shape), seed=seed) for seed in (1, 2))
    assert ring_correlation(a, 0.3 * a + 2, scale, ones(bands))[:, 1:] == pytest.approx(1)
    assert ring_correlation(a, -a, scale, ones(bands))[:, 1:] == pytest.approx(-1)
    found = ring_correlation(a, b, scale, ones(bands))
    # real parts over as many modes as the ring has per LR pixel, of which the fading leaves (sum w^2)^2 / sum w^4
    inside = [np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) for n in shape]
    fade = [np.sin(np.pi / 2 * np.clip(x / 8, 0, 1)) ** 2 for x in inside]
    left = math.prod(np.sum(w**2) ** 2 / np.sum(w**4) for w in fade)
    expected = 1 / np.sqrt(np.pi * np.diff(EDGES**2) * left)
    known = slice(4, 20)  # rings of more than a hundred modes, inside the images' own Nyquist frequency
    z = found[:, known] / expected[known]
    assert abs(z.mean()) < 4 / math.sqrt(z.size)
    assert z.std() == pytest.approx(1, rel=0.12)  # measured .97 and .98


@pytest.mark.parametrize("shape", [(40, 36), (39, 41)])
def test_rings_are_those_of_the_whole_transform(shape):
    """Every frequency once, also those that a real transform leaves out."""
    a, b = white(1, *shape), white(1, *shape) + white(1, *shape, seed=1)
    inside = [np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) for n in shape]
    fade = [np.sin(np.pi / 2 * np.clip(x / 16, 0, 1)) ** 2 for x in inside]
    window = fade[0][:, None] * fade[1]
    X, Y = (np.fft.fft2(window * (z[0] - np.average(z[0], weights=window))) for z in (a, b))
    f = np.hypot(np.fft.fftfreq(shape[0], 1 / 2)[:, None], np.fft.fftfreq(shape[1], 1 / 2))
    of_ring = [(f >= low) & (f < high) for low, high in pairwise(EDGES)]
    one, two, both = ([z[r].real.sum() for r in of_ring] for z in (abs(X) ** 2, abs(Y) ** 2, X * Y.conj()))
    known = np.array(one) > 1e-9  # there is no more in the mean than rounding
    expected = np.array(both)[known] / np.sqrt(np.array(one) * two)[known]
    assert known.sum() > 15
    assert ring_correlation(a, b, 2, ones(1))[0][known] == pytest.approx(expected)


def test_a_low_pass_and_noise_cross_where_they_should():
    sigma, noise, scale, n = 0.4, 0.35, 4, 96
    scene = white(4, n, n)
    f = np.hypot(np.fft.fftfreq(n, 1 / scale)[:, None], np.fft.rfftfreq(n, 1 / scale))
    blurred = np.fft.irfft2(np.fft.rfft2(scene) * np.exp(-2 * (math.pi * sigma * f) ** 2), s=(n, n))
    a, b = (blurred + noise * white(4, n, n, seed=seed) for seed in (1, 2))
    found = ring_correlation(a, b, scale, ones(4)).mean(0)
    # F = G^2 / (G^2 + v) = 1/7 where G^2 = v / 6
    expected = math.sqrt(math.log(6 / noise**2) / (4 * math.pi**2 * sigma**2))
    assert 0.5 < expected < 1
    assert crossing(found * 3.5) == pytest.approx(expected, rel=0.03)
    # and the mean of both correlates with what was blurred by sqrt(2 F / (1 + F))
    truth = ring_correlation((a + b) / 2, scene, scale, ones(4)).mean(0)
    assert truth[:14] == pytest.approx(np.sqrt(2 * found / (1 + found))[:14], abs=0.06)


def test_a_wider_detector_counts_in_its_own_pixels():
    n = 120
    f = np.hypot(np.fft.fftfreq(n, 1 / 4)[:, None], np.fft.rfftfreq(n, 1 / 4))
    a, b = (np.fft.rfft2(white(1, n, n, seed=seed)) for seed in (1, 2))
    alike = np.fft.irfft2(np.where(f < 0.3, a, b), s=(n, n))  # up to .3 cycles per LR pixel
    for width in (1, 2):
        (found,) = ring_correlation(np.fft.irfft2(a, s=(n, n)), alike, 4, width * ones(1))
        assert crossing(found) == pytest.approx(0.3 * width, abs=0.03)
    half = Resolution(("B11",), 2 * ones(1), np.where(RINGS < 0.6, 1, 0)[None].astype(float), np.zeros((1, len(RINGS))))
    assert half.frequencies == pytest.approx([0.3])
    assert half.metrics("frc", 10.0)["frc_resolution_m_B11"] == pytest.approx(10 / 0.6)
    assert set(half.metrics("frc", None)) == {"frc_frequency", "frc_frequency_B11"}


@pytest.mark.parametrize("n", [14, 18])
def test_a_small_image_has_no_lowest_ring(n):
    """None that is not its mean, which is no detail; and missing rings do not pull down the others."""
    a = white(1, 4 * n, 4 * n)
    found = ring_correlation(a, a + 0.1 * white(1, 4 * n, 4 * n, seed=1), 4, ones(1))
    assert np.isnan(found[0, 0])
    assert falling(found[0], np.zeros(len(RINGS)))[1:].min() > 0.97


def test_crossing():
    assert crossing(1.25 - RINGS) == pytest.approx(0.75)
    assert crossing(np.ones(len(RINGS))) == EDGES[-1]
    assert crossing(np.where(RINGS < 0.5, 1, np.nan)) == pytest.approx(0.5)
    uncertain = Resolution(("B02",), ones(1), np.ones((1, len(RINGS))), (RINGS > 0.7)[None] * (KNOWN + 0.01))
    assert uncertain.frequencies == pytest.approx([0.7])


def test_a_power_law_goes_on():
    power = 3 * RINGS**-2.4
    broken = np.where(np.arange(len(RINGS)) < POWER_LAW.stop, power, 7)
    assert power_law(RINGS, broken) == pytest.approx(power)


def field_of(shifts, *, scale=4, size=(40, 44), slope=1.2, seed=0):
    """A field with detail at all frequencies."""
    field = SplatField(Grid(None, (1, 0, 0, 0, -1, 0), size), ("B02", "B04"), scale=scale, psf=PSF(0.4), shifts=shifts)
    shape = field.lattice.shape
    f = np.hypot(np.fft.fftfreq(shape[0], 1 / scale)[:, None], np.fft.rfftfreq(shape[1], 1 / scale))
    coloured = np.fft.rfft2(white(2, *shape, seed=seed)) * (0.05**2 + f**2) ** (-slope / 2)
    image = np.fft.irfft2(coloured, s=shape)
    with torch.no_grad():
        field.weights.copy_(torch.from_numpy(0.2 + 0.05 * image / image.std()))
    return field


def observed(field, *, seed=0, noise=NOISE):
    frames = field().detach()
    frames = frames + noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed))
    names = tuple(Observation(f"{t}", f"2024-05-{t + 1:02d}", 1.0) for t in range(len(frames)))
    return Scene(frames, torch.ones_like(frames, dtype=torch.bool), field.grid, field.bands, names)


@pytest.fixture(scope="module")
def shifts():
    return torch.from_numpy(np.random.default_rng(3).normal(0, 0.25, (12, 2)))


def rings_of(field):
    """Weights of every ring, and the power [b, ring]."""
    parts, power = zip(*spectrum(field), strict=True)
    return list(parts), np.stack(power, 1)


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


def _with(field, weights):
    other = field.unsolved(field.scale)
    with torch.no_grad():
        other.weights.copy_(weights)
    return other


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


def test_a_prior_that_invents_the_same_twice_is_found_out(told):
    """The same wrong detail in both halves: their own ring correlation calls it real."""
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
    plain = ring_correlation(*(f.render().numpy() for f in fooled), 2, ones(2))
    assert plain[:, 12:17].min() > 0.9
    found = by_halves(module.field, fooled, scenes, module.noise.detach())
    assert (found.frequencies < 0.62).all()
    assert found.correlation[:, 12:15].max() < CRITERION
