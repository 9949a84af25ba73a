"""Lightning, as a run uses it."""

from __future__ import annotations

import logging

import pytest

from s2sr.training import quiet


@quiet()
def a_fit_that_fails(logger: logging.Logger, before: int) -> None:
    assert logger.level != before
    raise ValueError("failed")


def test_lightning_is_heard_again_after_a_fit_that_failed():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with pytest.raises(ValueError, match="failed"):
        a_fit_that_fails(logger, before)
    assert logger.level == before
