"""Noise and scenes that the tests of the solver draw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    """White noise in double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def power_law(side: int, scale: int, seed: int = 0, slope: float = 2.5) -> np.ndarray:
    """[1, side * scale, side * scale] a periodic scene of standard deviation .05."""
    rng = np.random.default_rng(seed)
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side * scale, 1 / scale)] * 2))
    amplitude = np.where(f > 0, np.maximum(f, 1e-9) ** (-slope / 2), 0)
    image = np.fft.ifft2(np.fft.fft2(rng.normal(size=f.shape)) * amplitude).real
    return 0.2 + 0.05 * image[None] / image.std()
