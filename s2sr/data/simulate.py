"""Observations of a known sharp image, computed independently of the model that they test.

    y[t,b,i,j] = o[t,b] + g[t,b] / B_b^2 * integral over the detector of (Gaussian_b * f_b) + noise

f is a raster of `scale` pixels per LR pixel. The Gaussian is applied as a discrete convolution; the cumulative sum of
the result is the exact integral up to each raster line, and a cubic spline interpolates it at the detector's edges:
neither erf nor splats. Observation t with shift (dy, dx) has the detector of LR pixel (i, j) centred at
(i + 1/2 - dy, j + 1/2 - dx): a positive shift looks at smaller rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import BSpline, make_interp_spline
from scipy.ndimage import gaussian_filter

from s2sr.errors import InputError
from s2sr.model.grid import Grid
from s2sr.model.psf import detector_widths
from s2sr.model.scene import Observation, Scene, Truth

REACH = 5  # standard deviations at which the Gaussian is truncated: the rest weighs 6e-7


def margin_for(*, shifts: np.ndarray, sigma: np.ndarray, widths: np.ndarray) -> int:
    """LR pixels that the truth must reach beyond the frames on each side; all arguments in LR pixels."""
    return math.ceil(np.abs(shifts).max() + np.max((np.asarray(widths) - 1) / 2 + REACH * np.asarray(sigma)))


def observe(
    reflectance: np.ndarray,  # [b, (y + 2 margin) * scale, (x + 2 margin) * scale]
    scale: int,  # raster pixels per LR pixel and axis
    *,
    shifts: np.ndarray,  # [t, 2] (dy, dx), LR pixels
    sigma: np.ndarray,  # [b] of the Gaussian, LR pixels
    widths: np.ndarray,  # [b] of the detector's box, LR pixels
    margin: int,  # LR pixels
) -> np.ndarray:  # [t, b, y, x] float64
    """Noise-free frames of a raster whose footprint is theirs plus `margin`.

    Raises ValueError if the raster is not a whole number of LR pixels or the margin is smaller than `margin_for`.
    """
    shifts, sigma, widths = (np.asarray(a, dtype=float) for a in (shifts, sigma, widths))
    if any(n % scale or n <= 2 * margin * scale for n in reflectance.shape[1:]):
        raise ValueError(f"a raster of {reflectance.shape} is not LR pixels of {scale} and a margin of {margin}")
    needed = margin_for(shifts=shifts, sigma=sigma, widths=widths)
    if margin < needed:
        raise ValueError(f"a margin of {margin} LR pixels does not cover the footprints: they need {needed}")

    height, width = (n // scale - 2 * margin for n in reflectance.shape[1:])
    frames = np.empty((len(shifts), len(reflectance), height, width))
    for b, sharp in enumerate(reflectance):
        # 1/6: variance of two raster boxes: the pixel itself, and the box it is averaged over
        blurred = gaussian_filter(sharp, math.sqrt((sigma[b] * scale) ** 2 + 1 / 6), mode="nearest", truncate=REACH)
        rows = _integral(blurred, scale)
        for t, (dy, dx) in enumerate(shifts):
            strips = _boxes(rows, height, widths[b], margin - dy)
            frames[t, b] = _boxes(_integral(strips.T, scale), width, widths[b], margin - dx).T
    return frames


def jitter(n: int, std: float, rng: np.random.Generator) -> np.ndarray:
    """[n, 2] shifts (LR pixels) in the gauge of the truth: their mean is 0, so its grid is the mean geolocation."""
    shifts = rng.normal(0, std, (n, 2))
    return shifts - shifts.mean(0)


def record(
    frames: np.ndarray,  # [t, b, y, x] reflectance
    *,
    noise: float,  # standard deviation, reflectance
    rng: np.random.Generator,
    gains: np.ndarray | None = None,  # [t, b]
    offsets: np.ndarray | None = None,  # [t, b] reflectance
) -> np.ndarray:  # [t, b, y, x]
    """What the sensor delivers: o + g * frame + Gaussian noise, independent from sample to sample."""
    if gains is not None:
        frames = frames * gains[..., None, None]
    if offsets is not None:
        frames = frames + offsets[..., None, None]
    return frames + rng.normal(0, noise, frames.shape)


def simulate_scene(
    reflectance: np.ndarray,  # [b, (y + 2 margin) * scale, (x + 2 margin) * scale]
    scale: int,
    *,
    bands: Sequence[str],
    shifts: np.ndarray,  # [t, 2] (dy, dx), LR pixels
    sigma_psf: float | Sequence[float],  # one or [b], pixels of the band's own grid
    noise: float,  # reflectance
    seed: int = 0,
    margin: int | None = None,  # LR pixels; None: as many as the footprints need
    grid: Grid | None = None,  # of the frames; None: unit pixels, no CRS
    gains: np.ndarray | None = None,  # [t, b]
    offsets: np.ndarray | None = None,  # [t, b] reflectance
) -> Scene:
    """A clear scene of a sharp image, with its truth; incomplete LR pixels at the end are cut off.

    Raises InputError if nothing is left inside the margin or `grid` has another shape.
    """
    sigma = np.broadcast_to(np.asarray(sigma_psf, dtype=float), len(bands))
    widths = detector_widths(bands).numpy()
    if margin is None:
        margin = margin_for(shifts=shifts, sigma=sigma * widths, widths=widths)
    height, width = shape = tuple(n // scale - 2 * margin for n in reflectance.shape[1:])
    if min(shape) < 1:
        raise InputError(f"an image of {reflectance.shape[1:]} at scale {scale} is all margin ({margin} LR pixels)")
    grid = grid or Grid(None, (1, 0, 0, 0, -1, 0), (height, width))
    if grid.shape != shape:
        raise InputError(f"the image covers {shape} LR pixels inside its margin of {margin}, the grid {grid.shape}")

    reflectance = reflectance[:, : (height + 2 * margin) * scale, : (width + 2 * margin) * scale]
    frames = observe(reflectance, scale, shifts=shifts, sigma=sigma * widths, widths=widths, margin=margin)
    frames = record(frames, noise=noise, rng=np.random.default_rng(seed), gains=gains, offsets=offsets)
    return Scene(
        frames=torch.from_numpy(frames).float(),
        valid=torch.ones(frames.shape, dtype=torch.bool),
        grid=grid,
        bands=tuple(bands),
        observations=tuple(Observation(f"simulated_{t:02d}", "", 1.0) for t in range(len(frames))),
        truth=truth_of(reflectance, scale, margin=margin, shifts=shifts, sigma_psf=sigma),
    )


def truth_of(
    reflectance: np.ndarray, scale: int, *, margin: int, shifts: np.ndarray, sigma_psf: Sequence[float] | np.ndarray
) -> Truth:
    """The Truth inside the margin. Arguments as in `simulate_scene`."""
    inside = slice(margin * scale, -margin * scale or None)
    return Truth(
        reflectance=torch.from_numpy(reflectance[:, inside, inside].astype(np.float32)),
        scale=scale,
        shifts=torch.as_tensor(shifts, dtype=torch.float32),
        sigma_psf=torch.as_tensor(np.array(sigma_psf), dtype=torch.float32),
    )


def _integral(values: np.ndarray, scale: int) -> BSpline:
    """The integral along the first axis from the raster's border up to any position in LR pixels."""
    total = np.cumsum(values, axis=0, dtype=float)
    total = np.concatenate([np.zeros_like(total[:1]), total]) / scale
    return make_interp_spline(np.arange(len(total)) / scale, total)


def _boxes(integral: BSpline, n: int, width: float, start: float) -> np.ndarray:
    """[n, ...] means over boxes centred at start + 1/2, start + 3/2, ... LR pixels."""
    centres = start + 0.5 + np.arange(n)
    return (integral(centres + width / 2) - integral(centres - width / 2)) / width
