"""The Fisher information: how much the frames tell of the parameters that the evidence is maximised over.

With C the frames' covariance at f it is 1/2 sum_f tr(C^-1 dC C^-1 dC). It is a metric for the search, gives the
standard error of sigma, and bounds that of the shifts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.evidence import Evidence
from s2sr.fit.evidence.patch import Patch
from s2sr.fit.evidence.spectral_model import Model, Posterior
from s2sr.model.spectrum import SPREAD

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem


class Information:
    """A metric for hyper-parameters: the inverse of their Fisher information, without its weakest couplings.

    Neglected are the couplings of an observation's shift, gain and noise with each other, with other observations and
    with the scene; but change has one slope in all observations.
    """

    @torch.no_grad()
    def __init__(self, module: Problem, evidence: Evidence) -> None:
        field, log_noise, coefficients = module.field, module.log_noise, module.spectrum.coefficients
        shifts = field.shifts.new_zeros(field.shifts.shape, dtype=torch.float64)
        gain = torch.zeros_like(log_noise, dtype=torch.float64)
        noise = gain.new_zeros(gain.shape[1], *[2 * len(gain) + 1] * 2)
        scene = gain.new_zeros(len(coefficients), *[1 + coefficients.shape[1]] * 2)
        for patch in evidence.patches(module):
            bands, model = patch.bands, patch.model()
            posterior = model.posterior(patch.clear)
            alone = model.precision(posterior)
            seen = model.amplitude.square() * patch.window.worth * posterior.found
            shifts += of_shifts(patch, model, alone, seen)
            gain[:, bands] = patch.clear * torch.einsum("tbyx,byx->tb", alone, seen.sum(0))
            noise[bands] = of_noise(patch, model, alone)
            scene[bands] = of_scene(patch, posterior, evidence.spread)
        # parameters solved for jointly, along which of their axes observations or bands are, and their [..., p, p]
        self.groups: list[tuple[list[Tensor], int, Tensor]] = [
            ([field.raw_shifts], 0, shifts[..., None, None]),
            ([field.radiometry.raw_gain], 0, gain[..., None, None]),
            ([field.log_sigma, coefficients], 0, scene),
            ([log_noise, module.log_change, module.change_slope], -1, noise),
        ]

    def __call__(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Steps for vectors along some of the parameters."""
        given = {id(p): v for p, v in zip(parameters, vectors, strict=True)}
        found: dict[int, Tensor] = {}
        for group, axis, matrix in self.groups:
            members = [p for p in group if id(p) in given]
            if members:
                size = {id(p): p.numel() // matrix[..., 0, 0].numel() for p in group}
                free = [k for k, p in enumerate(p for p in group for _ in range(size[id(p)])) if id(p) in given]
                part = slice(free[0], free[-1] + 1)  # those of a block are neighbours
                inner = matrix[..., part, part]
                inner = inner + torch.diag_embed(0.01 * inner.diagonal(dim1=-2, dim2=-1) + 1)  # a nat bounds the rest
                sides = [given[id(p)].double().movedim(axis, 0) for p in members]
                right = torch.cat([side.reshape(*inner.shape[:-2], -1) for side in sides], -1)
                steps = torch.linalg.solve_ex(inner, right).result.split([size[id(p)] for p in members], -1)
                for p, side, step in zip(members, sides, steps, strict=True):
                    found[id(p)] = step.reshape(side.shape).movedim(0, axis).to(given[id(p)])
        return [found[id(p)] for p in parameters]


def of_shifts(patch: Patch, model: Model, alone: Tensor, seen: Tensor) -> Tensor:
    """[t, 2] the information on every shift, in LR pixels, by itself.

    alone: [t, b, y, x] (C^-1)_tt; seen: [a, b, y, x] the scene's power, as far as it is recovered.
    """
    turns = (2 * math.pi / patch.pitch * model.aliases.each).square()
    turned = torch.einsum("abyx,cayx->cbyx", seen, turns)
    return torch.einsum("tb,tbyx,cbyx->tc", patch.clear * model.gain.square(), alone, turned)


def of_noise(patch: Patch, model: Model, alone: Tensor) -> Tensor:
    """[b, p, p] the information on log noise [t], log change [t] and the slope of change, including its prior.

    alone: [t, b, y, x] (C^-1)_tt.
    """
    along = torch.stack((torch.ones_like(model.changing), model.changing, along_change(patch)[1]))
    each = torch.einsum("pbyx,qbyx,btyx->pqbt", along, along * patch.window.worth, alone.square().movedim(0, 1))
    power = torch.stack((2 * model.noise.T, model.change.T, model.change.T))
    each = patch.clear.T * each * power[:, None] * power / 2
    t = len(model.noise)
    found = each.new_zeros(len(patch.bands), 2 * t + 1, 2 * t + 1)
    parts = (slice(0, t), slice(t, 2 * t))
    for p, rows in enumerate(parts):
        for q, columns in enumerate(parts):
            found[:, rows, columns] = torch.diag_embed(each[p, q])
        found[:, rows, -1] = found[:, -1, rows] = each[p, 2]
    found[:, -1, -1] = each[2, 2].sum(-1) + SPREAD**-2
    return found


def of_scene(patch: Patch, posterior: Posterior, spread: float) -> Tensor:
    """[b, p, p] the information on log sigma and the spectrum's coefficients, including their priors.

    spread: the prior standard deviation of log sigma.
    """
    covariance, slopes = posterior.covariance, along_scene(patch).flatten(1, 2)
    size, bands = len(covariance), len(patch.bands)
    found = slopes.new_zeros(bands, slopes.shape[2], slopes.shape[2])
    for a in range(size):
        for c in range(size):
            known = int(a == c) - covariance[a, c]
            both = (known.real.square() + known.imag.square()) * patch.window.worth  # on two aliases together
            found += 2 * (slopes[a].T * both.flatten(1)[:, None]) @ slopes[c]
    precision = patch.fit.spectrum.precision.to(slopes)
    return on_log_sigma(patch, found) + torch.cat((precision.new_tensor([spread**-2]), precision)).diag()


def through_change(patch: Patch, model: Model, posterior: Posterior) -> Tensor:
    """[b] the information on sigma^2 / 2 that change adds, as it is seen through the PSF, too.

    Its slope, and noise and amount of change of every observation, are marginalised.
    """
    along = torch.stack((torch.ones_like(model.changing), model.changing, *along_change(patch)))
    alone = model.precision(posterior).square() * patch.window.worth
    each = torch.einsum("pbyx,qbyx,tbyx->tbpq", along, along, alone) / 2
    free, between, rest = each[..., :2, :2], each[..., :2, 2:], each[..., 2:, 2:]
    rest = rest - between.mT @ torch.linalg.solve(free, between)
    rest = torch.einsum("tb,tbpq->bpq", patch.clear * model.change.square(), rest)
    return rest[:, 0, 0] - rest[:, 0, 1].square() / (rest[:, 1, 1] + SPREAD**-2)


def along_change(patch: Patch) -> Tensor:
    """[2, b, y, x] derivatives of the spectrum of change by sigma^2 / 2 and by its slope."""
    slopes = torch.stack((-8 * math.pi**2 * patch.squared, patch.basis[..., 1]))
    return torch.einsum("abyx,kayx->kbyx", patch.change(patch.transfer()), slopes)


def along_scene(patch: Patch) -> Tensor:
    """[a, y, x, p] derivatives of log U by sigma^2 / 2 and the spectrum's coefficients."""
    return torch.cat((-4 * math.pi**2 * patch.squared[..., None], patch.basis / 2), -1)


def on_log_sigma(patch: Patch, information: Tensor) -> Tensor:
    """[b, p, p] convert an information from sigma^2 / 2 as first parameter to log sigma."""
    unit = torch.ones_like(information[..., 0])
    unit[:, 0] = patch.fit.field.sigma_psf[patch.bands].detach().double().square()
    return unit[:, :, None] * information * unit[:, None]


@torch.no_grad()
def sigma_errors(module: Problem, evidence: Evidence | None = None) -> Tensor:
    """[b] standard errors of the PSF's sigma, pixels of each band's own grid.

    Marginalises the spectra of the scene and of change; shifts, which are known far better, are held fixed. Never
    larger than the prior's standard deviation.
    """
    evidence = evidence or Evidence()
    variance = module.field.sigma_psf.new_empty(len(module.field.bands), dtype=torch.float64)
    for patch in evidence.patches(module):
        model = patch.model()
        posterior = model.posterior(patch.clear)
        known = of_scene(patch, posterior, evidence.spread)
        unit = module.field.sigma_psf[patch.bands].double().square()
        known[:, 0, 0] += unit.square() * through_change(patch, model, posterior)
        variance[patch.bands] = torch.linalg.inv(known)[:, 0, 0].clamp(max=evidence.spread**2)
    return module.field.sigma_psf / module.field.widths * variance.sqrt().to(module.field.widths)


def shift_information(model: Model) -> Tensor:
    """[2 t, 2 t] Fisher information of the shifts (all dy, then all dx) for an unknown scene, from all bands.

    1/2 sum_f tr(C^-1 dC C^-1 dC) over all frequencies. The common shift is not determined: `pinv` gives the Cramer-Rao
    bound for zero-mean shifts.
    """
    each = model.aliases.each.permute(0, 2, 3, 1)[..., None, :]  # [2, y, x, 1, a]
    phases = torch.exp(-2j * math.pi * torch.einsum("cyxoa,tc->yxta", each, model.shifts))
    turns = -2j * math.pi * each
    blocks = model.gain.new_zeros(2, 2, len(model.shifts), len(model.shifts))
    for b, gain in enumerate(model.gain.T):
        response = phases * model.amplitude[:, b].movedim(0, 2)[:, :, None] * gain[:, None]  # H [y, x, t, a]
        variance = torch.diag_embed(model.variance[:, b].movedim(0, -1))
        inverse = torch.linalg.inv(response @ response.mH + variance)
        slopes = [(response * turn) @ response.mH for turn in turns]
        left, right = [inverse @ m for m in slopes], [m @ inverse for m in slopes]
        for i in (0, 1):
            for j in (0, 1):
                # dC_k = E_k M - M E_k, with E_k one at (k, k): tr(C^-1 dC_k C^-1 dC_l) for all k and l at once
                each = right[i] * right[j].mT + left[i].mT * left[j]
                each = each - inverse.mT * (slopes[i] @ left[j]) - inverse * (slopes[j] @ left[i]).mT
                blocks[i, j] += (each.real * model.aliases.counts[:, None, None]).sum((0, 1)) / 2
    return blocks.permute(0, 2, 1, 3).reshape(2 * len(model.shifts), -1)
