"""Duplicate acquisitions: copied, reprocessed, or cut from two tiles.

As their noise agrees, such a pair would seem free of noise and outweigh all other observations.
"""

from __future__ import annotations

from torch import Tensor

from s2sr.model.scene import Scene

SAME = 5e-4  # reflectance, rms: sensor noise alone makes acquisitions differ more, by at least .0013 each
ENOUGH = 64  # samples along an axis that are compared
MOST = 0.9  # fraction of its valid samples that must be valid in the other: two tiles may share only a strip


def first_of_each(scene: Scene) -> list[int]:
    """The observations that are no duplicates of earlier ones, up to a constant per band and `SAME`."""
    rows, columns = (slice(None, None, max(1, n // ENOUGH)) for n in scene.grid.shape)
    frames, valid = scene.frames[..., rows, columns], scene.valid[..., rows, columns]
    kept: list[int] = []
    for t in range(len(scene)):
        if not any(_same(frames[t] - frames[s], valid[t] & valid[s], least=MOST * float(valid[t].sum())) for s in kept):
            kept.append(t)
    return kept


def _same(difference: Tensor, both: Tensor, *, least: float) -> bool:
    """Whether a difference [b, y, x] is negligible where both are valid, in at least `least` samples."""
    count = both.sum((1, 2), keepdim=True)
    mean = (difference * both).sum((1, 2), keepdim=True) / count.clamp(min=1)
    rms = (((difference - mean) * both).square().sum() / count.sum().clamp(min=1)).sqrt()
    return bool(count.sum() > 0 and count.sum() >= least and rms < SAME)
