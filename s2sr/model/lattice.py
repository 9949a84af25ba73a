"""The regular lattice of splats: `scale` per LR pixel and axis, with a margin so that no footprint leaves it.

Splat k of an axis lies at mu_k = (k + 1/2) / scale - margin, in LR pixels of the scene's grid, and is a Gaussian of
standard deviation 0.6 / scale: narrower ones ripple (a constant rendered on a grid that does not divide the lattice
varies by 2 % at 0.4 / scale and by 4e-4 at 0.6 / scale).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from s2sr.model.footprint import gaussian, tail

ROOM = 30  # margins larger by up to one ROOM-th of the scene are considered, too
BLOCK = 64  # positions evaluated at a time, so that splats and kernel fit the cache


def margin_of(pixels: tuple[int, int], least: int) -> int:
    """LR pixels, `least` or slightly more: a large prime factor in a length doubles the time of Fourier transforms."""

    def slow(margin: int) -> int:
        return sum(not _smooth(n + 2 * margin) for n in pixels)

    return min(range(least, least + 2 + min(pixels) // ROOM), key=slow)


def _smooth(length: int) -> bool:
    for prime in (2, 3, 5, 7, 11):
        while length % prime == 0:
            length //= prime
    return length == 1


@dataclass(frozen=True)
class Lattice:
    """Number, spacing and width of the splats, and sums over them along an axis."""

    pixels: tuple[int, int]  # LR pixels of the scene: rows, columns
    scale: int  # splats per LR pixel and axis
    margin: int  # LR pixels on every side

    @property
    def sigma(self) -> float:
        """Standard deviation of a splat, LR pixels."""
        return 0.6 / self.scale

    @property
    def shape(self) -> tuple[int, int]:
        """Splats along rows and columns."""
        rows, columns = ((n + 2 * self.margin) * self.scale for n in self.pixels)
        return rows, columns

    def centres(self, axis: int) -> Tensor:
        """[k] float64 positions of the splats along an axis, LR pixels."""
        return (torch.arange(self.shape[axis], dtype=torch.float64) + 0.5) / self.scale - self.margin

    def frequencies(self, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """[y, 1] and [x / 2 + 1] frequencies of the weights' rfft2, cycles per LR pixel."""
        rows, columns = self.shape
        return (
            torch.fft.fftfreq(rows, 1 / self.scale, device=device)[:, None],
            torch.fft.rfftfreq(columns, 1 / self.scale, device=device),
        )

    def along(
        self,
        axis: int,
        weights: Tensor,
        positions: Tensor,
        kernel: Callable[[Tensor], Tensor],
        reach: float,
        *,
        normalise: bool = False,
    ) -> Tensor:
        """sum_k kernel(position - mu_k) w_k over the splats of an axis, at positions [p] on the CPU, LR pixels.

        weights: [b, y, x]; the kernel is zero beyond `reach`. With `normalise` the sum is divided by that over ones:
        NaN where no splat reaches. Returns [b, p, x] along axis 0, [b, y, p] along axis 1.
        """
        shape = list(weights.shape)
        shape[1 + axis] = len(positions)
        found, centres = weights.new_empty(shape), self.centres(axis)
        ends = [torch.stack((block.min() - reach, block.max() + reach)) for block in positions.split(BLOCK)]
        windows = torch.searchsorted(centres, torch.stack(ends)).tolist()
        centres, blocks = centres.to(weights.device), positions.to(weights.device).split(BLOCK)
        for (first, last), block, target in zip(windows, blocks, found.split(BLOCK, 1 + axis), strict=True):
            u = block[:, None] - centres[first:last]
            taps = kernel(u) * (u.abs() <= reach)  # denormal numbers slow CPUs down
            total = (taps.sum(-1) if normalise else taps.new_ones(len(taps))).to(weights.dtype)
            taps = taps.to(weights.dtype)
            if axis == 0:
                torch.div(taps @ weights[:, first:last], total[:, None], out=target)
            else:
                torch.div(weights[..., first:last] @ taps.mT, total, out=target)
        return found

    def refine(self, weights: Tensor, scale: int) -> tuple[Lattice, Tensor]:
        """The lattice at a multiple `scale`, and weights [b, *shape] on it that represent the same image.

        w2(mu) = s1^-1 sum_k w1(mu_k) N(mu - mu_k; sqrt(sigma_1^2 - sigma_2^2)) per axis: Gaussians convolve to
        Gaussians, so predicted frames are preserved to 1e-6. The lattice is extended by its border values, which
        no footprint sees, lest the new border fade to zero.
        """
        if scale % self.scale or scale == self.scale:
            raise ValueError(f"scale {scale} is not a multiple of {self.scale}")
        finer = Lattice(self.pixels, scale, self.margin)
        sigma = math.sqrt(self.sigma**2 - finer.sigma**2)
        reach = tail(weights.dtype) * sigma
        extra = math.ceil(reach)
        padded = torch.nn.functional.pad(weights, [extra * self.scale] * 4, mode="replicate")
        wide = Lattice(self.pixels, self.scale, self.margin + extra)
        for axis in (0, 1):
            padded = wide.along(axis, padded, finer.centres(axis), lambda u: gaussian(u, sigma) / self.scale, reach)
        return finer, padded
