"""The noise of each observation and band: how much it differs from what the others predict."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64  # pixels of a side that are blurred at a time
REACH = 2.5  # LR pixels, standard deviation of the Gaussian under which noise is local
SEEN = 0.2  # of the clearest date's samples
MARGIN = 0.5  # of the variance: three standard errors of an estimate under that Gaussian
OUTLIER = 5.0  # robust standard deviations from the median frame
FLOOR = 5e-4  # reflectance; keeps weights finite despite DN steps of 1e-4 and exact fits of simulated scenes


def robust_std(residual: Tensor, valid: Tensor) -> Tensor:
    """[t, b] 1.4826 median |r| over the valid samples of residual [t, b, y, x]; reflectance, at least 5e-4."""
    size = residual.abs().masked_fill(~valid, torch.nan).flatten(2)
    return (1.4826 * size.nanmedian(-1).values).nan_to_num(nan=1.0).clamp(min=FLOOR)


def frame_to_frame_std(
    frames: Tensor, valid: Tensor, mean: Tensor, *, shifts: Tensor, gain: Tensor, offset: Tensor
) -> Tensor:
    """[t, b] noise standard deviation of frames [t, b, y, x] before any fit.

    From the residual against the temporal mean [b, y, x], moved by the observation's shift [t, 2] to second order
    (Taylor expansion) and scaled by gain and offset [t, b]. Aliased detail counts as noise here, so this is an upper
    bound; the fit re-estimates it from its own residuals.
    """
    padded = F.pad(mean[None], (1, 1, 1, 1), mode="replicate")[0]
    centre, up, down = padded[:, 1:-1, 1:-1], padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
    left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    corners = padded[:, 2:, 2:] - padded[:, 2:, :-2] - padded[:, :-2, 2:] + padded[:, :-2, :-2]
    dy, dx = shifts[:, 0, None, None, None], shifts[:, 1, None, None, None]
    moved = (
        centre
        - dy * (down - up) / 2
        - dx * (right - left) / 2
        + dy**2 / 2 * (up + down - 2 * centre)
        + dx**2 / 2 * (left + right - 2 * centre)
        + dy * dx * corners / 4
    )
    return robust_std(frames - gain[..., None, None] * moved - offset[..., None, None], valid)


def excess(z: Tensor, valid: Tensor, *, about_mean: bool = True) -> Tensor:
    """[t, b, y, x] local variance of the residuals over that of the noise: at least 1, and 1 where there is only noise.

    z: [t, b, y, x] residuals over the standard deviation of the noise. Change is local: noise estimated over a whole
    frame is that of unchanged ground, and where a field turned green, an exact fit of such frames would make streaks.
    The variance is taken about the local mean, both over the valid samples under a Gaussian of `REACH`, minus `MARGIN`.
    The mean itself does not count: a uniform change of a field is no detail, and treating it as white noise would
    discard the detail that the observation shows. With `about_mean` false it does count.
    """
    blurred = _blur(z)

    def around(z: Tensor, valid: Tensor) -> Tensor:
        """The local variance of one observation, [b, y, x]."""
        count = blurred(valid.to(z)).clamp_(min=1e-6)
        mean = blurred(torch.where(valid, z, 0)).div_(count) if about_mean else 0.0
        return blurred(torch.where(valid, z - mean, 0).square_()).div_(count)

    return torch.stack([around(*one).sub_(MARGIN).clamp_(min=1) for one in zip(z, valid, strict=True)])


def levels(residual: Tensor, valid: Tensor) -> Tensor:
    """[t, b, y, x] the local means of residual [t, b, y, x] over the valid samples, under the Gaussian of `REACH`.

    nan where a date has less than `SEEN` of the samples of the clearest one.
    """
    blurred = _blur(residual)
    count = torch.stack([blurred(clear.to(residual)) for clear in valid])
    sums = torch.stack([blurred(torch.where(clear, rest, 0)) for clear, rest in zip(valid, residual, strict=True)])
    return sums.div_(count).masked_fill_(count <= SEEN * count.amax(0), torch.nan)


def usual_level(residual: Tensor, valid: Tensor) -> Tensor:
    """[b, y, x] the median over the dates of their `levels`; 0 where there are none.

    If most dates agree on the ground and some have changed it much, their mean is none of its states.
    """
    each = levels(residual, valid)
    return ((each.nanmedian(0).values - (-each).nanmedian(0).values) / 2).nan_to_num_(0.0)  # lower and upper median


def _blur(like: Tensor) -> Callable[[Tensor], Tensor]:
    """Images [b, y, x] of the size of `like` -> the same under the Gaussian of `REACH`, times its mass within."""
    rows, columns = (_windows(torch.arange(n, dtype=like.dtype, device=like.device)) for n in like.shape[-2:])

    def blurred(image: Tensor) -> Tensor:
        image = torch.cat([window.T @ image[:, places] for places, window in rows], 1)
        return torch.cat([image[:, :, places] @ window for places, window in columns], 2)

    return blurred


def _windows(places: Tensor) -> list[tuple[slice, Tensor]]:
    """Gaussians around `BLOCK` places at a time, truncated at 4 REACH: slices of m places, and kernels [m, n]."""
    found = []
    for start in range(0, len(places), BLOCK):
        near = slice(max(0, start - math.ceil(4 * REACH)), start + BLOCK + math.ceil(4 * REACH))
        away = ((places[near, None] - places[start : start + BLOCK]) / REACH).abs()
        found.append((near, torch.exp(-away.square() / 2) * (away <= 4)))  # denormal numbers slow CPUs down
    return found


def usual(frames: Tensor, valid: Tensor) -> Tensor:
    """[t, b, y, x] which samples of frames [t, b, y, x] are valid and similar to those of other dates.

    That is, within `OUTLIER` robust standard deviations (of the median frame) of the temporal median, up to a constant
    per frame: unmasked clouds and floods are not. With fewer than 5 dates no median tells which is the odd one: then
    all valid samples are.
    """
    if len(frames) < 5:
        return valid
    known = frames.masked_fill(~valid, torch.nan)
    rest = known - known.nanmedian(0).values
    rest = rest - rest.flatten(2).nanmedian(-1).values[..., None, None]
    std = robust_std(rest, valid).median(0).values
    return valid & (rest.abs() < OUTLIER * std[:, None, None])
