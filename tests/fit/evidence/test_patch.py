"""The part of the frames that the evidence is computed of."""

from __future__ import annotations

import torch

from s2sr.fit.evidence.patch import clearest


def test_the_clearest_part_of_a_large_frame_is_taken():
    valid = torch.ones(2, 1, 70, 40, dtype=torch.bool)
    assert [valid[clearest(valid, n)].shape[2:] for n in (128, 40, 30)] == [(70, 40), (40, 40), (30, 30)]
    valid[:, :, :40] = False
    assert clearest(valid, 30)[2:] == (slice(35, 65), slice(5, 35))
