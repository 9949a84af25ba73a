"""Activity: of edges, corners, texture and several bands."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage

from s2sr.fit.uncertainty.activity import activity, energies, gradient_energy


def test_activity_is_of_mean_one_and_follows_edges():
    image = torch.zeros(40, 40)
    image[:, 20:] = 0.1
    everywhere, energy = torch.ones_like(image), gradient_energy(image, 1.4)
    found = activity(energy, everywhere)
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    assert found[:, 19:21].min() > 5
    assert found[:, :10].max() < 0.1
    there = everywhere.clone()
    there[:, :15] = 0
    assert (activity(energy, there)[:, :15] == 1).all()


def test_where_the_same_goes_on_everywhere_activity_is_one():
    everywhere = torch.ones(90, 90)
    torch.testing.assert_close(activity(gradient_energy(0.3 * everywhere, 1.4), everywhere), everywhere)
    texture = torch.from_numpy(np.random.default_rng(0).normal(size=(90, 90))).float()
    assert activity(gradient_energy(texture, 1.4), everywhere).std() < 0.05


def test_the_energy_is_that_of_the_gradient_under_a_gaussian():
    image = np.random.default_rng(0).normal(size=(90, 70))
    gradient = np.stack(np.gradient(image))
    near = partial(ndimage.gaussian_filter, sigma=1.4, mode="constant", truncate=5 / 1.4)
    tensor = np.array([[near(a * b) / near(np.ones_like(image)) for a in gradient] for b in gradient])
    tensor = tensor.transpose(2, 3, 0, 1)
    expected = 2 * np.sqrt(np.linalg.det(tensor) + 0.01 * np.trace(tensor, axis1=-2, axis2=-1) ** 2)
    np.testing.assert_allclose(gradient_energy(torch.from_numpy(image), 1.4).numpy(), expected, rtol=1e-10)


def test_a_corner_has_more_of_it_than_a_straight_edge_however_that_is_turned():
    y, x = torch.meshgrid(*[torch.arange(41.0) - 20] * 2, indexing="ij")
    upright, slanted = (gradient_energy(torch.sigmoid(d), 1.4)[20, 20] for d in (x, 0.6 * x + 0.8 * y))
    torch.testing.assert_close(slanted, upright, rtol=0.05, atol=0)
    assert gradient_energy(torch.sigmoid(x) * torch.sigmoid(y), 1.4).max() > 1.5 * upright


def test_where_another_band_has_detail_there_is_some_energy():
    texture = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 40, 40))).float()
    texture[0, :, :20] = 0
    texture[1, :, 20:] = 0
    one, other = energies(texture, torch.full((2,), 1.4))
    for quiet, busy in ((one[:, :10], other[:, :10]), (other[:, 30:], one[:, 30:])):
        assert 0.05 < float(quiet.mean() / busy.mean()) < 0.15
