"""The weights given the observations: the scene's power spectrum as a Gaussian prior on the lattice.

    1/2 sum valid * rho(r^2 / v)  +  1/2 sum_k z(k)^H R^-1 z(k),    z_b = W_b S / (s sqrt(P_b))

W is the unitary DFT of the weights and S the splat's transfer function, so that W S is the scene; R is the correlation
of the bands; the mean is free. With a quadratic rho the minimum is the posterior mean, exact for masks and borders.
Without masks and borders, the normal equations of each component of the bands split into blocks, one for each LR
frequency (see `spectral_model`), whose inverse is a metric with which a few quasi-Newton steps suffice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import applied
from s2sr.fit.bands import BLOCK, components, covariances, mix, seen
from s2sr.fit.losses import Energy, Quadratic
from s2sr.fit.modes import Modes
from s2sr.fit.noise import excess
from s2sr.fit.quasi_newton import Metric
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.model.field import SplatField
    from s2sr.model.lattice import Lattice


@dataclass(frozen=True)
class GaussianPrior:
    """The Gaussian prior of weights [b, y, x]: S^2 / (s^2 P) per band, and the bands' correlation R."""

    stiffness: Tensor  # [b, y, x] per mode of rfft2; [1, y, x]: the same for all bands
    correlation: Tensor  # [b, b]

    @classmethod
    def of(cls, module: Problem, field: SplatField | None = None) -> GaussianPrior:
        """From the current spectrum and correlation of a module, for its field or another."""
        lattice = (field or module.field).lattice
        rows, columns = lattice.frequencies(module.frames.device)
        return cls(stiffness(module, lattice, rows.square() + columns.square()), module.correlation)

    @cached_property
    def roots(self) -> Tensor:
        """[b, y, x] the square root of the stiffness."""
        return self.stiffness.sqrt()

    @cached_property
    def precision(self) -> Tensor:
        return inverse(self.correlation)

    def __call__(self, weights: Tensor) -> Tensor:
        """-log p(weights [b, y, x]) up to a constant, nats."""
        return Deviation.apply(weights, self.roots, self.precision)


class Deviation(Energy):
    """1/2 sum_k z^H R^-1 z, z = roots * rfft2(weights [b, y, x]) without the mean; precision: R^-1 [b, b]."""

    @staticmethod
    def forward(ctx, weights: Tensor, roots: Tensor, precision: Tensor) -> Tensor:
        white = torch.fft.rfft2(weights, norm="ortho").mul_(roots)
        white[:, 0, 0] = 0
        gradient, value = torch.empty_like(weights), weights.new_zeros((), dtype=torch.float64)
        for w, g, z, root in zip(weights, gradient, mix(precision, white), roots, strict=True):
            g.copy_(torch.fft.irfft2(z.mul_(root), s=w.shape, norm="ortho"))
            value += torch.linalg.vecdot(w, g).double().sum() / 2
        ctx.save_for_backward(gradient)
        return value


def inverse(correlation: Tensor) -> Tensor:
    """[b, b] R^-1, in double precision, as bands may be nearly alike."""
    return torch.linalg.inv(correlation.double()).to(correlation)


@torch.no_grad()
def stiffness(module: Problem, lattice: Lattice, squared: Tensor) -> Tensor:
    """[b, ...] S^2 / (s^2 P) at frequencies whose |f|^2 is `squared` [...], cycles per LR pixel."""
    seen = (-4 * (math.pi * lattice.sigma) ** 2 * squared).exp_().div_(lattice.scale**2)
    powers = torch.stack([module.spectrum(b, squared) for b in range(len(module.field.bands))])
    return torch.div(seen, powers, out=powers)


def posterior(module: Problem) -> Objective:
    """Misfit and Gaussian prior."""
    prior = GaussianPrior.of(module)
    return lambda: {"misfit": module.fidelity(), "prior": prior(module.field.weights)}


