"""The shift of each observation against the mean of the others: first found by correlation, then by least squares.

Frames are band-passed (see `filtering`): at much lower frequencies haze and growth dominate, at higher ones aliasing.
The first passes search for the peak of the correlation, the last ones polish the shift (see `displacement`).

Sign: frame_t(i) = field(i - d_t), content lies at larger rows and columns for a positive shift. Unit: LR pixels.
Left out: rotation, scale, one shift per band, displacements that vary over the scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from s2sr.data.registration.displacement import polish, search
from s2sr.data.registration.filtering import band_passed, eroded, shifted
from s2sr.model.psf import detector_widths
from s2sr.model.scene import Scene

FARTHEST = 3.0  # LR pixels along an axis: what is farther off is taken for another place
TRUST, CHANCE = 0.25, 4.0  # a peak must exceed the correlation TRUST by CHANCE standard deviations


@dataclass(frozen=True)
class Registration:
    """The shifts of the observations, and which of them can be trusted."""

    shifts: Tensor  # [t, 2] float32 (dy, dx) LR pixels, zero mean over the trusted observations, 0 for the others
    trusted: Tensor  # [t] bool
    correlation: Tensor  # [t] with the mean of the others, at the peak, -1 to 1
    samples: Tensor  # [t] number of samples it is based on, in the band that has most
    found: Tensor  # [t, 2] like shifts, including those that are not trusted

    def evidence(self, t: int) -> str:
        """The evidence for the shift of an observation, in words."""
        dy, dx = self.found[t].tolist()
        return (
            f"correlation {self.correlation[t]:.2f} over {self.samples[t]:.0f} pixels at a shift of {dy:.2f}, {dx:.2f}"
        )


def estimate_shifts(scene: Scene) -> Registration:
    """Estimate the shift of each observation against the mean of the other trusted ones.

    An observation with low correlation, or a shift beyond `FARTHEST`, is not trusted: its shift is 0, and it enters
    neither the reference of the others nor the zero mean.
    """
    t, _, y, x = scene.frames.shape
    shifts, correlation, trusted = torch.zeros(t, 2), torch.zeros(t), torch.ones(t, dtype=torch.bool)
    if t < 2:
        return Registration(shifts, trusted, correlation, torch.zeros(t), shifts)

    frames, weights = band_passed(scene)
    per_band = 1 / detector_widths(scene.bands) ** 2  # the samples of a resampled 20 m band repeat each other
    # A frame at d leaves the others' mean at -d / (t - 1); one pixel more for the parabola's arms.
    reach = min(math.ceil(FARTHEST * t / (t - 1)) + 1, max(1, min(y, x) // 4))
    for whole_pixels in (True, True, False, False, False):
        aligned = shifted(frames, -shifts)
        overlap = shifted(weights, -shifts) > 0.9
        others, known = _mean_of_others(aligned, overlap & trusted[:, None, None, None])
        if whole_pixels:
            correlation, samples, step = search(aligned, overlap.float(), others, known.float(), reach, per_band)
        else:
            seen = (overlap & eroded(known, 1)).float()
            one_by_one = zip(aligned.split(1), seen.split(1), others.split(1), strict=True)  # within the cache
            steps = [polish(*each, per_band) for each in one_by_one]
            correlation, samples, step = map(torch.cat, zip(*steps, strict=True))
        shifts = shifts + step * (t - 1) / t
        # Fisher's z: of the same standard deviation whatever the correlation, also where there are few samples
        least = math.atanh(TRUST) + CHANCE / (samples - 3).clamp(min=1e-3).sqrt()
        trusted = correlation.clamp(max=1 - 1e-6).atanh() >= least
        if trusted.sum() >= 2:
            shifts = shifts - shifts[trusted].mean(0)
        trusted &= (shifts.abs() <= FARTHEST).all(1)
        if trusted.sum() < 2:
            trusted[:] = False
            break

    found = shifts - (shifts[trusted].mean(0) if trusted.any() else 0)
    return Registration(torch.where(trusted[:, None], found, 0), trusted, correlation, samples, found)


def _mean_of_others(frames: Tensor, use: Tensor) -> tuple[Tensor, Tensor]:
    """[t, b, y, x] for each t the mean over the used samples of all others, and where there are any."""
    used = frames * use
    count = use.sum(0, dtype=used.dtype) - use.to(used.dtype)
    others = used.sum(0) - used  # exactly 0 where there are none
    return others.div_(count.clamp(min=1)), count > 0
