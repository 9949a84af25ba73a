"""How much detail a scene has at every scale: its power spectrum, an isotropic power law per band.

    P_b(f) = A_b ((f0^2 + |f|^2) / (f0^2 + 1/4))^(-p_b/2)        f in cycles per LR pixel

P is the expected |X|^2 of a unitary DFT over samples one LR pixel apart. A_b, reflectance squared, is the power at the
LR pixels' Nyquist frequency: at a frequency that is seen, so that slope and power can be found independently. Bands
differ in both: a slope that is not the band's own biases its PSF (by 9 to 12 % in the green of aerial images). The
corner is shared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Spectrum(nn.Module):
    """`log_power` [b] = log A_b, `slope` [b] p and `log_corner` = log f0."""

    def __init__(self, variance: Tensor, *, slope: float | Tensor = 2.5, corner: float = 0.02) -> None:
        """A first guess; slope: one or [b]; variance: [b] of the scene in LR pixels, P's integral over |f| < 1/2."""
        super().__init__()
        self.log_power = nn.Parameter(torch.zeros_like(variance))
        self.slope = nn.Parameter(slope + torch.zeros_like(variance))
        self.log_corner = nn.Parameter(variance.new_tensor(corner).log())
        with torch.no_grad():
            self.log_power.copy_((variance.clamp(min=1e-10) / self.variance()).log())

    def variance(self) -> Tensor:
        """[b] of the scene at the resolution of LR pixels: the integral of P over |f| < 1/2, reflectance squared."""
        corner = (2 * self.log_corner).exp()
        octaves, flat = ((corner + 0.25) / corner).log(), 1 - self.slope / 2
        near = flat.abs() < 1e-6  # a slope of 2
        each = torch.where(near, octaves, -torch.expm1(-flat * octaves) / torch.where(near, 1, flat))
        return self.log_power.exp() * math.pi * (corner + 0.25) * each

    def forward(self, band: int, squared: Tensor) -> Tensor:
        """P_b at frequencies whose |f|^2 is `squared`, in their precision."""
        parameters = (self.log_power[band], self.slope[band], self.log_corner)
        log_power, slope, log_corner = (p.to(squared.dtype) for p in parameters)
        corner = (2 * log_corner).exp()
        return (log_power - slope / 2 * ((corner + squared) / (corner + 0.25)).log()).exp()
