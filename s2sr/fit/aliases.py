"""The aliases of every LR frequency, and the algebra of the small blocks that couple them.

A frame's DFT at the LR frequency f sees the scene at its aliases f_a alone, observation t with the phase
exp(-2 pi i f_a . d_t). All aliases make the model exact on a periodic domain; two per axis, f and f - sign(f), are
where the footprint's transfer function G is not negligible, and make blocks of 4 x 4. Real frames make half of the
frequencies do, each counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

Rows = Sequence[Sequence[Tensor]]  # the lower triangle of a matrix of fields


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
        """[a, y, x, b] G of Gaussians of `sigma` [b] after boxes of `width` [b], LR pixels."""
        y, x = (
            torch.sinc(width * f[..., None]) * torch.exp(-2 * (math.pi * sigma * f[..., None]).square())
            for f in (self.rows, self.columns)
        )
        return (y[:, None, :, None] * x[None, :, None]).flatten(0, 1)

    def phases(self, shifts: Tensor) -> Tensor:
        """[y, x, t, a] exp(-2 pi i f_a . d_t)."""
        y, x = (_phase(-f.T[:, None] * d[:, None]) for f, d in zip((self.rows, self.columns), shifts.T, strict=True))
        return (y[:, None, :, :, None] * x[None, :, :, None]).flatten(3)

    def coupling(self, shifts: Tensor, weights: Tensor) -> Rows:
        """Q_ab = sum_t w_t exp(2 pi i (f_a - f_b) . d_t), each [y, x, b]; weights [y or 1, x or 1, t, b]."""
        shape = (self.rows.shape[1], self.columns.shape[1], *weights.shape[2:])
        weights = weights.expand(shape)
        lower = [(a, b) for a in range(len(self.pairs)) for b in range(a + 1)]
        found = weights.new_empty(*shape[:2], len(lower), *shape[3:], dtype=weights.dtype.to_complex())
        for rows, columns, steps in self.runs():
            angles = 2 * math.pi * torch.stack([steps[:, a, b] for a, b in lower]) @ shifts.T
            part = weights[rows, columns]
            found[rows, columns] = torch.complex(angles.cos() @ part, angles.sin() @ part)
        entries = iter(found.unbind(2))
        return [[next(entries) for _ in range(a + 1)] for a in range(len(self.pairs))]

    def runs(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows and columns where f_a - f_b, whole numbers [2, a, b], are the same."""
        for rows, columns in product(_runs(self.rows), _runs(self.columns)):
            f = self.each[..., rows, columns][..., 0, 0]
            yield rows, columns, (f[:, :, None] - f[:, None]).round()


def _folded(f: Tensor, scale: int) -> Tensor:
    """[a, n] the aliases of f [n] in -scale / 2 ... scale / 2; f itself and f - sign(f) for a scale of 2."""
    return torch.remainder(f + torch.arange(scale, device=f.device)[:, None] + scale / 2, scale) - scale / 2


def _runs(f: Tensor) -> list[slice]:
    """Where the aliases f [a, n] differ from f[0] by the same numbers."""
    change = (f - f[0]).round().diff(dim=1).any(0).nonzero()[:, 0] + 1
    return [slice(*ends) for ends in pairwise([0, *change.tolist(), f.shape[1]])]


def _phase(turns: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


def cholesky(matrix: Rows) -> Rows:
    """L of L L^H, lower triangles of fields: a few vector operations where a batched routine would loop."""
    factor: list[list[Tensor]] = []
    for i, row in enumerate(matrix):
        factor.append([])
        for j, entry in enumerate(row):
            rest = entry - sum(factor[i][k] * factor[j][k].conj() for k in range(j))
            factor[i].append(rest / factor[j][j] if i > j else rest.real.clamp(min=1e-30).sqrt().to(rest.dtype))
    return factor


def forward_solve(factor: Rows, right: Sequence[Tensor]) -> list[Tensor]:
    """L^-1 right."""
    found: list[Tensor] = []
    for i, row in enumerate(factor):
        found.append((right[i] - sum(row[k] * found[k] for k in range(i))) / row[i].real)
    return found


def backward_solve(factor: Rows, right: Sequence[Tensor]) -> list[Tensor]:
    """L^-H right."""
    found: dict[int, Tensor] = {}
    for i in reversed(range(len(factor))):
        known = sum(factor[k][i].conj() * found[k] for k in range(i + 1, len(factor)))
        found[i] = (right[i] - known) / factor[i][i].real
    return [found[i] for i in range(len(factor))]


def dense(matrix: Rows) -> Tensor:
    """[..., n, n] of the lower triangle of a Hermitian matrix."""
    n = len(matrix)
    rows = [[matrix[i][j] if j <= i else matrix[j][i].conj() for j in range(n)] for i in range(n)]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def information(aliases: Aliases, amplitude: Tensor, shifts: Tensor, weights: Tensor) -> Rows:
    """The Cholesky factor of B = I + U Q U; amplitude: [a, y, x, b] U; weights: [y or 1, x or 1, t, b] g^2 / v."""
    coupling = aliases.coupling(shifts, weights)
    return cholesky(
        [[amplitude[a] * q * amplitude[b] + (a == b) for b, q in enumerate(row)] for a, row in enumerate(coupling)]
    )


def inverse(factor: Rows) -> Rows:
    """The lower triangle of (L L^H)^-1."""
    n, one = len(factor), torch.ones_like(factor[0][0])
    columns: list[list[Tensor]] = []  # of L^-1, from the diagonal down
    for j in range(n):
        below = [one / factor[j][j]]
        for i in range(j + 1, n):
            below.append(-sum(factor[i][k] * below[k - j] for k in range(j, i)) / factor[i][i])
        columns.append(below)

    def entry(i: int, j: int) -> Tensor:
        return torch.stack([columns[i][k - i].conj() * columns[j][k - j] for k in range(i, n)]).sum(0)

    return [[entry(i, j) for j in range(i + 1)] for i in range(n)]
