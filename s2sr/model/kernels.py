"""The 1-D kernels of a field's footprints: one per observation, or a few positions to interpolate between.

The value y(x) of a footprint at position x is an almost band-limited function. It is computed at r positions of every
cell, which all observations share; each observation is then interpolated from these by a few more taps c around its
pixel:

    y(x_t) = sum_{q, k} c[t,q,k] y(x_qk),   sum_{q, k} c[t,q,k] E(x_qk - mu) = E(x_t - mu),   x_qk = q + (k + 1/2) / r

c is the least-squares solution over the splats mu. With r = 2 + 1.1 / S positions, and some on either side, the error
is at most 1e-6 of E, about the rounding of float32. Multiplications per LR pixel, for footprints of Q cells: t Q s
(s + 1) directly, r Q s (s + r) + t q r (r + 1) by interpolation from q cells of positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, islice

import torch
from torch import Tensor

from s2sr.model.footprint import pixel_integral, pixel_integral_slopes, tail
from s2sr.model.lattice import Lattice

BESIDE = 0.8  # LR pixels by which the positions extend beyond the observations, at least
PAYS = 0.65  # interpolate below this fraction of the direct multiplications: its products are smaller and run slower


@dataclass(frozen=True)
class Kernels:
    """The taps of every observation, and the cells where they begin."""

    firsts: tuple[int, ...]  # the cell of the first tap of LR pixel 0
    values: tuple[Tensor, ...]  # [1 + d, t, Q, s], with derivatives along `Footprints.parameters`; not differentiable


@dataclass(frozen=True)
class Interpolation:
    """Kernels from splats to positions, and from positions to observations."""

    start: tuple[int, int]  # the first cell whose positions are used, along rows and columns
    cells: tuple[int, int]  # how many there are
    positions: Kernels  # [r, Q, s] by band, the same along rows and columns; constants
    observations: Kernels  # [1 + d, t, q, r] along rows and columns, band by band


@dataclass(frozen=True)
class Footprints:
    """Position and width of every observation's footprints on a lattice."""

    lattice: Lattice
    centres: Tensor  # [t, b, 2] of LR pixel 0, LR pixels
    widths: Tensor  # [b] of the detector, LR pixels
    sigma: Tensor  # [b] S, LR pixels

    @cached_property
    def bounds(self) -> tuple[list[float], list[float], list[float], list[float]]:
        """Least and largest centre by axis; by band, half a footprint (to where the erf tail no longer counts) and S.

        A line search may try NaN: then the kernels are NaN, wherever they begin.
        """
        half = self.widths / 2 + tail(self.sigma.dtype) * self.sigma
        everything = (self.centres.amin((0, 1)), self.centres.amax((0, 1)), half, self.sigma)
        found = iter(torch.cat(everything).nan_to_num().tolist())  # in one transfer, which synchronises the device
        low, high, halves, sigma = (list(islice(found, len(x))) for x in everything)
        return low, high, halves, sigma

    @property
    def parameters(self) -> Tensor:
        """[d, t, b, 2] what the kernels are differentiated by: centres and S, if free."""
        both = self.centres, self.sigma[:, None].expand_as(self.centres)
        free = list(compress(both, self._free))
        return torch.stack(free) if free else self.centres.new_empty(0, *self.centres.shape)

    @property
    def _free(self) -> tuple[bool, bool]:
        return self.centres.requires_grad, self.sigma.requires_grad

    @torch.no_grad()
    def taps(self, centres: Tensor, band: int | slice, first: int, last: int) -> Tensor:
        """[1 + d, ..., m, k] taps, and derivatives, of pixels at `centres` [..., m] over the cells first ... last.

        For a slice of bands, the first axis of `centres` is the band.
        """
        s = self.lattice.scale
        splats = torch.arange(first * s, (last + 1) * s, dtype=centres.dtype, device=centres.device)
        u = centres[..., None] - (splats + 0.5) / s
        footprint = u, *(x[band].to(u).reshape(-1, *[1] * (u.dim() - 1)) for x in (self.widths, self.sigma))
        slopes = compress(pixel_integral_slopes(*footprint), self._free) if any(self._free) else ()
        return torch.stack((pixel_integral(*footprint), *slopes))

    def direct(self) -> Kernels:
        """The kernels of every observation, along rows and columns, band by band."""
        low, high, halves, _ = self.bounds
        s, m = self.lattice.scale, self.lattice.margin
        spans = [
            (max(math.floor(low[axis] - half), -m), min(math.floor(high[axis] + half), m) + 1)
            for half in halves
            for axis in (0, 1)
        ]
        first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
        every = self.taps(self.centres.permute(1, 2, 0), slice(None), first, last - 1).flatten(1, 2)
        if len(set(spans)) > 1:
            for each, (start, stop) in zip(every.unbind(1), spans, strict=True):
                each[..., : (start - first) * s] = each[..., (stop - first) * s :] = 0
        values = [
            each[..., (start - first) * s : (stop - first) * s].unflatten(-1, (-1, s))
            for each, (start, stop) in zip(_normalised(every).unbind(1), spans, strict=True)
        ]
        return Kernels(tuple(start + m for start, _ in spans), tuple(values))

    def interpolated(self) -> Interpolation | None:
        """None if it does not pay or would leave the lattice, and in float64, for which it is not exact enough."""
        low, high, halves, sigma = self.bounds
        if self.sigma.dtype == torch.float64 or not min(sigma) > 0:
            return None
        s, m, t, r = self.lattice.scale, self.lattice.margin, len(self.centres), 2 + math.ceil(1.1 / min(sigma))
        around = [(math.floor(a - BESIDE), math.floor(b + BESIDE)) for a, b in zip(low, high, strict=True)]
        spans = [(math.floor(0.5 / r - half), math.floor(1 - 0.5 / r + half)) for half in halves]
        longest = (min(first for first, _ in spans), max(last for _, last in spans))
        fits = all(first + longest[0] >= -m and last + longest[1] <= m for first, last in around)
        cells = longest[1] - longest[0] + 1
        (qy, qx) = (last - first + 1 for first, last in around)
        if not fits or r * (cells * s * (s + r) + t * (qy * r + qx)) > PAYS * t * cells * s * (s + 1):
            return None
        inside = (torch.arange(r, dtype=torch.float64, device=self.centres.device) + 0.5) / r
        positions = [_normalised(self.taps(inside, b, *span))[0].to(self.sigma) for b, span in enumerate(spans)]
        positions = [taps.unflatten(-1, (-1, s)) for taps in positions]
        observations = [
            self._between(axis, b, inside, around[axis], longest) for b in range(len(spans)) for axis in (0, 1)
        ]
        return Interpolation(
            start=(around[0][0] + m, around[1][0] + m),
            cells=(self.lattice.pixels[0] + qy - 1, self.lattice.pixels[1] + qx - 1),
            positions=Kernels(tuple(first for first, _ in spans), tuple(positions)),
            observations=Kernels((0,) * len(observations), tuple(observations)),
        )

    @torch.no_grad()
    def _between(self, axis: int, band: int, inside: Tensor, around: tuple[int, int], span: tuple[int, int]) -> Tensor:
        """[1 + d, t, q, r] the taps c; only their targets depend on S, the kernels of the positions are fixed."""
        whole = (around[0] + span[0], around[1] + span[1])
        cells = torch.arange(around[0], around[1] + 1, device=inside.device)
        known = _normalised(self.taps((cells[:, None] + inside).flatten(), band, *whole))[0]
        wanted = _normalised(self.taps(self.centres[:, band, axis].double(), band, *whole))
        taps = wanted @ torch.linalg.pinv(known, rtol=1e-9)
        return _normalised(taps).to(self.sigma).unflatten(-1, (-1, len(inside)))


def _normalised(taps: Tensor) -> Tensor:
    """[1 + d, m, k] taps and derivatives, normalised to sum 1, so that a constant is observed as itself."""
    total = taps[0].sum(-1, keepdim=True)
    shares = taps[0] / total
    return torch.stack((shares, *((slope - shares * slope.sum(-1, keepdim=True)) / total for slope in taps[1:])))
