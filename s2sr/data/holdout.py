"""Samples withheld from a fit: some judge it; others, disjoint, may decide when it stops.

They are blocks of LR pixels, drawn separately for every frame, so that other frames show what one withholds. A block is
larger than the footprint's core, so that its surroundings do not reveal its middle. Whole dates may be withheld as
well: in a chessboard of blocks, one half determines their shift and radiometry, the other half judges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from s2sr.errors import InputError
from s2sr.model.scene import Scene


@dataclass(frozen=True)
class Holdout:
    """judged, validation: fractions of every frame; side: of the blocks, LR pixels; seed: of their layout.

    dates: number of whole dates to withhold, for good. refit: the stage that adds all other withheld samples once the
    fit is judged; none or false: they stay out.

    Raises InputError unless both fractions lie strictly between 0 and 1 and leave something to fit.
    """

    judged: float = 0.1
    validation: float = 0.1
    side: int = 7
    seed: int = 0
    dates: int = 0
    refit: Any = None

    def __post_init__(self) -> None:
        for name in ("judged", "validation"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < 1):
                raise InputError(f"holdout.{name}={value}: a fraction between 0 and 1; holdout=null withholds nothing")
        if self.judged + self.validation >= 1:
            raise InputError(
                f"holdout.judged={self.judged} and holdout.validation={self.validation} leave nothing to fit"
            )
        for name, least, what in (("side", 1, "blocks have a side of"), ("dates", 0, "whole dates, from")):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise InputError(f"holdout.{name}={getattr(self, name)}: {what} {least}")
        if self.refit is True:
            raise InputError(
                "holdout.refit=true: it is a stage, and there by default; holdout.refit=false leaves it out"
            )

    def split(self, scene: Scene, *, validation: bool) -> Scene:
        """Withhold the judging samples and, if requested, the validation samples.

        Nothing is withheld from a frame of which less than half of the usual fraction would remain.
        """
        generator = torch.Generator().manual_seed(self.seed)
        judged, held = torch.zeros(2, len(scene), 1, *scene.grid.shape, dtype=torch.bool)
        for t in range(len(scene)):
            judged[t, 0], held[t, 0] = self._blocks(scene.grid.shape, generator)
        held &= torch.tensor(validation)
        usual = 1 - self.judged - self.validation * validation
        left = (scene.valid & ~(judged | held)).sum((1, 2, 3)) / scene.valid.sum((1, 2, 3))
        withheld = scene.valid & (left > usual / 2)[:, None, None, None]
        return replace(
            scene,
            valid=scene.valid & ~(withheld & (judged | held)),
            judged=withheld & judged,
            validation=withheld & held,
        )

    def without_dates(self, scene: Scene) -> tuple[Scene, Scene | None]:
        """The scene without the judging dates, and these, if any: `valid` registers them, `judged` judges.

        One date from each of `dates` equal groups in time, among observations that are at least half clear. Raises
        InputError if there are too few of these, or fewer than 2 are left to fit.
        """
        if not self.dates:
            return scene, None
        if len(scene) - self.dates < 2:
            raise InputError(
                f"holdout.dates={self.dates} leaves {max(len(scene) - self.dates, 0)} of {len(scene)} observations "
                "to fit, at least 2 are needed"
            )
        order = sorted(range(len(scene)), key=lambda t: scene.observations[t].datetime)
        clear = [t for t in order if scene.observations[t].clear >= 0.5]
        if len(clear) < self.dates:
            raise InputError(f"holdout.dates={self.dates}: only {len(clear)} observations are clear by half or more")
        generator = torch.Generator().manual_seed(self.seed)
        drawn = (torch.arange(self.dates) + torch.rand(self.dates, generator=generator)) * len(clear) / self.dates
        chosen = sorted(clear[k] for k in drawn.long().tolist())
        kept = [t for t in range(len(scene)) if t not in chosen]
        dates = scene.select(chosen, "used for the fit")
        rows, columns = (torch.arange(n) // self.side for n in scene.grid.shape)
        places = (rows[:, None] + columns) % 2 == 0
        dates = replace(dates, valid=dates.valid & places, judged=dates.valid & ~places)
        return scene.select(kept, "withheld to judge the fit (holdout.dates)"), dates

    def _blocks(self, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two disjoint [y, x] bool, unions of cells of a grid with a random origin."""
        origin = torch.randint(self.side, (2,), generator=generator).tolist()
        rows, columns = ((torch.arange(n) + o) // self.side for n, o in zip(shape, origin, strict=True))
        cells = (int(rows[-1]) + 1, int(columns[-1]) + 1)
        count = cells[0] * cells[1]
        rank = torch.randperm(count, generator=generator).view(cells)[rows[:, None], columns]
        first, second = (max(1, round(part * count)) for part in (self.judged, self.validation))
        return rank < first, (rank >= first) & (rank < first + second)


def halves(scene: Scene) -> tuple[Scene, Scene]:
    """The scene with only the samples of every other date valid, and with only those of the rest; all dates stay
    listed.

    Raises InputError if either half would have fewer than 2 dates.
    """
    if len(scene) < 4:
        raise InputError(f"report.frc=true splits the dates in two halves: {len(scene)} are too few, it needs 4")
    order = sorted(range(len(scene)), key=lambda t: (scene.observations[t].datetime, t))
    first = torch.zeros(len(scene), 1, 1, 1, dtype=torch.bool)
    first[order[::2]] = True
    one, other = (
        replace(scene, **{name: getattr(scene, name) & dates for name in ("valid", "judged", "validation")})
        for dates in (first, ~first)
    )
    return one, other
