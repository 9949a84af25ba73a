"""V: the mean square error to expect of the posterior mean, in reflectance squared; it is the same everywhere.

The error is product - truth, with the truth seen at the product's resolution: blurred by the product's splat, S(f) =
exp(-2 pi^2 sigma_splat^2 f^2), and averaged over its pixels, T(f) = sinc(f / scale) along each axis. The product itself
is as sharp as the observations allow: recovered detail is not blurred by S. With the scene's power P and the posterior
as in `spectral_model`, of mean M and B = I + H^H V^-1 H on the four aliases that a footprint passes, the mean of
|T (M - S X)|^2 is

    V = integral of T^2 S^2 P exp(2 D^2) - sum over aliases of T^2 (2 S exp(D^2 / 2) - 1) P (1 - (B^-1)_aa)

D is 0 if the PSF's sigma was given. If it was fitted, only G^2 P is known: an error e of sigma is one of exp(2 x) in P
and of exp(-x) in the recovered detail, with x = 4 pi^2 f^2 sigma e. V is the mean over such x, of standard deviation D,
with e distributed as `sigma_errors` says. Most of V is detail that no observation shows, beyond some .6 cycles per
pixel: there P is extrapolated with the slope of edges, whatever the bend below, and D is kept at its value at .6.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from s2sr.model.psf import transfer

if TYPE_CHECKING:
    from s2sr.fit.problem import Problem

SEEN = 0.6  # cycles per detector pixel: what is finer is extrapolated
TAIL = 3.0  # the exponent by which power falls there: that of edges
ACTIVITIES = torch.logspace(-3, 2, 11, dtype=torch.float64)
NODES = 16  # of the information
FREQUENCIES = 24  # along each axis of one LR Nyquist cell, where V is integrated


def tabulated(module: Problem, band: int, information: Tensor, scale: int, *, sigma_error: float) -> Tensor:
    """[k, a] V of a band at the squares of k equal steps of information, from 0 to the most that occurs, and at
    ACTIVITIES.

    information: [t, y, x] g^2 / v of every sample, 0 where it is masked. sigma_error: of the PSF's sigma, LR pixels.
    """
    total = information.sum(0).flatten()
    # denser where V changes fastest, at low information; each node scales a set of observations that occurs
    wanted = total.max().clamp(min=1e-9) * torch.linspace(0, 1, NODES, dtype=torch.float64).square()
    nearest = (total - wanted[:, None]).abs().argmin(1)
    share = wanted / total[nearest].clamp(min=1e-9)
    weights = share[:, None] * information.flatten(1).T[nearest]
    return variances(module, band, weights, scale, sigma_error=sigma_error)


@torch.no_grad()
def variances(module: Problem, band: int, weights: Tensor, scale: int, *, sigma_error: float = 0.0) -> Tensor:
    """[k, a] V of a band at ACTIVITIES for rows of weights [k, t], g^2 / v of the observations that are clear.

    sigma_error: of the PSF's sigma, LR pixels.
    """
    field = module.field
    pitch = field.samplings[band].pitch  # the aliases are those of the grid of its measurements
    near, every = frequencies(2) / pitch, frequencies(2 * max(scale, field.scale) * pitch) / pitch
    sigma, width = field.sigma_psf[band].double(), field.widths[band].double()

    def averaged(f: Tensor) -> Tensor:  # T^2
        return torch.sinc(f / scale).square().prod(-1)

    def splat(f: Tensor) -> Tensor:  # S
        return torch.exp(-2 * (math.pi * field.lattice.sigma) ** 2 * f.square().sum(-1))

    def power(f: Tensor) -> Tensor:
        squared = f.square().sum(-1)
        return module.spectrum(band, squared.minimum(seen)) * (seen / squared.maximum(seen)) ** (TAIL / 2)

    def doubt(f: Tensor) -> Tensor:  # D^2
        return (4 * math.pi**2 * sigma * sigma_error * f.square().sum(-1).minimum(seen)).square()

    seen = (SEEN / width).square()
    blurred = averaged(every) * splat(every).square() * power(every) * (2 * doubt(every)).exp()
    return posterior_variance(
        ACTIVITIES,
        weights,
        phases=torch.exp(2j * math.pi * (near @ field.shifts.double().T)),
        amplitude=transfer(near, sigma, width).prod(-1) * power(near).sqrt() / pitch,
        found=averaged(near) * (2 * splat(near) * (doubt(near) / 2).exp() - 1) * power(near) / pitch**2,
        prior=blurred.sum() / every.shape[1] / pitch**2,
    )


def posterior_variance(
    activities: Tensor,  # [a]
    weights: Tensor,  # [k, t] g^2 / v of the clear observations, 0 of the others
    *,
    phases: Tensor,  # [4, f, t] exp(2 pi i f_a . d_t)
    amplitude: Tensor,  # [4, f] U
    found: Tensor,  # [4, f] T^2 (2 S exp(D^2 / 2) - 1) P
    prior: Tensor,  # the integral of T^2 S^2 P exp(2 D^2)
) -> Tensor:  # [k, a]
    """V where the scene's power is a P and the observations have these weights."""
    variance = []
    for w in weights:
        coupling = torch.einsum("aft,bft,t->fab", phases, phases.conj(), w.to(phases.dtype))
        coupling = coupling * amplitude.T[:, :, None] * amplitude.T[:, None, :]
        inner = activities[:, None, None, None] * coupling + torch.eye(4, dtype=coupling.dtype)
        left = torch.linalg.inv(inner).diagonal(dim1=-2, dim2=-1).real  # [a, f, 4]
        explained = ((1 - left) * found.T).sum((-2, -1)) / phases.shape[1]
        variance.append(activities * (prior - explained))
    return torch.stack(variance)


def frequencies(cells: int) -> Tensor:
    """[cells^2, f, 2] the aliases of half of FREQUENCIES^2 LR frequencies (the others are their negatives), cycles per
    LR pixel.
    """
    f = (torch.arange(FREQUENCIES, dtype=torch.float64) + 0.5) / FREQUENCIES - 0.5
    base = torch.cartesian_prod(f, f[FREQUENCIES // 2 :])
    steps = torch.arange(cells, dtype=torch.float64)
    whole = torch.cartesian_prod(steps, steps)[:, None]
    return torch.remainder(base + whole + cells / 2, cells) - cells / 2
