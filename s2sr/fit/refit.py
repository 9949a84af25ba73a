"""From a fit without the withheld samples to one with them, at a fraction of its cost.

Let w0 be the weights fitted so far, F the posterior's objective (misfit and Gaussian prior) on the samples they have
seen, and F' the same on all samples. The new weights minimise

    F'(w) - <grad F(w0), w - w0>.

Without new samples the minimum is w0 itself, wherever the strategy stopped: converged or not, polished or not, whatever
its prior. New samples move the weights as they would move the posterior mean, for which the metric is known.

As the prior is quadratic, this depends on w0 only through the change w - w0 and its predicted frames. The frames see
nothing beyond one cycle per LR pixel, so the change is computed on a lattice of two splats per pixel.
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
    """The start of a stage that reveals the withheld samples: see above. Runs up to `max_iter` iterations, or until the
    predicted gain is below `tolerance` nats per splat.
    """

    max_iter: int = 4
    tolerance: float = 1e-6

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
            seen = change.observed(shifts)
            value = module.misfit_beside(known, seen) - (slope * seen).sum() + prior(weights)
            value.backward()
            return value.detach()

        metric = FourierMetric(module, field=change)
        QuasiNewton(
            [weights],
            max_iter=self.max_iter,
            history=3,  # past steps, each of which costs two lattices of memory
            tolerance=self.tolerance,
            metric=lambda _, vectors: [metric(v) for v in vectors],
        ).step(closure)
        change.refine(field.scale)
        field.weights.data.add_(change.weights)
