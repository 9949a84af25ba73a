"""Gain and offset of every observation, given the scene as it is now: generalised least squares.

    y = offset + L + gain (H w - L) + n,    sum_k |DCT(u n)(k)|^2 / R(k) is least

for each observation and band. n is what the scene does not explain: noise, and haze and growth, which are smooth and by
far stronger. Counted as white noise they would decide on the gain by the few lengths on which they happen to look like
the scene: of four dates one under haze became the scene. So every frequency counts by R, the power of n there: that of
the residuals, in the mean over rings of frequencies (Hannan's efficient estimator, 1963, in cosines, as frames are not
periodic). What a sample counts, u, is 0 where there is none; as a factor of both sides it biases nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.change import cosines

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

RING = 4.0  # cycles per frame, width
ROUNDS = 3  # of residuals and their power
FLOOR = 1e-12  # reflectance squared, of that power: residuals of nothing, where all is masked


@torch.no_grad()
def regress(module: Problem) -> None:
    """Sets what is free of the field's radiometry; the weights are to follow."""
    field, radiometry = module.field, module.field.radiometry
    free = [radiometry.fits_gain, radiometry.fits_offset]
    if not any(free):
        return
    seen = field.observed(field.shifts)
    residual = module.frames - radiometry(seen) - field.changed
    seen -= radiometry.level[:, None, None]
    counts = (module.valid / module.excess).sqrt_()
    moved = seen.new_zeros(*seen.shape[:2], 2)
    for sampling, bands in field.bands_by_sampling.items():
        at = (slice(None), bands, *sampling.slices())
        axes = [cosines(n).to(seen) for n in seen[at].shape[2:]]
        each = zip(seen[at], residual[at], counts[at], strict=True)
        moved[:, bands] = torch.stack([_moved(x, rest, u, axes, free) for x, rest, u in each])
    gain = radiometry.gain + moved[..., 0]
    radiometry.raw_gain.copy_(gain / gain.mean(0))
    radiometry.raw_offset += moved[..., 1]


def _moved(seen: Tensor, residual: Tensor, counts: Tensor, axes: list[Tensor], free: list[bool]) -> Tensor:
    """[b, 2] by how much gain and offset of an observation [b, y, x] are to change; 0 where they are not free."""
    rows, columns = axes
    slopes = torch.stack((seen, torch.ones_like(seen)), 1) * torch.tensor(free).to(seen)[:, None, None]
    slopes, rest = ((rows @ z @ columns.T).flatten(-2) for z in (counts[:, None] * slopes, counts * residual))
    each, ring = _rings(*seen.shape[1:])
    ring, moved = ring.to(seen.device), torch.zeros_like(slopes[..., 0])
    for _ in range(ROUNDS):
        size = (rest - (moved[:, None] @ slopes)[:, 0]).square()
        power = size.new_zeros(len(each), len(size)).index_put_((ring,), size.mT, accumulate=True).mT / each.to(size)
        known = slopes / power.clamp_(min=FLOOR)[:, ring][:, None]
        information = (known @ slopes.mT).double()
        information.diagonal(dim1=1, dim2=2).add_(1)  # a nat bounds what nothing shows
        right = known @ rest[..., None]
        moved = torch.linalg.solve_ex(information, right.double()).result[..., 0].to(seen)
    return moved


def _rings(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """[r] how many frequencies each ring has, and [y x] in which they are; of cosines of frames [y, x]."""
    y, x = (torch.arange(n) / n for n in (rows, columns))  # 2 cycles per sample
    ring = (torch.hypot(y[:, None], x) * (min(rows, columns) / 2 / RING)).round().long().flatten()
    return torch.bincount(ring).clamp(min=1), ring
