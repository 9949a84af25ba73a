"""The aliases of every frequency, and the inverse of the blocks that couple them."""

from __future__ import annotations

import torch

from s2sr.fit.aliases import Aliases, inverted


def test_odd_and_even_frames_count_every_frequency():
    for shape in ((6, 6), (5, 6), (6, 5), (7, 5)):
        counts = Aliases.of(shape).counts
        assert float(counts.sum()) == shape[1]


def test_the_inverse_and_its_volume():
    torch.manual_seed(1)
    a = torch.randn(5, 4, 4, dtype=torch.complex128)
    b = a @ a.mH + torch.eye(4)
    inverse = b.permute(1, 2, 0).clone()
    torch.testing.assert_close(inverted(inverse), torch.linalg.slogdet(b)[1])
    torch.testing.assert_close(inverse.permute(2, 0, 1), torch.linalg.inv(b))


def test_the_aliases_are_the_frequency_and_the_next_ones():
    aliases = Aliases.of((6, 6))
    f = torch.tensor([0, 1, 2, -3, -2, -1]) / 6
    torch.testing.assert_close(
        aliases.rows.float().sort(0).values, torch.stack((f, f - (f >= 0) * 2 + 1)).sort(0).values
    )
