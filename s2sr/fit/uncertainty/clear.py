"""Which observations are clear at a product pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clear(valid: Tensor, shift: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] the validity, or its weight, of the LR sample at the centre of each product pixel.

    valid: [b, y, x] of one observation; shift: [2] (dy, dx), LR pixels: a point p of the field lies at p + shift in it.
    """
    shape, valid = valid.shape, F.pad(valid, [1] * 4)  # nothing is valid beyond the frame
    for axis, d in ((2, shift[1]), (1, shift[0])):  # whole rows are copied faster than single samples
        n = shape[axis]
        sample = ((torch.arange(n * scale, device=valid.device) + 0.5) / scale + d).floor().long()
        valid = valid.index_select(axis, sample.clamp(-1, n) + 1)
    return valid


def clear_count(valid: Tensor, shifts: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] number of observations that are clear at a product pixel (uint8, or int32 above 255).

    valid: [t, b, y, x]; shifts: [t, 2], LR pixels.
    """
    counted = valid.to(torch.uint8 if len(valid) < 256 else torch.int32)
    count, *others = (clear(*one, scale) for one in zip(counted, shifts, strict=True))
    for one in others:
        count += one
    return count
