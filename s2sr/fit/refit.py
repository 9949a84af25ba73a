"""From a fit that has not seen everything to the one that has, at a fraction of its cost.

With w0 the weights that the stages before have found from the samples they saw, F the posterior's objective (misfit and
Gaussian prior) on these and F' the same on all samples, the weights go to the minimum of

    F'(w) - <grad F(w0), w - w0>.

Without new samples that is w0 itself, wherever the strategy stopped: converged or not, polished or not, whatever its
prior. New samples move the weights as they would move the posterior mean, and for that the metric is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from s2sr.fit.posterior import posterior
from s2sr.fit.stages import Objective

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction


def refit(module: Reconstruction) -> Objective:
    """The objective of a stage that ends the withholding: see above."""
    weights = module.field.weights.requires_grad_()
    start = weights.detach().clone()
    parts = posterior(module)
    (slope,) = torch.autograd.grad(torch.stack(list(parts().values())).sum(), weights)
    module.reveal()
    return lambda: {**parts(), "tilt": -torch.sum(slope * (module.field.weights - start))}
