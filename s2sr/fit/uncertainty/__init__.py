"""The uncertainty of the product: a standard deviation per pixel and band.

It is that of product - truth. Three things make V, the mean square error to expect of the posterior mean (see
`error_variance`), local and the product's:

* Edges. The scene's power is a(x) P(f), a Gaussian scale mixture (Portilla et al. 2003), with the activity a(x) from
  the product itself (see `activity`).
* Masks, borders and change. V is that of the observations that are clear at x, each with its noise as it is there:
  places change, whether a fit has made use of that or not. V is tabulated over a and over the observations'
  information, between the lowest and the highest that occur.
* The estimator. If e is the error of the posterior mean, a product that departs from it by d has the error e - d. With
  an edge-preserving prior d is correlated with e: with r^2 = mean d^2 / V and the correlation c, the variance is
  V (1 - 2 c r + r^2). If sigma was fitted without the evidence, the posterior is that of the most probable sigma.

What dates share over more than a few LR pixels does not average out as noise does. To V is added the variance of the
scene's level, which is that of the median date: pi / 2 of the mean's, of T dates whose levels l_t differ from the
product's, pi / 2 sum_t l_t^2 / T^2.

Other errors (of shifts, radiometry) are part of the noise estimated per observation, or not covered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from s2sr.fit.evidence.information import sigma_errors
from s2sr.fit.noise import levels
from s2sr.fit.posterior import posterior_mean
from s2sr.fit.uncertainty.activity import CHANCE, REACH, activity, energies
from s2sr.fit.uncertainty.clear import clear
from s2sr.fit.uncertainty.error_variance import ACTIVITIES, tabulated
from s2sr.fit.uncertainty.settle import EVIDENCE, settled

if TYPE_CHECKING:
    from s2sr.fit.module import Reconstruction
    from s2sr.fit.problem import Problem

CORRELATION = 0.33  # of what an edge-preserving prior adds to the posterior mean with what that lacks; as CHANCE


def standard_deviation(module: Reconstruction, image: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] of the product `image` at `scale` pixels per LR pixel; reflectance.

    Module and image are on the CPU.
    """
    return torch.stack([found.deviation() for found in errors(module, image, scale)])


def errors(module: Reconstruction, image: Tensor, scale: int) -> list[Errors]:
    """The Errors of every band of the product `image` [b, y * scale, x * scale]. Module and image are on the CPU."""
    field = module.field
    energy = energies(image, REACH * scale * field.widths)
    with settled(module):
        departed = departure(module, image, scale).square_()
        learnt = bool(field.blocks()["psf"])
        sigma_error = field.widths * (sigma_errors(module, EVIDENCE) if learnt else 0)
        weights = (field.radiometry.gain / module.noise).detach().double().square()
        shares = module.valid / module.excess  # of the information that a sample has where nothing changes
        shares = torch.stack([s.repeat(x) for s, x in zip(field.samplings, shares.unbind(1), strict=True)], 1)
        shares = torch.stack([clear(*one, 1) for one in zip(shares, field.shifts.detach(), strict=True)])

        level = level_variance(module)

        def of_band(b: int) -> Errors:
            local = shares[:, b] * weights[:, b, None, None]  # [t, y, x]
            table = tabulated(module, b, local, scale, sigma_error=float(sigma_error[b]))
            information = local.sum(0)
            blurred = smoothed(information / information.max().clamp(min=1e-9), "constant")  # as footprints do
            there = smoothed(information > 0, "nearest")
            seen = enlarged(there, scale)
            share_of_v = (seen * departed[b]).sum() / seen.sum().clamp(min=1e-9) / table[-1, ACTIVITIES == 1]
            return Errors(table, blurred, there, level[b], energy[b], math.sqrt(share_of_v))

        return [of_band(b) for b in range(len(image))]


@dataclass(frozen=True)
class Errors:
    """All that determines a band's standard deviation, except the constants calibrated on scenes with known truth."""

    table: Tensor  # [k, a] V at the square of k equal steps of information, and at ACTIVITIES
    information: Tensor  # [y, x] of LR pixels, of the most that occurs
    there: Tensor  # [y, x] of LR pixels, 0 where nothing was observed, to 1
    level: Tensor  # [y, x] of LR pixels, the variance of the scene's level
    energy: Tensor  # [y * scale, x * scale] of the product's gradient, within REACH, over its mean
    departed: float  # r

    def deviation(self, *, chance: float = CHANCE, correlation: float = CORRELATION) -> Tensor:
        """[y * scale, x * scale] reflectance."""
        scale = len(self.energy) // len(self.there)
        information, there = enlarged(self.information, scale), enlarged(self.there, scale)
        factor = 1 - 2 * correlation * self.departed + self.departed**2
        # the table's rows go with the square root of the information, its columns with the logarithm of the activity
        first, last = float(ACTIVITIES[0].log()), float(ACTIVITIES[-1].log())
        row = information.sqrt_().mul_(2).sub_(1)
        column = activity(self.energy, there, chance).log_().sub_(first).mul_(2 / (last - first)).sub_(1)
        at = torch.stack([column, row], -1)[None]
        detail = F.grid_sample(
            (self.table * factor).log().to(at)[None, None], at, padding_mode="border", align_corners=True
        )
        return detail[0, 0].exp_().add_(enlarged(self.level, scale)).sqrt_()


@torch.no_grad()
def departure(module: Problem, image: Tensor, scale: int) -> Tensor:
    """[b, y * scale, x * scale] the product `image` minus the posterior mean; reflectance."""
    field = module.field
    own, mean = field.weights.data, torch.empty_like(field.weights)
    modes, found = posterior_mean(module)
    modes.fill(mean, found)
    field.weights.data = mean
    step = image - field.render(field.grid.scaled(scale))
    field.weights.data = own
    return step


@torch.no_grad()
def level_variance(module: Problem) -> Tensor:
    """[b, y, x] the variance of the scene's level, by what the levels of the dates differ from it."""
    each = levels(module.residual() / module.field.radiometry.gain[..., None, None], module.valid)
    return math.pi / 2 * each.square().nansum(0) / (~each.isnan()).sum(0).clamp(min=1).square()


def smoothed(values: Tensor, beyond: str) -> Tensor:
    """[y, x] float32 values of LR pixels under a Gaussian of half a pixel; `beyond` the border: as scipy's filters."""
    return torch.from_numpy(ndimage.gaussian_filter(values.float().numpy(), 0.5, mode=beyond))


def enlarged(values: Tensor, scale: int) -> Tensor:
    """[y * scale, x * scale] values [y, x] of LR pixels, linear between their centres."""
    return F.interpolate(values[None, None], scale_factor=scale, mode="bilinear", align_corners=False)[0, 0]
