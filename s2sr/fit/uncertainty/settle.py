"""Noise, spectrum and sigma are estimated again after a fit, by the evidence, to say how sure the product is.

The search starts from initial guesses, whatever the stages found, in case one went astray. Change counts as local
noise: subtracting it from the frames makes the scene no more certain where the ground changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Parameter

from s2sr.fit.evidence import Evidence
from s2sr.fit.evidence.information import Information
from s2sr.fit.noise import robust_std
from s2sr.fit.posterior import local_noise
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.model.spectrum import SLOPE, Spectrum

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction
    from s2sr.fit.problem import Problem

EVIDENCE = Evidence(side=64)
CHANGE = 1e-3  # of the scene's power, where its search starts: from a tenth it is not found in 20 iterations


@contextmanager
def settled(module: Reconstruction) -> Iterator[None]:
    """Within it the module's noise, spectrum and sigma are re-estimated; afterwards they are as before."""
    field, noise = module.field, (module.log_noise, module.log_change, module.change_slope)
    known = (*noise, module.excess, field.changed, field.log_sigma)
    values, spectrum = [x.detach().clone() for x in known], module.spectrum
    try:
        settle(module)
        yield
    finally:
        module.spectrum = spectrum
        for x, value in zip(known, values, strict=True):
            x.data.copy_(value)


def settle(module: Reconstruction) -> None:
    """Re-estimate noise and spectrum of a module by the evidence, given everything else; then its local noise.

    A free sigma is re-estimated, too, unless a stage has done so by the evidence; not together with the noise: where
    much changes, a flat spectrum behind a wide PSF would then be most probable.
    """
    module.field.changed.zero_()
    with torch.no_grad():
        if module.fits_noise:
            module.log_noise.copy_(robust_std(module.residual(), module.valid).log())
        module.spectrum = Spectrum(module.field.render(module.field.grid).var((-2, -1)))
        if module.fits_noise:
            module.log_change[:] = module.spectrum.coefficients[:, 0] + math.log(CHANGE)
            module.change_slope.fill_(SLOPE)
    module.filled, module.trusted = {}, module.valid.clone()
    blocks = module.blocks()
    most_probable(module, [*blocks["noise"], *blocks["spectrum"]])
    found = any(phase.stage.fits("psf") and phase.stage.fits("spectrum") for phase in module.phases)
    if blocks["psf"] and not found:
        most_probable(module, [*blocks["spectrum"], *blocks["psf"]])
    local_noise(module)


def most_probable(module: Problem, free: list[Parameter]) -> None:
    """Maximise the evidence over some parameters, in up to 20 iterations."""
    for p in module.parameters():
        p.requires_grad_(any(p is q for q in free))
    parts = EVIDENCE(module)
    optimizer = QuasiNewton(free, tolerance=4e-4, metric=Information(module, EVIDENCE))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack(list(parts().values())).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
