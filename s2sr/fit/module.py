"""The run, as a LightningModule: one fit solves a Problem by all phases of a strategy, one phase per epoch.

A phase is a sequence of steps, each on one block of parameters; after every round of all blocks the objective may be
rebuilt and the level may end. The lattice grows between levels and every block has its own optimizer, so both are
replaced during the fit. The checkpoint holds all that a resumed run needs besides the problem's parameters: the next
phase, the evaluation count, the judgement and, within a level, the optimizers. Across levels optimizers are not kept:
an LBFGS history is not worth it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor
from torch.optim import Optimizer

from s2sr.errors import InputError
from s2sr.fit.noise import robust_std
from s2sr.fit.problem import Problem
from s2sr.fit.stages import Objective, Phase, Stage, plan
from s2sr.model.field import SplatField
from s2sr.model.scene import Scene

if TYPE_CHECKING:
    from s2sr.fit.forecast import Forecast

log = logging.getLogger(__name__)


class Steps:
    """The block of each optimizer step of a phase; the scene is in the module.

    Not a list: Lightning would take its elements for loaders.
    """

    def __init__(self, visits: Sequence[int]) -> None:
        self.visits = visits

    def __len__(self) -> int:
        return len(self.visits)

    def __iter__(self) -> Iterator[int]:
        return iter(self.visits)


class Reconstruction(Problem, lightning.LightningModule):
    """A Problem (which takes `options`) and its solution by `stages` over a ladder of `levels`.

    Unknown noise is re-estimated from the residuals at every level, unless a stage fits it. Raises InputError for
    stages that have nothing to fit, return to a coarser level, or stop on validation if nothing is withheld for it.
    """

    forecast: Forecast | None = None  # set if one was made before the fit

    def __init__(
        self, scene: Scene, field: SplatField, *, stages: Mapping[str, Stage], levels: Sequence[int], **options: Any
    ) -> None:
        super().__init__(scene, field, **options)
        free = self.blocks()
        self.phases = plan({name: stage.without_fixed(free) for name, stage in stages.items()}, levels)
        learns_noise = any(phase.stage.fits("noise") for phase in self.phases)
        self.estimates_noise = self.fits_noise and not learns_noise
        self.scores: dict[str, float] = {}  # of the last level's image, if a dashboard computed them
        self.parts: dict[str, Tensor] = {}  # of the objective, at its last evaluation
        self.optimizers_of_phase: dict[int, Optimizer] = {}  # by block
        self._objective: Objective = self.misfit_and_tv
        self._resumed: dict[int, Any] = {}
        self._round_loss = float("inf")
        self._best: tuple[float, list[Tensor]] = (float("inf"), [])  # lowest validation misfit of the level, and where
        self._done = False  # the level has converged: its remaining parts are skipped
        if any(stage.stop_on for stage in stages.values()) and not scene.validation.any():
            raise InputError(
                "a stage stops on validation, but no samples are withheld for that: see holdout.validation"
            )

    @property
    def phase(self) -> Phase:
        """The current phase, or the last."""
        return self.phases[min(self.trainer.current_epoch, len(self.phases) - 1)]

    def objective(self) -> Tensor:
        """What the current stage minimises, nats."""
        parts = self._objective()
        self.parts = {name: part.detach() for name, part in parts.items()}
        return torch.stack(list(parts.values())).sum()

    def train_dataloader(self) -> Steps:
        return Steps(self.phase.visits)

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD([self.field.weights])  # replaced before the first step

    def on_train_epoch_start(self) -> None:
        """A phase begins, and perhaps a level."""
        phase = self.phase
        if phase.starts_level:
            self._begin_level(phase)
        self.tv = phase.stage.tv(phase.progress(0))
        self._begin_round()
        self._round_loss = float("inf")

    def _begin_level(self, phase: Phase) -> None:
        self._done = False
        self._forget_optimizers()
        if self.estimates_noise and self.trainer.current_epoch:
            with torch.no_grad():
                self.log_noise.copy_(robust_std(self.residual(), self.valid).log())
        self.field.refine(phase.scale)
        if phase.stage.start:
            phase.stage.start(self)
        self._best = (float("inf"), [])
        if phase.stage.stop_on:
            self._validated()

    def _begin_round(self) -> None:
        self._objective = self.phase.stage.objective(self)
        if self.phase.stage.metric:
            self._forget_optimizers()  # so that the metric is rebuilt, too

    def on_train_batch_start(self, block: int, step: int) -> int | None:
        """Set the block's optimizer and rates, and gradients for nothing else. Returns -1 to end the epoch."""
        phase = self.phase
        if step and (phase.first + step) % phase.stage.steps_of_round == 0:
            self._begin_round()
        self.tv = phase.stage.tv(phase.progress(step))
        if self._done:
            return -1  # ends the epoch
        optimizer = self._optimizer(phase.stage, block)
        if optimizer is None:
            with torch.no_grad():
                self.training_step(block, step)  # evaluates the result of the start
            return -1
        if phase.stage.lr:
            for group in optimizer.param_groups:
                group["lr"] = phase.stage.lr(phase.progress(step))
        free = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in free)
        self.trainer.optimizers = [optimizer]
        return None

    def _optimizer(self, stage: Stage, block: int) -> Optimizer | None:
        """The block's optimizer, kept until the level ends: its curvature stays useful between its turns."""
        if stage.optimizer and block not in self.optimizers_of_phase:
            blocks = self.blocks()
            parameters = [p for name in stage.blocks[block] for p in blocks[name]]
            metric = {"metric": stage.metric(self)} if stage.metric else {}
            self.optimizers_of_phase[block] = stage.optimizer(parameters, **metric)
            if block in self._resumed:
                self.optimizers_of_phase[block].load_state_dict(self._resumed.pop(block))
        return self.optimizers_of_phase.get(block)

    def _forget_optimizers(self) -> None:
        self.optimizers_of_phase.clear()
        self._resumed.clear()  # of blocks that had no turn since the run was resumed

    def on_train_batch_end(self, outputs: Any, block: int, step: int) -> None:
        """After a round, check whether the level is done."""
        stage = self.phase.stage
        if (self.phase.first + step + 1) % stage.steps_of_round == 0:
            self._done = self._converged(stage) or bool(stage.stop_on and not self._validated())

    def on_train_epoch_end(self) -> None:
        if self.trainer.current_epoch == len(self.phases) - 1:
            self.be_judged()

    def _converged(self, stage: Stage) -> bool:
        """Whether this round has gained less than the stage's tolerance."""
        loss = float(sum(self.parts.values()))
        previous, self._round_loss = self._round_loss, loss
        return previous - loss < stage.tolerance * abs(previous) if stage.tolerance else False

    @torch.no_grad()
    def _validated(self) -> bool:
        """Whether validation samples are predicted better than before at this level; if not, restores the best."""
        error = float(self.misfit(self.residual(self.validation) / self.noise[..., None, None]))
        if error < self._best[0]:
            self._best = (error, [p.detach().clone() for p in self.parameters()])
            return True
        for p, value in zip(self.parameters(), self._best[1], strict=True):
            p.copy_(value)
        return False

    def training_step(self, block: int, step: int) -> Tensor:
        self.evals += 1
        return self.objective()

    def optimizer_step(self, epoch: int, step: int, optimizer: Any, closure: Any = None) -> None:
        """One step; if it ends at a non-finite point it is undone, and the optimizers start afresh."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        safe = getattr(optimizer, "stays_finite", False)
        before = [] if safe else [p.detach().clone() for p in parameters]
        try:
            super().optimizer_step(epoch, step, optimizer, closure)
            finite = safe or math.isfinite(sum(x.abs() for p in parameters for x in p.detach().aminmax()))
        except (IndexError, RuntimeError) as error:  # strong_wolfe on a NaN or unbounded objective, or where it is flat
            if safe or (isinstance(error, RuntimeError) and "overflow" not in str(error)):
                raise
            finite = False
        if not finite:
            with torch.no_grad():
                for p, value in zip(parameters, before, strict=True):
                    p.copy_(value)
            self._forget_optimizers()
            log.warning("%s x%d: a step was not finite and was undone", self.phase.name, self.phase.scale)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        within = not self.phase.ends_level
        states = {b: o.state_dict() for b, o in self.optimizers_of_phase.items()} if within else {}
        checkpoint["optimizer_states"] = []
        checkpoint["reconstruction"] = {
            "scale": self.field.scale,
            "evals": self.evals,
            "done": self._done,
            "best": self._best if within else (float("inf"), []),
            "optimizers": states,
            "filled": [self.filled.get(sampling) for sampling in self.field.samplings],
            "judgement": self.judgement,
            "observations": self.observations,
            "withholds": bool((self.scene.judged | self.scene.validation).any()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["reconstruction"]
        if state["observations"] != self.observations:
            raise InputError("the observations are no longer those with which the run was started: start it anew")
        if checkpoint["state_dict"].keys() != self.state_dict().keys():
            raise InputError("the run was started by another version of s2sr: go on with that one, or start it anew")
        self.field.refine(state["scale"])
        self.evals = state["evals"]
        self._done = state["done"]
        self._best = state["best"]
        self._resumed = state["optimizers"]
        filled = zip(self.field.samplings, state["filled"], strict=True)
        self.filled = {sampling: frames for sampling, frames in filled if frames is not None}
        self.judgement = state["judgement"]
        if not state["withholds"]:
            self.use_samples_of(self.scene.whole())
