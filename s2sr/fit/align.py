"""Shifts on the exact model, the scene integrated out.

    1/2 sum valid * rho(r^2 / v)  +  1/2 sum_k |W(k)|^2 S(k)^2 / (s^2 P(k))  +  1/2 sum_f log det B

For a quadratic rho the minimum over the weights is -log evidence of the frames as they are, with borders, masks and
offsets: what `evidence` fades at the border, filters and leaves out counts here. Without the last term, with B as in
`spectral_model`, shifts would go where the weights explain most noise. Gain and offset are regressed anew at the start
of every round: see `regression`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.errors import InputError
from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence.likelihood import Frames, negative_log_evidence
from s2sr.fit.evidence.spectral_model import Model
from s2sr.fit.posterior import FourierMetric, local_noise, posterior
from s2sr.fit.regression import regress
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

COARSE = 16  # at most so many frequencies per axis for the determinant, a smooth sum
ENOUGH = 2**14  # samples of an observation and band for the curvature, a mean
STEP = 0.01  # LR pixels, of the differences along the shifts


def alignment(module: Problem) -> Objective:
    """Misfit, Gaussian prior and determinant, of weights and shifts; the radiometry is regressed before.

    What moves a place as a whole must not move its frame: the noise there is local, about zero.
    """
    local_noise(module, about_mean=False)
    regress(module)
    conditional, field = posterior(module), module.field
    frames, known = _unseen(module)

    def parts() -> dict[str, Tensor]:
        return {**conditional(), "volume": negative_log_evidence(frames, replace(known, shifts=field.shifts.double()))}

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
    unchanged = torch.zeros_like(noise), torch.zeros_like(power[0])
    model = Model(aliases, field.shifts.double(), gain, noise, *unchanged, amplitude)
    return Frames(nothing, counts, clear), model


class AlignmentMetric:
    """Nearly the inverse of the curvature: of the weights for given shifts, of the shifts for given weights.

    The latter is that of least squares, of every observation by itself.
    """

    @torch.no_grad()
    def __init__(self, module: Problem) -> None:
        field = module.field
        self.steps: dict[int, Callable[[Tensor], Tensor]] = {
            id(field.weights): FourierMetric(module),
            id(field.raw_shifts): self._shifted,
        }
        seen, *moved = (
            field.observed(field.shifts + STEP * axis) for axis in torch.eye(3, 2).roll(1, 0).to(field.shifts)
        )
        self.curvature = torch.stack([self._gram(module, t, seen[t], [m[t] for m in moved]) for t in range(len(seen))])
        self.curvature.diagonal(dim1=1, dim2=2).mul_(1 + 1e-6).add_(1)  # a nat bounds what nothing shows

    @staticmethod
    def _gram(module: Problem, t: int, seen: Tensor, moved: Sequence[Tensor]) -> Tensor:
        """[2, 2] of an observation t's slopes along its dy and dx, of some rows for all.

        seen: [b, y, x] with gain 1 and offset 0; moved: the same with `STEP` more along both axes.
        """
        every = -(-seen[0].numel() // ENOUGH)
        rows = slice(every // 2, None, every)
        rate = (module.valid[t, :, rows] / module.excess[t, :, rows]).sqrt()
        rate *= (module.field.radiometry.gain[t] / module.noise[t] / STEP)[:, None, None]
        slopes = torch.stack([rate * (each[:, rows] - seen[:, rows]) for each in moved]).flatten(1)
        return (slopes @ slopes.mT).double() * every

    def __call__(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Steps for vectors along the weights, the shifts or both. Raises InputError for other parameters."""
        if not {id(p) for p in parameters} <= self.steps.keys():
            raise InputError(
                "AlignmentMetric is of weights and shifts: leave the others out of the stage's blocks; alignment "
                "regresses gain and offset itself"
            )
        return [self.steps[id(p)](v) for p, v in zip(parameters, vectors, strict=True)]

    def _shifted(self, gradient: Tensor) -> Tensor:
        return torch.linalg.solve_ex(self.curvature, gradient.double()).result.to(gradient)
