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
    """Seeds 0, 100, 101, 102: .73 to .82 and .95 to .98 for bayes, .66 to .83 and .90 to .98 for lbfgs."""
    module = reconstruct(Demo(size=40).load(), configuration(f"strategy={strategy}", "c2f=2_4", "threads=1"))
    field = module.field
    image, shifts = field.render(), field.shifts.detach()
    deviation = standard_deviation(module, image, 4)
    truth = seen(module.scene, scale=4, splat=field.lattice.sigma, shifts=shifts)
    found = coverage(image.numpy(), deviation.numpy(), truth, 4)
    assert found["coverage_68"] == pytest.approx(0.68, abs=0.16)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.05)
