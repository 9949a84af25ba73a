"""The weights given the observations: the scene's power spectrum as a Gaussian prior on the lattice.

    1/2 sum valid * rho(r^2 / v)  +  1/2 sum_k z(k)^H R^-1 z(k),    z_b = W_b S / (s sqrt(P_b))

W is the unitary DFT of the weights, S the splat's transfer function, so that W S is the scene, and R the correlation of
the bands; the mean is free. With a quadratic rho the minimum is the posterior mean, exact in masks and borders. Without
those the normal equations of a component of the bands fall into the blocks of `evidence`, whose inverse is the metric
in which quasi-Newton steps are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import applied
from s2sr.fit.bands import components, covariances, mix, seen
from s2sr.fit.losses import Energy, Quadratic
from s2sr.fit.modes import Modes
from s2sr.fit.noise import excess
from s2sr.fit.quasi_newton import Metric
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.model.field import SplatField


@dataclass(frozen=True)
class GaussianPrior:
    """Of weights [b, y, x]: S^2 / (s^2 P) of every band, and the bands' correlation R."""

    stiffness: list[Tensor]  # [b] of every mode of rfft2
    correlation: Tensor  # [b, b]

    @classmethod
    @torch.no_grad()
    def of(cls, module: Problem, field: SplatField | None = None) -> GaussianPrior:
        """As a module's spectrum and correlation are now, of its field or another."""
        lattice = (field or module.field).lattice
        rows, columns = lattice.frequencies(module.frames.device)
        squared = rows.square() + columns.square()
        splat = torch.exp(-2 * (math.pi * lattice.sigma) ** 2 * squared)
        power = [module.spectrum(b, squared) for b in range(len(module.field.bands))]
        return cls([(splat / lattice.scale).square() / p for p in power], module.correlation)

    @cached_property
    def roots(self) -> list[Tensor]:
        """[b] of the stiffness."""
        return [one.sqrt() for one in self.stiffness]

    @cached_property
    def precision(self) -> Tensor:
        """[b, b] R^-1."""
        return torch.linalg.inv(self.correlation.double()).to(self.correlation)

    def __call__(self, weights: Tensor) -> Tensor:
        """-log p(weights [b, y, x]) but for a constant, nats."""
        return Deviation.apply(weights, self.roots, self.precision)


class Deviation(Energy):
    """1/2 sum_k z^H R^-1 z, z the `spectra` of weights [b, y, x], their means left out; precision: R^-1 [b, b]."""

    @staticmethod
    def forward(ctx, weights: Tensor, roots: Sequence[Tensor], precision: Tensor) -> Tensor:
        white = spectra(weights, roots)
        white[:, 0, 0] = 0
        gradient, value = torch.empty_like(weights), weights.new_zeros((), dtype=torch.float64)
        for w, g, z, root in zip(weights, gradient, mix(precision, white), roots, strict=True):
            g.copy_(torch.fft.irfft2(z.mul_(root), s=w.shape, norm="ortho"))
            value += (w * g).sum() / 2
        ctx.save_for_backward(gradient)
        return value


def spectra(images: Tensor, roots: Sequence[Tensor]) -> Tensor:
    """[b, y, x / 2 + 1] the unitary rfft2 of images [b, y, x], times the roots."""
    found = torch.empty(len(images), *roots[0].shape, dtype=images.dtype.to_complex(), device=images.device)
    for image, root, one in zip(images, roots, found, strict=True):
        torch.mul(torch.fft.rfft2(image, norm="ortho"), root, out=one)
    return found


def posterior(module: Problem) -> Objective:
    """Misfit and Gaussian prior."""
    prior = GaussianPrior.of(module)
    return lambda: {"misfit": module.fidelity(), "prior": prior(module.field.weights)}


def departure(module: Problem) -> Tensor:
    """[b, y, x] the weights less the posterior mean for a quadratic rho: exact where all is periodic and clear.

    Of the trusted samples: what contradicts all others, a flood, would decide a quadratic misfit.
    """
    weights = module.field.weights.requires_grad_(True)
    module.evals += 1
    trusted = module.valid & module.trusted
    misfit = module.fidelity(rho=Quadratic(), samples=trusted)
    prior = GaussianPrior.of(module)
    (gradient,) = torch.autograd.grad(misfit + prior(weights), weights)
    return FourierMetric(module, prior)(gradient)


def closed_form(module: Problem) -> None:
    """The start of a stage: wherever the weights are, a robust misfit would be far from quadratic."""
    module.field.weights.data.sub_(departure(module))


@torch.no_grad()
def local_noise(module: Problem, *, about_mean: bool = True) -> None:
    """The start of a stage: places that change in an observation count less there, as the residuals now say."""
    standard = module.residual().div_(module.noise[..., None, None])
    module.excess.copy_(excess(standard, module.valid, about_mean=about_mean))


class FourierMetric:
    """The inverse of the posterior's curvature, were the lattice periodic and clear: a gradient -> a step, [b, y, x].

    The four aliases of every LR frequency are solved for together, component by component of the bands; all others are
    held by the prior alone. What observations say of two components at once is left out: it is nothing where the bands
    are seen alike, but for a factor, and where they have nothing in common. prior: default: the module's. field:
    default: the module's.
    """

    @torch.no_grad()
    def __init__(self, module: Problem, prior: GaussianPrior | None = None, *, field: SplatField | None = None) -> None:
        field = field or module.field
        prior = prior or GaussianPrior.of(module, field)
        self.modes = Modes(field)
        self.roots = [one.rsqrt() for one in prior.stiffness]
        information = [self.modes.information(module, b, root) for b, root in enumerate(self.roots)]
        level = seen(torch.stack([torch.stack([row[-1].real for row in rows], -1) for rows in information]))
        single = field.weights.dtype
        found = components(prior.correlation.to(level), level)
        self.covariances = [each.to(single.to_complex()) for each in covariances(information, found)]
        self.components = found.to(single)

    def __call__(self, gradient: Tensor) -> Tensor:
        step, shape = torch.empty_like(gradient), gradient.shape[1:]
        white = mix(self.components.T, spectra(gradient, self.roots))
        for component, covariance in zip(white, self.covariances, strict=True):
            self.modes.put(applied(covariance, self.modes.of(component)), component)
        for to, z, root in zip(step, mix(self.components, white), self.roots, strict=True):
            to.copy_(torch.fft.irfft2(z.mul_(root), s=shape, norm="ortho"))
        return step


def fourier_metric(module: Problem, prior: GaussianPrior | None = None) -> Metric:
    """FourierMetric as a quasi-Newton method takes it."""
    metric = FourierMetric(module, prior)
    return lambda _, vectors: [metric(vector) for vector in vectors]
