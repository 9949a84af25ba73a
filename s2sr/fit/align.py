"""Shifts and radiometry on the exact model, the scene integrated out.

    1/2 sum valid * rho(r^2 / v)  +  1/2 sum_k |W(k)|^2 S(k)^2 / (s^2 P(k))  +  1/2 sum_f log det B

For a quadratic rho the minimum over the weights is -log evidence of the frames as they are, with borders, masks and
offsets: what `evidence` fades at the border, filters and leaves out counts here. Without the last term, which is that
of the blocks of `likelihood`, shifts would go where the weights explain most noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases
from s2sr.fit.likelihood import Frames, Model, negative_log_evidence
from s2sr.fit.posterior import FourierMetric, local_noise, posterior
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

COARSE = 16  # at most so many frequencies per axis for the determinant, a smooth sum
ENOUGH = 2**14  # samples of an observation and band for the curvature, a mean
STEP = 0.01  # LR pixels, of the differences along the shifts


def alignment(module: Problem) -> Objective:
    """Misfit, Gaussian prior and determinant, of weights, shifts and radiometry.

    What moves a place as a whole must not move its frame: the noise there is local, about zero.
    """
    local_noise(module, about_mean=False)
    conditional, field = posterior(module), module.field
    frames, known = _unseen(module)

    def parts() -> dict[str, Tensor]:
        shifts, gain = field.shifts.double(), field.radiometry.gain.double()
        return {**conditional(), "volume": negative_log_evidence(frames, replace(known, shifts=shifts, gain=gain))}

    return parts


@torch.no_grad()
def _unseen(module: Problem) -> tuple[Frames, Model]:
    """Frames of nothing, whose -log evidence is the determinant, and the model of them."""
    field, shape = module.field, module.field.grid.shape
    rows, columns = (min(n, COARSE) for n in shape)
    aliases = Aliases.of((rows, columns), device=module.frames.device)
    squared = aliases.squared()
    power = torch.stack([module.spectrum(b, squared) for b in range(len(field.bands))], 1)
    noise, gain = module.noise.double().square(), field.radiometry.gain.double()
    amplitude = aliases.transfer(field.sigma_psf.double(), field.widths.double()) * power.sqrt()
    clear = (module.valid / module.excess).double().mean((-2, -1))
    nothing = torch.zeros(*clear.shape, *squared.shape[1:], dtype=torch.complex128, device=squared.device)
    counts = aliases.counts.expand(squared.shape[1:]) * (shape[0] * shape[1] / (rows * columns))
    model = Model(aliases, field.shifts.double(), gain, noise, torch.zeros_like(noise), amplitude)
    return Frames(nothing, counts, clear), model


class AlignmentMetric:
    """Nearly the inverse of the curvature: of the weights for given shifts, of all else for given weights.

    Along (dy, dx, gain of every band, offset of every band) of an observation the curvature is that of least squares.
    """

    @torch.no_grad()
    def __init__(self, module: Problem) -> None:
        field, radiometry = module.field, module.field.radiometry
        self.weights = FourierMetric(module)
        seen, *moved = (
            field.observed(field.shifts + STEP * axis) for axis in torch.eye(3, 2).roll(1, 0).to(field.shifts)
        )
        gram = torch.stack([self._gram(module, t, seen[t], [each[t] for each in moved]) for t in range(len(seen))])
        bands = gram.shape[1]
        columns = 2 + torch.arange(bands, device=gram.device)
        place = gram.new_zeros(bands, 4, 2 + 2 * bands)  # of a band's (dy, dx, gain, offset) in those of all
        place[:, (0, 1), (0, 1)] = 1
        place[range(bands), 2, columns] = place[range(bands), 3, columns + bands] = 1
        self.curvature = torch.einsum("tbpq,bpi,bqj->tij", gram, place, place)
        self.parts = {
            id(field.raw_shifts): columns.new_tensor([0, 1]),
            id(radiometry.raw_gain): columns,
            id(radiometry.raw_offset): columns + bands,
        }
        self.none = columns[:0]

    @staticmethod
    def _gram(module: Problem, t: int, seen: Tensor, moved: Sequence[Tensor]) -> Tensor:
        """[b, 4, 4] of an observation t's slopes along its dy, dx, gain and offset, of some rows for all.

        seen: [b, y, x] with gain 1 and offset 0; moved: the same with `STEP` more along both axes.
        """
        every = -(-seen[0].numel() // ENOUGH)
        rows = slice(every // 2, None, every)
        gain, seen = module.field.radiometry.gain[t, :, None, None] / STEP, seen[:, rows]
        slopes = torch.stack([*(gain * (each[:, rows] - seen) for each in moved), seen, torch.ones_like(seen)], 1)
        rate = module.valid[t, :, rows] / module.excess[t, :, rows]
        slopes *= (rate.sqrt() / module.noise[t, :, None, None])[:, None]
        flat = slopes.flatten(2)
        return (flat @ flat.mT).double() * every

    def __call__(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Steps for vectors along the weights and some or all of the rest."""
        own = [self.parts.get(id(p), self.none) for p in parameters]
        index = torch.cat(own)
        inner = self.curvature[:, index][:, :, index]
        inner = inner + torch.diag_embed(1e-6 * inner.diagonal(dim1=1, dim2=2) + 1)  # a nat bounds what nothing shows
        nothing = inner.new_empty(len(inner), 0)  # where all but the weights is held fixed
        right = torch.cat([nothing, *(v.double() for v, part in zip(vectors, own, strict=True) if len(part))], 1)
        steps = torch.linalg.solve_ex(inner, right).result.split([len(part) for part in own], 1)
        each = zip(vectors, own, steps, strict=True)
        return [step.to(v) if len(part) else self.weights(v) for v, part, step in each]
