"""One acquisition that comes twice: copied, processed again, or cut from two tiles.

Agreeing in their noise, such a pair would pass for free of it and outweigh all other observations.
"""

from __future__ import annotations

from torch import Tensor

from s2sr.model.scene import Scene

SAME = 5e-4  # reflectance, rms: two acquisitions differ by the sensor's noise alone, .0013 or more in each
ENOUGH = 64  # samples along an axis that tell
MOST = 0.9  # of its valid samples must be in another, too: two tiles that share a strip do not show the same


def first_of_each(scene: Scene) -> list[int]:
    """The observations that differ from all before them by more than a constant per band and `SAME`."""
    rows, columns = (slice(None, None, max(1, n // ENOUGH)) for n in scene.grid.shape)
    frames, valid = scene.frames[..., rows, columns], scene.valid[..., rows, columns]
    kept: list[int] = []
    for t in range(len(scene)):
        if not any(_same(frames[t] - frames[s], valid[t] & valid[s], least=MOST * float(valid[t].sum())) for s in kept):
            kept.append(t)
    return kept


def _same(difference: Tensor, both: Tensor, *, least: float) -> bool:
    """Of [b, y, x], where both are valid: in `least` samples or more."""
    count = both.sum((1, 2), keepdim=True)
    mean = (difference * both).sum((1, 2), keepdim=True) / count.clamp(min=1)
    rms = (((difference - mean) * both).square().sum() / count.sum().clamp(min=1)).sqrt()
    return bool(count.sum() > 0 and count.sum() >= least and rms < SAME)
