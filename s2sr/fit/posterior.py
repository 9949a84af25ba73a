"""The weights given the observations: the scene's power spectrum as a Gaussian prior on the lattice.

    1/2 sum valid * rho(r^2 / v)  +  1/2 sum_k |W(k)|^2 S(k)^2 / (s^2 P(k))

W is the unitary DFT of the weights, S the splat's transfer function, so that W S is the scene; the mean is free. With
a quadratic rho the minimum is the posterior mean, exact in masks and borders. Without those the normal equations fall
into the blocks of `evidence`, whose inverse is the metric in which quasi-Newton steps are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases, backward_solve, cholesky, forward_solve
from s2sr.fit.bands import components, mixed
from s2sr.fit.losses import Quadratic
from s2sr.fit.noise import excess
from s2sr.fit.quasi_newton import Metric
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction
    from s2sr.model.field import SplatField


class GaussianPrior:
    """As a module's spectrum is now, of its field or another; `stiffness` [b]: S^2 / (s^2 P) of every mode of rfft2."""

    def __init__(self, module: Reconstruction, field: SplatField | None = None) -> None:
        lattice = (field or module.field).lattice
        rows, columns = lattice.frequencies(module.frames.device)
        squared = rows.square() + columns.square()
        splat = torch.exp(-2 * (math.pi * lattice.sigma) ** 2 * squared)
        with torch.no_grad():
            power = [module.spectrum(b, squared) for b in range(len(module.field.bands))]
        self.stiffness = [(splat / lattice.scale).square() / p for p in power]
        self.roots = [one.sqrt() for one in self.stiffness]
        self.precision = torch.linalg.inv(module.correlation)

    def __call__(self, weights: Tensor) -> Tensor:
        """-log p(weights [b, y, x]) but for a constant, nats: half of w . g, with its gradient g linear in w."""
        gradient = torch.empty_like(weights)
        white = torch.stack([torch.fft.rfft2(w).mul_(r) for w, r in zip(weights.detach(), self.roots, strict=True)])
        white[:, 0, 0] = 0
        for g, z, root in zip(gradient, mixed(self.precision, white), self.roots, strict=True):
            g.copy_(torch.fft.irfft2(z.mul_(root), s=g.shape))
        return (weights * gradient).sum() - (weights.detach() * gradient).sum() / 2


def posterior(module: Reconstruction) -> Objective:
    """Misfit and Gaussian prior."""
    prior = GaussianPrior(module)
    return lambda: {"misfit": module.fidelity(), "prior": prior(module.field.weights)}


def departure(module: Reconstruction) -> Tensor:
    """[b, y, x] the weights less the posterior mean for a quadratic rho: exact where all is periodic and clear.

    Of the trusted samples: what contradicts all others, a flood, would decide a quadratic misfit.
    """
    weights = module.field.weights.requires_grad_(True)
    module.evals += 1
    trusted = module.valid & module.trusted
    misfit = module.misfit_of(module.field(), module.frames, rho=Quadratic(), samples=trusted)
    (gradient,) = torch.autograd.grad(misfit + GaussianPrior(module)(weights), weights)
    return FourierMetric(module)(gradient)


def closed_form(module: Reconstruction) -> None:
    """The start of a stage: wherever the weights are, a robust misfit would be far from quadratic."""
    module.field.weights.data.sub_(departure(module))


@torch.no_grad()
def local_noise(module: Reconstruction, *, about_mean: bool = True) -> None:
    """The start of a stage: places that change in an observation count less there, as the residuals now say."""
    module.excess.copy_(excess(module.residual() / module.noise[..., None, None], module.valid, about_mean=about_mean))


