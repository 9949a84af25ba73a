"""What is minimised, without a run: masks and nats."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_fits import OFF

from s2sr.fit.losses import Huber, Quadratic
from s2sr.fit.problem import Problem
from s2sr.model.field import SplatField
from s2sr.model.psf import PSF
from s2sr.model.scene import Scene


def problem(scene: Scene, **options) -> Problem:
    field = SplatField(scene.grid, scene.bands, scale=1, psf=PSF(0.4), shifts=torch.as_tensor(OFF))
    return Problem(scene, field, **{"misfit": Huber(), "tv_delta": 0.1, **options})


def objective(problem: Problem) -> torch.Tensor:
    return torch.stack(list(problem.misfit_and_tv().values())).sum()


def test_what_lies_under_the_mask_changes_neither_objective_nor_gradient(scene):
    junk = torch.where(scene.valid, scene.frames, torch.rand(scene.frames.shape))
    one, other = problem(scene), problem(dataclasses.replace(scene, frames=junk))
    values = []
    for each in (one, other):
        each.tv = 0.5
        values.append(objective(each))
        values[-1].backward()
    assert torch.equal(*values)
    for name, parameter in one.named_parameters():
        same = other.get_parameter(name)
        assert torch.equal(parameter, same), name
        assert parameter.grad is same.grad is None or torch.equal(parameter.grad, same.grad), name


def test_the_objective_is_in_nats(scene):
    """It is half the sum of the squared residuals over the noise, and lambda times the TV."""
    one = problem(scene, misfit=Quadratic(), noise=0.01)
    residual = (one.field() - scene.frames)[scene.valid]
    assert one.misfit_and_tv().keys() == {"misfit"}
    torch.testing.assert_close(objective(one), (residual / 0.01).double().square().sum() / 2)
    parts = []
    for one.tv in (3.0, 6.0):
        parts.append({name: float(part.detach()) for name, part in one.misfit_and_tv().items()})
    assert parts[1]["misfit"] == parts[0]["misfit"]
    assert parts[1]["tv"] == pytest.approx(2 * parts[0]["tv"])
