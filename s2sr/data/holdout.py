"""Samples that a fit never sees: some judge it, others, disjoint, may choose when it stops.

Blocks of LR pixels, drawn for every frame anew, so that what one frame does not show the others do. A block is larger
than the footprint's core: its middle is not given away by the samples around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from s2sr.errors import InputError
from s2sr.model.scene import Scene


@dataclass(frozen=True)
class Holdout:
    """judged, validation: fractions of every frame; side: of the blocks, LR pixels; seed: of their layout.

    Raises InputError unless both fractions lie in 0 ... 1, exclusive, and leave something to fit.
    """

    judged: float = 0.1
    validation: float = 0.1
    side: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("judged", "validation"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < 1):
                raise InputError(f"holdout.{name}={value}: a fraction between 0 and 1; holdout=null withholds nothing")
        if self.judged + self.validation >= 1:
            raise InputError(
                f"holdout.judged={self.judged} and holdout.validation={self.validation} leave nothing to fit"
            )
        if type(self.side) is not int or self.side < 1:
            raise InputError(f"holdout.side={self.side}: blocks have a side of at least 1 pixel")

    def split(self, scene: Scene, *, validation: bool) -> Scene:
        """The scene without the samples that judge, and if asked for those that validate."""
        generator = torch.Generator().manual_seed(self.seed)
        judged, held = torch.zeros(2, len(scene), 1, *scene.grid.shape, dtype=torch.bool)
        for t in range(len(scene)):
            judged[t, 0], held[t, 0] = self._blocks(scene.grid.shape, generator)
        held &= torch.tensor(validation)
        return replace(
            scene,
            valid=scene.valid & ~(judged | held),
            judged=scene.valid & judged,
            validation=scene.valid & held,
        )

    def _blocks(self, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two disjoint [y, x] bool, unions of cells of a grid with a random origin."""
        origin = torch.randint(self.side, (2,), generator=generator).tolist()
        rows, columns = ((torch.arange(n) + o) // self.side for n, o in zip(shape, origin, strict=True))
        cells = (int(rows[-1]) + 1, int(columns[-1]) + 1)
        count = cells[0] * cells[1]
        rank = torch.randperm(count, generator=generator).view(cells)[rows[:, None], columns]
        first, second = (max(1, round(part * count)) for part in (self.judged, self.validation))
        return rank < first, (rank >= first) & (rank < first + second)
