"""The optimizer against a Newton step, and on a valley."""

from __future__ import annotations

import pytest
import torch

from s2sr.fit.scoring import Scoring


def closure(optimizer, objective):
    def evaluate() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        evaluate.count += 1
        return loss

    evaluate.count = 0
    return evaluate


def test_with_the_inverse_curvature_as_metric_one_iteration_ends_it():
    torch.manual_seed(0)
    root = torch.randn(5, 5, dtype=torch.float64)
    curvature, goal = root @ root.T + 0.1 * torch.eye(5), 0.1 * torch.randn(5, dtype=torch.float64)
    x = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = Scoring([x], tolerance=1e-12, metric=lambda _, v: [torch.linalg.solve(curvature, v[0])])
    evaluate = closure(optimizer, lambda: (x - goal) @ curvature @ (x - goal) / 2)
    optimizer.step(evaluate)
    torch.testing.assert_close(x.detach(), goal)
    assert evaluate.count == 2


def test_a_curved_valley_of_two_parameters_without_a_metric():
    x, y = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (-1.2, 1.0))
    optimizer = Scoring([x, y], max_iter=100, tolerance=1e-14)
    optimizer.step(closure(optimizer, lambda: (1 - x) ** 2 + 100 * (y - x**2) ** 2))
    assert float(x) == pytest.approx(1, abs=1e-5)
    assert float(y) == pytest.approx(1, abs=1e-5)


def test_a_step_that_would_leave_where_the_objective_is_defined_is_shortened():
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    optimizer = Scoring([x], max_iter=50, tolerance=1e-12)
    optimizer.step(closure(optimizer, lambda: x - 0.1 * x.log()))
    assert float(x) == pytest.approx(0.1, abs=1e-4)


def test_it_stops_where_less_than_the_tolerance_can_be_gained():
    x = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    optimizer = Scoring([x], tolerance=0.01)
    evaluate = closure(optimizer, lambda: x.square() / 2)  # .005 to be gained
    optimizer.step(evaluate)
    assert evaluate.count == 1
    assert float(x) == 0.1


def test_what_the_objective_does_not_depend_on_stays():
    x, y = (torch.tensor(1.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = Scoring([x, y], tolerance=1e-9)
    optimizer.step(closure(optimizer, lambda: x.square()))
    assert float(y) == 1
    assert float(x) == pytest.approx(0, abs=1e-4)
