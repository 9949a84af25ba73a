"""Exact integrals of Gaussian splats over pixels, along one axis. Lengths are LR pixels.

A pixel of width B whose centre lies u away from a splat of standard deviation S sees

    E(u) = ( erf((u + B/2) / (sqrt(2) S)) - erf((u - B/2) / (sqrt(2) S)) ) / (2 B),

the pixel's box convolved with the Gaussian. The width of the point-spread function adds in quadrature,
S^2 = sigma_splat^2 + sigma_psf^2, so one formula serves the observations (S, detector width) and the product
(sigma_splat alone, the product's pixel width).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pixel_integral(u: Tensor, width: Tensor | float, sigma: Tensor | float) -> Tensor:
    """E(u): the mean of a unit Gaussian of `sigma` over a pixel of `width` whose centre is `u` away."""
    root = math.sqrt(2) * sigma
    return (torch.erf((u + width / 2) / root) - torch.erf((u - width / 2) / root)) / (2 * width)


def pixel_integral_slopes(u: Tensor, width: Tensor | float, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
    """dE/du and dE/dS: (N(a) - N(b)) / B and (b N(b) - a N(a)) / (B S) with a, b = u +- B/2 and the Gaussian N."""
    a, b = edges = torch.stack((u + width / 2, u - width / 2))
    at_a, at_b = gaussian(edges, sigma) * (edges.abs() < 12 * sigma)  # beyond, denormal numbers slow CPUs down
    return (at_a - at_b) / width, (b * at_b - a * at_a) / (width * sigma)


def gaussian(u: Tensor, sigma: Tensor | float) -> Tensor:
    """The unit Gaussian density at `u`."""
    return torch.exp(-0.5 * (u / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)


def tail(dtype: torch.dtype) -> float:
    """Standard deviations beyond which an erf tail is negligible at this precision (6e-7 and 1e-15 remain)."""
    return 8.0 if dtype == torch.float64 else 5.0
