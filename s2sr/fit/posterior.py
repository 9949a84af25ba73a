"""The weights given the observations: the scene's power spectrum as a Gaussian prior on the lattice.

    1/2 sum valid * rho(r^2 / v)  +  1/2 sum_k |W(k)|^2 S(k)^2 / (s^2 P(k))

W is the unitary DFT of the weights, S the splat's transfer function, so that W S is the scene; the mean is free. With
a quadratic rho the minimum is the posterior mean, exact in masks and borders. Without those the normal equations fall
into the blocks of `evidence`, whose inverse is the metric in which conjugate gradients need few steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases, backward_solve, forward_solve, information
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction


class GaussianPrior:
    """The prior of a module's field as its spectrum is now. `power` [b] P on the lattice's frequencies, LR pixels."""

    def __init__(self, module: Reconstruction) -> None:
        lattice = module.field.lattice
        device = module.frames.device
        rows = torch.fft.fftfreq(lattice.shape[0], 1 / lattice.scale, device=device)[:, None]
        columns = torch.fft.rfftfreq(lattice.shape[1], 1 / lattice.scale, device=device)
        squared = rows.square() + columns.square()
        self.scale = lattice.scale
        self.shape = lattice.shape
        self.splat = torch.exp(-2 * (math.pi * lattice.sigma) ** 2 * squared)
        with torch.no_grad():
            self.power = [module.spectrum(b, squared) for b in range(len(module.field.bands))]
        self.counts = torch.full_like(columns, 2)
        self.counts[0] = 1
        if lattice.shape[1] % 2 == 0:
            self.counts[-1] = 1

    def __call__(self, weights: Tensor) -> Tensor:
        """-log p(weights [b, y, x]) but for a constant, nats."""
        total = weights.new_zeros(())
        for w, power in zip(weights, self.power, strict=True):
            spectrum = torch.fft.rfft2(w, norm="ortho")
            energy = (spectrum.real.square() + spectrum.imag.square()) * self.splat.square() / power * self.counts
            total = total + (energy.sum() - energy[0, 0]) / (2 * self.scale**2)
        return total


def posterior(module: Reconstruction) -> Objective:
    """Misfit and Gaussian prior."""
    prior = GaussianPrior(module)
    return lambda: {**module.misfit_and_tv(), "prior": prior(module.field.weights)}


class FourierMetric:
    """The inverse of the posterior's curvature, were the lattice periodic and clear: a gradient -> a step, [b, y, x].

    The four aliases of every LR frequency are solved for together; all others are held by the prior alone.
    """

    @torch.no_grad()
    def __init__(self, module: Reconstruction) -> None:
        field, prior = module.field, GaussianPrior(module)
        s, m = field.scale, field.lattice.margin
        dtype = field.weights.dtype
        cells = (field.grid.shape[0] + 2 * m, field.grid.shape[1] + 2 * m)
        aliases = Aliases.of(cells, scale=min(s, 2), device=module.frames.device)
        squared = aliases.squared()
        # what rfft2 leaves out are the conjugates at the opposite frequencies
        rows, columns = ((f * n).round().long() for f, n in zip((aliases.rows, aliases.columns), cells, strict=True))
        self.near = []
        for a, c in aliases.pairs:
            mirrored = columns[c][None] < 0
            row = torch.where(mirrored, -rows[a][:, None], rows[a][:, None]) % prior.shape[0]
            self.near.append((row, columns[c][None].abs().expand_as(row), mirrored))
        self.roots = [power.sqrt() * s / prior.splat for power in prior.power]
        clear = module.valid.double().mean((-2, -1))
        weights = (field.radiometry.gain / module.noise).double().square() * clear
        shifts = field.shifts.double() - (s - 1) / (2 * s)  # a cell's first splat is that far before its centre
        self.factors = []
        for b in range(len(field.bands)):
            transfer = aliases.transfer(field.sigma_psf[b, None].double(), field.widths[b, None].double())
            amplitude = transfer * module.spectrum(b, squared).sqrt()[..., None]
            factor = information(aliases, amplitude, shifts, weights[None, None, :, b, None])
            self.factors.append([[entry[..., 0].to(dtype.to_complex()) for entry in row] for row in factor])

    def __call__(self, gradient: Tensor) -> Tensor:
        step = torch.empty_like(gradient)
        for b, (root, factor) in enumerate(zip(self.roots, self.factors, strict=True)):
            spectrum = torch.fft.rfft2(gradient[b], norm="ortho") * root
            near = [torch.where(flip, x.conj(), x) for row, column, flip in self.near if [x := spectrum[row, column]]]
            solved = backward_solve(factor, forward_solve(factor, near))
            for (row, column, flip), x in zip(self.near, solved, strict=True):
                spectrum[row, column] = torch.where(flip, x.conj(), x)
            step[b] = torch.fft.irfft2(spectrum * root, s=gradient.shape[1:], norm="ortho")
        return step
