"""Gain and offset of every observation and band.

Gauge, per band: over the observations, the gains have mean 1 and the offsets mean 0; otherwise the product's
reflectance would be arbitrary.

Where both are fitted, the gain pivots about the scene's level L: y = raw offset + L + gain (x - L). A stage that sees
only detail, and changes the gain by it, leaves the level of every frame as it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Radiometry(nn.Module):
    """gain [t, b] and offset [t, b] (reflectance), fixed at 1 and 0 unless fitted."""

    level: Tensor  # [b] L, reflectance; 0 unless `initialise` fits gain and offset

    def __init__(self, observations: int, bands: int, *, gain: bool = False, offset: bool = False) -> None:
        super().__init__()
        self.fits_gain, self.fits_offset = gain, offset
        self.raw_gain = nn.Parameter(torch.ones(observations, bands))
        self.raw_offset = nn.Parameter(torch.zeros(observations, bands))
        self.register_buffer("level", torch.zeros(bands))

    @property
    def gain(self) -> Tensor:
        """[t, b] mean 1 over the observations."""
        return self.raw_gain - self.raw_gain.mean(0) + 1

    @property
    def offset(self) -> Tensor:
        """[t, b] reflectance, mean 0 over the observations."""
        return self.raw_offset - self.raw_offset.mean(0) + self.level * (1 - self.gain)

    def forward(self, frames: Tensor) -> Tensor:
        """offset + gain * frames for frames [t, b, y, x]."""
        return torch.addcmul(self.offset[..., None, None], self.gain[..., None, None], frames)

    @torch.no_grad()
    def initialise(self, frames: Tensor, valid: Tensor, reference: Tensor) -> None:
        """Regress every frame [t, b, y, x] on the reference [b, y, x], on its valid samples, twice: the second time
        without residuals beyond 3 robust standard deviations.
        """
        if not (self.fits_gain or self.fits_offset):
            return
        for t in range(len(frames)):
            for b in range(len(reference)):
                keep = valid[t, b]
                for _ in range(2):
                    x, y = reference[b][keep], frames[t, b][keep]
                    if len(x) < 8 or x.var() < 1e-10:
                        break
                    gain, offset = self._line(x, y)
                    residual = (frames[t, b] - gain * reference[b] - offset).abs()
                    keep = valid[t, b] & (residual <= 3 * 1.4826 * residual[valid[t, b]].median() + 1e-9)
                    self.raw_gain[t, b], self.raw_offset[t, b] = gain, offset
        if self.fits_gain and self.fits_offset:
            seen = valid.any(0)
            self.level.copy_((reference * seen).sum((1, 2)) / seen.sum((1, 2)).clamp(min=1))
            self.raw_offset.add_(self.level * (self.raw_gain - 1))

    def _line(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Least squares of y on x with the fitted coefficients only."""
        if not self.fits_gain:
            return x.new_tensor(1.0), (y - x).mean()
        if not self.fits_offset:
            return (x * y).sum() / (x * x).sum(), x.new_tensor(0.0)
        gain = ((x - x.mean()) * (y - y.mean())).mean() / x.var(correction=0)
        return gain, y.mean() - gain * x.mean()
