"""From a scene and a configuration to what is fitted."""

from __future__ import annotations

import pytest
import torch

from s2sr.data.demo import Demo
from s2sr.model.scene import Scene
from s2sr.observations import configuration
from s2sr.reconstruction import reconstruct, withhold


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Demo(size=16, n_dates=4, cloudy=0, pixels_per_lr=8).load()


def test_where_nothing_can_be_withheld_nothing_is_judged_or_refitted(scene, caplog):
    seen, stages, judge = withhold(scene, configuration())
    assert seen.judged.any()
    assert "refit" in stages
    assert judge is not None
    assert not caplog.records
    seen, stages, judge = withhold(scene, configuration("holdout.side=200", "holdout.dates=1"))
    assert torch.equal(seen.valid, scene.valid)
    assert not seen.judged.any()
    assert "refit" not in stages
    assert judge is None
    assert "the fit is not judged: every frame is too small" in caplog.text


def test_a_stage_may_be_left_without_anything_to_fit(scene):
    lbfgs = ("strategy=lbfgs_adam", "c2f.levels=[1]", "strategy.coarse_to_fine.optimizer.max_iter=2")
    module = reconstruct(scene, configuration(*lbfgs, "strategy.polish.blocks=[]", "holdout=null"))
    assert module.field.weights.isfinite().all()
