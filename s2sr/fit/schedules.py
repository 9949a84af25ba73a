"""Numbers that vary over a stage: functions of its `progress` at a level, from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Anneal:
    """Half a cosine from `start` to `stop`, reached at the fraction `until` of the stage and constant from there."""

    start: float
    stop: float = 0.0
    until: float = 1.0

    def __call__(self, progress: float) -> float:
        if progress >= self.until:
            return self.stop
        return self.stop + (self.start - self.stop) * (1 + math.cos(math.pi * progress / self.until)) / 2


@dataclass(frozen=True)
class Ladder:
    """Each of `values` for an equal share of the stage. With `stop_on: validation` and a round each, the best wins."""

    values: Sequence[float]

    def __call__(self, progress: float) -> float:
        return self.values[min(int(progress * len(self.values)), len(self.values) - 1)]
