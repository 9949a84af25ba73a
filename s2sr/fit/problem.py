"""What is fitted to what: a scene's samples, the field that predicts them, and their unknown noise and spectrum.

A stage's objective, start and metric are functions of a Problem and know nothing of the run around it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from s2sr.fit.losses import Misfit, Rho, mean_gradient, total_variation
from s2sr.fit.noise import frame_to_frame_std, usual
from s2sr.model.field import SplatField
from s2sr.model.sampling import Sampling
from s2sr.model.scene import Scene
from s2sr.model.spectrum import SLOPE, Spectrum

LITTLE = 1e-4  # initial guess of the change between dates, as a fraction of the scene's power
Judge = Callable[[Scene, SplatField, Tensor], dict[str, float]]  # scene, fit and noise -> scores on what was withheld


class Problem(nn.Module):
    """A `field` that is to predict the valid samples of a `scene`.

    noise: standard deviation in reflectance, one or [t, b]; None: estimated from the frames, and free.
    spectrum: of the scene, if known; else a first guess, and free.
    misfit: z [t, b, y, x] (residual over noise) -> nats. tv_delta: where Huber-TV turns linear, in mean gradients.
    judge: called once, at the end or before the withheld samples enter the fit; `judgement` is its result.
    """

    frames: Tensor  # [t, b, y, x] reflectance
    valid: Tensor  # [t, b, y, x] bool: what is fitted
    validation: Tensor  # [t, b, y, x] bool: what tells a stage when to stop
    trusted: Tensor  # [t, b, y, x] bool, of the valid samples those that agree with the others
    gradients: Tensor  # [b] reflectance per LR pixel
    correlation: Tensor  # [b, b] of the bands' detail; the identity until a stage estimates it
    excess: Tensor  # [t, b, y, x] local variance over noise^2, at least 1; 1 until a stage estimates it

    def __init__(
        self,
        scene: Scene,
        field: SplatField,
        *,
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
        self.evals = 0  # evaluations of objective and gradient so far
        self.tv = 0.0  # the weight of total variation now
        self.filled: dict[Sampling, Tensor] = {}  # see patch.Fit
        self.fits_noise = noise is None
        self.fits_spectrum = spectrum is None
        self.register_buffer("frames", scene.frames, persistent=False)
        self.register_buffer("valid", scene.valid & scene.measured, persistent=False)
        self.register_buffer("validation", scene.validation & scene.measured, persistent=False)
        self.register_buffer("excess", torch.ones_like(scene.frames))
        self.register_buffer("correlation", torch.eye(len(field.bands)))
        self._prepare(scene.temporal_mean, noise, spectrum)

    @torch.no_grad()
    def _prepare(self, mean: Tensor, noise: float | Tensor | None, spectrum: Spectrum | None) -> None:
        """Initial values, from the temporal mean of the samples that resemble those of other dates."""
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
        self.spectrum = spectrum or Spectrum(mean.var((-2, -1)))
        little = self.spectrum.coefficients[:, 0].detach() + math.log(LITTLE if noise is None else 1e-12)
        self.log_change = nn.Parameter(little.expand_as(std).clone())
        self.change_slope = nn.Parameter(torch.full_like(little, SLOPE))

    @cached_property
    def observations(self) -> str:
        """Identifies the observations: a hash of their samples."""
        return hashlib.sha256(self.scene.frames.cpu().numpy().tobytes()).hexdigest()

    @property
    def noise(self) -> Tensor:
        """[t, b] standard deviation, reflectance."""
        return self.log_noise.exp()

    @property
    def change(self) -> Tensor:
        """[t, b] power of the change in one observation at the LR pixels' Nyquist frequency, reflectance squared."""
        return self.log_change.exp()

    def blocks(self) -> dict[str, list[nn.Parameter]]:
        """The free parameters by the names that stages use: those of the field, the noise and the spectrum."""
        noise = [self.log_noise, self.log_change, self.change_slope] if self.fits_noise else []
        spectrum = list(self.spectrum.parameters()) if self.fits_spectrum else []
        return {**self.field.blocks(), "noise": noise, "spectrum": spectrum}

    def residual(self, samples: Tensor | None = None) -> Tensor:
        """[t, b, y, x] predicted minus observed reflectance of samples [t, b, y, x] bool, 0 elsewhere.

        samples: default: the valid ones.
        """
        return self.field().sub_(self.frames).mul_(self.valid if samples is None else samples)

    def fidelity(self, *, rho: Rho | None = None, samples: Tensor | None = None) -> Tensor:
        """The misfit, nats: of samples [t, b, y, x] bool (default: the valid ones) by rho (default: the problem's)."""
        field, valid = self.field, self.valid if samples is None else samples
        radiometry = (field.radiometry.gain, field.radiometry.offset, field.changed)
        return self._misfit(field.observed(field.shifts), *radiometry, valid, rho or self.misfit)

    def misfit_beside(self, known: Tensor, seen: Tensor) -> Tensor:
        """The misfit, nats, of the frames `known` [t, b, y, x] plus gain times `seen` [t, b, y, x]."""
        gain = self.field.radiometry.gain
        return self._misfit(seen, gain, torch.zeros_like(gain), known, self.valid, self.misfit)

    def _misfit(self, seen: Tensor, gain: Tensor, offset: Tensor, beside: Tensor, valid: Tensor, rho: Rho) -> Tensor:
        return Misfit.apply(seen, gain, offset, beside, self.frames, valid, self.noise.detach(), self.excess, rho)

    def misfit_and_tv(self) -> dict[str, Tensor]:
        """The misfit, and the TV term at its current weight; nats."""
        parts = {"misfit": self.fidelity()}
        if self.tv:
            weights, scale = self.field.weights, self.field.scale
            parts["tv"] = self.tv * total_variation(weights, scale, gradients=self.gradients, delta=self.tv_delta)
        return parts

    def reveal(self) -> None:
        """Judge the fit; from here on the withheld samples enter it."""
        self.be_judged()
        self.use_samples_of(self.scene.whole())

    def be_judged(self) -> None:
        """Judge the fit by the withheld samples, once."""
        if self.judge and not self.judgement:
            self.judgement = self.judge(self.scene, self.field, self.noise.detach())

    def use_samples_of(self, scene: Scene) -> None:
        """From here on, fit another selection of samples of the same frames."""
        self.scene = scene
        device = self.valid.device
        self.valid = (scene.valid & scene.measured).to(device)
        self.validation = (scene.validation & scene.measured).to(device)
