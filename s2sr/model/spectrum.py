"""How much detail a scene has at every scale: its power spectrum, isotropic, per band.

    log P_b(f) = log A_b - p_b l - q_b l^2,   l = 1/2 log((f0^2 + |f|^2) / (f0^2 + 1/4)),   f in cycles per LR pixel

a power law of slope p_b that may bend by q_b. P is the expected |X|^2 of a unitary DFT over samples one LR pixel apart.
A_b, reflectance squared, is the power at the LR pixels' Nyquist frequency: at a frequency that is seen, so that slope
and power can be found independently. Bands differ in all three: a slope that is not the band's own biases its PSF (by
9 to 12 % in the green of aerial images).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CORNER = 0.02  # f0, cycles per LR pixel: larger than any frame shows; it keeps P finite
BEND = (0.1, 0.15)  # mean and standard deviation of q over scenes: aerial images steepen from 2 at f = .2 to 2.5 at .9


class Spectrum(nn.Module):
    """`coefficients` [b, 3]: log A, p and q."""

    coefficients: nn.Parameter

    def __init__(self, variance: Tensor, *, slope: float | Tensor = 2.5, bend: float = 0.0) -> None:
        """A first guess; slope: one or [b]; variance: [b] of the scene in LR pixels, P's integral over |f| < 1/2."""
        super().__init__()
        zero = torch.zeros_like(variance)
        self.coefficients = nn.Parameter(torch.stack((zero, slope + zero, bend + zero), -1))
        with torch.no_grad():
            self.coefficients[:, 0] = (variance.clamp(min=1e-10) / self.variance()).log()

    @property
    def slope(self) -> Tensor:
        """[b] at the LR pixels' Nyquist frequency."""
        return self.coefficients[:, 1]

    def variance(self) -> Tensor:
        """[b] of the scene at the resolution of LR pixels: the integral of P over |f| < 1/2, reflectance squared."""
        f = torch.logspace(-5, math.log10(0.5), 2000, dtype=torch.float64, device=self.coefficients.device)
        power = (self.basis(f.square()) @ self.coefficients.double().T).exp()
        rings = 2 * math.pi * f.square()[:, None] * power  # per unit of log f
        return torch.trapezoid(rings, f.log(), dim=0).to(self.coefficients)

    def basis(self, squared: Tensor) -> Tensor:
        """[..., 3] what the coefficients multiply in log P, at frequencies whose |f|^2 is `squared` [...]."""
        level = _level(squared)
        return torch.stack((torch.ones_like(level), -level, -level.square()), -1)

    def forward(self, band: int, squared: Tensor) -> Tensor:
        """P_b at frequencies whose |f|^2 is `squared`, in their precision."""
        power, slope, bend = self.coefficients[band].to(squared.dtype)
        level = _level(squared)
        return (power - (slope + bend * level) * level).exp()

    def prior(self) -> Tensor:
        """-log p of the bends but for a constant, nats: few scenes are far from a power law."""
        return ((self.coefficients[:, 2] - BEND[0]) / BEND[1]).square().sum() / 2


def _level(squared: Tensor) -> Tensor:
    """l at frequencies whose |f|^2 is `squared`."""
    return ((CORNER**2 + squared) / (CORNER**2 + 0.25)).log() / 2
