"""Which LR pixels of a band are measurements: all, or one per block if the file repeats each sample over a block.

A file may repeat each sample of a 20 m band over a block of B x B LR pixels, with B the detector's width. The block is
one measurement, whose detector is centred on it: (B - 1) / 2 LR pixels from the centre of the block's first LR pixel. A
band that was interpolated to 10 m is treated as having a measurement in every LR pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2sr.model.psf import detector_widths

MOST = 0.9  # in composites, 1.5 to 3.5 % of the blocks mix dates


@dataclass(frozen=True)
class Sampling:
    """The measurements of a band: every `pitch`-th LR pixel along both axes, from the first whole block."""

    pitch: int = 1
    row: int = 0  # the first
    column: int = 0

    @property
    def beside(self) -> float:
        """Offset of the detector's centre from that of the measurement's LR pixel, along both axes, LR pixels."""
        return (self.pitch - 1) / 2

    def slices(self) -> tuple[slice, slice]:
        """The measurements of an image [..., y, x]."""
        return slice(self.row, None, self.pitch), slice(self.column, None, self.pitch)

    def measured(self, shape: tuple[int, int]) -> Tensor:
        """[y, x] bool: the LR pixels that are measurements."""
        found = torch.zeros(shape, dtype=torch.bool)
        found[self.slices()] = True
        return found

    def repeat(self, frames: Tensor) -> Tensor:
        """[t, y, x] with every measurement repeated over its block; blocks cut by the first row or column are void."""
        if self.pitch == 1:
            return frames
        for axis, start in ((1, self.row), (2, self.column)):
            pixels = torch.arange(frames.shape[axis], device=frames.device) - start
            first = pixels.div(self.pitch, rounding_mode="floor").clamp(min=0) * self.pitch + start
            frames = frames.index_select(axis, first)
        return frames


def samplings(frames: Tensor, valid: Tensor, bands: Sequence[str]) -> tuple[Sampling, ...]:
    """[b] for frames [t, b, y, x]: samples count as repeated if the share `MOST` of valid blocks is constant."""
    found = []
    for b, width in enumerate(detector_widths(bands).int().tolist()):
        fits = 1 < width <= min(frames.shape[2:]) // 2
        starts = [Sampling(width, row, column) for row in range(width) for column in range(width)] if fits else []
        found.append(next((s for s in starts if _repeats(frames[:, b], valid[:, b], s)), Sampling()))
    return tuple(found)


def _repeats(frames: Tensor, valid: Tensor, sampling: Sampling) -> bool:
    n = sampling.pitch
    blocks, clear = (x[:, sampling.row :, sampling.column :].unfold(1, n, n).unfold(2, n, n) for x in (frames, valid))
    alike = (blocks.amax((-2, -1)) == blocks.amin((-2, -1)))[clear.all(-1).all(-1)]
    return bool(len(alike)) and float(alike.float().mean()) > MOST
