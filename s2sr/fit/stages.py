"""A strategy as data: named stages, laid out as the phases of one fit.

A stage says which parameter blocks are optimised, by which optimizer, for how many steps, at which levels of the
coarse-to-fine ladder and with which TV weight. Any torch optimizer works: each takes `step(closure)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim import Optimizer

from s2sr.errors import InputError
from s2sr.fit.schedules import Constant, Schedule

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem
    from s2sr.fit.quasi_newton import Metric

BLOCKS = ("weights", "shifts", "radiometry", "psf", "noise", "spectrum")
Objective = Callable[[], Mapping[str, Tensor]]  # -> its terms at the current parameters, nats
Levels = Callable[[Sequence[int]], Sequence[int]]
LEVELS: dict[str, Levels] = {  # which levels of the ladder a stage runs at
    "all": lambda ladder: ladder,
    "coarsest": lambda ladder: ladder[:1],
    "seen": lambda ladder: [s for s in ladder if s > 1][:1] or ladder,  # frames show no more than two splats
    "finer": lambda ladder: ladder[1:] or ladder,
    "finest": lambda ladder: ladder[-1:],
}


@dataclass(frozen=True)
class Stage:
    """blocks: [[weights], [shifts]] alternates, [[weights, shifts]] is joint; fixed parameters are skipped.

    A level takes `rounds` x blocks x `steps` optimizer steps. It ends early when a round lowers the objective by less
    than the fraction `tolerance`. With stop_on: validation it ends when a round increases the misfit of the
    validation samples, and returns to where that was smallest, which may be the start. `tv` is the TV weight and `lr`
    (default: the optimizer's own) the learning rate, as schedules. A checkpoint is written every `part` steps and at
    the end of a level.

    start: called when a level begins, to set parameters; without an optimizer it is the whole stage. objective: called
    when a round begins, returns what is minimised; default: misfit and TV. metric: called likewise, returns an
    approximate inverse of the curvature, for optimizers that take one.
    """

    blocks: Sequence[Sequence[str]]
    optimizer: Callable[..., Optimizer] | None = None  # parameters -> optimizer
    steps: int = 1
    tv: Schedule = Constant(0.0)  # noqa: RUF009
    levels: str = "all"  # one of LEVELS
    rounds: int = 1
    tolerance: float = 0.0
    stop_on: str | None = None
    lr: Schedule | None = None
    part: int = 250
    start: Callable[[Problem], None] | None = None
    objective: Callable[[Problem], Objective] = attrgetter("misfit_and_tv")
    metric: Callable[[Problem], Metric] | None = None

    def __post_init__(self) -> None:
        if any(not block or isinstance(block, str) for block in self.blocks):
            raise InputError(f"a stage's blocks are {self.blocks}; write lists of lists, such as [[weights],[shifts]]")
        unknown = {name for block in self.blocks for name in block} - set(BLOCKS)
        if unknown:
            raise InputError(f"a stage's blocks name {', '.join(sorted(unknown))}; choose from {', '.join(BLOCKS)}")
        if not (self.optimizer or self.start):
            raise InputError("a stage needs an optimizer, or a start that does it all")
        if self.levels not in LEVELS:
            raise InputError(f"a stage's levels are {self.levels!r}; choose from {', '.join(LEVELS)}")
        if min(self.steps, self.rounds, self.part) < 1:
            counts = f"{self.steps}, {self.rounds}, {self.part}"
            raise InputError(
                f"a stage needs steps, rounds and part of at least 1, not {counts}; ~strategy.NAME leaves a stage out"
            )
        if self.stop_on not in (None, "validation"):
            raise InputError(f"a stage's stop_on is {self.stop_on!r}; choose validation, or null")
        if not all(self.tv(progress) >= 0 for progress in (0.0, 0.5, 1.0)):
            raise InputError("a stage's tv is a weight and must not be negative")

    def without_fixed(self, free: Mapping[str, Sequence[object]]) -> Stage:
        """The stage without blocks whose parameters are all fixed; `free` lists the free parameters by name."""
        return replace(self, blocks=[block for block in self.blocks if any(free[name] for name in block)])

    def fits(self, name: str) -> bool:
        """Whether any block contains the parameters of that name."""
        return any(name in block for block in self.blocks)

    @cached_property
    def visits(self) -> list[int]:
        """The block of every step of a level."""
        return [b for _ in range(self.rounds) for b in range(len(self.blocks)) for _ in range(self.steps)]

    @property
    def steps_of_round(self) -> int:
        return len(self.blocks) * self.steps


@dataclass(frozen=True)
class Phase:
    """A part of one stage at one level, between two checkpoints (for Lightning, an epoch)."""

    name: str  # of the stage
    stage: Stage
    scale: int
    first: int  # of its steps within stage and level
    last: int  # exclusive

    @property
    def visits(self) -> list[int]:
        return self.stage.visits[self.first : self.last]

    @property
    def starts_level(self) -> bool:
        return self.first == 0

    @property
    def ends_level(self) -> bool:
        return self.last == len(self.stage.visits)

    def progress(self, step: int) -> float:
        """How far the stage has got at this level, 0 to 1, at a step of this phase."""
        return (self.first + step) / max(len(self.stage.visits) - 1, 1)


def check_levels(levels: object) -> list[int]:
    """The ladder; raises InputError unless its levels are positive integers, each of which divides the next."""
    if not isinstance(levels, list) or not levels or any(type(s) is not int or s < 1 for s in levels):
        raise InputError(f"c2f.levels={levels}: levels are positive integers, for example [2,4,8]")
    for coarse, fine in pairwise(levels):
        if fine % coarse or fine == coarse:
            raise InputError(f"c2f.levels={levels}: {coarse} does not divide {fine}, as each level must the next")
    return levels


def plan(stages: Mapping[str, Stage], levels: Sequence[int]) -> list[Phase]:
    """The phases in order: stage by stage, each from its coarsest level to its finest, in parts.

    Raises InputError if no stage has anything to fit, or if one returns to a coarser level than the one before.
    """
    if not any(stage.visits for stage in stages.values()):
        raise InputError("the strategy has no stages that fit; choose strategy=lbfgs_adam or another of conf/strategy")
    phases: list[Phase] = []
    for name, stage in stages.items():
        for scale in LEVELS[stage.levels](levels):
            if phases and scale < phases[-1].scale:
                raise InputError(f"stage {name} goes back from level {phases[-1].scale} to {scale}; use levels: finest")
            total = len(stage.visits)
            phases += [Phase(name, stage, scale, k, min(k + stage.part, total)) for k in range(0, total, stage.part)]
    return phases
