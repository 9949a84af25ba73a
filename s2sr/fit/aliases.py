"""The aliases of every LR frequency, and the algebra of the small blocks that couple them.

A frame's DFT at the LR frequency f sees the scene at its aliases f_a alone, observation t with the phase
exp(-2 pi i f_a . d_t). All aliases make the model exact on a periodic domain; two per axis are where the footprint's
transfer function G is not negligible, and make blocks of 4 x 4. Real frames make half of the frequencies do, each
counted twice.

Along an axis aliases go from the highest down, so that f_0 - f_a are the same whole numbers at all frequencies: but for
the phase of f_0, what couples aliases is then one small matrix, and what it is applied to one large product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True)
class Aliases:
    """The aliases of every LR frequency, per axis: what is separable stays so."""

    rows: Tensor  # [a, y] cycles per LR pixel
    columns: Tensor  # [a, x] of the half that real frames have
    counts: Tensor  # [x] how many of all frequencies each stands for

    @classmethod
    def of(cls, shape: tuple[int, int], *, scale: int = 2, device: torch.device | None = None) -> Aliases:
        """Those of frames of `shape` that a lattice of `scale` samples per LR pixel and axis has."""
        full = torch.fft.fftfreq(shape[0], dtype=torch.float64, device=device)
        half = torch.fft.rfftfreq(shape[1], dtype=torch.float64, device=device)
        counts = torch.full_like(half, 2)
        counts[0] = 1
        if shape[1] % 2 == 0:
            counts[-1] = 1
        return cls(_folded(full, scale), _folded(half, scale), counts)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(product(range(len(self.rows)), range(len(self.columns))))

    @property
    def each(self) -> Tensor:
        """[2, a, y, x] (fy, fx) of every alias."""
        y, x = self.rows[:, None, :, None], self.columns[None, :, None]
        return torch.stack(torch.broadcast_tensors(y, x)).flatten(1, 2)

    def squared(self) -> Tensor:
        """[a, y, x] |f_a|^2."""
        return (self.rows.square()[:, None, :, None] + self.columns.square()[None, :, None]).flatten(0, 1)

    def transfer(self, sigma: Tensor, width: Tensor) -> Tensor:
        """[a, b, y, x] G of Gaussians of `sigma` [b] after boxes of `width` [b], LR pixels."""
        y, x = (
            torch.sinc(width[:, None] * f) * torch.exp(-2 * (math.pi * sigma[:, None] * f).square())
            for f in (self.rows[:, None], self.columns[:, None])
        )
        return (y[:, None, :, :, None] * x[None, :, :, None]).flatten(0, 1)

    def phases(self, shifts: Tensor) -> Tensor:
        """[t, y, x] exp(-2 pi i f_0 . d_t) of the first alias."""
        y, x = (_phase(-f[0] * d[:, None]) for f, d in zip((self.rows, self.columns), shifts.T, strict=True))
        return y[:, :, None] * x[:, None]

    @property
    def steps(self) -> Tensor:
        """[2, a] f_a - f_0, whole numbers."""
        rows, columns = (torch.arange(len(f), dtype=f.dtype, device=f.device) for f in (self.rows, self.columns))
        return -torch.cartesian_prod(rows, columns).T

    @property
    def apart(self) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b), a >= b [2, p], row by row; the differences f_a - f_b there are [2, d]; which is a pair's [p]."""
        lower, apart, which = _differences(len(self.rows), len(self.columns), self.rows.device)
        return lower, apart.to(self.rows), which

    def waves(self, shifts: Tensor) -> Tensor:
        """[2 d, t] cos and sin of 2 pi (f_a - f_b) . d_t, of all differences."""
        angles = 2 * math.pi * (self.apart[1].T @ shifts.T)
        return torch.cat((angles.cos(), angles.sin()))


@lru_cache
def _differences(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """See `Aliases.apart`; kept, as what comes from the CPU is waited for."""
    pairs = list(product(range(rows), range(columns)))
    lower = [(a, b) for a in range(len(pairs)) for b in range(a + 1)]
    found = [(pairs[b][0] - pairs[a][0], pairs[b][1] - pairs[a][1]) for a, b in lower]
    apart = list(dict.fromkeys(found))
    which = [apart.index(each) for each in found]
    lowers, aparts, whichs = (torch.tensor(x, device=device) for x in (lower, apart, which))
    return lowers.T, aparts.T, whichs


def _folded(f: Tensor, scale: int) -> Tensor:
    """[a, n] the aliases of f [n] in -scale / 2 ... scale / 2, downwards."""
    highest = torch.remainder(f - scale / 2, 1) + scale / 2 - 1
    return highest - torch.arange(scale, device=f.device)[:, None]


def _phase(turns: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


def inverted(matrix: Tensor) -> Tensor:
    """[...] the log determinant of Hermitian matrices [n, n, ...], which become their inverses in place.

    By Gauss-Jordan elimination, which positive matrices allow without pivots, all fields at once.
    """
    volume = torch.zeros_like(matrix[0, 0].real)
    for k in range(len(matrix)):
        pivot = matrix[k, k].real.clamp(min=1e-30)
        volume += pivot.log()
        inverse = pivot.reciprocal().to(matrix.dtype)
        row, column = matrix[k] * inverse, matrix[:, k].clone()
        row[k], column[k] = inverse, 0
        matrix[:, k] = 0
        matrix.addcmul_(column[:, None], row, value=-1)
        matrix[k] = row
    return volume


def applied(matrix: Tensor, vectors: Sequence[Tensor] | Tensor) -> Tensor:
    """[n, ...] of matrices [n, n, ...] and vectors [n] of [...]."""
    found = matrix[:, 0] * vectors[0]
    for k in range(1, len(matrix)):
        found.addcmul_(matrix[:, k], vectors[k])
    return found
