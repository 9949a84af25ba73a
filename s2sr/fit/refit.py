"""From a fit that has not seen everything to the one that has, at a fraction of its cost.

With w0 the weights that the stages before have found from the samples they saw, F the posterior's objective (misfit and
Gaussian prior) on these and F' the same on all samples, the weights go to the minimum of

    F'(w) - <grad F(w0), w - w0>.

Without new samples that is w0 itself, wherever the strategy stopped: converged or not, polished or not, whatever its
prior. New samples move the weights as they would move the posterior mean, and for that the metric is known.

The prior being quadratic, only the change w - w0 is in it, and of the misfit only what the frames see of the change.
They see nothing beyond one cycle per LR pixel, so the change is found on a lattice of two splats per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.posterior import FourierMetric, GaussianPrior
from s2sr.fit.quasi_newton import QuasiNewton

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem


@dataclass(frozen=True)
class Refit:
    """The start of a stage that ends the withholding: see above. Takes up to `max_iter` iterations, or until less than
    `tolerance` nats per splat can be gained.
    """

    max_iter: int = 4
    tolerance: float = 1e-6
    history: int = 3

    def __call__(self, module: Problem) -> None:
        field = module.field
        change = field.unsolved(next((s for s in range(2, field.scale) if field.scale % s == 0), field.scale))
        weights, shifts = change.weights.requires_grad_(), field.shifts.detach()
        with torch.no_grad():
            known = field()
        nothing = torch.zeros_like(known).requires_grad_()
        (slope,) = torch.autograd.grad(module.misfit_beside(known, nothing), nothing)
        module.reveal()
        prior = GaussianPrior.of(module, change)

        def closure() -> Tensor:
            module.evals += 1
            weights.grad = None
            seen = change.observed(shifts)
            value = module.misfit_beside(known, seen) - (slope * seen).sum() + prior(weights)
            value.backward()
            return value.detach()

        metric = FourierMetric(module, field=change)
        QuasiNewton(
            [weights],
            max_iter=self.max_iter,
            history=self.history,
            tolerance=self.tolerance,
            metric=lambda _, vectors: [metric(v) for v in vectors],
        ).step(closure)
        change.refine(field.scale)
        field.weights.data.add_(change.weights)
