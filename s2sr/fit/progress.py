"""Progress for the user: one log line per level and, on a terminal, a bar."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from s2sr.fit.budget import evaluations
from s2sr.fit.stages import Phase

log = logging.getLogger(__name__)


def work(phase: Phase) -> float:
    """Relative cost of a phase: evaluations times splats per LR pixel."""
    return evaluations(phase) * phase.scale**2


class LevelLog(Callback):
    """Logs every finished level: stage, scale, objective, evaluations, seconds."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._start, self._evals = time.perf_counter(), module.evals  # a run may resume within a level

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if module.phase.starts_level:
            self._start, self._evals = time.perf_counter(), module.evals

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        phase = module.phase
        if phase.ends_level and module.parts:
            seconds = time.perf_counter() - self._start
            parts = ", ".join(f"{name} {float(value):.4g}" for name, value in module.parts.items())
            log.info(
                "%s x%d: %s; %d evaluations, %.1f s",
                phase.name,
                phase.scale,
                parts,
                module.evals - self._evals,
                seconds,
            )


class ProgressBar(Callback):
    """Stage, level, loss, evaluations and time left; shown on terminals only."""

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[state]}"),
            TimeRemainingColumn(),
            refresh_per_second=10,
            transient=True,
            disable=not sys.stdout.isatty(),
        )

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.task = self.bar.add_task("", total=sum(map(work, module.phases)), state="")
        self.bar.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, step: int) -> None:
        if self.bar.disable:
            return
        index = trainer.current_epoch
        done = sum(map(work, module.phases[:index])) + work(module.phase) * (step + 1) / len(module.phase.visits)
        self.bar.update(
            self.task,
            description=f"{module.phase.name} x{module.phase.scale}",
            completed=done,
            state=f"loss {float(sum(module.parts.values())):.4g}  {module.evals} evals",
        )

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self.bar.stop()
