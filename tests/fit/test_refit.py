"""What a fit has not seen: it is judged by it first, and sees it then."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from small_fits import SHIFTS, assert_same, reconstruction, solve, stage, state, withheld

from s2sr.fit.losses import Quadratic
from s2sr.fit.module import Reconstruction
from s2sr.fit.stages import Stage
from s2sr.model.scene import Scene
from s2sr.observations import build, configuration
from s2sr.report.heldout import judge

SMOOTH = stage(blocks=[["weights"]], rounds=6, steps=2)


def refitted(
    scene: Scene, judge=None, *, first: Stage = SMOOTH, refit: bool = True, iterations: int = 6, **options
) -> Reconstruction:
    again = build(configuration(f"holdout.refit.start.max_iter={iterations}").holdout.refit)
    stages = (first, again) if refit else (first,)
    return solve(reconstruction(scene, *stages, start=SHIFTS, noise=0.002, judge=judge, **options))


def test_the_judge_is_asked_once_before_the_withheld_samples_are_revealed(scene):
    asked = []

    def judge(scene, field, noise):
        asked.append((scene, field.weights.detach().clone()))
        return {"score": 1.0}

    split = withheld(scene)
    for refit in (True, False):
        asked.clear()
        module = refitted(split, judge, refit=refit)
        ((given, weights),) = asked
        assert given is split
        assert module.judgement == {"score": 1.0}
        assert torch.equal(weights, module.field.weights) is not refit
        assert torch.equal(module.valid, scene.valid if refit else split.valid)
        assert torch.equal(module.scene.valid, module.valid)


def test_a_refit_is_the_fit_to_everything(scene):
    """With 30 % of the samples withheld, .14 of the distance before is left under its own prior, .52 under TV.

    The prior takes the bands apart: their correlation stays what it was without the withheld samples.
    """
    split = withheld(scene)
    apart = "strategy.solve.start.path=s2sr.fit.posterior.closed_form"
    cfg = configuration("strategy=bayes", "strategy.solve.optimizer.max_iter=40", "strategy.solve.steps=3", apart)
    for first, left in ((build(cfg.strategy.solve), 0.25), (SMOOTH, 0.7)):
        fit = partial(refitted, first=first, misfit=Quadratic(), iterations=30)
        whole = fit(scene, refit=False).field.render()
        far = [float((fit(split, refit=r).field.render() - whole).square().mean().sqrt()) for r in (False, True)]
        assert far[1] < left * far[0], far


@pytest.mark.parametrize("levels", [(1, 2), (3,)])  # three splats per pixel are no refinement of two
def test_a_refit_without_anything_new_moves_nothing(scene, levels):
    before, after = (refitted(scene, refit=r, levels=levels).field.weights for r in (False, True))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_garbage_in_judged_samples_changes_the_scores_alone(scene):
    split = withheld(scene)
    spoilt = dataclasses.replace(split, frames=torch.where(split.judged, 9.0, split.frames))
    one, other = (refitted(s, judge, refit=False) for s in (split, spoilt))
    assert_same(state(one), state(other))
    assert one.judgement["holdout_rmse"] < 0.1
    assert other.judgement["holdout_rmse"] > 8
