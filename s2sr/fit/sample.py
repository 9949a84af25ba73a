"""Noise and spectrum of a scene before there is a fit, by the evidence of a small sample of it: for the forecast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from s2sr.fit.evidence import Evidence
from s2sr.fit.forecast import Conditions
from s2sr.fit.noise import frame_to_frame_std
from s2sr.model.field import SplatField
from s2sr.model.psf import PSF
from s2sr.model.sampling import Sampling
from s2sr.model.scene import Scene
from s2sr.model.spectrum import Spectrum

EVALS = 12  # of the evidence: then noise has converged to 1 %, power to 5 %
FAR = 2.5  # bound on the search, in log noise, log power, slope and bend
SIDE = 40  # LR pixels of the sample
CLEAREST = 12  # observations


def conditions_of(scene: Scene, *, shifts: Tensor, psf: PSF, noise: float | None = None) -> Conditions:
    """The conditions of a scene with given shifts [t, 2].

    Noise (unless given) and spectrum are estimated from the centre of the clearest observations; the others get the
    typical noise. Masked samples count as higher noise, as if they were missing evenly.
    """
    centre = scene.crop(min(SIDE, *scene.grid.shape))
    clear = torch.tensor([o.clear for o in centre.observations])
    number = min(CLEAREST, max(4, int((clear > 0.98).sum())))
    chosen = sorted(clear.argsort(descending=True, stable=True)[:number].tolist())
    sample = Sample(centre.select(chosen, ""), shifts=shifts[chosen], psf=psf, noise=noise)
    found = Conditions.of(sample)
    typical = found.noise.log().mean(0).exp().expand(len(scene), -1).clone()
    typical[chosen] = found.noise
    share = scene.valid.float().mean((-2, -1)).double().clamp(min=1e-6)
    return replace(found, shape=scene.grid.shape, shifts=shifts.double(), noise=typical / share.sqrt())


class Sample:
    """A small scene at given shifts, with its most probable noise and spectrum. It is a `Fit`: it has an evidence."""

    def __init__(self, scene: Scene, *, shifts: Tensor, psf: PSF, noise: float | None = None) -> None:
        mean = scene.temporal_mean.nan_to_num()  # NaN if nothing is clear
        self.field = SplatField(
            scene.grid,
            scene.bands,
            scale=1,
            psf=psf,
            shifts=shifts,
            gain=True,
            offset=True,
            samplings=scene.samplings,
        )
        self.field.requires_grad_(False)
        radiometry = self.field.radiometry
        radiometry.initialise(scene.frames, scene.valid, mean)
        gain, offset = radiometry.gain, radiometry.offset
        self.frames = torch.where(scene.valid, scene.frames, gain[..., None, None] * mean + offset[..., None, None])
        if noise is None:
            std = frame_to_frame_std(scene.frames, scene.valid, mean, shifts=shifts, gain=gain, offset=offset)
        else:
            std = torch.full_like(gain, noise)
        self.log_noise = std.log().requires_grad_()
        self.spectrum = Spectrum(mean.var((-2, -1), correction=0))
        self.change_slope = torch.zeros_like(self.spectrum.slope)
        self.valid, self.trusted = torch.ones_like(scene.valid), torch.ones_like(scene.valid)
        self.filled: dict[Sampling, Tensor] = {}
        self._maximise([*([self.log_noise] if noise is None else []), self.spectrum.coefficients])

    def _maximise(self, unknown: list[Tensor]) -> None:
        """Maximise the evidence over the unknown."""
        objective = Evidence()(self)

        def value_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
            vector_to_parameters(torch.from_numpy(x).float(), unknown)
            loss = torch.stack(list(objective().values())).sum()
            slopes = torch.autograd.grad(loss, unknown)
            return float(loss.detach()), parameters_to_vector(slopes).double().numpy()

        start = parameters_to_vector(unknown).detach().double().numpy()
        bounds = list(zip(start - FAR, start + FAR, strict=True))
        # torch.optim takes a second to import
        found = minimize(value_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxfun": EVALS})
        vector_to_parameters(torch.from_numpy(found.x).float(), unknown)
        for x in unknown:
            x.requires_grad_(False)

    @property
    def noise(self) -> Tensor:
        """[t, b] standard deviation, reflectance."""
        return self.log_noise.exp()

    @property
    def change(self) -> Tensor:
        """[t, b] zero: change between dates counts as noise."""
        return torch.zeros_like(self.log_noise)
