"""L-BFGS that starts from a metric: for expensive objectives whose curvature is roughly known.

With a metric M near the inverse of the curvature, the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)
corrects M by past steps. A step of length 1 is then nearly always right and costs one evaluation, and g . M g / 2
predicts the remaining decrease, in the objective's own unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

Vector = list[Tensor]  # one tensor per parameter
Metric = Callable[[Sequence[Tensor], Sequence[Tensor]], Vector]
LONGEST = 1.0  # change of any parameter in one iteration: reflectance, a logarithm, or LR pixels


def identity(_: Sequence[Tensor], vectors: Sequence[Tensor]) -> Vector:
    """The metric if nothing is known of the curvature."""
    return list(vectors)


class QuasiNewton(Optimizer):
    """One step runs up to `max_iter` iterations, or until the predicted gain is below `tolerance` per parameter. (In
    nats, a parameter that fits only noise gains half a nat.)

    metric: (parameters, vectors along them) -> vectors, which may reuse the memory of the given ones; default:
    identity. history: past steps that correct it, each two copies of the parameters. Every step starts from the metric
    alone.
    """

    stays_finite = True  # steps to non-finite values are rejected here: the run need not keep a copy to restore

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        max_iter: int = 20,
        history: int = 10,
        tolerance: float = 1e-7,
        metric: Metric = identity,
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
        slope = _taken(parameters)
        pairs: list[tuple[Vector, Vector, Tensor]] = []
        enough = 2 * group["tolerance"] * sum(p.numel() for p in parameters)
        for _ in range(group["max_iter"]):
            direction = _bend(slope, pairs, lambda vectors: self.metric(parameters, vectors))
            gain = float(_dot(slope, direction))
            if not enough < gain < math.inf:
                break
            gone, length = 0.0, min(1.0, LONGEST / float(_largest(direction)))
            for _ in range(8):
                _move(parameters, direction, gone - length)
                gone, found = length, evaluate()
                if found <= value - 1e-4 * length * gain:
                    break
                # minimum of the parabola through both values and the slope, within bounds; NaN: much shorter
                length *= float((length * gain / 2 / (found - value + length * gain)).nan_to_num(0.1).clamp(0.1, 0.5))
            else:
                _move(parameters, direction, gone)
                break
            # in place: fresh memory pages cost more than the arithmetic
            change, value, now = [d.mul_(-length) for d in direction], found, _taken(parameters)
            bent = [g.neg_().add_(new) for g, new in zip(slope, now, strict=True)]
            slope, curvature = now, _dot(change, bent)
            if curvature > 1e-10 * length * gain:
                pairs = [*pairs, (change, bent, curvature)][-group["history"] :]
        return before


def _taken(parameters: Sequence[Tensor]) -> Vector:
    """Take the gradients away; the next evaluation makes new ones."""
    found = [p.grad for p in parameters if p.grad is not None]
    for p in parameters:
        p.grad = None
    return found


def _move(parameters: Sequence[Tensor], direction: Vector, length: float) -> None:
    for p, d in zip(parameters, direction, strict=True):
        p.add_(d, alpha=length)


def _bend(slope: Vector, pairs: Sequence[tuple[Vector, Vector, Tensor]], metric: Callable[[Vector], Vector]) -> Vector:
    """The inverse curvature times `slope`. Scalars stay on the device: reading one would synchronise it."""
    q, shares = [g.clone() for g in slope], []
    for change, bent, curvature in reversed(pairs):
        shares.append(_dot(change, q) / curvature)
        for a, b in zip(q, bent, strict=True):
            a.addcmul_(b, shares[-1].to(b), value=-1)
    q = metric(q)
    for (change, bent, curvature), share in zip(pairs, reversed(shares), strict=True):
        missing = share - _dot(bent, q) / curvature
        for a, b in zip(q, change, strict=True):
            a.addcmul_(b, missing.to(b))
    return q


def _dot(one: Vector, other: Vector) -> Tensor:
    return torch.stack([torch.dot(a.flatten(), b.flatten()).double() for a, b in zip(one, other, strict=True)]).sum()


def _largest(vector: Vector) -> Tensor:
    """The largest absolute value."""
    return torch.stack([x.double() for d in vector for x in d.aminmax()]).abs().max()
