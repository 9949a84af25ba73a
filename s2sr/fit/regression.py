"""Gain and offset of every observation, regressed on the scene as it is now.

    y = offset + gain H w + n,    sum_k |DCT(u n)|^2 / R(k) is least, per observation and band

n is what the scene does not explain of an observation: noise, and far stronger the haze and growth, which are smooth.
If all n counted as white, the few long wavelengths on which haze happens to resemble the scene would decide the gain:
of four dates, the hazy one became the scene. Here each frequency counts by the power R of n: that of the residuals,
averaged over rings of frequencies (generalised least squares by Hannan's efficient estimator, 1963; with cosines, as
frames are not periodic). u, the square root of a sample's weight, is 0 where nothing was observed; it multiplies both
sides of the equation and so causes no bias.
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
    if not (radiometry.fits_gain or radiometry.fits_offset):
        return
    seen = field.observed(field.shifts)
    free = seen.new_tensor([radiometry.fits_gain, radiometry.fits_offset])
    residual = module.frames - radiometry(seen) - field.changed
    seen -= radiometry.level[:, None, None]
    counts = (module.valid / module.excess).sqrt_()
    moved = seen.new_zeros(*seen.shape[:2], 2)
    for sampling, bands in field.bands_by_sampling.items():
        at = (slice(None), bands, *sampling.slices())
        cosine = Cosines(*seen[at].shape[2:], like=seen)
        each = zip(seen[at], residual[at], counts[at], strict=True)
        moved[:, bands] = torch.stack([_moved(cosine, x, rest, u, free) for x, rest, u in each])
    gain = radiometry.gain + moved[..., 0]
    radiometry.raw_gain.copy_(gain / gain.mean(0))
    radiometry.raw_offset.add_(moved[..., 1])


def _moved(cosine: Cosines, seen: Tensor, residual: Tensor, counts: Tensor, free: Tensor) -> Tensor:
    """[b, 2] the change of gain and offset that an observation's `residual` calls for; 0 for what is not free.

    seen, residual, counts: [b, y, x]; the first is H w - L, the last u. free: [2] 0 or 1.
    """
    slopes = cosine(counts[:, None] * torch.stack((seen, torch.ones_like(seen)), 1)) * free[:, None]
    rest = cosine(counts * residual)
    moved = torch.zeros_like(slopes[..., 0])
    for _ in range(ROUNDS):
        power = cosine.power(rest - (moved[:, None] @ slopes)[:, 0])
        known = slopes / power.clamp(min=FLOOR)[:, None]
        information = (known @ slopes.mT).double()
        information.diagonal(dim1=1, dim2=2).add_(1)  # a nat bounds what nothing shows
        right = (known @ rest[..., None]).double()
        moved = torch.linalg.solve_ex(information, right).result[..., 0].to(seen)
    return moved


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
