"""The truth lies within the product's intervals as often as they say."""

from __future__ import annotations

import pytest

from s2sr.data.demo import Demo
from s2sr.fit.uncertainty import standard_deviation
from s2sr.observations import configuration
from s2sr.reconstruction import reconstruct
from s2sr.report.intervals import coverage, seen


@pytest.mark.parametrize("strategy", ["bayes", "lbfgs"])
def test_intervals_of_a_simulated_scene_cover_the_truth(strategy):
    """.69 and .71 were measured within one, .93 within 1.96; in quarters of contrast .69 to .72 and .91 to .96."""
    module = reconstruct(Demo(size=40).load(), configuration(f"strategy={strategy}", "c2f=2_4", "threads=1"))
    field = module.field
    image, shifts = field.render(), field.shifts.detach()
    deviation = standard_deviation(module, image, 4)
    truth = seen(module.scene, scale=4, splat=field.lattice.sigma, shifts=shifts)
    found = coverage(image.numpy(), deviation.numpy(), truth, 4)
    assert found["coverage_68"] == pytest.approx(0.68, abs=0.05)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.025)
    for quarter in ("_q1", "_q2", "_q3", "_q4"):
        assert found[f"coverage_68{quarter}"] == pytest.approx(0.68, abs=0.06)
        assert found[f"coverage_95{quarter}"] == pytest.approx(0.95, abs=0.05)