class FourierMetric:
    """The inverse of the posterior's curvature, were the lattice periodic and clear: a gradient -> a step, [b, y, x].

    The four aliases of every LR frequency are solved for together; all others are held by the prior alone. stiffness:
    [b] of the prior, for every mode of rfft2; default: the Gaussian one's. field: default: the module's.
    """

    @torch.no_grad()
    def __init__(
        self, module: Reconstruction, stiffness: Sequence[Tensor] | None = None, *, field: SplatField | None = None, correlation=None
    ) -> None:
        field = field or module.field
        s, m = field.scale, field.lattice.margin
        dtype = field.weights.dtype
        cells = (field.grid.shape[0] + 2 * m, field.grid.shape[1] + 2 * m)
        aliases = Aliases.of(cells, scale=min(s, 2), device=module.frames.device)
        splat = torch.exp(-2 * (math.pi * field.lattice.sigma) ** 2 * aliases.squared())
        # what rfft2 leaves out are the conjugates at the opposite frequencies
        rows, columns = ((f * n).round().long() for f, n in zip((aliases.rows, aliases.columns), cells, strict=True))
        self.near = []
        for a, c in aliases.pairs:
            mirrored = columns[c][None] < 0
            row = torch.where(mirrored, -rows[a][:, None], rows[a][:, None]) % field.lattice.shape[0]
            self.near.append((row, columns[c][None].abs().expand_as(row), mirrored))
        self.roots = [one.rsqrt() for one in stiffness or GaussianPrior(module, field).stiffness]
        share = (module.valid / module.excess).double().mean((-2, -1))  # of a clear observation's information
        weights = (field.radiometry.gain / module.noise).double().square() * share
        from_first = (s - 1) / (2 * s)  # a cell's first splat is that far before its centre
        self.information = []
        for b in range(len(field.bands)):
            transfer = aliases.transfer(field.sigma_psf[b, None].double(), field.widths[b, None].double())[..., 0]
            free = torch.stack([self.roots[b][row, column] for row, column, _ in self.near])
            amplitude = transfer * splat * free / s
            shifts = field.shifts.double() - field.beside[b].double() - from_first
            coupling = aliases.coupling(shifts, weights[None, None, :, b, None])
            self.information.append(
                [[(amplitude[i] * q[..., 0] * amplitude[j]) for j, q in enumerate(row)] for i, row in enumerate(coupling)]
            )
        self.couple(module.correlation if correlation is None else correlation)

    def couple(self, correlation: Tensor) -> None:
        """Take `correlation` [b, b] for that of the bands."""
        seen = torch.stack([rows[0][0].real.clamp(min=1e-30).log().mean().exp() for rows in self.information])
        self.components = components(correlation.double(), seen)
        self.factors = []
        for shares in self.components.T.square():
            entries = [[sum(map(torch.mul, shares, each)) for each in zip(*rows, strict=True)] for rows in zip(*self.information, strict=True)]
            block = [[entry + (i == j) for j, entry in enumerate(row)] for i, row in enumerate(entries)]
            self.factors.append([[x.to(self.roots[0].dtype.to_complex()) for x in row] for row in cholesky(block)])

    def __call__(self, gradient: Tensor) -> Tensor:
        step, shape = torch.empty_like(gradient), gradient.shape[1:]
        white = torch.stack([torch.fft.rfft2(g, norm="ortho").mul_(r) for g, r in zip(gradient, self.roots, strict=True)])
        matrix = self.components.to(gradient)
        white = mixed(matrix.T, white)
        for component, factor in zip(white, self.factors, strict=True):
            self.put(component, backward_solve(factor, forward_solve(factor, self.taken(component))))
        for to, z, root in zip(step, mixed(matrix, white), self.roots, strict=True):
            to.copy_(torch.fft.irfft2(z.mul_(root), s=shape, norm="ortho"))
        return step

    def taken(self, spectrum: Tensor) -> list[Tensor]:
        """The four aliases of every LR frequency, from what rfft2 gave [y, x]."""
        return [torch.where(flip, x.conj(), x) for row, column, flip in self.near if [x := spectrum[row, column]]]

    def put(self, spectrum: Tensor, near: Sequence[Tensor]) -> None:
        """The reverse, in place."""
        for (row, column, flip), x in zip(self.near, near, strict=True):
            spectrum[row, column] = torch.where(flip, x.conj(), x)


def fourier_metric(module: Reconstruction, stiffness: Sequence[Tensor] | None = None, correlation=None) -> Metric:
    """FourierMetric as a quasi-Newton method takes it."""
    metric = FourierMetric(module, stiffness, correlation=correlation)
    return lambda _, vectors: [metric(vector) for vector in vectors]
