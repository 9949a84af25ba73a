"""The modes of a lattice that frames can see: of the weights' rfft2, the four aliases of every LR frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases, Rows

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.model.field import SplatField


class Modes:
    """Those of a field, were its lattice periodic."""

    def __init__(self, field: SplatField) -> None:
        self.field, margin = field, field.lattice.margin
        cells = (field.grid.shape[0] + 2 * margin, field.grid.shape[1] + 2 * margin)
        self.aliases = aliases = Aliases.of(cells, scale=min(field.scale, 2), device=field.weights.device)
        # what rfft2 leaves out are the conjugates at the opposite frequencies
        rows, columns = ((f * n).round().long() for f, n in zip((aliases.rows, aliases.columns), cells, strict=True))
        self.places = []
        for a, c in aliases.pairs:
            mirrored = columns[c][None] < 0
            row = torch.where(mirrored, -rows[a][:, None], rows[a][:, None]) % field.lattice.shape[0]
            self.places.append((row, columns[c][None].abs().expand_as(row), mirrored))

    def of(self, spectrum: Tensor) -> list[Tensor]:
        """[a] of [y, x] LR frequencies, from what rfft2 gave."""
        return [torch.where(flip, x.conj(), x) for row, column, flip in self.places if [x := spectrum[row, column]]]

    def put(self, modes: Sequence[Tensor] | Tensor, spectrum: Tensor) -> None:
        """Back into what rfft2 gave, in place."""
        for (row, column, flip), x in zip(self.places, modes, strict=True):
            spectrum[row, column] = torch.where(flip, x.conj(), x)

    @torch.no_grad()
    def information(self, module: Problem, band: int, root: Tensor) -> Rows:
        """U Q U, the curvature of a quadratic misfit along modes of a band that are divided by `root`, as rfft2's."""
        field, aliases, scale = self.field, self.aliases, self.field.scale
        share = (module.valid[:, band] / module.excess[:, band]).double().mean((-2, -1))  # of that of clear frames
        weights = (field.radiometry.gain / module.noise)[:, band].double().square() * share
        splat = torch.exp(-2 * (math.pi * field.lattice.sigma) ** 2 * aliases.squared())
        transfer = aliases.transfer(field.sigma_psf[band, None].double(), field.widths[band, None].double())[:, 0]
        free = torch.stack([root[row, column] for row, column, _ in self.places])
        amplitude = transfer * splat * free / scale
        from_first = (scale - 1) / (2 * scale)  # a cell's first splat is that far before its centre
        shifts = field.shifts.double() - field.beside[band].double() - from_first
        coupling = aliases.coupling(shifts, weights[:, None, None])
        both = [[amplitude[a] * amplitude[c] for c in range(a + 1)] for a in range(len(amplitude))]
        return [
            [torch.complex(q.real * u, q.imag * u) for q, u in zip(row, of_row, strict=True)]
            for row, of_row in zip(coupling, both, strict=True)
        ]
