"""Masked samples are set to their conditional mean."""

from __future__ import annotations

import torch
from small_registrations import register, simulated, without
from torch import Tensor

from s2sr.fit.evidence import Evidence
from s2sr.fit.evidence.filling import completed


def test_what_is_filled_in_is_the_conditional_mean():
    """After enough conjugate gradients nothing contradicts the others: C^-1 Y is 0 there, but for a hundredth."""
    evidence = Evidence(fill=40)
    masked = register(without(simulated()), evidence=evidence, rounds=1)
    (patch,) = evidence.patches(masked)
    trusted, precision = masked.trusted.clone(), patch.model().innovation(torch.float64)
    completed(patch, steps=40, outlier=5)

    def gradient(frames: Tensor) -> Tensor:
        return patch.window.adjoint(precision(patch.window.spectra(frames))).detach()

    filled = masked.filled[patch.sampling].double()
    left, began = gradient(filled), gradient(torch.where(trusted, filled, 0.2))
    assert float(left[~trusted].square().mean()) < 1e-4 * float(began[~trusted].square().mean())
