"""An edge-preserving prior, common to the bands; its parameters are estimated, not chosen by eye.

    lambda integral n rho(g) dA,    n g^2 = sum over bands of (grad w_b / U_b) . (R^(-q/2))_bc (grad w_c / U_c)
    rho(g) = ((g^2 + delta^2)^(q/2) - delta^q) / (q c)

An edge on the ground is in all bands, so an edge in one makes one in another more likely; where edges are few, the
bands are coupled by their correlation R. q = 1 is total variation; for normally distributed gradients q is 2 and the
prior Gaussian; where few edges stand out from flat surroundings q is less than 1 (Krishnan & Fergus 2009).

Weight: U_b = 2 pi f sqrt(P_b(f)) at the finest detail on which the observations are more informative than the Gaussian
prior, G^2 P sum_t g_t^2 / v_t = 1: they determine coarser detail, and do not show finer. With c the mean of
(g^2 + delta^2)^(q/2 - 1), the two priors are on average equally stiff there if lambda, the stage's `tv`, is 1.

Shape: from the posterior mean. q is the exponent of the generalised Gaussian with the same E g^2 / (E g)^2 (Mallat
1989), in the effective number of dimensions of the gradients, (tr C)^2 / tr C^2 with their covariance C; delta is a
fraction of the mean g.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.optimize import brentq
from scipy.special import gammaln
from torch import Tensor

from s2sr.fit.losses import GradientEnergy
from s2sr.fit.posterior import GaussianPrior, fourier_metric, posterior_mean
from s2sr.fit.quasi_newton import Metric
from s2sr.fit.stages import Objective
from s2sr.model.psf import transfer

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

LEAST = 0.7  # exponent q


@dataclass(frozen=True)
class EdgePrior:
    """The objective misfit + tv * prior. delta: as a fraction of the mean gradient."""

    delta: float = 0.2

    def __call__(self, module: Problem) -> Objective:
        field, units = module.field, visible_gradients(module)
        inside = gradients_of_mean(module)
        alone, vary = units.pow(-2).diag(), dimensions((inside / units[:, None, None]).flatten(0, 1).flatten(1))
        exponent = max(LEAST, tail_exponent(mean_size(inside, alone), vary))
        form = likeness(module.correlation, -exponent / 2) / units / units[:, None]
        size = mean_size(inside, form)
        delta = self.delta * float(size.mean().clamp(min=1e-6))
        stiffness = float((size.square() + delta**2).pow(exponent / 2 - 1).mean())

        def parts() -> dict[str, Tensor]:
            shape = {"exponent": exponent, "delta": delta, "factor": module.tv / stiffness}
            edges = edge_energy(field.weights, field.scale, form=form, **shape)
            return {"misfit": module.fidelity(), "edges": edges}  # gradients are summed in place

        return parts


def visible_gradients(module: Problem) -> Tensor:
    """[b] U: the spectral density of the gradient, reflectance per LR pixel, at the finest visible detail."""
    field, found = module.field, []
    with torch.no_grad():
        clear = module.valid.double().mean((-2, -1))
        information = ((field.radiometry.gain / module.noise).double().square() * clear).sum(0)
        for b, (sigma, width) in enumerate(zip(field.sigma_psf.tolist(), field.widths.tolist(), strict=True)):
            frequencies = torch.linspace(0.02, 1, 99, dtype=torch.float64, device=information.device) / width
            power = module.spectrum(b, frequencies.square())
            passed = transfer(frequencies, sigma, width).square()
            seen = int((information[b] * passed * power > 1).sum().clamp(min=1)) - 1
            found.append(2 * math.pi * frequencies[seen] * power[seen].sqrt())
    return torch.stack(found).to(field.weights)


@torch.no_grad()
def gradients_of_mean(module: Problem) -> Tensor:
    """[2, b, y, x] `differences` of the posterior mean inside the frames, per LR pixel, at no more than two splats per
    LR pixel and axis: it has no finer detail, and only averages are needed.
    """
    field, (modes, mean) = module.field, posterior_mean(module)
    scale = min(field.scale, 2)
    rows, columns = (n // field.scale * scale for n in field.lattice.shape)
    slopes = torch.exp(2j * math.pi / field.scale * modes.aliases.each) - 1
    spectra = mean.new_zeros(2, len(mean), rows, columns // 2 + 1)
    modes.put(mean * slopes[:, None].to(mean), spectra)
    found = torch.fft.irfft2(spectra, s=(rows, columns), norm="ortho").mul_(scale)
    cut = field.lattice.margin * scale
    return found[..., cut:-cut, cut:-cut]


def likeness(correlation: Tensor, power: float) -> Tensor:
    """[b, b] a power of the matrix R."""
    values, directions = torch.linalg.eigh(correlation)
    return directions * values.pow(power) @ directions.T


def mean_size(gradients: Tensor, form: Tensor) -> Tensor:
    """[y, x] g of gradients [2, b, y, x], with the quadratic form [b, b]."""
    other = torch.matmul(form, gradients.flatten(2)).view(gradients.shape)
    return other.mul_(gradients).sum((0, 1)).div_(len(form)).clamp_(min=0).sqrt_()  # rounding


def edge_energy(
    weights: Tensor, scale: int, *, form: Tensor, exponent: float, delta: float, factor: float = 1.0
) -> Tensor:
    """factor s^-2 sum n ((g^2 + delta^2)^(q/2) - delta^q) / q of weights [b, y, x]; form: [b, b] of n g^2."""
    area = scale**-2

    def rho(d: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.matmul(form / area, d.flatten(2)).view(d.shape)
        size = d.mul_(slope).sum((0, 1)).div_(len(form)).add_(delta**2)
        stiffness = size.pow(exponent / 2 - 1)
        energy = (size * stiffness - delta**exponent).sum().double() * (factor * area * len(form) / exponent)
        return energy, slope.mul_(stiffness.mul_(factor * area))

    return GradientEnergy.apply(weights, rho)


def dimensions(samples: Tensor) -> float:
    """The effective number of dimensions of samples [d, n]: d if white, 1 if all d are proportional."""
    covariance = samples @ samples.T
    return float(covariance.trace().square() / covariance.square().sum().clamp(min=1e-30))


def tail_exponent(size: Tensor, n: float) -> float:
    """q of the density exp(-|x|^q) in n dimensions, from samples `size` of |x|; between 0.3 and 2, the Gaussian."""
    ratio = math.log(max(1.0, float(size.square().mean() / size.mean().square().clamp(min=1e-30))))

    def excess(q: float) -> float:
        return gammaln((n + 2) / q) + gammaln(n / q) - 2 * gammaln((n + 1) / q) - ratio

    if excess(2.0) >= 0:
        return 2.0
    return brentq(excess, 0.3, 2.0) if excess(0.3) > 0 else 0.3


def edge_metric(module: Problem) -> Metric:
    """Nearly the inverse of the objective's curvature: FourierMetric with the mean curvature of the prior."""
    lattice, units = module.field.lattice, visible_gradients(module)
    rows, columns = (2 - 2 * torch.cos(2 * math.pi / lattice.scale * f) for f in lattice.frequencies(units.device))
    # 2: the fit is flatter than the posterior mean, its prior stiffer; 0.1: the mean must not be singular
    stiffness = 2 * (rows + columns + (0.1 / lattice.scale) ** 2)
    alike = likeness(module.correlation, 0.5) * units * units[:, None]  # 1/2: of q from 0.7 to 2
    return fourier_metric(module, GaussianPrior(stiffness[None], alike))
