"""The aliases of every LR frequency, and the algebra of the small blocks that couple them.

A frame's DFT at the LR frequency f depends only on the scene at the aliases f_a of f, with the phase exp(-2 pi i f_a .
d_t) in observation t. With all aliases the model is exact on a periodic domain; two per axis, where the footprint's
transfer function G is not negligible, give blocks of 4 x 4. As frames are real, half of the frequencies suffice, each
counted twice.

Along an axis the aliases are in descending order, so that f_0 - f_a are the same integers at all frequencies: up to the
phase of f_0, one small matrix couples the aliases everywhere, and applying it is one large product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from s2sr.model.psf import transfer


@dataclass(frozen=True)
class Aliases:
    """The aliases of every LR frequency, per axis, to keep separable functions separable."""

    rows: Tensor  # [a, y] cycles per LR pixel
    columns: Tensor  # [a, x] of the half-spectrum of real frames
    counts: Tensor  # [x] how many frequencies of the full spectrum each stands for: 1 or 2

    @classmethod
    def of(cls, shape: tuple[int, int], *, scale: int = 2, device: torch.device | None = None) -> Aliases:
        """The aliases of frames of `shape` on a lattice of `scale` samples per LR pixel and axis."""
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
        """[a, b, y, x] G for Gaussians of `sigma` [b] and boxes of `width` [b], LR pixels."""
        y, x = (transfer(f[:, None], sigma[:, None], width[:, None]) for f in (self.rows, self.columns))
        return (y[:, None, :, :, None] * x[None, :, :, None]).flatten(0, 1)

    def phases(self, shifts: Tensor) -> Tensor:
        """[t, y, x] exp(-2 pi i f_0 . d_t) of the first alias."""
        y, x = (_phase(-f[0] * d[:, None]) for f, d in zip((self.rows, self.columns), shifts.T, strict=True))
        return y[:, :, None] * x[:, None]

    @property
    def steps(self) -> Tensor:
        """[2, a] f_a - f_0, integers."""
        rows, columns = (torch.arange(len(f), dtype=f.dtype, device=f.device) for f in (self.rows, self.columns))
        return -torch.cartesian_prod(rows, columns).T

    @property
    def apart(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs (a, b), a >= b [2, p], row by row; the distinct differences f_a - f_b [2, d]; each pair's index [p]."""
        lower, apart, which = _differences(len(self.rows), len(self.columns), self.rows.device)
        return lower, apart.to(self.rows), which

    def waves(self, shifts: Tensor) -> Tensor:
        """[2 d, t] cos and sin of 2 pi (f_a - f_b) . d_t for all differences."""
        angles = 2 * math.pi * (self.apart[1].T @ shifts.T)
        return torch.cat((angles.cos(), angles.sin()))


@lru_cache
def _differences(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """See `Aliases.apart`; cached, because a transfer to a device synchronises it."""
    pairs = list(product(range(rows), range(columns)))
    lower = [(a, b) for a in range(len(pairs)) for b in range(a + 1)]
    found = [(pairs[b][0] - pairs[a][0], pairs[b][1] - pairs[a][1]) for a, b in lower]
    apart = list(dict.fromkeys(found))
    which = [apart.index(each) for each in found]
    lowers, aparts, whichs = (torch.tensor(x, device=device) for x in (lower, apart, which))
    return lowers.T, aparts.T, whichs


def _folded(f: Tensor, scale: int) -> Tensor:
    """[a, n] the aliases of f [n] in -scale / 2 ... scale / 2, descending."""
    highest = torch.remainder(f - scale / 2, 1) + scale / 2 - 1
    return highest - torch.arange(scale, device=f.device)[:, None]


def _phase(turns: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


def inverted(matrix: Tensor) -> Tensor:
    """Invert Hermitian matrices [n, n, ...] in place; returns their log determinants [...].

    Gauss-Jordan elimination for all at once; positive definite matrices need no pivoting.
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
    """[n, ...] products of matrices [n, n, ...] with vectors [n, ...]."""
    found = matrix[:, 0] * vectors[0]
    for k in range(1, len(matrix)):
        found.addcmul_(matrix[:, k], vectors[k])
    return found
