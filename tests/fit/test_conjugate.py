from __future__ import annotations

import pytest
import torch

from s2sr.fit.conjugate import ConjugateGradient


def quadratic(n: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """H and b of 1/2 x H x - b x, and where it is least."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, n, dtype=torch.float64, generator=generator)
    h = a @ a.T + torch.eye(n)
    b = torch.randn(n, dtype=torch.float64, generator=generator)
    return h, b, torch.linalg.solve(h, b)


def minimise(h, b, **options) -> tuple[torch.Tensor, int]:
    x = torch.nn.Parameter(torch.zeros_like(b))
    optimizer = ConjugateGradient([x], tolerance=1e-12, **options)
    evals = 0

    def closure() -> torch.Tensor:
        nonlocal evals
        evals += 1
        optimizer.zero_grad()
        loss = 0.5 * x @ h @ x - b @ x
        loss.backward()
        return loss

    optimizer.step(closure)
    return x.detach(), evals


def test_as_many_iterations_as_unknowns_solve_a_system():
    h, b, expected = quadratic()
    found, evals = minimise(h, b, max_iter=12)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert evals == 13


def test_with_the_inverse_as_metric_one_iteration_does():
    h, b, expected = quadratic()
    inverse = torch.linalg.inv(h)
    found, evals = minimise(h, b, max_iter=12, metric=lambda g: inverse @ g)
    torch.testing.assert_close(found, expected)
    assert evals == 2


def test_it_minds_one_parameter():
    with pytest.raises(ValueError, match="one parameter"):
        ConjugateGradient([torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))])


def test_at_the_minimum_it_stays():
    h, b, _ = quadratic()
    found, evals = minimise(h, torch.zeros_like(b), max_iter=5)
    assert torch.equal(found, torch.zeros_like(b))
    assert evals == 1
