"""The resolution without a truth, from two reconstructions of disjoint halves of the dates.

If the truth X were all that two halves have in common, their Fourier ring correlation F(f) would tell how much of it
each contains, and their mean would correlate with X by

    C = sqrt(2 F / (1 + F)),        so that C > 1/2 where F > 1/7

(Rosenthal & Henderson 2003). But halves that share a prior also share what it invents, whatever the data: with TV their
F stays near 3/4 at every frequency (docs/log.md). So each half is compared with the dates of the other, which it has
never seen. Each of its rings P_r is put through the forward model for those dates, and the frames are regressed on all
rings together: the slope b_r estimates <X, P_r> / <P_r, P_r>, 1 for real detail and 0 for invented detail; its standard
error shows where the instrument is blind. Then

    C_half = b_r sqrt(<P_r, P_r> / S_r),        F = C_half,1 C_half,2

where S is the power of the scene: the product's own up to 0.4 cycles per pixel, beyond it the power law fitted from 0.1
to 0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from s2sr.model.field import SplatField
from s2sr.model.scene import Scene
from s2sr.report.resolution import EDGES, RINGS, TOGETHER, Array, Resolution, widths_of

POWER_LAW = slice(2, 8)  # rings from which it is fitted, 0.1 to 0.4


def by_halves(
    field: SplatField,
    halves: Sequence[SplatField],  # two, solved for disjoint dates
    scenes: Sequence[Scene],  # with the valid samples of each half
    noise: Tensor,  # [t, b] reflectance
) -> Resolution:
    """The resolution of `field` estimated from two halves of the dates, by this module's formulas."""
    widths = widths_of(field)
    rings = RINGS / widths[:, None]
    powers = np.stack([power for _, power in spectrum(field)], 1)
    law = np.stack([power_law(f, power) for f, power in zip(rings, powers, strict=True)])
    shares, errors = [], []
    for half, other in zip(halves, reversed(scenes), strict=True):
        slope, error, power = slopes(half, spectrum(half), other, noise)
        amplitude = np.sqrt(power / law)
        shares.append(slope * amplitude)
        errors.append(error * amplitude)
    ring = np.clip(shares[0] * shares[1], 0, 1)
    return Resolution(field.bands, widths, np.sqrt(2 * ring / (1 + ring)), np.hypot(*errors) / 2)


def power_law(frequency: Array, power: Array) -> Array:
    """A spectrum [ring] up to 0.4 cycles per pixel, extended by the power law fitted from 0.1 to 0.4."""
    slope, level = np.polyfit(np.log(frequency[POWER_LAW]), np.log(power[POWER_LAW]), 1)
    beyond = np.arange(len(power)) >= POWER_LAW.stop
    return np.where(beyond, np.exp(level + slope * np.log(frequency)), power)


def spectrum(field: SplatField) -> Iterator[tuple[Tensor, Array]]:
    """For each ring, (weights [b, y, x] of that ring alone; power [b] of the field, reflectance squared per mode).

    By cosine transforms, which have no jump at the lattice's border; the power is that inside the footprint, NaN for
    rings beyond the lattice's Nyquist frequency.
    """
    weights, lattice = field.weights.detach().cpu().numpy(), field.lattice
    rows, columns = (np.arange(n) * lattice.scale / (2 * n) for n in lattice.shape)
    f = np.hypot(rows[:, None], columns)
    splat = np.exp(-2 * (np.pi * lattice.sigma * f) ** 2)
    border = lattice.margin * lattice.scale
    place = np.digitize(widths_of(field)[:, None, None] * f, EDGES) - 1
    coefficients = fft.dctn(weights, axes=(1, 2), norm="ortho")
    for k in range(len(RINGS)):
        ring = np.where(place == k, coefficients, 0)
        seen = fft.idctn(ring * splat, axes=(1, 2), norm="ortho")[:, border:-border, border:-border]
        with np.errstate(invalid="ignore"):
            power = np.square(seen, dtype=float).mean((1, 2)) / (place == k).mean((1, 2))
        yield torch.from_numpy(fft.idctn(ring, axes=(1, 2), norm="ortho")).to(field.weights), power


@torch.no_grad()
def slopes(
    field: SplatField, rings: Iterable[tuple[Tensor, Array]], scene: Scene, noise: Tensor
) -> tuple[Array, Array, Array]:
    """[b, ring] slopes of a scene's valid frames on the rings of a field's `spectrum`, their errors, and the power.

    Least squares in units of the noise, twice: the second time without residuals beyond 3 robust standard deviations
    (change between the dates). NaN for rings beyond the lattice's Nyquist frequency.
    """
    ring = deepcopy(field)
    dates = scene.valid.flatten(1).any(1)
    offset, std = (x[dates][..., None, None] for x in (field.radiometry.offset, noise))

    def seen(weights: Tensor) -> Tensor:
        ring.weights.copy_(weights)
        return (ring()[dates] - offset) / std

    frames = (scene.frames[dates] - offset) / std
    every = [(seen(weights), power) for weights, power in rings]
    regressors = [sum((x for x, _ in every[1:TOGETHER]), every[0][0]), *(x for x, _ in every[TOGETHER:])]
    found = np.full((2, len(field.bands), len(regressors)), np.nan)
    for b in range(len(field.bands)):
        clear = scene.valid[dates, b]
        y = frames[:, b][clear].double().numpy()
        x = np.stack([r[:, b][clear].double().numpy() for r in regressors], 1)
        known = x.any(0)
        x = x[:, known]
        residual = y - x @ np.linalg.lstsq(x, y)[0]
        usual = abs(residual) <= 3 * 1.4826 * np.median(abs(residual))
        x, y = x[usual], y[usual]
        inverse = np.linalg.inv(x.T @ x)
        slope = inverse @ (x.T @ y)
        variance = np.square(y - x @ slope).sum() / (len(y) - len(slope))
        found[:, b, known] = slope, np.sqrt(variance * inverse.diagonal())
    slope, error = np.concatenate([found[..., :1].repeat(TOGETHER, -1), found[..., 1:]], -1)
    return slope, error, np.stack([power for _, power in every], 1)
