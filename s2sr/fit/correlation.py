"""The correlation R of the bands' detail (see `bands`), estimated from the observations.

By expectation-maximisation (Dempster, Laird & Rubin 1977): R is the expected covariance of the whitened detail given
the frames (of its posterior mean, plus the posterior covariance), averaged over frequencies and scaled to a
correlation, since the spectra hold the power. A frequency has the square of its visible fraction as weight: unseen
detail would only repeat the assumed R. Noise is independent between bands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.fit.bands import components, seen
from s2sr.fit.modes import Modes
from s2sr.fit.posterior import closed_form, stiffness

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

STEPS = 8
OWN = 1e-4  # least share of detail of a band's own: bands may be mixtures of others, up to rounding
COARSE = 64  # LR frequencies per axis at most: thousands suffice for a few numbers


def coupled_form(module: Problem) -> None:
    """The start of a stage: estimate the correlation, and set the weights to the closed form with it."""
    module.correlation.copy_(torch.eye(len(module.correlation)))
    closed_form(module)
    if len(module.correlation) > 1:
        module.correlation.copy_(correlation(module))
        closed_form(module)


@torch.no_grad()
def correlation(module: Problem) -> Tensor:
    """[b, b] R; the weights must be the posterior mean for uncorrelated bands."""
    field, modes = module.field, Modes(module.field)
    rows, columns = (slice(None, None, -(-n // COARSE)) for n in modes.places[0].shape[1:])
    roots = stiffness(module, field.lattice, modes.aliases.squared()).sqrt()
    white = modes.of_images(field.weights) * roots
    white[:, 0, 0, 0] = 0  # the mean is free
    amplitude = (modes.transfer() / roots)[..., rows, columns].flatten(2).mT
    known = amplitude[..., None] * modes.coupling(module)[:, None] * amplitude[..., None, :]
    observed = module.valid.any(0).any(0).sum() * field.scale**2 / field.weights[0].numel()
    mean = white[..., rows, columns].flatten(2).mT
    return most_probable(known, mean.to(known), observed=float(observed)).to(module.correlation)


def most_probable(information: Tensor, mean: Tensor, *, observed: float = 1.0) -> Tensor:
    """[b, b] R of whitened detail whose posterior, for uncorrelated bands, has the mean [b, f, a] and the precision
    1 + information [b, f, a, a]. observed: the fraction of the lattice's area that frames cover.
    """
    one = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    right = ((one + information) @ mean[..., None])[..., 0]
    shown = 1 - torch.linalg.inv(one + information).diagonal(dim1=-2, dim2=-1).real
    counts, level = shown.mean(0).square().to(mean.dtype), seen(information.diagonal(dim1=-2, dim2=-1).real)
    found = torch.eye(len(mean), dtype=level.dtype, device=mean.device)
    for _ in range(STEPS):
        mix = components(found, level)
        known, told = (
            (share.to(mean.dtype).T @ x.flatten(1)).view(x.shape)
            for share, x in ((mix.square(), information), (mix, right))
        )
        left = torch.linalg.inv(one + known)
        white = (left @ told[..., None])[..., 0]
        of_mean = ((white * counts).flatten(1) @ white.flatten(1).mH).real / observed
        of_rest = (left.diagonal(dim1=-2, dim2=-1) * counts).sum((1, 2)).real.diag()
        found = mix @ (of_mean + of_rest) @ mix.T
        size = found.diagonal().sqrt()
        found = (1 - OWN) * found / size / size[:, None] + OWN * torch.eye(len(found)).to(found)
    return found
