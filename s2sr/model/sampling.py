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
    """[b] of frames [t, b, y, x]: one that repeats its samples does so in all blocks that are valid as a whole."""
    found = []
    for b, width in enumerate(detector_widths(bands).int().tolist()):
        fits = 1 < width <= min(frames.shape[2:]) // 2
        starts = [Sampling(width, row, column) for row in range(width) for column in range(width)] if fits else []
        found.append(next((s for s in starts if _repeats(frames[:, b], valid[:, b], s)), Sampling()))
    return tuple(found)


def _repeats(frames: Tensor, valid: Tensor, sampling: Sampling) -> bool:
    n, seen = sampling.pitch, False
    for frame, clear in zip(frames, valid, strict=True):  # most bands that repeat nothing show it in the first
        blocks, known = (x[sampling.row :, sampling.column :].unfold(0, n, n).unfold(1, n, n) for x in (frame, clear))
        whole = known.all(-1).all(-1)
        if not (blocks.amax((-2, -1)) == blocks.amin((-2, -1)))[whole].all():
            return False
        seen |= bool(whole.any())
    return seen
