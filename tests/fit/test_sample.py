"""Noise and spectrum before a fit: of simulated scenes, and of scenes too poor for a fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from s2sr.data.demo import Demo
from s2sr.fit.sample import conditions_of
from s2sr.model.psf import PSF

BANDS = ("B02", "B08")


def test_what_a_scene_shows():
    """Noise to 5 %, also where a fifth is masked; spectrum as told by its forecast at the truth."""
    demo = Demo(
        size=40, n_dates=6, noise=0.004, changing=0, cloudy=0, sigma_psf=0.45, seed=101, pixels_per_lr=8, bands=BANDS
    )
    scene = demo.load()
    whole = conditions_of(scene, shifts=scene.truth.shifts, psf=PSF(0.45))
    torch.testing.assert_close(whole.noise, torch.full_like(whole.noise, 0.004), rtol=0.25, atol=0)
    assert float(whole.noise.mean()) == pytest.approx(0.004, rel=0.05)
    told = conditions_of(scene, shifts=scene.truth.shifts, psf=PSF(0.45), noise=0.004)
    assert whole.frequency == pytest.approx(told.frequency, rel=0.03)
    assert whole.forecast().shift == pytest.approx(told.forecast().shift, rel=0.05)

    valid = scene.valid.clone()
    valid[3:, :, :, :20] = False
    masked = conditions_of(
        replace(scene, valid=valid, frames=scene.frames * valid), shifts=scene.truth.shifts, psf=PSF(0.45)
    )
    assert masked.frequency < whole.frequency
    assert float(masked.noise[3:].mean() / masked.noise[:3].mean()) == pytest.approx(2**0.5, rel=0.1)


def test_a_darker_date_tells_as_much_if_its_noise_is_less_too():
    scene = Demo(size=40, n_dates=6, noise=0.004, changing=0, cloudy=0, gain_std=0, pixels_per_lr=8, bands=BANDS).load()
    frames = scene.frames.clone()
    frames[2] /= 2
    found = conditions_of(replace(scene, frames=frames), shifts=scene.truth.shifts, psf=PSF(0.45)).noise
    torch.testing.assert_close(found[2], found[[0, 1, 3, 4, 5]].mean(0), rtol=0.2, atol=0)


@pytest.mark.parametrize("kind", ["constant", "masked", "tiny", "two"])
def test_no_scene_is_too_poor_for_a_forecast(kind):
    scene = Demo(size=16, n_dates=3, cloudy=0, pixels_per_lr=8).load()
    if kind == "constant":
        scene = replace(scene, frames=torch.full_like(scene.frames, 0.2))
    if kind == "masked":  # all but a corner
        valid = torch.zeros_like(scene.valid)
        valid[..., 0, 0] = True
        scene = replace(scene, valid=valid, frames=scene.frames * valid)
    scene = scene.crop(1) if kind == "tiny" else scene.select([0, 1], "") if kind == "two" else scene
    found = conditions_of(scene, shifts=torch.zeros(len(scene), 2), psf=PSF(0.45)).forecast()
    assert 0 <= found.frequency <= 0.5
    assert found.shift > 0
    assert str(found).startswith("forecast: ")


def test_twenty_metre_bands_reach_half_as_far():
    scene = Demo(size=24, n_dates=4, cloudy=0, pixels_per_lr=8, bands=BANDS).load()
    twin = replace(scene, bands=("B02", "B11"))
    fine, coarse = (
        conditions_of(s, shifts=scene.truth.shifts, psf=PSF(0.45), noise=0.002).reach(1).all for s in (scene, twin)
    )
    assert coarse < 0.7 * fine
