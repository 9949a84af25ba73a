"""Where dates are left out the others' mean geolocation is no longer the truth's: scores have to follow it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from s2sr.data.demo import Demo
from s2sr.data.simulate import simulate_scene
from s2sr.report.metrics import area_average
from s2sr.report.scores import offset_to_truth, scores

MEAN = (0.4, -0.3)  # LR pixels


@pytest.fixture(scope="module")
def moved():
    """A scene seen on two dates that lie apart from the truth, and the same scene on two that do not."""
    sharp = Demo(size=30, n_dates=2, pixels_per_lr=8).load().truth.reflectance.numpy()
    options = {"bands": ("B02", "B03", "B04", "B08"), "sigma_psf": 0.4, "noise": 1e-4, "margin": 4}
    return [simulate_scene(sharp, 8, shifts=np.array([MEAN, MEAN]) * k, **options) for k in (1, 0)]


def test_a_product_of_the_used_dates_lies_where_they_do(moved):
    """The shifts of a field have zero mean; in this gauge the truth, moved by the mean of the dates, is perfect."""
    scene, _ = moved
    still = torch.zeros(2, 2)
    assert offset_to_truth(scene, still).tolist() == pytest.approx(MEAN)
    image = area_average(scene.truth.reflectance, 8, 4, MEAN)
    assert scores(scene, torch.from_numpy(image), 4, still)["psnr"] > 80
    own = replace(scene.truth, shifts=still)
    assert scores(replace(scene, truth=own), torch.from_numpy(image), 4, still)["psnr"] < 25


def test_so_does_the_baseline(moved):
    scene, still = (scores(s, torch.rand(4, 88, 88), 4, torch.zeros(2, 2))["psnr_bicubic"] for s in moved)
    assert scene == pytest.approx(still, abs=0.6)  # sampled elsewhere; 1.3 dB less if it stayed
