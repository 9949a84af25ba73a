"""Samples that a fit never sees: some judge it, others, disjoint, may choose when it stops.

Blocks of LR pixels, drawn for every frame anew, so that what one frame does not show the others do. A block is larger
than the footprint's core: its middle is not given away by the samples around it. And whole dates, of which one half of
the blocks, as on a chessboard, tells where they lie and how bright they are, and the other half judges.
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

    dates: how many whole dates judge; they stay out of the product. refit: the stage that lets all other samples enter
    the fit once it is judged; none or false: they stay out.

    Raises InputError unless both fractions lie in 0 ... 1, exclusive, and leave something to fit.
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
        """The scene without the samples that judge, and if asked for those that validate.

        A frame that is masked so much that less than half of the usual share would be left is not touched.
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
        """The scene without the dates that judge, and these, if any: `valid` places them, `judged` is the other half.

        One from each of `dates` equal stretches of time, of the observations that are clear by half at least.
        Raises InputError if there are not so many, or less than 2 are left to fit.
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
        at = (torch.arange(self.dates) + torch.rand(self.dates, generator=generator)) * len(clear) / self.dates
        chosen = sorted(clear[k] for k in at.long().tolist())
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
    """The scene with the samples of every other date only, and with those of the others; all dates stay listed.

    Raises InputError where either would have less than 2 dates.
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
