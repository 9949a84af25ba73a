"""Three frames of 6 x 6 pixels of a periodic scene: few enough samples for a dense normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence.spectral_model import Model, of_change

N, SCALE = 6, 4
SHIFTS = torch.tensor([(0.2, -0.1), (-0.3, 0.25), (0.1, -0.15)], dtype=torch.float64)
GAIN = torch.tensor([0.9, 1.05, 1.1], dtype=torch.float64)
NOISE = torch.tensor([0.02, 0.03, 0.05], dtype=torch.float64)
CHANGE = torch.tensor([1e-3, 0.05, 0.02], dtype=torch.float64)
SLOPE = torch.tensor(1.7, dtype=torch.float64)
SIGMA, WIDTH = torch.tensor(0.42, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)


def power(squared: Tensor) -> Tensor:
    return 0.3 * (0.05**2 + squared) ** -1.25


def basis(squared: Tensor) -> Tensor:
    """-log |f|, but for a constant: of the slope of change."""
    return -(0.05**2 + squared).log() / 2


def covariance(shifts: Tensor = SHIFTS, *, changing: bool = False) -> Tensor:
    """[t * N * N, t * N * N] the covariance of the frames, by the Fourier coefficients of the scene and of changes."""
    f = torch.fft.fftfreq(N * SCALE, 1 / SCALE, dtype=torch.float64)
    fy, fx = (axis.flatten() for axis in torch.meshgrid(f, f, indexing="ij"))
    y, x = (axis.reshape(-1, 1) for axis in torch.meshgrid(*[torch.arange(N, dtype=torch.float64)] * 2, indexing="ij"))
    transfer = torch.sinc(fy) * torch.sinc(fx) * torch.exp(-2 * (math.pi * SIGMA) ** 2 * (fy**2 + fx**2))
    observing = torch.cat(
        [
            gain * transfer * torch.exp(2j * math.pi * (fy * (y - dy) + fx * (x - dx))) / N
            for gain, (dy, dx) in zip(GAIN, shifts, strict=True)
        ]
    )
    of_scene = ((observing * power(fy**2 + fx**2)) @ observing.mH).real
    found = of_scene + torch.diag(NOISE.square().repeat_interleave(N * N))
    if changing:
        each = (observing * (SLOPE * basis(fy**2 + fx**2)).exp()).view(3, N * N, -1)
        blocks = (CHANGE / GAIN.square())[:, None, None] * (each @ observing.view(3, N * N, -1).mH).real
        found += torch.block_diag(*blocks)
    return found


def distribution(*, changing: bool = False) -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(len(SHIFTS) * N * N, dtype=torch.float64), covariance(changing=changing))


def drawn() -> Tensor:
    """[t, N, N] frames drawn from the distribution."""
    torch.manual_seed(0)
    return distribution().sample().view(-1, N, N)


def moments(
    scale: int, shifts=SHIFTS, gain=GAIN, noise=NOISE, sigma=SIGMA, level=WIDTH, change=0 * CHANGE, slope=SLOPE
) -> Model:
    aliases = Aliases.of((N, N), scale=scale)
    transfer, squared = aliases.transfer(sigma[None], WIDTH[None]), aliases.squared()
    amplitude = transfer * (level * power(squared)).sqrt()[:, None]
    changing = of_change(transfer, basis(squared), slope[None]).sum(0)
    return Model(aliases, shifts, gain[:, None], noise.square()[:, None], change[:, None], changing, amplitude)
