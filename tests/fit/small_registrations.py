"""Scenes of a power-law spectrum, and their registration by the evidence."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
from small_fits import reconstruction, solve, stage
from small_images import power_law

from s2sr.data.simulate import jitter, simulate_scene
from s2sr.fit.evidence import Evidence
from s2sr.fit.evidence.information import Information
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.model.scene import Scene

SIGMA, NOISE, DATES = 0.45, 0.002, 8
ALL = [["shifts", "radiometry", "psf", "noise", "spectrum"]]
EVIDENCE = Evidence()


def simulated(dates: int = DATES, bands: tuple[str, ...] = ("B02", "B03"), spread: float = 0.2, **options) -> Scene:
    """A scene of 40 x 40 LR pixels in which each band has a power-law image of its own."""
    rng = np.random.default_rng(5)
    margin = math.ceil(3 * spread) + 4 * max(1, *(2 * (band == "B11") for band in bands))
    image = np.concatenate([power_law(40 + 2 * margin, 8, seed=k) for k in range(len(bands))])
    shifts = jitter(dates, spread, rng)
    return simulate_scene(
        image, 8, bands=bands, shifts=shifts, sigma_psf=SIGMA, noise=NOISE, seed=1, margin=margin, **options
    )


def changing(slope: float) -> Scene:
    """The scene of `simulated`; each date adds something else, of a quarter of its contrast and a given slope."""
    scene = simulated()
    frames = scene.frames.clone()
    for t in range(DATES):
        image = np.concatenate([power_law(50, 8, seed=10 * t + k, slope=slope) for k in (7, 8)])
        shifts = scene.truth.shifts[t : t + 1].numpy()
        other = simulate_scene(
            image, 8, bands=("B02", "B03"), shifts=shifts, sigma_psf=SIGMA, noise=1e-9, margin=5
        ).frames[0]
        frames[t] += 0.25 * (other - other.mean((-2, -1), keepdim=True))
    return dataclasses.replace(scene, frames=frames)


def register(scene: Scene, *, evidence: Evidence = EVIDENCE, off: float = 0.02, rounds: int = 4, **options):
    """Register a scene from shifts that are off by some hundredths."""
    fit = stage(
        blocks=ALL,
        optimizer=partial(QuasiNewton, max_iter=8),
        rounds=rounds,
        objective=evidence,
        metric=partial(Information, evidence=evidence),
    )
    start = scene.truth.shifts.numpy() + off * np.random.default_rng(6).normal(size=scene.truth.shifts.shape)
    return solve(reconstruction(scene, fit, levels=(2,), learn=True, gain=True, offset=True, start=start, **options))


def without(scene: Scene, share: float = 0.13, seed: int = 0) -> Scene:
    """The scene with blocks of 7 pixels masked, different ones in every frame."""
    valid = scene.valid.clone()
    rng = np.random.default_rng(seed)
    for frame in valid:
        while float((~frame[0]).float().mean()) < share:
            y, x = rng.integers(-6, frame.shape[-1], 2)
            frame[:, max(y, 0) : y + 7, max(x, 0) : x + 7] = False
    return dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)
