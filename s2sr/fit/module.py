"""The LightningModule: one fit runs all phases of a strategy, one phase per epoch.

The lattice grows between levels and the optimizer changes with the block, so both are exchanged under way. Everything
that a resumed run needs besides the field (which phase comes next, the noise, the evaluation count and, within a level,
the optimizers, and how the fit was judged) is in the checkpoint; across levels optimizers are not kept, nor is an LBFGS
history worth it.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from s2sr.errors import InputError
from s2sr.fit.losses import Misfit, Rho, mean_gradient, total_variation
from s2sr.fit.noise import frame_to_frame_std, robust_std, usual
from s2sr.fit.stages import Objective, Phase, Stage, plan
from s2sr.model.field import SplatField
from s2sr.model.sampling import Sampling
from s2sr.model.scene import Scene
from s2sr.model.spectrum import Spectrum

if TYPE_CHECKING:
    from s2sr.fit.forecast import Forecast

log = logging.getLogger(__name__)

LITTLE = 1e-4  # the change between dates that is assumed before any is seen, of the scene's power
Judge = Callable[[Scene, SplatField, Tensor], dict[str, float]]  # scene, fit and noise -> scores on what was withheld


class Steps:
    """The block of each optimizer step of a phase. The whole scene is in the module: there is nothing else to load."""

    def __init__(self, visits: Sequence[int]) -> None:
        self.visits = visits

    def __len__(self) -> int:
        return len(self.visits)

    def __iter__(self) -> Iterator[int]:
        return iter(self.visits)


class Reconstruction(lightning.LightningModule):
    """Fits `field` to `scene` as the `stages` say over the ladder `levels`.

    noise: standard deviation in reflectance, one or [t, b]; None: estimated, again from the residuals at every level.
    spectrum: of the scene, where it is known; else a first guess, for stages to fit.
    misfit: z [t, b, y, x] (residual over noise) -> nats. tv_delta: where Huber-TV turns linear, in mean gradients.
    judge: asked once, at the end or before the withheld samples are revealed to the fit; `judgement` is its answer.
    """

    frames: Tensor
    valid: Tensor  # [t, b, y, x] bool: what is fitted
    validation: Tensor
    trusted: Tensor  # [t, b, y, x] bool, of the valid samples those that agree with the others
    gradients: Tensor  # [b] reflectance per LR pixel
    correlation: Tensor  # [b, b] of the bands' detail; that of bands that have nothing in common until a stage finds it
    excess: Tensor  # [t, b, y, x] variance of an observation there, of that of its noise; 1 until a stage finds more
    forecast: Forecast | None = None  # where one was made before the fit

    def __init__(
        self,
        scene: Scene,
        field: SplatField,
        *,
        stages: Mapping[str, Stage],
        levels: Sequence[int],
        misfit: Rho,
        tv_delta: float,
        noise: float | Tensor | None = None,
        spectrum: Spectrum | None = None,
        judge: Judge | None = None,
    ) -> None:
        super().__init__()
        self.scene = scene
        self.field = field
        self.misfit = misfit
        self.tv_delta = tv_delta
        self.judge = judge
        self.judgement: dict[str, float] = {}
        self.scores: dict[str, float] = {}  # of the image at the end of the last level, where a dashboard tells them
        self.evals = 0  # evaluations of objective and gradient so far
        self.tv = 0.0  # its weight now
        self.filled: dict[Sampling, Tensor] = {}  # see evidence.Fit
        self.parts: dict[str, Tensor] = {}  # of the objective, at its last evaluation
        self.optimizers_of_phase: dict[int, Optimizer] = {}  # by block
        self.register_buffer("frames", scene.frames, persistent=False)
        self.register_buffer("valid", scene.valid & scene.measured, persistent=False)
        self.register_buffer("validation", scene.validation & scene.measured, persistent=False)
        self.register_buffer("excess", torch.ones_like(scene.frames))
        self.register_buffer("correlation", torch.eye(len(field.bands)))
        self._prepare(scene.temporal_mean(), noise, spectrum)
        self.fits_noise = noise is None
        self.fits_spectrum = spectrum is None
        free = self.blocks()
        self.phases = plan({name: stage.without_fixed(free) for name, stage in stages.items()}, levels)
        learns_noise = any(phase.stage.fits("noise") for phase in self.phases)
        self.estimates_noise = self.fits_noise and not learns_noise
        self._objective: Objective = self.misfit_and_tv
        self._resumed: dict[int, Any] = {}
        self._round_loss = float("inf")
        self._best: tuple[float, list[Tensor]] = (float("inf"), [])  # validation misfit of the level, and where it was
        self._done = False  # the level has converged: its remaining parts are passed over
        if any(stage.stop_on for stage in stages.values()) and not scene.validation.any():
            raise InputError(
                "a stage stops on validation, but no samples are withheld for that: see holdout.validation"
            )

    @torch.no_grad()
    def _prepare(self, mean: Tensor, noise: float | Tensor | None, spectrum: Spectrum | None) -> None:
        """First guesses from the temporal mean of the samples that are like those of other dates."""
        field, valid = self.field, usual(self.frames, self.valid)
        self.register_buffer("trusted", valid.clone())
        mean = torch.where(valid.any(0), (self.frames * valid).sum(0) / valid.sum(0).clamp(min=1), mean)
        field.radiometry.initialise(self.frames, valid, mean)
        gain, offset = field.radiometry.gain, field.radiometry.offset
        level = (self.frames - offset[..., None, None]) / gain[..., None, None]
        weight = valid / valid.sum(0).clamp(min=1)
        mean = torch.where(valid.any(0), (level * weight).sum(0), mean)
        field.initialise(mean)
        self.register_buffer("gradients", mean_gradient(mean), persistent=False)
        std = (
            frame_to_frame_std(self.frames, valid, mean, shifts=field.shifts, gain=gain, offset=offset)
            if noise is None
            else torch.as_tensor(noise).to(gain).expand_as(gain)
        )
        self.log_noise = nn.Parameter(std.log())
        self.log_change = nn.Parameter(torch.full_like(std, LITTLE if noise is None else 1e-12).log())
        self.spectrum = spectrum or Spectrum(mean.var((-2, -1)))

    @cached_property
    def observations(self) -> str:
        """What tells the observations from others: a hash of their samples."""
        return hashlib.sha256(self.scene.frames.cpu().numpy().tobytes()).hexdigest()

    @property
    def noise(self) -> Tensor:
        """[t, b] standard deviation, reflectance."""
        return self.log_noise.exp()

    @property
    def change(self) -> Tensor:
        """[t, b] power of what differs from the scene in one observation alone, of the scene's own."""
        return self.log_change.exp()

    def blocks(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that are fitted, by the name that stages call them: the field's, the noise and the scene's."""
        noise = [self.log_noise, self.log_change] if self.fits_noise else []
        spectrum = list(self.spectrum.parameters()) if self.fits_spectrum else []
        return {**self.field.blocks(), "noise": noise, "spectrum": spectrum}

    @property
    def phase(self) -> Phase:
        """The one that runs, or the last."""
        return self.phases[min(self.trainer.current_epoch, len(self.phases) - 1)]

    def residual(self) -> Tensor:
        """[t, b, y, x] predicted minus observed reflectance, 0 where the sample is not valid."""
        return self.residual_of(self.valid)

    def residual_of(self, samples: Tensor) -> Tensor:
        """The residual of those samples, 0 elsewhere; samples: [t, b, y, x] bool."""
        return self.field().sub_(self.frames).mul_(samples)

    def reveal(self) -> None:
        """From here on the withheld samples enter the fit, which is judged before."""
        self._be_judged()
        self._show(self.scene.whole())

    def _be_judged(self) -> None:
        if self.judge and not self.judgement:
            self.judgement = self.judge(self.scene, self.field, self.noise.detach())

    def _show(self, scene: Scene) -> None:
        self.scene = scene
        device = self.valid.device
        self.valid = (scene.valid & scene.measured).to(device)
        self.validation = (scene.validation & scene.measured).to(device)

    def fidelity(self, *, rho: Rho | None = None, samples: Tensor | None = None) -> Tensor:
        """The misfit of what is fitted, nats; default: by the module's own, on the valid samples."""
        field, valid = self.field, self.valid if samples is None else samples
        radiometry = (field.radiometry.gain, field.radiometry.offset, field.changed)
        return self._misfit(field.observed(field.shifts), *radiometry, valid, rho or self.misfit)

    def misfit_beside(self, known: Tensor, seen: Tensor) -> Tensor:
        """The same, were `seen` [t, b, y, x], before gains, added to known frames."""
        gain = self.field.radiometry.gain
        return self._misfit(seen, gain, torch.zeros_like(gain), known, self.valid, self.misfit)

    def _misfit(self, seen: Tensor, gain: Tensor, offset: Tensor, beside: Tensor, valid: Tensor, rho: Rho) -> Tensor:
        return Misfit.apply(seen, gain, offset, beside, self.frames, valid, self.noise.detach(), self.excess, rho)

    def misfit_and_tv(self) -> dict[str, Tensor]:
        """The misfit, and the TV term at its present weight; nats."""
        parts = {"misfit": self.fidelity()}
        if self.tv:
            field = self.field
            tv = total_variation(field.weights, field.scale, gradients=self.gradients, delta=self.tv_delta)
            parts["tv"] = self.tv * tv
        return parts

    def objective(self) -> Tensor:
        """What the present stage minimises, nats."""
        parts = self._objective()
        self.parts = {name: part.detach() for name, part in parts.items()}
        return torch.stack(list(parts.values())).sum()

    def train_dataloader(self) -> Steps:
        return Steps(self.phase.visits)

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD([self.field.weights])  # exchanged before the first step

    def on_train_epoch_start(self) -> None:
        phase = self.phase
        if phase.starts_level:
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
        self.tv = phase.stage.tv(phase.progress(0))
        self._begin_round()
        self._round_loss = float("inf")

    def _begin_round(self) -> None:
        self._objective = self.phase.stage.objective(self)
        if self.phase.stage.metric:
            self._forget_optimizers()  # the metric is to be made anew, too

    def on_train_batch_start(self, block: int, step: int) -> int | None:
        phase = self.phase
        if step and (phase.first + step) % phase.stage.steps_of_round == 0:
            self._begin_round()
        self.tv = phase.stage.tv(phase.progress(step))
        if self._done:
            return -1  # Lightning's way to end an epoch
        optimizer = self._optimizer(phase.stage, block)
        if optimizer is None:
            with torch.no_grad():
                self.training_step(block, step)  # tells where the start has led
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
        """The block's own, kept until the level ends: its curvature stays useful while other blocks take their turn."""
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
        stage = self.phase.stage
        if (self.phase.first + step + 1) % stage.steps_of_round == 0:
            self._done = self._converged(stage) or bool(stage.stop_on and not self._validated())

    def on_train_epoch_end(self) -> None:
        if self.trainer.current_epoch == len(self.phases) - 1:
            self._be_judged()

    def _converged(self, stage: Stage) -> bool:
        loss = float(sum(self.parts.values()))
        previous, self._round_loss = self._round_loss, loss
        return previous - loss < stage.tolerance * abs(previous) if stage.tolerance else False

    @torch.no_grad()
    def _validated(self) -> bool:
        """Whether the validation samples are predicted better than ever at this level; else back to where they were."""
        error = float(self.misfit(self.residual_of(self.validation) / self.noise[..., None, None]))
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
        """One step; where the objective is not finite, back to the last point where it was, with fresh curvature."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        safe = getattr(optimizer, "stays_finite", False)
        before = [] if safe else [p.detach().clone() for p in parameters]
        try:
            super().optimizer_step(epoch, step, optimizer, closure)
            finite = safe or all(math.isfinite(x) for p in parameters for x in p.detach().aminmax())
        except (IndexError, RuntimeError) as error:  # strong_wolfe on a NaN or unbounded objective, or where it is flat
            if isinstance(error, RuntimeError) and "overflow" not in str(error):
                raise
            finite = False
        if not finite:
            with torch.no_grad():
                for p, value in zip(parameters, before, strict=True):
                    p.copy_(value)
            self._forget_optimizers()
            log.warning("%s x%d: a step was not finite and was taken back", self.phase.name, self.phase.scale)

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
        self.field.refine(state["scale"])
        self.evals = state["evals"]
        self._done = state["done"]
        self._best = state["best"]
        self._resumed = state["optimizers"]
        filled = zip(self.field.samplings, state["filled"], strict=True)
        self.filled = {sampling: frames for sampling, frames in filled if frames is not None}
        self.judgement = state["judgement"]
        if not state["withholds"]:
            self._show(self.scene.whole())
