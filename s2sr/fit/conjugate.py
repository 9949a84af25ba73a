"""Conjugate gradients as a torch optimizer: for objectives that are quadratic, or nearly.

The curvature along a direction p is the difference of two gradients, H p = g(x + p) - g(x), so that an iteration costs
one evaluation of the closure and the step along p is exact. With a metric M near the inverse of H

    z = M g,   p <- -z + beta p,   beta = (g . z) / (g . z before),   x <- x + (g . z) / (p . H p) p

a few iterations do (Hestenes & Stiefel 1952, preconditioned). Every step starts afresh from the gradient where it is:
more than one step follows an objective that is not quite quadratic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class ConjugateGradient(Optimizer):
    """A step is up to `max_iter` iterations, or until g . M g has fallen by `tolerance` squared.

    metric: gradient of the one parameter -> step; default: the gradient itself.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        max_iter: int = 20,
        tolerance: float = 1e-3,
        metric: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:
        super().__init__(params, {"max_iter": max_iter, "tolerance": tolerance})
        self.metric = metric
        if [len(group["params"]) for group in self.param_groups] != [1]:
            raise ValueError("ConjugateGradient optimises one parameter")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Returns the objective before the step."""
        evaluate = torch.enable_grad()(closure)
        (group,) = self.param_groups
        (x,) = group["params"]
        before = evaluate()
        gradient = x.grad.clone()
        z = self.metric(gradient)
        size = start = _dot(gradient, z)
        direction = -z
        for _ in range(group["max_iter"]):
            if not size > group["tolerance"] ** 2 * start:
                break
            x.add_(direction)
            evaluate()
            curved = x.grad - gradient
            length = size / _dot(direction, curved)
            x.add_(direction, alpha=length - 1)
            gradient.add_(curved, alpha=length)
            z = self.metric(gradient)
            size, last = _dot(gradient, z), size
            direction.mul_(size / last).sub_(z)
        return before


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
