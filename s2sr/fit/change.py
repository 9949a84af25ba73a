"""The change on each date, given the scene: fields that have grown, were mown or flooded.

    y_t - o_t - g_t H_t w = c_t + n_t,    c_t ~ N(0, S_t),  n_t ~ N(0, v_t),    S_t(f) = change_t sum_a U_a(f)^2
    c_t = S_t (S_t + v_t)^-1 (y_t - o_t - g_t H_t w)

with noise v and change S as estimated by `evidence`. It is a Wiener filter if all samples of a frame are valid; invalid
ones are first set to their conditional mean (together: kriging). Change is estimated from the surroundings in the same
frame and band, not from other dates or bands. The weights are then solved for from the rest, n_t; as S far exceeds v at
low frequencies, this hardly moves the product's own reflectance.

Frames are mirrored at their borders, so S_t is diagonal in cosines (DCT-II).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases
from s2sr.fit.posterior import local_noise

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.model.sampling import Sampling


@torch.no_grad()
def explain(module: Problem) -> None:
    """The start of a stage: estimate the field's `changed`, given the current scene; then the local noise."""
    field = module.field
    residual = module.frames - field() + field.changed
    field.changed.copy_(change(module, residual))
    local_noise(module, residual=residual.sub_(field.changed))


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
    """[b, y, x] sum_a U_a^2 at the frequencies of cosines over the measurements of `bands`, reflectance squared."""
    field, pitch = module.field, sampling.pitch
    rows, columns = (len(range(n)[each]) for n, each in zip(field.grid.shape, sampling.slices(), strict=True))
    aliases = Aliases.of((2 * rows, 2 * columns), device=module.frames.device)
    aliases = replace(aliases, rows=aliases.rows[:, :rows], columns=aliases.columns[:, :columns])
    sigma, widths = (x[bands].double() / pitch for x in (field.sigma_psf, field.widths))
    level = module.spectrum.basis(aliases.squared() / pitch**2)[:, None, ..., 1]
    scene = (module.change_slope[bands].double()[:, None, None] * level).exp() / pitch**2
    return (aliases.transfer(sigma, widths).square() * scene).sum(0).to(module.frames)


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
