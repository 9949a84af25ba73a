"""What a run will need, stated before it starts. If it exceeds memory, it is refused, naming a crop that would fit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from s2sr.errors import InputError
from s2sr.fit.module import Reconstruction
from s2sr.fit.stages import Phase

BASE = 0.7e9  # bytes of the interpreter and its libraries
KEPT = 1.3  # freed memory stays with the process (cli.keep_memory), fragmented
PICTURES = 4e6  # bytes of dashboard, pictures and page of a small scene
AROUND = 10.0  # seconds for dashboard, pictures and files of a small scene


def evaluations(phase: Phase, *, of: str = "") -> int:
    """The maximum number of evaluations of the objective; line-search optimizers take up to `max_iter` per step.

    of: count only blocks with the parameters of that name.
    """
    keywords = getattr(phase.stage.optimizer, "keywords", {})
    visits = [b for b in phase.visits if not of or of in phase.stage.blocks[b]]
    return len(visits) * keywords.get("max_iter", 1)


def _copies(phases: Sequence[Phase]) -> int:
    """Copies of the weights alive at the finest level: weights, gradient, intermediates, TV, and the optimizer's."""
    keywords = [getattr(phase.stage.optimizer, "keywords", {}) for phase in phases]
    return max(6 + (2 * k["history_size"] + 6 if "history_size" in k else 3) for k in keywords)


@dataclass(frozen=True)
class Budget:
    """Upper bounds on what a run needs; prints as one line."""

    grid: tuple[int, int]  # LR pixels
    seconds: float
    memory: float  # bytes, peak
    disk: float  # bytes, products and checkpoints

    @classmethod
    def of(cls, module: Reconstruction, product_scale: int, *, again: int = 0) -> Budget:
        """Estimated from the sizes, and from the measured time of one evaluation at the coarsest level.

        again: how many further times the weights alone are solved for.
        """
        field, phases = module.field, module.phases
        scales = [phase.scale for phase in phases]
        pixels, bands = math.prod(field.grid.shape), len(field.bands)
        splats = [4 * field.weights.numel() * (scale // field.scale) ** 2 for scale in scales]  # bytes
        frames = 4 * field.raw_shifts.shape[0] * bands * pixels
        product = 4 * bands * pixels * product_scale**2
        # of each stage and level: weights, and what is known of the samples
        kept = {(phase.name, phase.scale): size + 2.5 * frames for phase, size in zip(phases, splats, strict=True)}
        for _ in range(2):  # the first one also warms up
            start = time.perf_counter()
            loss = module.objective()
            loss.backward()
            loss.item()  # synchronises a device
            one = time.perf_counter() - start
        module.zero_grad(set_to_none=True)
        return cls(
            grid=field.grid.shape,
            seconds=AROUND
            + sum(
                one * (evaluations(phase) + again * evaluations(phase, of="weights")) * (phase.scale / field.scale) ** 2
                for phase in phases
            ),
            memory=BASE + KEPT * (_copies(phases) * max(splats) + 2 * frames * max(scales) + 10 * frames + 6 * product),
            # the product, its standard deviation, that of a date or the truth, and their pictures
            disk=PICTURES + 4 * product + sum(kept.values()) + max(kept.values()),  # a checkpoint is written beside
        )

    def __str__(self) -> str:
        minutes = f"{self.seconds / 60:.0f} min" if self.seconds > 120 else f"{self.seconds:.0f} s"
        megabytes = max(self.disk / 1e6, 1)
        return f"needs at most about {minutes}, {self.memory / 1e9:.1f} GB of memory and {megabytes:.0f} MB of disk"

    def check_memory(self, available: float) -> None:
        """Raises InputError, naming the crop that would fit, if the run needs more than the available bytes."""
        if self.memory > available:
            rows, columns = self.grid
            share = max(available - BASE, 0) / (self.memory - BASE)
            side = max(16, int(0.9 * math.sqrt(rows * columns * share)))
            raise InputError(
                f"a scene of {rows} x {columns} pixels needs about {self.memory / 1e9:.1f} GB of memory and "
                f"{available / 1e9:.1f} GB are free; choose crop={side} or lower c2f.levels"
            )
