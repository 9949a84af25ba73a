"""The power spectrum of a scene: isotropic, per band.

    log P_b(f) = log A_b - p_b l - q_b l^2 + sum_k r_bk h_k(l),   l = 1/2 log((f0^2 + |f|^2) / (f0^2 + 1/4))

f in cycles per LR pixel. A power law of slope p_b and bend q_b, with ripples: h_k is a raised cosine centred at one of
`RIPPLES`. P is the expected |X|^2 of a unitary DFT over samples one LR pixel apart. A_b, reflectance squared, is the
power at the LR pixels' Nyquist frequency, which is visible, so that slope and power are nearly independent estimates.
All are per band: another band's slope biases the PSF (by 9 to 12 % in the green of aerial images). So do rows of trees
or crops, whose periods no power law has: without ripples the standard error of sigma is too small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CORNER = 0.02  # f0, cycles per LR pixel: below what frames show; keeps P finite
# cycles per LR pixel; frames show hardly any beyond, and lower ones do not count
RIPPLES = (0.15, 0.22, 0.32, 0.47, 0.69, 1.01)
TABLE = 4096  # frequencies
BLOCK = 2**17  # frequencies looked up at a time, to stay in the cache
BEND, RIPPLE = 0.2, 0.15  # prior standard deviations of q and r over scenes; means 0
SLOPE, SPREAD = 2.5, 1.0  # of the change between dates, a power law: the slope's prior mean and standard deviation


class Spectrum(nn.Module):
    """`coefficients` [b, 3 + k]: log A, p, q and r."""

    coefficients: nn.Parameter
    precision: Tensor  # [3 + k] prior precision: most scenes are near a power law

    def __init__(self, variance: Tensor, *, slope: float | Tensor = 2.5) -> None:
        """Initial values; slope: one or [b]; variance: [b] of the scene in LR pixels, P's integral over |f| < 1/2."""
        super().__init__()
        zero = torch.zeros_like(variance)
        self.coefficients = nn.Parameter(torch.stack((zero, slope + zero, zero, *[zero] * len(RIPPLES)), -1))
        precision = torch.tensor([0, 0, BEND**-2, *[RIPPLE**-2] * len(RIPPLES)])
        self.register_buffer("precision", precision.to(variance), persistent=False)
        with torch.no_grad():
            self.coefficients[:, 0] = (variance.clamp(min=1e-10) / self.variance()).log()

    @property
    def slope(self) -> Tensor:
        """[b] p at the LR pixels' Nyquist frequency, without the ripples."""
        return self.coefficients[:, 1]

    def variance(self) -> Tensor:
        """[b] of the scene at the resolution of LR pixels: the integral of P over |f| < 1/2, reflectance squared."""
        f = torch.logspace(-5, math.log10(0.5), 2000, dtype=torch.float64, device=self.coefficients.device)
        power = (self.basis(f.square()) @ self.coefficients.double().T).exp()
        rings = 2 * math.pi * f.square()[:, None] * power  # per unit of log f
        return torch.trapezoid(rings, f.log(), dim=0).to(self.coefficients)

    def basis(self, squared: Tensor) -> Tensor:
        """[..., 3 + k] factors of the coefficients in log P, at frequencies whose |f|^2 is `squared` [...]."""
        return _basis(_level(squared))

    def forward(self, band: int, squared: Tensor) -> Tensor:
        """P_b at frequencies whose |f|^2 is `squared`, in their precision.

        Many frequencies are interpolated from a table, to a relative 1e-5.
        """
        coefficients = self.coefficients[band].to(squared.dtype)
        if squared.numel() < TABLE:
            return (self.basis(squared) @ coefficients).exp()
        low, high = (_level(end) for end in squared.aminmax())
        nodes = low + (high - low) / (TABLE - 1) * torch.arange(TABLE, dtype=squared.dtype, device=squared.device)
        table = _basis(nodes) @ coefficients

        def interpolated(block: Tensor) -> Tensor:
            position = (_level(block) - low) * ((TABLE - 1) / (high - low))
            below = position.long().clamp_(max=TABLE - 2)
            return torch.lerp(table[below], table[below + 1], position.sub_(below)).exp_()

        return torch.cat([interpolated(block) for block in squared.flatten().split(BLOCK)]).view_as(squared)

    def prior(self) -> Tensor:
        """-log p of bend and ripples up to a constant, nats."""
        return (self.coefficients.square() @ self.precision).sum() / 2


def _level(squared: Tensor) -> Tensor:
    """l at frequencies whose |f|^2 is `squared`."""
    return ((CORNER**2 + squared) / (CORNER**2 + 0.25)).log() / 2


def _basis(level: Tensor) -> Tensor:
    return torch.cat((torch.stack((torch.ones_like(level), -level, -level.square()), -1), _ripples(level)), -1)


def _ripples(level: Tensor) -> Tensor:
    """[..., k] h_k at l: 1 at one of `RIPPLES`, 0 from the next on."""
    centres = _level(level.new_tensor(RIPPLES).square())
    apart = (centres[-1] - centres[0]) / (len(RIPPLES) - 1)
    return torch.cos(math.pi / 2 * ((level[..., None] - centres) / apart).clamp(-1, 1)).square()
