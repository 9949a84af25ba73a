"""L-BFGS that starts from a metric: for objectives whose curvature is known but for a factor, evaluated at a price.

With a metric M near the inverse of the curvature, the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)
corrects M by the steps seen; a step of length 1 is then nearly always right and costs one evaluation, and g . M g / 2
is the decrease that is left, in the objective's own unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

Vector = list[Tensor]  # one tensor per parameter
Metric = Callable[[Sequence[Tensor], Sequence[Tensor]], Vector]
LONGEST = 1.0  # change of any parameter in one iteration: reflectance, a logarithm, or LR pixels


class QuasiNewton(Optimizer):
    """A step is up to `max_iter` iterations, or until less than `tolerance` of the objective can be gained.

    metric: (parameters, vectors along them) -> vectors; default: the identity. history: steps that correct it, each
    two copies of the parameters. Every step starts afresh from the metric.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        max_iter: int = 20,
        history: int = 10,
        tolerance: float = 0.05,
        metric: Metric = lambda _, vectors: list(vectors),
    ) -> None:
        super().__init__(params, {"max_iter": max_iter, "history": history, "tolerance": tolerance})
        self.metric = metric

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Returns the objective before the step."""
        evaluate = torch.enable_grad()(closure)
        (group,) = self.param_groups
        before = value = evaluate()
        parameters = [p for p in group["params"] if p.grad is not None]
        slope = [p.grad.clone() for p in parameters]
        pairs: list[tuple[Vector, Vector, float]] = []
        for _ in range(group["max_iter"]):
            direction = _bend(slope, pairs, lambda vectors: self.metric(parameters, vectors))
            gain = _dot(slope, direction)
            if not gain > 2 * group["tolerance"]:
                break
            length = min(1.0, LONGEST / max(float(d.abs().max()) for d in direction))
            start = [p.clone() for p in parameters]
            for _ in range(8):
                for p, x, d in zip(parameters, start, direction, strict=True):
                    torch.sub(x, d, alpha=length, out=p)
                found = evaluate()
                if found <= value - 1e-4 * length * gain:
                    break
                # the parabola through value, slope and what was found, within bounds; NaN: much shorter
                length *= float((length * gain / 2 / (found - value + length * gain)).nan_to_num(0.1).clamp(0.1, 0.5))
            else:
                for p, x in zip(parameters, start, strict=True):
                    p.copy_(x)
                break
            change = [p - x for p, x in zip(parameters, start, strict=True)]
            bent = [p.grad - g for p, g in zip(parameters, slope, strict=True)]
            curvature = _dot(change, bent)
            if curvature > 1e-10 * (_dot(change, change) * _dot(bent, bent)) ** 0.5:
                pairs = [*pairs, (change, bent, curvature)][-group["history"] :]
            slope, value = [p.grad.clone() for p in parameters], found
        return before


def _bend(slope: Vector, pairs: Sequence[tuple[Vector, Vector, float]], metric: Callable[[Vector], Vector]) -> Vector:
    """The inverse curvature times `slope`."""
    q, shares = [g.clone() for g in slope], []
    for change, bent, curvature in reversed(pairs):
        shares.append(_dot(change, q) / curvature)
        for a, b in zip(q, bent, strict=True):
            a.sub_(b, alpha=shares[-1])
    q = metric(q)
    for (change, bent, curvature), share in zip(pairs, reversed(shares), strict=True):
        missing = share - _dot(bent, q) / curvature
        for a, b in zip(q, change, strict=True):
            a.add_(b, alpha=missing)
    return q


def _dot(one: Vector, other: Vector) -> float:
    return sum(float(torch.dot(a.flatten(), b.flatten())) for a, b in zip(one, other, strict=True))
