"""The visible modes of a lattice: in the rfft2 of the weights, the four aliases of every LR frequency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.model.field import SplatField


class Modes:
    """The visible modes of a field, as if its lattice were periodic; valid for any lattice over the same cells."""

    def __init__(self, field: SplatField) -> None:
        self.field, margin = field, field.lattice.margin
        cells = (field.grid.shape[0] + 2 * margin, field.grid.shape[1] + 2 * margin)
        self.aliases = aliases = Aliases.of(cells, scale=min(field.scale, 2), device=field.weights.device)
        rows, columns = ((f * n).round().long() for f, n in zip((aliases.rows, aliases.columns), cells, strict=True))
        rows, columns = rows[:, None, :, None], columns[None, :, None]
        self.mirrored = (columns < 0).expand(len(rows), -1, -1, -1).flatten(0, 1)  # [a, 1, x]: rfft2 has the conjugate
        rows = torch.where(columns < 0, -rows, rows).flatten(0, 1)
        self.places = rows, columns.abs().expand(len(aliases.rows), -1, -1, -1).flatten(0, 1)

    def of(self, spectra: Tensor) -> Tensor:
        """[..., a, y, x] the modes at every LR frequency, from an rfft2 [..., rows, columns]."""
        found = spectra[(..., *self.places)]
        return torch.where(self.mirrored, found.conj(), found)

    def of_images(self, images: Tensor) -> Tensor:
        """[b, a, y, x] the modes of weights [b, rows, columns]."""
        return torch.stack([self.of(torch.fft.rfft2(image, norm="ortho")) for image in images])

    def put(self, modes: Tensor, spectra: Tensor) -> None:
        """Write modes [..., a, y, x] back into an rfft2, in place."""
        found = torch.where(self.mirrored, modes.conj(), modes)
        for alias, place in enumerate(zip(*self.places, strict=True)):  # two aliases may be one mode: the last wins
            spectra[(..., *place)] = found[..., alias, :, :]

    @torch.no_grad()
    def fill(self, images: Tensor, modes: Tensor) -> None:
        """Set images [b, rows, columns] to those of modes [b, a, y, x], all other modes 0."""
        for image, one in zip(images, modes, strict=True):
            spectrum = one.new_zeros(len(image), image.shape[1] // 2 + 1)
            self.put(one, spectrum)
            torch.fft.irfft2(spectrum, s=image.shape, norm="ortho", out=image)

    @torch.no_grad()
    def transfer(self) -> Tensor:
        """[b, a, y, x] modulus of the transfer from a mode to frames of gain 1, both in unitary transforms."""
        field, aliases = self.field, self.aliases
        splat = torch.exp(-2 * (math.pi * field.lattice.sigma) ** 2 * aliases.squared())
        seen = aliases.transfer(field.sigma_psf.double(), field.widths.double()).transpose(0, 1)
        return seen * (splat / field.scale)

    @torch.no_grad()
    def coupling(self, module: Problem) -> Tensor:
        """[b, a, a] curvature of a quadratic misfit along pairs of aliases over their transfer; the same everywhere."""
        field, scale = self.field, self.field.scale
        each = zip(module.valid, module.excess, strict=True)  # frame by frame, to need no new memory pages
        # [t, b] effective fraction of samples
        clear = torch.stack([(valid / excess).double().mean((-2, -1)) for valid, excess in each])
        weights = (field.radiometry.gain / module.noise).double().square() * clear
        from_first = (scale - 1) / (2 * scale)  # distance of a cell's first splat from its centre
        shifts = field.shifts.double()[:, None] - field.beside.double()[:, None] - from_first
        phases = torch.exp(2j * math.pi * (shifts @ self.aliases.steps))
        return torch.einsum("tb,tba,tbc->bac", weights.to(phases), phases, phases.conj())
