"""The change on each date, given the scene: fields that have grown, were mown or flooded.

    y_t - o_t - g_t H_t w = c_t + n_t,    c_t ~ N(0, S_t),  n_t ~ N(0, v_t)
    c_t = S_t (S_t + v_t)^-1 (y_t - o_t - g_t H_t w)

with the change S as estimated by `evidence`, and the noise v as `whitened` makes it. It is a Wiener filter if all
samples of a frame are valid; invalid ones are first set to their conditional mean (together: kriging). Change is
estimated from the surroundings in the same frame and band, not from other dates or bands. The weights are then solved
for from the rest, n_t; as S far exceeds v at low frequencies, this hardly moves the product's own reflectance.

Frames are mirrored at their borders, so S_t is diagonal in cosines (DCT-II).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence.spectral_model import of_change
from s2sr.fit.noise import usual_level
from s2sr.fit.posterior import closed_form, local_noise

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.model.sampling import Sampling

SEEN = (0.1, 1.0)  # cycles per pixel
DETAIL = (0.3, 0.5)  # with the noise of lower ones detail would be lost, with that of higher ones invented


@torch.no_grad()
def whitened(module: Problem) -> None:
    """The start of a stage: from here on, change counts as white noise; then the closed form of the weights.

    Where the ground changes, the evidence leaves hardly any noise that is white, but the exact model knows no other. In
    the closed form it has the power of all change, lest a hazy date among few become the scene; then that of change in
    `DETAIL`, on which shifts and the product's detail depend.
    """
    white = module.noise.square()
    module.log_noise.copy_((white + mean_power(module, *SEEN)).log() / 2)
    closed_form(module)
    module.log_noise.copy_((white + mean_power(module, *DETAIL)).log() / 2)


@torch.no_grad()
def explain(module: Problem) -> None:
    """The start of a stage: estimate the field's `changed`, given the current scene; then the local noise.

    Change is what differs from the usual level, so that from here on the scene's level is that of the median date.
    """
    field = module.field
    gain = field.radiometry.gain[..., None, None]
    residual = module.frames - field() + field.changed
    field.changed.copy_(change(module, residual - gain * usual_level(residual / gain, module.valid)))
    local_noise(module, residual=residual.sub_(field.changed))


def mean_power(module: Problem, lowest: float, highest: float) -> Tensor:
    """[t, b] of the change at frequencies from lowest to highest, cycles per pixel of the band's own grid."""
    found = torch.zeros_like(module.change)
    for sampling, bands in module.field.bands_by_sampling.items():
        power = power_of_change(module, bands, sampling)
        y, x = (torch.arange(n, device=power.device) / (2 * n) for n in power.shape[1:])
        f = torch.hypot(y[:, None], x)
        within = ((f >= lowest) & (f < highest)).to(power)
        found[:, bands] = module.change[:, bands] * ((power * within).sum((-2, -1)) / within.sum())
    return found


@torch.no_grad()
def change(module: Problem, residual: Tensor) -> Tensor:
    """[t, b, y, x] the conditional mean of the change of `residual` [t, b, y, x], observed less predicted."""
    field, found = module.field, torch.zeros_like(residual)
    for sampling, bands in field.bands_by_sampling.items():
        at = (slice(None), bands, *sampling.slices())
        power = power_of_change(module, bands, sampling)
        share, variance = module.change[:, bands, None, None], module.noise[:, bands, None, None].square()
        each = zip(residual[at], module.valid[at], share, variance, strict=True)
        found[at] = torch.stack([conditional_mean(rest, valid, c * power, v) for rest, valid, c, v in each])
        found[:, bands] = torch.stack([sampling.repeat(found[:, b]) for b in bands], 1)
    return found


def power_of_change(module: Problem, bands: list[int], sampling: Sampling) -> Tensor:
    """[b, y, x] S of a change of unit power, at the frequencies of cosines over the measurements of `bands`."""
    field, pitch = module.field, sampling.pitch
    rows, columns = (len(range(n)[each]) for n, each in zip(field.grid.shape, sampling.slices(), strict=True))
    aliases = Aliases.of((2 * rows, 2 * columns), device=module.frames.device)
    aliases = replace(aliases, rows=aliases.rows[:, :rows], columns=aliases.columns[:, :columns])
    sigma, widths = (x[bands].double() / pitch for x in (field.sigma_psf, field.widths))
    basis = module.spectrum.basis(aliases.squared() / pitch**2)[..., 1]
    seen = of_change(aliases.transfer(sigma, widths), basis, module.change_slope[bands])
    return seen.sum(0).to(module.frames) / pitch**2


def conditional_mean(
    residual: Tensor,  # [b, y, x] of one observation
    valid: Tensor,  # [b, y, x] bool
    power: Tensor,  # [b, y, x] by frequency
    variance: Tensor,  # [b, 1, 1] of the noise
    *,
    iterations: int = 20,
    accuracy: float = 0.05,
) -> Tensor:  # [b, y, x]
    """The change; invalid samples are filled in by conjugate gradients, until their gradient has fallen to `accuracy`
    of the first.
    """
    rows, columns = (cosines(n).to(residual) for n in residual.shape[1:])
    missing = (~valid).to(residual)

    def filtered(x: Tensor, by: Tensor) -> Tensor:
        return rows.T @ (by * (rows @ x @ columns.T)) @ columns

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).sum((1, 2), keepdim=True)

    precision = variance / (power + variance)
    filled = residual * valid
    left = direction = -missing * filtered(filled, precision)
    size = dot(left, left)
    enough = torch.maximum(accuracy**2 * size, torch.finfo(size.dtype).eps * dot(filled, filled))  # or rounding errors
    for _ in range(iterations):
        if (size <= enough).all():
            break
        bent = missing * filtered(direction, precision)
        length = size / dot(direction, bent).clamp(min=1e-30)
        filled, left = filled + length * direction, left - length * bent
        last, size = size, dot(left, left)
        direction = left + size / last.clamp(min=1e-30) * direction
    return filtered(filled, power / (power + variance))


def cosines(n: int) -> Tensor:
    """[n, n] the orthonormal DCT-II: row k has k / 2n cycles per sample."""
    k = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * k[:, None] * (k + 0.5)) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis
