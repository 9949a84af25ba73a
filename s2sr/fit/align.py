"""Shifts and radiometry on the exact model, the scene integrated out.

    1/2 sum valid * rho(r^2 / v)  +  1/2 sum_k |W(k)|^2 S(k)^2 / (s^2 P(k))  +  1/2 sum_f log det B

For a quadratic rho the minimum over the weights is -log evidence of the frames as they are, with their borders and
masks: what `evidence` fades at the border and filters counts here, and so do offsets. Without the determinant, which
is that of the blocks of `likelihood`, the weights would choose the shifts that leave them most freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases
from s2sr.fit.likelihood import Frames, negative_log_evidence
from s2sr.fit.posterior import FourierMetric, local_noise, posterior
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction

COARSE = 16  # frequencies per axis at which the determinant, smooth in f, is sampled
STEP = 0.01  # LR pixels, of the differences along the shifts


def alignment(module: Reconstruction) -> Objective:
    """The objective of weights, shifts and radiometry."""
    local_noise(module, about="zero")
    conditional, field = posterior(module), module.field
    height, width = field.grid.shape
    aliases = Aliases.of((min(height, COARSE), min(width, COARSE)), device=module.frames.device)
    squared = aliases.squared()
    cells = height * width / (aliases.rows.shape[1] * min(width, COARSE))
    with torch.no_grad():
        power = torch.stack([module.spectrum(b, squared) for b in range(len(field.bands))], -1)
        amplitude = aliases.transfer(field.sigma_psf.double(), field.widths.double()) * power.sqrt()
        variance = module.noise.double().square()[None, None]
        clear = (module.valid / module.excess).double().mean((-2, -1))
    nothing = torch.zeros(*squared.shape[1:], *clear.shape, dtype=torch.complex128, device=squared.device)
    frames = Frames(nothing, aliases, aliases.counts.expand(squared.shape[1:]) * cells, clear)

    def parts() -> dict[str, Tensor]:
        shifts, gain = field.shifts.double(), field.radiometry.gain.double()
        volume = negative_log_evidence(frames, shifts=shifts, gain=gain, variance=variance, amplitude=amplitude)
        return {**conditional(), "volume": volume}

    return parts


class AlignmentMetric:
    """Nearly the inverse of the curvature: of the weights for given shifts, of all else for given weights.

    Of an observation's (dy, dx, gain of each band, offset of each band) the curvature is that of least squares.
    """

    @torch.no_grad()
    def __init__(self, module: Reconstruction) -> None:
        field = module.field
        self.weights = FourierMetric(module)
        shifts, gain = field.shifts, field.radiometry.gain
        seen = field.observed(shifts)
        slopes = [(field.observed(shifts + STEP * unit) - seen) / STEP for unit in torch.eye(2).to(shifts)]
        along = torch.stack([g * gain[..., None, None] for g in slopes] + [seen, torch.ones_like(seen)])
        along = (along * (module.valid / module.excess).sqrt() / module.noise[..., None, None]).double().flatten(3)
        gram = torch.einsum("ptbn,qtbn->tbpq", along, along)
        t, n = gram.shape[:2]
        self.curvature = gram.new_zeros(t, 2 + 2 * n, 2 + 2 * n)
        self.curvature[:, :2, :2] = gram[..., :2, :2].sum(1)
        for p in (0, 1):
            own = slice(2 + p * n, 2 + (p + 1) * n)
            self.curvature[:, :2, own] = gram[..., :2, 2 + p].mT
            self.curvature[:, own, :2] = gram[..., 2 + p, :2]
            for q in (0, 1):
                self.curvature[:, own, 2 + q * n : 2 + (q + 1) * n] = torch.diag_embed(gram[..., 2 + p, 2 + q])
        radiometry = field.radiometry
        self.blocks = {id(field.raw_shifts): slice(0, 2)}
        self.blocks[id(radiometry.raw_gain)] = slice(2, 2 + n)
        self.blocks[id(radiometry.raw_offset)] = slice(2 + n, 2 + 2 * n)

    def __call__(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        given = [id(p) for p in parameters if id(p) in self.blocks]
        index = torch.cat([torch.arange(self.curvature.shape[1])[self.blocks[k]] for k in given])
        inner = self.curvature[:, index][:, :, index]
        inner = inner + torch.diag_embed(1e-6 * inner.diagonal(dim1=1, dim2=2) + 1)
        right = torch.cat([v.double() for p, v in zip(parameters, vectors, strict=True) if id(p) in self.blocks], 1)
        steps = torch.linalg.solve(inner, right).split([v.shape[1] for p,v in zip(parameters, vectors) if id(p) in self.blocks], 1)
        found = dict(zip(given, steps, strict=True))
        return [found[id(p)].to(v) if id(p) in found else self.weights(v) for p, v in zip(parameters, vectors, strict=True)]
