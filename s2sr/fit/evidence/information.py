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

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

CHANGE_SLOPE = 1.0  # standard deviation of the exponent by which change falls faster than the scene


class Information:
    """A metric for hyper-parameters: the inverse of their Fisher information, without its weakest couplings.

    Neglected are the couplings of an observation's shift, gain and noise with each other, with other observations and
    with the scene.
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
        self.groups: list[tuple[list[Tensor], Tensor]] = [  # parameters solved for jointly, and their [..., p, p]
            ([field.raw_shifts], shifts[..., None, None]),
            ([field.radiometry.raw_gain], gain[..., None, None]),
            ([field.log_sigma, coefficients], scene),
            ([log_noise, module.log_change, module.change_slope], noise),
        ]
        self.last = {id(log_noise), id(module.log_change)}

    def __call__(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Steps for vectors along some of the parameters."""
        given = {id(p): v for p, v in zip(parameters, vectors, strict=True)}
        found: dict[int, Tensor] = {}
        for group, matrix in self.groups:
            size = {id(p): p.numel() // matrix[..., 0, 0].numel() for p in group}
            members = [id(p) for p in group if id(p) in given]
            if members:
                free = [k for k, p in enumerate(p for p in group for _ in range(size[id(p)])) if id(p) in given]
                inner = matrix[..., free, :][..., free]
                inner = inner + torch.diag_embed(0.01 * inner.diagonal(dim1=-2, dim2=-1) + 1)  # a nat bounds the rest
                right = torch.cat([(given[p].mT if p in self.last else given[p]).double().reshape(*inner.shape[:-2], -1) for p in members], -1)
                steps = torch.linalg.solve_ex(inner, right).result.split([size[p] for p in members], -1)
                found.update(zip(members, steps, strict=True))
        return [(found[id(p)].mT if id(p) in self.last else found[id(p)]).reshape(v.shape).to(v) for p, v in zip(parameters, vectors, strict=True)]


def of_shifts(patch: Patch, model: Model, alone: Tensor, seen: Tensor) -> Tensor:
    """[t, 2] the information on every shift, in LR pixels, by itself.

    alone: [t, b, y, x] (C^-1)_tt; seen: [a, b, y, x] the scene's power, as far as it is recovered.
    """
    turns = (2 * math.pi / patch.pitch * model.aliases.each).square()
    turned = torch.einsum("abyx,cayx->cbyx", seen, turns)
    return torch.einsum("tb,tbyx,cbyx->tc", patch.clear * model.gain.square(), alone, turned)


def of_noise(patch: Patch, model: Model, alone: Tensor) -> Tensor:
    """[b, p, p] the information on log noise [t], log change [t] and slope of change; alone: [t, b, y, x] (C^-1)_tt."""
    white, other = 2 * model.noise.T, model.change.T
    along = torch.stack((torch.ones_like(model.changing), model.changing, along_change(patch)[1]))
    each = torch.einsum("pbyx,qbyx,tbyx->pqbt", along, along * patch.window.worth, alone.square()) / 2
    factors = torch.stack((white, other, other))
    each = each * factors[:, None] * factors * patch.clear.T
    n = len(model.noise)
    found = each.new_zeros(len(patch.bands), 2 * n + 1, 2 * n + 1)
    for p in range(2):
        for q in range(2):
            found[:, p * n : p * n + n, q * n : q * n + n] = torch.diag_embed(each[p, q])
        found[:, p * n : p * n + n, -1] = found[:, -1, p * n : p * n + n] = each[p, 2]
    found[:, -1, -1] = each[2, 2].sum(-1) + CHANGE_SLOPE**-2
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


def of_change(patch: Patch, model: Model, posterior: Posterior) -> Tensor:
    """[b] what change adds to the information on log sigma, its own slope and every observation's noise marginalised."""
    along = torch.stack((torch.ones_like(model.changing), model.changing, *along_change(patch)))
    alone = model.precision(posterior).square() * patch.window.worth
    each = torch.einsum("pbyx,qbyx,tbyx->tbpq", along, along, alone) / 2
    free, between, rest = each[..., :2, :2], each[..., :2, 2:], each[..., 2:, 2:]
    rest = rest - between.mT @ torch.linalg.solve(free, between)
    rest = torch.einsum("tb,tbpq->bpq", patch.clear * model.change.square(), rest)
    return rest[:, 0, 0] - rest[:, 0, 1].square() / (rest[:, 1, 1] + CHANGE_SLOPE**-2)


def along_change(patch: Patch) -> Tensor:
    """[2, b, y, x] derivatives of the spectrum of change by sigma^2 / 2 and its slope."""
    found = patch.change_seen()
    return torch.stack(((found * (-8 * math.pi**2 * patch.squared[:, None])).sum(0), (found * patch.basis[:, None, ..., 1]).sum(0)))


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

    Marginalises the scene's spectrum; noise and shifts, which are known far better, are held fixed. That change has the
    scene's spectrum is an assumption: how far sigma would move if its slope differed is part of the error. Never larger
    than the prior's standard deviation.
    """
    evidence = evidence or Evidence()
    variance = module.field.sigma_psf.new_empty(len(module.field.bands), dtype=torch.float64)
    for patch in evidence.patches(module):
        model = patch.model()
        posterior = model.posterior(patch.clear)
        known = of_scene(patch, posterior, evidence.spread)
        unit = module.field.sigma_psf[patch.bands].double().square()
        known[:, 0, 0] += of_change(patch, model, posterior) * unit.square()
        of_sigma = torch.linalg.inv(known)[:, 0]
        variance[patch.bands] = of_sigma[:, 0].clamp(max=evidence.spread**2)
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
