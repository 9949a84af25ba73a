"""Frames as they are registered: band-passed, moved by fractions of a pixel, and where they count."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from s2sr.model.scene import Scene

FINE, SMOOTH = 0.5, 1.5  # LR pixels: standard deviations of the two Gaussians of the band-pass


def band_passed(scene: Scene) -> tuple[Tensor, Tensor]:
    """[t, b, y, x] frames between the scales FINE and SMOOTH, of unit variance, and their weights, 0 or 1.

    Of bands that are masked alike [t, 1, y, x] weights: moved once, not once per band. Masked samples hold the temporal
    mean in the frame's own gain and offset, so that a mask has no edge to align.
    """
    valid = scene.valid.float()
    count = valid.sum((-2, -1), keepdim=True).clamp(min=1)
    frames = (scene.frames - (scene.frames * valid).sum((-2, -1), keepdim=True) / count) * valid
    mean = scene.temporal_mean
    mean = mean - (mean * valid).sum((-2, -1), keepdim=True) / count
    power = (mean.square() * valid).sum((-2, -1), keepdim=True)
    gain = (frames * mean).sum((-2, -1), keepdim=True) / power.clamp(min=1e-20)
    filled = torch.where(scene.valid, frames, gain * mean)

    reach = math.ceil(3 * SMOOTH)
    taps = torch.arange(-reach, reach + 1.0)
    fine, smooth = (torch.exp(-0.5 * (taps / sigma) ** 2) for sigma in (FINE, SMOOTH))
    band = _separable(filled, fine / fine.sum()) - _separable(filled, smooth / smooth.sum())
    spread = ((band.square() * valid).sum((-2, -1), keepdim=True) / count).sqrt()

    # One pixel off masks and borders; the whole filter off what no observation shows and nothing can fill.
    framed = functional.pad(scene.valid[..., 1:-1, 1:-1], (1, 1, 1, 1))
    weights = eroded(framed, 1) & eroded(scene.valid.any(0, keepdim=True), reach)
    if (weights == weights[:, :1]).all():
        weights = weights[:, :1]
    return band / spread.clamp(min=1e-9), weights.float()


def eroded(mask: Tensor, reach: int) -> Tensor:
    """[t, b, y, x] whether all of a mask (bool) is true up to `reach` pixels away along rows and columns."""
    for axis in (2, 3):
        n, whole = mask.shape[axis], mask
        mask = whole.clone()
        for k in range(1, min(reach, n - 1) + 1):
            mask.narrow(axis, k, n - k).logical_and_(whole.narrow(axis, 0, n - k))
            mask.narrow(axis, 0, n - k).logical_and_(whole.narrow(axis, k, n - k))
    return mask


def shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """[t, b, y, x] with the content moved to larger rows and columns by `shifts` [t, 2]: a windowed sinc of 8 taps."""
    taps = torch.arange(-4 - math.ceil(shifts.abs().max()), 5.0 + math.ceil(shifts.abs().max()))
    u = (taps + shifts[..., None]).clamp(-4, 4)
    kernels = torch.sinc(u) * torch.cos(math.pi * u / 8).square()
    kernels = kernels / kernels.sum(-1, keepdim=True)
    return _separable(images, kernels[:, 0], kernels[:, 1])


def _separable(images: Tensor, rows: Tensor, columns: Tensor | None = None) -> Tensor:
    """[t, b, y, x] correlated with kernels [k] or [t, k] along rows and along columns; the border is repeated."""
    t, b = images.shape[:2]
    reach = rows.shape[-1] // 2
    rows, columns = (
        k.expand(t, -1).repeat_interleave(b, 0)[:, None] for k in (rows, rows if columns is None else columns)
    )
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate").flatten(0, 1)[None]
    padded = functional.conv2d(padded, rows[..., None], groups=t * b)
    return functional.conv2d(padded, columns[:, :, None], groups=t * b)[0].unflatten(0, (t, b))
