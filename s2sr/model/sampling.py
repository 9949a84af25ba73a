"""Which LR pixels of a band are measurements: all, or one of every block that a file fills with one sample.

A 20 m band on the 10 m grid may repeat each of its samples in a block of B x B LR pixels, B the detector's width. That
is one measurement, and its detector's centre is the block's: (B - 1) / 2 LR pixels beside that of the block's first LR
pixel. A band that was interpolated to 10 m is taken to have a measurement in every LR pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2sr.model.psf import detector_widths

MOST = 0.9  # a composite may change from one date to another within a block: 1.5 to 3.5 % of a real one's do


@dataclass(frozen=True)
class Sampling:
    """The measurements of a band: every `pitch`-th LR pixel along both axes from the first whole block on."""

    pitch: int = 1
    row: int = 0  # the first
    column: int = 0

    @property
    def beside(self) -> float:
        """From the centre of a measurement's LR pixel to that of its detector, along both axes, LR pixels."""
        return (self.pitch - 1) / 2

    def slices(self) -> tuple[slice, slice]:
        """The measurements of an image [..., y, x]."""
        return slice(self.row, None, self.pitch), slice(self.column, None, self.pitch)

    def measured(self, shape: tuple[int, int]) -> Tensor:
        """[y, x] bool: which LR pixels stand for a measurement."""
        found = torch.zeros(shape, dtype=torch.bool)
        found[self.slices()] = True
        return found

    def repeat(self, frames: Tensor) -> Tensor:
        """[t, y, x] with every measurement in all of its block; one that the first row or column cuts is not known."""
        if self.pitch == 1:
            return frames
        for axis, start in ((1, self.row), (2, self.column)):
            pixels = torch.arange(frames.shape[axis], device=frames.device) - start
            first = pixels.div(self.pitch, rounding_mode="floor").clamp(min=0) * self.pitch + start
            frames = frames.index_select(axis, first)
        return frames


def samplings(frames: Tensor, valid: Tensor, bands: Sequence[str]) -> tuple[Sampling, ...]:
    """[b] of frames [t, b, y, x]: one that repeats its samples does so in `MOST` of the blocks that are valid."""
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
