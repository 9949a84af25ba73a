from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from small_images import normal

from s2sr.fit.quasi_newton import QuasiNewton


def quadratic(n: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """H and b of 1/2 x H x - b x, and where that is least."""
    a = normal(n, n)
    h = a @ a.T + torch.eye(n)
    b = torch.arange(n, dtype=torch.float64) / n - 0.4
    return h, b, torch.linalg.solve(h, b)


def huber(x: torch.Tensor) -> torch.Tensor:
    """An objective of many sizes along mixed axes, with its minimum within reach."""
    a = normal(16, 16) / 4 + torch.eye(16)
    z = a @ x - torch.linspace(-0.2, 0.3, 16, dtype=torch.float64)
    return ((z.square() * torch.logspace(0, 3, 16, dtype=torch.float64) + 1e-2).sqrt()).sum() + x.square().sum() / 20


def minimise(objective, *starts: torch.Tensor, steps: int = 1, **options) -> tuple[list[torch.Tensor], list[float]]:
    """Minimise an objective: where it ends, and what was evaluated."""
    parameters = [torch.nn.Parameter(start.clone()) for start in starts]
    optimizer = QuasiNewton(parameters, **{"tolerance": 1e-14, **options})
    seen = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(*parameters)
        loss.backward()
        seen.append(float(loss.detach()))
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return [p.detach() for p in parameters], seen


def test_with_the_inverse_as_metric_one_iteration_does():
    h, b, expected = quadratic()
    inverse = torch.linalg.inv(h)
    (found,), seen = minimise(
        lambda x: 0.5 * x @ h @ x - b @ x, torch.zeros_like(b), metric=lambda _, v: [inverse @ v[0]]
    )
    torch.testing.assert_close(found, expected)
    assert len(seen) <= 3


def test_a_metric_near_the_inverse_needs_few_evaluations():
    h, b, expected = quadratic()
    diagonal = torch.linspace(0.5, 2, 12)
    near = diagonal[:, None] * torch.linalg.inv(h) * diagonal
    objective = lambda x: 0.5 * x @ h @ x - b @ x  # noqa: E731
    (found,), seen = minimise(objective, torch.zeros_like(b), metric=lambda _, v: [near @ v[0]], max_iter=100)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    _, without = minimise(objective, torch.zeros_like(b), max_iter=100)
    assert len(seen) < 0.7 * len(without)


@pytest.mark.parametrize("history", [5, 10])
def test_what_is_not_quadratic_it_minimises_as_well_as_scipy(history):
    (found,), seen = minimise(huber, torch.zeros(16, dtype=torch.float64), max_iter=1200, history=history)
    start, value = np.zeros(16), lambda x: float(huber(torch.from_numpy(x)))
    expected = minimize(value, start, method="BFGS", options={"gtol": 1e-7})
    assert float(huber(found)) == pytest.approx(expected.fun, rel=1e-7)
    assert seen[-1] < 0.5 * seen[0]


def test_parameters_of_any_shape_share_their_curvature():
    h, b, expected = quadratic()
    (first, second), _ = minimise(
        lambda x, y: 0.5 * (z := torch.cat((x.flatten(), y))) @ h @ z - b @ z,
        torch.zeros(2, 4, dtype=torch.float64),
        torch.zeros(4, dtype=torch.float64),
        max_iter=200,
    )
    torch.testing.assert_close(torch.cat((first.flatten(), second)), expected, rtol=1e-5, atol=1e-6)


def test_it_stops_where_less_than_the_tolerance_is_left():
    """With the inverse curvature as metric the decrease that is left is known exactly."""
    h, b, expected = quadratic()
    inverse = torch.linalg.inv(h)
    left = float(0.5 * expected @ h @ expected) / len(b)
    for tolerance, evaluations in ((1.1 * left, 1), (0.9 * left, 2)):
        _, seen = minimise(
            lambda x: 0.5 * x @ h @ x - b @ x,
            torch.zeros_like(b),
            metric=lambda _, v: [inverse @ v[0]],
            tolerance=tolerance,
        )
        assert len(seen) == evaluations


def test_where_the_objective_is_nan_a_step_is_shortened():
    """The metric leads beyond the end of the logarithm's domain."""
    (found,), _ = minimise(
        lambda x: (x - 3 * x.log()).sum(), torch.full((3,), 0.5, dtype=torch.float64), metric=lambda _, v: [9 * v[0]]
    )
    torch.testing.assert_close(found, torch.full((3,), 3.0, dtype=torch.float64), rtol=1e-4, atol=0)


def test_where_no_step_helps_it_stays():
    """The gradient given here is not that of the objective."""

    class Lies(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, output):
            return -output.expand(3)

    start = torch.ones(3, dtype=torch.float64)
    (found,), seen = minimise(Lies.apply, start)
    torch.testing.assert_close(found, start, rtol=1e-12, atol=0)
    assert len(seen) == 9
