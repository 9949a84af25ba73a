"""Three frames of 6 x 6 pixels of a periodic scene: few enough samples for a dense normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence.spectral_model import Model

N, SCALE = 6, 4
SHIFTS = torch.tensor([(0.2, -0.1), (-0.3, 0.25), (0.1, -0.15)], dtype=torch.float64)
GAIN = torch.tensor([0.9, 1.05, 1.1], dtype=torch.float64)
NOISE = torch.tensor([0.02, 0.03, 0.05], dtype=torch.float64)
SIGMA, WIDTH = torch.tensor(0.42, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)


def power(squared: Tensor) -> Tensor:
    return 0.3 * (0.05**2 + squared) ** -1.25


def covariance(shifts: Tensor = SHIFTS) -> Tensor:
    """[t * N * N, t * N * N] the covariance of the frames, by the Fourier coefficients of the scene."""
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
    return of_scene + torch.diag(NOISE.square().repeat_interleave(N * N))


def distribution() -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(len(SHIFTS) * N * N, dtype=torch.float64), covariance())


def drawn() -> Tensor:
    """[t, N, N] frames drawn from the distribution."""
    torch.manual_seed(0)
    return distribution().sample().view(-1, N, N)


def moments(scale: int, shifts=SHIFTS, gain=GAIN, noise=NOISE, sigma=SIGMA, level=WIDTH) -> Model:
    aliases = Aliases.of((N, N), scale=scale)
    amplitude = aliases.transfer(sigma[None], WIDTH[None]) * (level * power(aliases.squared())).sqrt()[:, None]
    noise = noise.square()[:, None]
    return Model(aliases, shifts, gain[:, None], noise, torch.zeros_like(noise), amplitude)