@torch.no_grad()
def posterior_mean(module: Problem) -> tuple[Modes, Tensor]:
    """The visible modes, and their values [b, a, y, x] in the posterior mean for a quadratic rho: exact for clear
    periodic frames, otherwise one step from the current weights. All other modes are 0.

    From trusted samples only: one that contradicts all others, such as a flood, would dominate a quadratic misfit.
    """
    field, modes = module.field, Modes(module.field)
    weights = field.weights.requires_grad_(True)
    module.evals += 1
    with torch.enable_grad():
        misfit = module.fidelity(rho=Quadratic(), samples=module.valid & module.trusted)
    (gradient,) = torch.autograd.grad(misfit, weights)
    now, slope = modes.of_images(weights), modes.of_images(gradient)
    roots = stiffness(module, field.lattice, modes.aliases.squared()).sqrt()
    single = roots.to(weights.dtype)
    white = now * single
    white[:, 0, 0, 0] = 0  # the mean is free
    slope += mix(inverse(module.correlation), white).mul_(single)
    return modes, now - Blocks(module, modes, roots.reciprocal(), module.correlation)(slope)


@torch.no_grad()
def closed_form(module: Problem) -> None:
    """The start of a stage: weights near the posterior mean, where a robust misfit is nearly quadratic."""
    modes, mean = posterior_mean(module)
    modes.fill(module.field.weights, mean)


@torch.no_grad()
def local_noise(module: Problem, *, residual: Tensor | None = None, about_mean: bool = True) -> None:
    """The start of a stage: give less weight where the current residuals show that an observation has changed."""
    standard = (module.residual() if residual is None else residual) / module.noise[..., None, None]
    module.excess.copy_(excess(standard, module.valid, about_mean=about_mean))


class Blocks:
    """The inverse of the posterior's curvature along the visible modes, component by component of the bands.

    Information that couples components is neglected: it is zero if the bands are observed alike, up to a factor, and if
    they are uncorrelated. roots: [b, a, y, x] prior standard deviations.
    """

    @torch.no_grad()
    def __init__(self, module: Problem, modes: Modes, roots: Tensor, correlation: Tensor) -> None:
        coupling, amplitude, single = modes.coupling(module), modes.transfer() * roots, module.field.weights.dtype
        alone = coupling.diagonal(dim1=1, dim2=2).real[..., None, None] * amplitude.square()
        found = components(correlation.to(alone), seen(alone.movedim(1, -1)))
        self.covariances = covariances(coupling, amplitude, found, single.to_complex())
        self.components, self.roots = found.to(single), roots.to(single)

    def __call__(self, gradient: Tensor) -> Tensor:
        """Modes [b, a, y, x] of a gradient -> modes of a step."""
        white = mix(self.components.T, gradient * self.roots)
        step = applied(self.covariances, white.transpose(0, 1)).transpose(0, 1)
        return mix(self.components, step.contiguous()).mul_(self.roots)


class FourierMetric:
    """A gradient [b, y, x] -> a step, in place, with the curvature of a periodic lattice without masks.

    The four aliases of every LR frequency are solved for jointly; all other modes see the prior alone.
    prior, field: by default the module's own.
    """

    @torch.no_grad()
    def __init__(self, module: Problem, prior: GaussianPrior | None = None, *, field: SplatField | None = None) -> None:
        field = field or module.field
        prior = prior or GaussianPrior.of(module, field)
        self.modes, self.correlation = Modes(field), prior.correlation
        self.roots = prior.stiffness.rsqrt()
        self.blocks = Blocks(module, self.modes, self.modes.of(self.roots).double(), prior.correlation)

    def __call__(self, gradient: Tensor) -> Tensor:
        spectra = gradient.new_empty(len(gradient), *self.roots.shape[1:], dtype=gradient.dtype.to_complex())
        for g, z in zip(gradient, spectra, strict=True):
            torch.fft.rfft2(g, norm="ortho", out=z)
        seen = self.blocks(self.modes.of(spectra))
        self._held(spectra)
        self.modes.put(seen, spectra)
        for g, z in zip(gradient, spectra, strict=True):
            g.copy_(torch.fft.irfft2(z, s=g.shape, norm="ortho"))
        return gradient

    def _held(self, spectra: Tensor) -> None:
        """Apply the inverse of the prior's curvature alone, in place, a few rows at a time, which stay in the cache."""
        height = max(1, BLOCK // spectra[:, 0].numel())
        for z, root in zip(spectra.split(height, 1), self.roots.split(height, 1), strict=True):
            mix(self.correlation, z.mul_(root)).mul_(root)


def fourier_metric(module: Problem, prior: GaussianPrior | None = None) -> Metric:
    """FourierMetric as the metric of a quasi-Newton method."""
    metric = FourierMetric(module, prior)
    return lambda _, vectors: [metric(vector) for vector in vectors]
