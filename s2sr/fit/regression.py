"""Gain and offset of every observation, regressed on the scene as it is now.

    y = offset + gain H w + n,    sum_k |DCT(u n)|^2 / R(k) is least over the gain, sum u^2 n^2 over the offset

n is what the scene does not explain of an observation: noise, and far stronger the haze and growth, which are smooth.
If all n counted as white, the few long wavelengths on which haze happens to resemble the scene would decide the gain:
of four dates, the hazy one became the scene. Here each frequency counts by the power R of n: that of the residuals,
averaged over rings of frequencies (generalised least squares by Hannan's efficient estimator, 1963; with cosines, as
frames are not periodic). u^2 is the weight of a sample, 0 where nothing was observed: as a factor of both sides of the
equation, it causes no bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.change import cosines

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

RING = 4.0  # cycles per frame, width
ROUNDS = 3  # of estimating the power from the residuals
FLOOR = 1e-12  # reflectance squared, of that power: it is 0 where all is masked


@torch.no_grad()
def regress(module: Problem) -> None:
    """Set gain and offset of the field, as far as they are fitted; gains are scaled to mean 1."""
    field, radiometry = module.field, module.field.radiometry
    seen = field.observed(field.shifts)
    residual = module.frames - radiometry(seen) - field.changed
    seen -= radiometry.level[:, None, None]
    weights = module.valid / module.excess
    if radiometry.fits_offset:
        total = weights.sum((2, 3), keepdim=True).clamp_(min=1)
        of_seen, of_residual = ((weights * z).sum((2, 3), keepdim=True) / total for z in (seen, residual))
        seen, residual = seen - of_seen, residual - of_residual
    gain = radiometry.gain.clone()
    if radiometry.fits_gain:
        for sampling, bands in field.bands_by_sampling.items():
            at = (slice(None), bands, *sampling.slices())
            cosine = Cosines(*seen[at].shape[2:], like=seen)
            each = zip(seen[at], residual[at], weights[at].sqrt(), strict=True)
            gain[:, bands] += torch.stack([_slope(cosine, x * u, rest * u) for x, rest, u in each])
    if radiometry.fits_offset:
        radiometry.raw_offset.add_((of_residual - (gain - radiometry.gain)[..., None, None] * of_seen)[..., 0, 0])
    radiometry.raw_gain.copy_(gain / gain.mean(0))


def _slope(cosine: Cosines, x: Tensor, y: Tensor) -> Tensor:
    """[b] of y on x [b, y, x], every frequency weighted by the power that is left there."""
    x, y = cosine(x), cosine(y)
    slope = torch.zeros_like(x[:, 0])
    for _ in range(ROUNDS):
        known = x / cosine.power(y - slope[:, None] * x).clamp(min=FLOOR)
        slope = (known * y).sum(1) / ((known * x).sum(1) + 1)  # a nat bounds what nothing shows
    return slope


class Cosines:
    """Images [..., y, x] -> their DCT-II [..., y x], and its power, of images of one size."""

    def __init__(self, rows: int, columns: int, *, like: Tensor) -> None:
        self.rows, self.columns = cosines(rows).to(like), cosines(columns).to(like)
        y, x = (torch.arange(n, device=like.device) / n for n in (rows, columns))
        ring = torch.hypot(y[:, None], x) * (min(rows, columns) / 2 / RING)  # 1 is half a cycle per sample
        self.ring = ring.round().long().flatten()
        self.counts = torch.bincount(self.ring).clamp(min=1)

    def __call__(self, images: Tensor) -> Tensor:
        return (self.rows @ images @ self.columns.T).flatten(-2)

    def power(self, spectra: Tensor) -> Tensor:
        """[b, y x] the mean square of [b, y x] over the ring that a frequency is in."""
        total = spectra.new_zeros(len(self.counts), len(spectra))
        total.index_put_((self.ring,), spectra.square().mT, accumulate=True)  # in one order, on every device
        return (total / self.counts[:, None])[self.ring].mT
