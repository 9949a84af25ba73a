"""Held-out scores: noise for the perfect fit, more for a worse one; the baselines against plain arithmetic."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from s2sr.data.holdout import Holdout
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF
from s2sr.model.scene import Observation, Scene
from s2sr.report.heldout import deconvolved, interpolated, judge, level_mean, located, matched, moved

SHAPE = (30, 34)
BANDS = ("B02", "B04")
SHIFTS = torch.tensor([(0.3, -0.2), (-0.25, 0.1), (0.1, 0.35), (-0.3, -0.3), (0.15, 0.05)])
NOISE = 0.002


def smooth(seed: int, *shape: int) -> Tensor:
    """Reflectance with detail of about a pixel, in steps of a third."""
    coarse = torch.rand(1, len(BANDS), *(n // 3 + 2 for n in shape), generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, scale_factor=3, mode="bicubic")[0]
    return 0.1 + 0.2 * fine[:, : shape[0], : shape[1]]


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def field() -> SplatField:
    """A fit that is the truth itself."""
    field = SplatField(Grid(None, (1, 0, 0, 0, -1, 0), SHAPE), BANDS, scale=2, psf=PSF(0.45), shifts=SHIFTS)
    with torch.no_grad():
        field.weights.copy_(smooth(0, *field.lattice.shape))
    return field


def observed(field: SplatField, shifts: Tensor, gain: float = 1.0, offset: float = 0.0) -> Scene:
    with torch.no_grad():
        frames = offset + gain * field.observed(shifts)
    names = tuple(Observation(str(t), f"2024-05-{t + 1:02}", 1.0) for t in range(len(shifts)))
    return Scene(
        frames=frames + NOISE * normal(frames.shape),
        valid=torch.ones(frames.shape, dtype=torch.bool),
        grid=field.grid,
        bands=BANDS,
        observations=names,
    )


@pytest.fixture(scope="module")
def scene(field) -> Scene:
    return Holdout(judged=0.2, side=5).split(observed(field, field.shifts.detach()), validation=False)


def noise_of(scene: Scene) -> Tensor:
    return torch.full((len(scene), len(BANDS)), NOISE)


def changed(field: SplatField, change) -> SplatField:
    other = SplatField(field.grid, BANDS, scale=2, psf=PSF(0.45), shifts=SHIFTS)
    with torch.no_grad():
        other.weights.copy_(change(field.weights))
    return other


# --- the fit


def test_the_perfect_fit_scores_the_noise_and_every_baseline_more(field, scene):
    found = judge(scene, field, noise_of(scene))
    count = int(scene.judged.sum())
    assert found["holdout_rmse"] == pytest.approx(NOISE, rel=3 / math.sqrt(2 * count))
    assert found["holdout_median"] == pytest.approx(0.6745 * NOISE, rel=0.1)
    names = ("temporal_mean", "bicubic", "wiener")
    for part in ("", "_B02", "_B04"):
        assert all(found[f"holdout_rmse_{name}{part}"] > 1.2 * found[f"holdout_rmse{part}"] for name in names)
        assert found[f"holdout_rmse_wiener{part}"] < found[f"holdout_rmse_temporal_mean{part}"]


def test_all_bands_are_the_pooled_bands(field, scene):
    found = judge(scene, field, noise_of(scene))
    counts = scene.judged.sum((0, 2, 3))
    pooled = sum(n * found[f"holdout_rmse_{band}"] ** 2 for n, band in zip(counts, BANDS, strict=True)) / counts.sum()
    assert found["holdout_rmse"] == pytest.approx(math.sqrt(pooled))


def test_the_worse_the_fit_the_worse_the_score(field, scene):
    rough = normal(field.weights.shape, 1)
    worse = [changed(field, lambda w, e=e: w + e * rough) for e in (0.0, 0.02, 0.05)]
    blurred = changed(field, lambda w: (w + w.roll(1, -1) + w.roll(-1, -1)) / 3)
    rmse = [judge(scene, f, noise_of(scene))["holdout_rmse"] for f in worse]
    assert rmse == sorted(rmse)
    assert rmse[2] > 1.3 * rmse[0]
    assert judge(scene, blurred, noise_of(scene))["holdout_rmse"] > 1.3 * rmse[0]


def test_a_fit_that_is_worse_than_the_bicubic_mean_is_told(field, scene, caplog):
    caplog.set_level("WARNING")
    judge(scene, field, noise_of(scene))
    assert not caplog.records
    found = judge(scene, changed(field, lambda w: w + 0.3 * normal(w.shape, 1)), noise_of(scene))
    assert found["holdout_rmse"] > 1.1 * found["holdout_rmse_bicubic"]
    assert "do not trust its detail" in caplog.text


def test_the_median_does_not_mind_a_change_in_a_fifth_of_the_samples(field, scene):
    cloud = scene.judged & (torch.arange(SHAPE[1]) < SHAPE[1] // 5)
    spoilt = dataclasses.replace(scene, frames=scene.frames + 0.3 * cloud)
    before, after = (judge(s, field, noise_of(s)) for s in (scene, spoilt))
    assert after["holdout_rmse"] > 10 * before["holdout_rmse"]
    assert after["holdout_median"] < 1.5 * before["holdout_median"]


def test_the_scene_is_judged_without_the_change_that_the_fit_has_found(field, scene):
    change = 0.03 * normal(scene.frames.shape, 7)
    moved = dataclasses.replace(scene, frames=scene.frames + change)
    plain = judge(moved, field, noise_of(scene))
    field.changed.copy_(change)
    found = judge(moved, field, noise_of(scene))
    field.changed.zero_()
    assert found["holdout_rmse"] == pytest.approx(plain["holdout_rmse"]) == pytest.approx(0.03, rel=0.1)
    assert found["holdout_rmse_with_change"] == pytest.approx(NOISE, rel=0.1)
    assert not any("with_change" in key for key in plain)


def test_only_judged_samples_count_and_the_baselines_see_the_others_alone(field, scene):
    """Garbage in the judged samples changes their errors by exactly that, since no prediction moves."""
    offset = dataclasses.replace(scene, frames=torch.where(scene.judged, scene.frames + 5, scene.frames))
    one, other = (judge(s, field, noise_of(s)) for s in (scene, offset))
    for key, value in other.items():
        assert value == pytest.approx(5, abs=3 * one[key.replace("median", "rmse")]), key


def test_a_band_without_judged_samples_has_no_score(field, scene):
    judged = scene.judged.clone()
    judged[:, 1] = False
    found = judge(dataclasses.replace(scene, judged=judged), field, noise_of(scene))
    assert math.isnan(found["holdout_rmse_B04"])
    assert math.isnan(found["holdout_median_bicubic_B04"])
    assert found["holdout_rmse"] == pytest.approx(found["holdout_rmse_B02"])


# --- whole dates


DATES = torch.tensor([(0.31, -0.42), (-0.12, 0.55)])


def test_a_withheld_date_is_found_and_scores_the_noise(field, scene):
    whole = observed(field, DATES, gain=1.2, offset=-0.03)
    half = (torch.arange(SHAPE[0])[:, None] // 5 + torch.arange(SHAPE[1]) // 5) % 2 == 0
    dates = dataclasses.replace(whole, valid=whole.valid & half, judged=whole.valid & ~half)
    with torch.no_grad():
        found = located(field, dates)
    assert float((found - DATES).abs().max()) < 0.01
    metrics = judge(scene, field, noise_of(scene), dates=dates)
    assert metrics["holdout_dates_rmse"] == pytest.approx(NOISE, rel=0.05)
    assert metrics["holdout_dates_rmse_temporal_mean"] > 1.5 * metrics["holdout_dates_rmse"]
    assert "holdout_dates_median_wiener_B04" in metrics


def test_a_date_beyond_the_lattice_does_not_judge(field, scene, caplog):
    whole = observed(field, torch.tensor([(0.1, 0.1), (0.2, 0.0)]))
    frames = torch.stack([whole.frames[0], whole.frames[1].roll((2, 1), (-2, -1))])
    half = torch.arange(SHAPE[0])[:, None] % 10 < 5
    dates = dataclasses.replace(whole, frames=frames, valid=whole.valid & half, judged=whole.valid & ~half)
    metrics = judge(scene, field, noise_of(scene), dates=dates)
    assert "1: its shift exceeds all those of the fit; it does not judge" in caplog.text
    assert metrics["holdout_dates_rmse"] == pytest.approx(NOISE, rel=0.1)


# --- the baselines


def test_a_regression_finds_gain_and_offset_without_the_outliers():
    image = smooth(3, *SHAPE)[None]
    frames = 1.3 * image - 0.05
    frames[0, 0, :5, :5] = 0.9
    seen = torch.ones(frames.shape, dtype=torch.bool)
    seen[0, 1, :, 10:] = False
    frames = frames + 1e-3 * normal(frames.shape)
    fitted = matched(image, torch.where(seen, frames, 7), seen)
    assert float((fitted - (1.3 * image - 0.05)).abs().max()) < 2e-3


def test_a_regression_is_that_of_numpy():
    x, y = normal((1, 1, 6, 7), 1), normal((1, 1, 6, 7), 2).clamp(-1, 1)  # nothing to clip
    slope, intercept = np.polyfit(x.flatten().numpy(), y.flatten().numpy(), 1)
    fitted = matched(x, y, torch.ones(x.shape, dtype=torch.bool))
    np.testing.assert_allclose(fitted.numpy(), slope * x.numpy() + intercept, atol=1e-6)


def test_the_mean_has_no_steps_where_a_brighter_frame_is_masked():
    truth = smooth(4, *SHAPE)
    gains = torch.tensor([0.8, 1.0, 1.2])[:, None, None, None]
    valid = torch.ones(3, *truth.shape, dtype=torch.bool)
    valid[2, :, :, 15:] = False
    grid = Grid(None, (1, 0, 0, 0, -1, 0), SHAPE)
    scene = Scene(gains * truth * valid, valid, grid, BANDS, (Observation("", "", 1.0),) * 3)
    step = [float((m / truth).std()) for m in (scene.temporal_mean, level_mean(scene))]
    assert step[0] > 0.03
    assert step[1] < 0.3 * step[0]


def test_bicubic_moves_ramps_exactly_and_whole_pixels_as_they_are():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(14.0), indexing="ij")
    ramp = (2 * y - 3 * x)[None]
    found = interpolated(ramp, torch.tensor([(0.3, -0.4)]))[0]
    inside = (slice(None), slice(3, -3), slice(3, -3))
    torch.testing.assert_close(found[inside], (2 * (y - 0.3) - 3 * (x + 0.4))[None][inside])
    image = normal((2, 12, 14))
    found = interpolated(image, torch.tensor([(2.0, -1.0)]))[0]
    torch.testing.assert_close(found[:, 2:, :-1], image[:, :-2, 1:])


def test_wiener_without_noise_and_jitter_is_the_mean_and_moves_a_cosine():
    image = smooth(5, *SHAPE)
    still, none = torch.zeros(3, 2), torch.zeros(len(BANDS))
    torch.testing.assert_close(moved(deconvolved(image, still, none), torch.zeros(1, 2), SHAPE)[0], image)
    k = 2 * math.pi * 4 / (2 * SHAPE[0])  # even about both borders
    rows = torch.arange(SHAPE[0]) + 0.5
    wave = torch.cos(k * rows)[:, None].expand(SHAPE)[None]
    apart = torch.tensor([(0.4, 0.0), (-0.4, 0.0)])  # a mean over two frames: its amplitude is cos(.4 k) of theirs
    found = moved(deconvolved(wave * math.cos(0.4 * k), apart, none[:1]), apart[:1], SHAPE)[0]
    torch.testing.assert_close(found, torch.cos(k * (rows - 0.4))[:, None].expand(SHAPE)[None], atol=1e-5, rtol=0)


def test_wiener_shrinks_by_the_share_of_noise():
    """White noise of variance v is taken for a scene; a mean whose noise is v / 2 keeps half of it."""
    image = normal((1, 64, 64))
    half = moved(deconvolved(image, torch.zeros(3, 2), torch.tensor([0.5])), torch.zeros(1, 2), (64, 64))[0]
    share = float((half * image).mean() / image.square().mean())
    assert share == pytest.approx(0.5, abs=0.05)
    nothing = moved(deconvolved(image, torch.zeros(3, 2), torch.tensor([20.0])), torch.zeros(1, 2), (64, 64))
    assert float(nothing.abs().max()) < 1e-6
