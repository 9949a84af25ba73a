"""Whole reconstructions of scenes at the limits: few and many dates and bands, far shifts, a flood, a wrong frame,
20 m bands whose file repeats each sample.

dB are those of `fidelity` at 4x. Each bound lies a few tenths beside what was found.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from s2sr.data.demo import Demo
from s2sr.data.simulate import jitter, margin_for, observe, truth_of
from s2sr.model.grid import Grid
from s2sr.model.psf import detector_widths
from s2sr.model.scene import Observation, Scene
from s2sr.observations import configuration
from s2sr.reconstruction import reconstruct
from s2sr.report.scores import scores


def solved(scene: Scene, *overrides: str) -> tuple[dict[str, float], object]:
    """The scores of a fit against the truth, and its module."""
    settings = ("strategy=bayes", "c2f=2_4", "threads=1", "holdout=null")
    module = reconstruct(scene, configuration(*settings, *overrides))
    image = module.field.render().detach()
    return scores(module.scene, image, 4, module.field.shifts.detach()), module


def gained(found: dict[str, float]) -> float:
    """The PSNR over that of bicubic, in dB."""
    return found["psnr"] - found["psnr_bicubic"]


@pytest.mark.parametrize(("dates", "least"), [(2, 0.9), (3, 1.1), (60, 2.8)])
def test_two_to_sixty_dates(dates, least):
    found, module = solved(Demo(size=32, n_dates=dates).load())
    assert gained(found) > least
    assert found["shift_rmse_px"] < 0.008
    assert module.noise.mean() == pytest.approx(0.002, rel=0.15)


def test_starts_that_are_three_pixels_off():
    scene = Demo(size=48, jitter=1.9).load()
    assert scene.truth.shifts.abs().max() > 2.7
    found, _ = solved(scene)
    assert gained(found) > 3.5
    assert found["shift_rmse_px"] < 0.008


def test_a_ladder_from_one_splat_per_pixel_knows_the_shifts_as_well():
    """One splat per pixel sees no aliases: aligned at that level, shifts were off by .0032 px instead of .0014."""
    scene = Demo(size=40, n_dates=10, seed=100).load()
    found, _ = solved(scene, "c2f.levels=[1,2,4]")
    assert found["shift_rmse_px"] < 0.002


def test_a_frame_of_another_place_is_left_out(caplog):
    scene = Demo(size=40, cloudy=0).load()
    frames = scene.frames.clone()
    frames[3] = Demo(size=40, cloudy=0, seed=7).load().frames[3]
    alone, _ = solved(scene.select([t for t in range(12) if t != 3], ""))
    found, module = solved(dataclasses.replace(scene, frames=frames))
    assert len(module.scene) == 11
    assert "left out, as it does not match the others (correlation" in caplog.text
    assert found["psnr"] == pytest.approx(alone["psnr"], abs=0.05)


def test_a_field_that_is_flooded_on_three_dates():
    """It is compared with leaving those pixels out."""
    scene = Demo(size=48, n_dates=16, cloudy=0).load()
    dates, field = slice(4, 7), (slice(None), slice(12, 32), slice(8, 29))
    frames, valid = scene.frames.clone(), scene.valid.clone()
    water = torch.tensor([0.06, 0.05, 0.04, 0.02])[:, None, None]
    frames[dates][:, *field] = water + 0.002 * torch.randn(3, 4, 20, 21, generator=torch.Generator().manual_seed(0))
    valid[dates][:, *field] = False
    flooded, _ = solved(dataclasses.replace(scene, frames=frames))
    masked, _ = solved(dataclasses.replace(scene, frames=frames * valid, valid=valid))
    assert flooded["psnr"] > masked["psnr"] - 0.3


@pytest.fixture(scope="module")
def season() -> Scene:
    return Demo(size=48, n_dates=2, cloudy=0).load()


def of_bands(season: Scene, bands: tuple[str, ...], *, repeat: bool) -> Scene:
    """Ten dates of mixtures of a season's bands; repeat: 20 m bands hold each sample of their own grid four times."""
    rng = np.random.default_rng(3)
    mixtures = rng.dirichlet(np.ones(4), len(bands))
    sharp, scale = np.einsum("ij,jyx->iyx", mixtures, season.truth.reflectance.numpy()), season.truth.scale
    widths, shifts = detector_widths(bands).numpy(), jitter(10, 0.25, rng)
    detector = {"shifts": shifts, "sigma": 0.42 * widths, "widths": widths}
    margin = margin_for(**detector | {"shifts": shifts - 0.5})
    frames = observe(sharp, scale, **detector, margin=margin)
    coarse = widths == 2
    if repeat and coarse.any():  # a detector of two pixels from the even ones on has its centre half a pixel further
        of_20_m = {"shifts": shifts - 0.5, "sigma": 0.42 * widths[coarse], "widths": widths[coarse]}
        own = observe(sharp[coarse], scale, **of_20_m, margin=margin)[..., ::2, ::2]
        own = own + rng.normal(0, 0.002, own.shape)
        frames[:, coarse] = own.repeat(2, 2).repeat(2, 3)
    frames[:, ~coarse] += rng.normal(0, 0.002, frames[:, ~coarse].shape)
    return Scene(
        frames=torch.from_numpy(frames).float(),
        valid=torch.ones(frames.shape, dtype=torch.bool),
        grid=Grid(None, (1, 0, 0, 0, -1, 0), frames.shape[2:]),
        bands=bands,
        observations=tuple(Observation(f"{t}", f"2024-05-{t + 1:02d}", 1.0) for t in range(10)),
        truth=truth_of(sharp, scale, margin=margin, shifts=shifts, sigma_psf=np.full(len(bands), 0.42)),
    )


TEN = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")


@pytest.mark.parametrize(("bands", "least"), [(("B04",), 1.5), (TEN, 2.0)])
def test_one_to_ten_bands_each_with_a_sigma_of_its_own(season, bands, least):
    found, module = solved(of_bands(season, bands, repeat=True), "psf=auto")
    assert gained(found) > least
    sigma = module.field.sigma_by_band()
    assert [sigma[band] for band in bands[:4]] == pytest.approx([0.42] * len(bands[:4]), abs=0.07)


@pytest.mark.parametrize("strategy", ["bayes", "lbfgs"])
def test_20_m_bands_that_are_repeated_four_times_gain_too(season, strategy):
    """When every repetition passed for a measurement, lbfgs lost 1.7 dB to bicubic."""
    found, module = solved(of_bands(season, ("B05", "B11"), repeat=True), f"strategy={strategy}", "psf=0.4")
    assert gained(found) > 0.9
    assert module.noise.mean() == pytest.approx(0.002, rel=0.15)
