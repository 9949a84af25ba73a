"""The count of clear observations."""

from __future__ import annotations

import torch

from s2sr.fit.uncertainty.clear import clear_count


def test_the_count_is_that_of_the_samples_at_the_pixels_centres():
    valid = torch.ones(3, 1, 2, 3, dtype=torch.bool)
    valid[1, 0, 0, 1] = False
    shifts = torch.tensor([(0.0, 0.0), (0.3, -0.3), (-0.3, 1.0)])
    # centres .25 .75 1.25 1.75 (2.25 2.75) + d: rows 0 1 1 - of the second, - 0 0 1 of the third
    expected = torch.zeros(4, 6, dtype=torch.uint8)
    expected += 1
    expected[:3, 1:] += 1  # columns - 0 0 1 1 2
    expected[0, 3:5] -= 1  # the masked one
    expected[1:, :4] += 1  # columns 1 1 2 2 - -
    assert torch.equal(clear_count(valid, shifts, 2)[0], expected)


def test_the_count_knows_bands_and_many_observations():
    valid = torch.ones(300, 2, 1, 1, dtype=torch.bool)
    valid[:290, 1] = False
    assert clear_count(valid, torch.zeros(300, 2), 1).flatten().tolist() == [300, 10]
