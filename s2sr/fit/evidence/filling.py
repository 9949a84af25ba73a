"""Samples that are masked, or that contradict all others, at what the others predict of them.

That is their conditional mean, given the model: the minimum of 1/2 Y^H C^-1 Y along them (expectation-maximisation).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from s2sr.fit.evidence.likelihood import Frames
from s2sr.fit.evidence.patch import Patch
from s2sr.fit.evidence.spectral_model import Model


@torch.no_grad()
def completed(patch: Patch, *, steps: int, outlier: float) -> Frames:
    """The spectra of a patch whose untrusted samples are filled in; the fit's `filled` and `trusted` are updated.

    steps: conjugate gradient steps at most, from what was filled in last. outlier: standard deviations from what all
    others predict.
    """
    fit, part, window, model = patch.fit, patch.part, patch.window, patch.model()
    trusted, seen = fit.trusted[part], fit.frames[part]
    whole = bool(trusted.all())
    if patch.sampling not in fit.filled:
        fit.filled[patch.sampling] = seen if whole else fit.field().detach()[part]
    filled = fit.filled[patch.sampling].to(seen)  # a checkpoint's are loaded beside the device
    filled = torch.where(trusted, seen, filled)
    innovation = model.innovation(filled.dtype)
    if not whole:
        scale = fit.noise[:, patch.bands].square()[..., None, None] * ~trusted
        descend(filled, scale, lambda frames: window.adjoint(innovation(window.spectra(frames))), steps)
    fit.filled[patch.sampling] = filled
    spectra = window.spectra(filled.double())
    away = torch.fft.irfft2(innovation(spectra.to(filled.dtype.to_complex())), s=window.shape, norm="ortho")
    fit.trusted[part] = credible(patch, model, away, seen - filled, outlier)
    return Frames(spectra, window.worth, patch.clear, whole)


def descend(x: Tensor, scale: Tensor, gradient: Callable[[Tensor], Tensor], steps: int) -> None:
    """Lower a quadratic form of x in place, by conjugate gradients where `scale` is not 0.

    scale: nearly the inverse curvature. gradient: of the form; it is linear in x.
    """
    left, direction, last = -gradient(x), torch.zeros_like(x), torch.ones_like(x[0, 0, 0, 0])
    enough = 1e-5 * (scale > 0).sum()  # nats, by `scale`; where neighbours are missing together, far more may remain
    for _ in range(steps):
        step = left * scale
        size = (left * step).sum()
        if not size > enough:
            break
        direction = step + size / last * direction
        bent = gradient(direction)
        length, last = size / (direction * bent).sum().clamp(min=1e-30), size
        x += length * direction
        left -= length * bent


def credible(patch: Patch, model: Model, innovation: Tensor, difference: Tensor, outlier: float) -> Tensor:
    """[t, b, y, x] which valid samples agree with what all others predict; `difference` is observed minus filled.

    With z = C^-1 y a sample differs by z / (C^-1)_ii from that prediction, with standard deviation (C^-1)_ii^(-1/2).
    """
    counts, valid = patch.window.counts, patch.fit.valid[patch.part]
    at_all = model.precision(model.posterior(patch.clear))
    precision = torch.einsum("yx,tbyx->tb", counts / counts.sum(), at_all)[..., None, None]
    away = torch.where(difference == 0, innovation * (patch.window.values > 0.5) / precision, difference)
    size = away.abs() * precision.sqrt() / outlier
    beside = functional.max_pool2d((valid & (size > 1)).double(), 3, 1, 1) > 0  # stricter beside an outlier
    return valid & (size < torch.where(beside, 0.5, 1.0))
