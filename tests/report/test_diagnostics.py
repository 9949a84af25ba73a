import itertools
import math

import numpy as np
import pytest
import torch

from s2sr.report.diagnostics import _label_places, residual_map, shift_plot
from s2sr.report.figures import pixels


@pytest.mark.parametrize("count", [1, 2, 8, 30, 60])
def test_shift_plot_names_every_observation(count):
    shifts = np.random.default_rng(0).normal(0, 0.1, (count, 2))
    dates = [f"2023-{1 + t // 28:02d}-{1 + t % 28:02d}T10:00:00Z" for t in range(count)]
    figure = shift_plot(torch.tensor(shifts), dates, shifts + 0.01)
    assert {date[:10] for date in dates} <= {text.get_text() for text in figure.texts}
    low, high = figure.axes[0].get_xlim()
    assert low < -0.5
    assert high > 0.5
    assert pixels(figure).shape[0] == 840


def test_labels_of_shifts_do_not_overlap():
    points = np.random.default_rng(0).normal(0, 60, (30, 2))
    labels = points + _label_places(points)
    assert min(math.dist(a, b) for a, b in itertools.combinations(labels, 2)) > 15
    assert min(math.dist(a, b) for a, b in itertools.product(labels, points)) > 12


def test_residual_map_is_centred_on_zero():
    residual = np.random.default_rng(0).normal(0, 1, (3, 20, 30)) + 0.3
    residual[:, 4, 5] = np.nan
    figure = residual_map(residual)
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    assert pixels(figure).shape[1] > 600
    low, high = residual_map(np.zeros((4, 4))).axes[0].images[0].get_clim()
    assert low == -high < 0
