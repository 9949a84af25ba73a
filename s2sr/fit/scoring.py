"""Scoring, with memory: L-BFGS that starts from a metric, for objectives whose curvature is known but for a factor.

With a metric M near the inverse of the curvature, the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)
corrects M by the steps seen; a step of length 1 is then nearly always right and costs one evaluation, and g . M g / 2
is the decrease that is left, in the objective's own unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

Metric = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]
LONGEST = 1.0  # change of any parameter in one iteration: a logarithm, or LR pixels


class Scoring(Optimizer):
    """A step is up to `max_iter` iterations, or until less than `tolerance` of the objective can be gained.

    metric: (parameters, vectors along them) -> vectors; default: the identity.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        max_iter: int = 20,
        tolerance: float = 0.05,
        metric: Metric = lambda _, vectors: list(vectors),
    ) -> None:
        super().__init__(params, {"max_iter": max_iter, "tolerance": tolerance})
        self.metric = metric

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Returns the objective before the step."""
        evaluate = torch.enable_grad()(closure)
        (group,) = self.param_groups
        before = value = evaluate()
        parameters = [p for p in group["params"] if p.grad is not None]
        sizes = [p.numel() for p in parameters]

        def split(flat: Tensor) -> list[Tensor]:
            return [x.view_as(p).to(p) for x, p in zip(flat.split(sizes), parameters, strict=True)]

        def flat(tensors: Iterable[Tensor]) -> Tensor:
            return torch.cat([x.flatten().double() for x in tensors])

        def gradient() -> Tensor:
            return flat(p.grad for p in parameters)

        slope = gradient()
        pairs: list[tuple[Tensor, Tensor]] = []
        for _ in range(group["max_iter"]):
            direction = -self._bend(slope, pairs, lambda x: flat(self.metric(parameters, split(x))))
            gain = float(slope @ direction)
            if not gain < -2 * group["tolerance"]:
                break
            length = min(1.0, LONGEST / float(direction.abs().max()))
            start = [p.clone() for p in parameters]
            for _ in range(8):
                for p, x, d in zip(parameters, start, split(direction), strict=True):
                    p.copy_(x + length * d)
                found = evaluate()
                if found <= value + 1e-4 * length * gain:
                    break
                # the parabola through value, slope and what was found, within bounds; NaN: much shorter
                length *= float((-length * gain / 2 / (found - value - length * gain)).nan_to_num(0.1).clamp(0.1, 0.5))
            else:
                for p, x in zip(parameters, start, strict=True):
                    p.copy_(x)
                break
            now = gradient()
            change, bent = length * direction, now - slope
            if change @ bent > 1e-10 * change.norm() * bent.norm():
                pairs.append((change, bent))
            slope, value = now, found
        return before

    @staticmethod
    def _bend(slope: Tensor, pairs: list[tuple[Tensor, Tensor]], metric: Callable[[Tensor], Tensor]) -> Tensor:
        """The inverse curvature times `slope`."""
        q, shares = slope.clone(), []
        for s, y in reversed(pairs):
            shares.append(s @ q / (s @ y))
            q -= shares[-1] * y
        q = metric(q)
        for (s, y), share in zip(pairs, reversed(shares), strict=True):
            q += s * (share - y @ q / (s @ y))
        return q
