"""Spectra of frames that are not periodic.

Frames are high-pass filtered, then faded out by a window, and the filter's transfer function is divided out; otherwise
the low frequencies, which are strongest, would leak. The window moves with the shifts, so that all frames fade out the
same ground.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from s2sr.fit.aliases import Aliases


class Window:
    """The window of every observation of `shape` and of given shifts [t, 2], and spectra as they are seen through it.

    Borders fade over `taper` pixels; frequencies below `lowest`, cycles per pixel, do not count.
    """

    def __init__(self, shape: tuple[int, int], shifts: Tensor, *, taper: float, lowest: float) -> None:
        self.shape = shape
        self.aliases = Aliases.of(shape, device=shifts.device)
        rows, columns = (fade(n, d, taper) for n, d in zip(shape, shifts.T, strict=True))
        self.values = (rows[:, :, None] * columns[:, None])[:, None]  # [t, 1, y, x]
        self.power = self.values.square()
        self.counts = self.aliases.counts * (self.aliases.squared().amin(0) > lowest**2)  # [y, x]
        self.worth = self.counts / self.power[0].square().mean()  # corrects for the fading
        self.response = (self.counts > 0) / high_pass(self.aliases)

    def spectra(self, frames: Tensor) -> Tensor:
        """[t, b, y, x / 2 + 1] unitary rfft2 of frames [t, b, y, x], 0 at frequencies that do not count."""
        faded = high_passed(frames).mul_(self.values.to(frames))
        return torch.fft.rfft2(faded, norm="ortho").mul_(self.response.to(frames))

    def adjoint(self, spectra: Tensor) -> Tensor:
        """The transpose of `spectra`: [t, b, y, x], from spectra with the symmetry of a real image."""
        faded = torch.fft.irfft2(spectra * self.response.to(spectra.real), s=self.shape, norm="ortho")
        return high_passed(faded.mul_(self.values.to(faded)))


def fade(n: int, shifts: Tensor, taper: float) -> Tensor:
    """[t, n] windows of unit power that rise as a squared sine over `taper` pixels (at most half of all) at both
    borders.

    They move with the shifts [t], inside the part that the largest shift leaves in the frame.
    """
    reach = shifts.abs().max()
    x = torch.arange(n, dtype=shifts.dtype, device=shifts.device) + 0.5 - shifts[:, None]
    from_border = (torch.minimum(x, n - x) - reach) / min(taper, n / 2)
    window = torch.sin(math.pi / 2 * from_border.clamp(0, 1)).square()
    return window / window.square().mean(-1, keepdim=True).sqrt()


def high_passed(frames: Tensor) -> Tensor:
    """Frames [t, b, y, x] minus their binomial average (1 2 1 along both axes): a symmetric operator."""
    padded = functional.pad(frames, (1, 1, 1, 1), mode="replicate")
    pairs = padded[..., 1:, :] + padded[..., :-1, :]
    rows = pairs[..., 1:, :] + pairs[..., :-1, :]
    pairs = rows[..., 1:] + rows[..., :-1]
    return torch.sub(frames, pairs[..., 1:] + pairs[..., :-1], alpha=1 / 16)


def high_pass(aliases: Aliases) -> Tensor:
    """[y, x] transfer function of `high_passed`; 1 where that is 0."""
    y, x = (torch.cos(math.pi * f[0]).square() for f in (aliases.rows, aliases.columns))
    found = 1 - y[:, None] * x
    return torch.where(found > 0, found, 1)
