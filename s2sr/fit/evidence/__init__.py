"""Shifts, gain, PSF, noise, change and spectrum from the frames alone: the evidence as the objective of a stage.

The ground changes. An observation differs from the scene by noise, and by change, whose spectrum is a power law of its
own: v_t(f) = noise_t^2 + c_t sum_a G_a^2 D(f_a), with D = 1 at the LR pixels' Nyquist frequency and one slope per band.
Without the latter, change would pass for white noise. If change had the scene's spectrum, the scene would have that of
change: there are as many changes as dates, and but one scene.

Sigma and the scene's spectrum can be told apart only by prior knowledge: spectra are nearly power laws, and a sensor's
PSF is nearly the published one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from s2sr.fit.evidence.filling import completed
from s2sr.fit.evidence.likelihood import negative_log_evidence
from s2sr.fit.evidence.patch import Fit, Patch
from s2sr.model.spectrum import SLOPE, SPREAD


@dataclass(frozen=True)
class Evidence:
    """The objective of a stage without weights, with blocks of shifts, radiometry, psf, noise and spectrum.

    The border fades over `taper` LR pixels; frequencies below `lowest` (cycles per LR pixel) do not count. Of frames
    larger than `side` LR pixels only the clearest square of that side is used. At every round, samples that are masked,
    or more than `outlier` standard deviations from what all others predict, are set to that prediction, by up to `fill`
    conjugate gradient steps from the last one. `spread` is the prior standard deviation of log sigma about its start.
    """

    taper: float = 5.0
    lowest: float = 0.1
    side: int = 128
    fill: int = 4
    outlier: float = 5.0
    spread: float = 0.2

    def __call__(self, fit: Fit) -> Callable[[], dict[str, Tensor]]:
        """The objective, on newly filled-in frames."""
        patches = self.patches(fit)
        frames = [completed(patch, steps=self.fill, outlier=self.outlier) for patch in patches]

        def parts() -> dict[str, Tensor]:
            nats = [negative_log_evidence(f, patch.model()) for f, patch in zip(frames, patches, strict=True)]
            away = (fit.field.log_sigma - fit.field.log_sigma_start) / self.spread
            steeper = (fit.change_slope - SLOPE) / SPREAD
            prior = fit.spectrum.prior() + (away.square().sum() + steeper.square().sum()) / 2
            return {"evidence": torch.stack(nats).sum(), "prior": prior}

        return parts

    def patches(self, fit: Fit) -> list[Patch]:
        """One for each group of bands that are measured on the same grid."""
        return [
            Patch(fit, bands, sampling, side=self.side, taper=self.taper, lowest=self.lowest)
            for sampling, bands in fit.field.bands_by_sampling.items()
        ]
