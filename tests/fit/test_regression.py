"""Gain and offset by regression: under haze, masks, in what is fixed; and a hazy date in whole fits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small_fits import reconstruction, stage
from small_registrations import NOISE, simulated
from torch import Tensor

from s2sr.data.demo import Demo
from s2sr.fit.module import Reconstruction
from s2sr.fit.posterior import closed_form
from s2sr.fit.regression import regress
from s2sr.model.scene import Scene
from s2sr.observations import configuration
from s2sr.reconstruction import reconstruct

GAINS = torch.tensor([[0.7, 1.2], [1.1, 0.9], [1.0, 1.1], [1.2, 0.8]])
OFFSETS = torch.tensor([[0.02, 0.0], [-0.01, 0.01], [0.0, -0.02], [-0.01, 0.01]])
HAZY = 1


def haze(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """[y, x] of mean 0 and standard deviation 1."""
    billows = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 6, mode="wrap")
    return torch.from_numpy((billows - billows.mean()) / billows.std()).float()


def known(*, gain: bool = True, offset: bool = True, strength: float = 0.0, mask: bool = False) -> Reconstruction:
    """Weights of a scene, and frames that see them with other gains and offsets, one of them through haze.

    `strength` is the haze's standard deviation, of the scene's.
    """
    scene = simulated(dates=4)
    options = {"gain": gain, "offset": offset, "start": scene.truth.shifts.numpy(), "noise": NOISE}
    module = reconstruction(scene, stage(), levels=(2,), **options)
    field, generator = module.field, torch.Generator().manual_seed(0)
    with torch.no_grad():
        closed_form(module)
        seen = field.observed(field.shifts)
        gains = GAINS if gain else torch.ones_like(GAINS)
        offsets = OFFSETS if offset else torch.zeros_like(OFFSETS)
        frames = gains[..., None, None] * seen + offsets[..., None, None]
        frames[HAZY] += strength * seen[HAZY].std() * haze(scene.grid.shape)
        frames += NOISE * torch.randn(frames.shape, generator=generator)
        if mask:
            module.valid[2, :, 5:20, 3:30] = False
            frames[2, :, 5:20, 3:30] = 0.6
        module.frames.copy_(frames)
    return module


@pytest.mark.parametrize(("strength", "tolerance"), [(0.0, 0.005), (3.0, 0.05)])
def test_gains_are_found_also_through_haze(strength, tolerance):
    """By least squares, of white noise, haze of three times the contrast is .5 and more off."""
    module = known(strength=strength)
    seen, frame = module.field.observed(module.field.shifts).detach()[HAZY].flatten(1), module.frames[HAZY].flatten(1)
    white = torch.stack([torch.cov(torch.stack(one))[0, 1] / one[0].var() for one in zip(seen, frame, strict=True)])
    assert not strength or float((white - GAINS[HAZY]).abs().max()) > 0.3
    for _ in range(2):
        regress(module)
    torch.testing.assert_close(module.field.radiometry.gain.detach(), GAINS, atol=tolerance, rtol=0)
    clear = [t for t in range(4) if t != HAZY]
    level = module.field().detach().mean((2, 3)) - module.frames.mean((2, 3))
    assert float(level[clear].abs().max()) < 5e-4


@pytest.mark.parametrize(("gain", "offset"), [(True, False), (False, True), (False, False)])
def test_what_is_fixed_stays(gain, offset):
    module = known(gain=gain, offset=offset)
    regress(module)
    found = module.field.radiometry
    torch.testing.assert_close(found.gain.detach(), GAINS if gain else torch.ones_like(GAINS), atol=0.01, rtol=0)
    torch.testing.assert_close(found.offset.detach(), OFFSETS if offset else 0 * OFFSETS, atol=0.002, rtol=0)


def test_masked_samples_bias_nothing():
    module = known(mask=True)
    for _ in range(2):
        regress(module)
    torch.testing.assert_close(module.field.radiometry.gain.detach(), GAINS, atol=0.01, rtol=0)


def test_a_date_without_samples_keeps_what_it_has():
    module = known()
    module.valid[3] = False
    regress(module)
    assert bool(torch.isfinite(module.field.radiometry.gain).all())


def veiled(seed: int, opacity: float) -> tuple[Scene, Tensor]:
    """Four dates, the second under haze that no mask knows; and [b] what passes through it in the mean."""
    scene = Demo(size=40, n_dates=4, seed=seed, cloudy=0, jitter=0.2).load()
    opaque = (opacity + 0.12 * haze(scene.grid.shape, seed)).clamp(0.02, 0.95)
    opaque = opaque * torch.tensor([1.0, 0.95, 0.9, 0.6])[:, None, None]
    frames = scene.frames.clone()
    frames[HAZY] = frames[HAZY] * (1 - opaque) + 0.5 * opaque
    return dataclasses.replace(scene, frames=frames), (1 - opaque).mean((1, 2))


@pytest.mark.parametrize(("seed", "opacity"), [(100, 0.4), (103, 0.6)])
def test_of_four_dates_a_hazy_one_does_not_become_the_scene(seed, opacity):
    """Its gain was .7 to 1.9 times the others' where .4 of the light had passed, and the error 1.3 times bicubic's."""
    scene, passed = veiled(seed, opacity)
    module = reconstruct(scene, configuration("strategy=bayes", "c2f=2_4", "threads=1", "holdout.refit=false"))
    gain, clear = module.field.radiometry.gain.detach(), [t for t in range(4) if t != HAZY]
    torch.testing.assert_close(gain[HAZY] / gain[clear].mean(0), passed, atol=0.13, rtol=0)
    torch.testing.assert_close(gain[clear], gain[clear].mean(0).expand(3, -1), atol=0.1, rtol=0)
    for error in ("rmse", "median"):
        assert module.judgement[f"holdout_{error}"] < 0.9 * module.judgement[f"holdout_{error}_bicubic"]
