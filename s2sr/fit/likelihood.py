"""The probability of the observations with the scene integrated out, and the scene given the observations.

For given shifts the model is linear in the scene and on a periodic domain each LR frequency f couples its aliases f_a
alone. With G the footprint's transfer function (the PSF without splats), P the scene's power spectrum, v_t the
variance of what the scene does not explain (noise, and change with its own spectrum), g_t the gain and Y the unitary
DFT of the frames

    Y_t(f) = sum_a g_t G(f_a) exp(-2 pi i f_a . d_t) X(f_a) + N_t
    U = diag(G sqrt(P)),  H_ta = g_t exp(-2 pi i f_a . d_t) U_a,  B = I + H^H V^-1 H
    -2 log evidence = sum_f { Y^H C^-1 Y + log det C + t log 2 pi },  C = H H^H + V,  det C = det B prod_t v_t
    X given Y: mean sqrt(P) m with m = B^-1 H^H V^-1 Y,  covariance sqrt(P) B^-1 sqrt(P),  C^-1 Y = V^-1 (Y - H m)

(Tipping & Bishop 2003 in the block form of Elad & Hel-Or 2001.) The derivative along any dC is
1/2 tr[(C^-1 - C^-1 Y Y^H C^-1) dC]: all of them come from m, B^-1 and C^-1 Y.

Of masked samples that were set to their conditional mean the first term counts nothing, and that is exact. The
determinant then has to be that of the samples that are there: with a fraction c_t of them clear, B = I + H^H c V^-1 H
and sum_t c_t log v_t, which is exact for masks that fall on all alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2sr.fit.aliases import Aliases, backward_solve, forward_solve, information, inverse


@dataclass(frozen=True)
class Frames:
    """What was seen: `spectra` [y, x, t, b], the unitary rfft2, and how much of it counts."""

    spectra: Tensor
    aliases: Aliases
    counts: Tensor  # [y, x] how often each frequency counts
    clear: Tensor  # [t, b] fraction of the samples that were observed, not filled in


@dataclass(frozen=True)
class Model:
    """Second moments of the frames at every frequency. Frequencies come first: the rest is small matrices."""

    aliases: Aliases
    shifts: Tensor  # [t, 2] LR pixels
    gain: Tensor  # [t, b]
    variance: Tensor  # [y or 1, x or 1, t, b] v, reflectance squared
    amplitude: Tensor  # [a, y, x, b] U

    @cached_property
    def phases(self) -> Tensor:
        """[y, x, t, a]"""
        return self.aliases.phases(self.shifts)

    @cached_property
    def factor(self) -> Any:
        """Of B."""
        return self._information(self.gain.square() / self.variance)

    def _information(self, weights: Tensor) -> Any:
        return information(self.aliases, self.amplitude, self.shifts, weights)

    def projected(self, spectra: Tensor) -> list[Tensor]:
        """L^-1 H^H V^-1 Y, [a] of [y, x, b]: its squares are what the scene explains of Y^H V^-1 Y."""
        seen = (self.phases.mH @ (spectra * (self.gain / self.variance))).unbind(2)
        return forward_solve(self.factor, [u * z for u, z in zip(self.amplitude, seen, strict=True)])

    def mean(self, spectra: Tensor) -> Tensor:
        """[a, y, x, b] m."""
        return torch.stack(backward_solve(self.factor, self.projected(spectra)))

    def seen(self, mean: Tensor) -> Tensor:
        """[y, x, a, b] G X of the mean m [a, y, x, b]."""
        return (mean * self.amplitude).movedim(0, 2)

    def innovation(self, spectra: Tensor) -> Tensor:
        """[y, x, t, b] C^-1 Y."""
        return (spectra - self.gain * (self.phases @ self.seen(self.mean(spectra)))) / self.variance

    def slopes(self, frames: Frames) -> Slopes:
        """-log evidence and its derivatives, frequency by frequency."""
        gain, variance, clear, y = self.gain, self.variance, frames.clear, frames.spectra
        projected = self.projected(y)
        mean = torch.stack(backward_solve(self.factor, projected))
        seen = self.seen(mean)
        expected = self.phases @ seen
        innovation = (y - gain * expected) / variance
        other = gain * innovation.conj()
        turning = (other @ seen.mT * self.phases).imag  # [y, x, t, a]

        factor, covariance, leverage, turns = self.uncertainty(clear)
        energy = (_square(y) / variance).sum(2) - sum(_square(z) for z in projected)
        volume = 2 * torch.stack([row[-1].real.log() for row in factor]).sum(0)
        volume = volume + (clear * (2 * math.pi * variance).log()).sum(2)
        return Slopes(
            nats=(energy + volume) / 2,
            amplitude=torch.stack([1 - row[-1].real - _square(m) for row, m in zip(covariance, mean, strict=True)]),
            shifts=2 * math.pi * (turns.sum(-1) - self._along(turning)),
            gain=(leverage - (other * expected).real) / gain,
            variance=((clear - leverage) / variance - _square(innovation)) / 2,
        )

    def uncertainty(self, clear: Tensor) -> tuple[Any, Any, Tensor, Tensor]:
        """Given samples of which the fraction `clear` [t, b] is there: the factor of B, and B^-1; the leverage
        (H B^-1 H^H V^-1)_tt [y, x, t, b] of every observation, and [2, y, x, t, b] half its derivative along the shift,
        over 2 pi.
        """
        weights = clear * self.gain.square() / self.variance
        factor = self._information(weights)
        covariance = inverse(factor)
        leverage, turns = self._leverage(covariance)
        return factor, covariance, leverage * weights, turns * weights

    def _along(self, turning: Tensor) -> Tensor:
        """[2, y, x, t] sum_a f_a turning_a."""
        return torch.einsum("cayx,yxta->cyxt", self.aliases.each, turning)

    def _leverage(self, covariance: Any) -> tuple[Tensor, Tensor]:
        """The leverage and its derivatives but for the weights g^2 / v."""
        u, t = self.amplitude, len(self.shifts)
        lower = [(i, j) for i in range(len(u)) for j in range(i + 1)]
        pairs = torch.stack([covariance[i][j] * u[i] * u[j] * (1 + (i != j)) for i, j in lower], 2)
        pairs = torch.cat((pairs.real, pairs.imag), 2)
        found = u.new_empty(*u.shape[1:3], 3 * t, u.shape[3])
        for rows, columns, steps in self.aliases.runs():
            step = torch.stack([steps[:, i, j] for i, j in lower], 1)  # [2, p]
            angle = 2 * math.pi * self.shifts @ step
            cos, sin = torch.cat((angle.cos(), angle.sin()), 1), torch.cat((-angle.sin(), angle.cos()), 1)
            rates = [cos, *(sin * (r / 2).repeat(2) for r in step)]
            found[rows, columns] = torch.cat(rates) @ pairs[rows, columns]
        leverage, *turns = found.unflatten(2, (3, t)).unbind(2)
        return leverage, torch.stack(turns)


@dataclass(frozen=True)
class Slopes:
    """-log evidence, nats, and its derivatives along the numbers and fields of a model, frequency by frequency."""

    nats: Tensor  # [y, x, b]
    amplitude: Tensor  # [a, y, x, b] along log U
    shifts: Tensor  # [2, y, x, t], of all bands
    gain: Tensor  # [y, x, t, b]
    variance: Tensor  # [y, x, t, b]


def _square(z: Tensor) -> Tensor:
    return z.real.square() + z.imag.square()


class NegativeLogEvidence(torch.autograd.Function):
    """Nats of all bands; the gradient comes with the value, for twice its price."""

    @staticmethod
    def forward(ctx, frames: Frames, shifts: Tensor, gain: Tensor, variance: Tensor, amplitude: Tensor) -> Tensor:
        model = Model(frames.aliases, shifts, gain, variance, amplitude)
        slopes, counts = model.slopes(frames), frames.counts[..., None]
        ctx.save_for_backward(
            (slopes.shifts * counts).sum((1, 2)).T,
            (slopes.gain * counts[..., None]).sum((0, 1)),
            (slopes.variance * counts[..., None]).sum_to_size(variance.shape),
            torch.where(amplitude == 0, 0, slopes.amplitude * counts / amplitude),
        )
        return (slopes.nats * counts).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, output: Tensor):
        return None, *(output * slope for slope in ctx.saved_tensors)


def negative_log_evidence(
    frames: Frames, *, shifts: Tensor, gain: Tensor, variance: Tensor, amplitude: Tensor
) -> Tensor:
    """-log p(frames), nats, summed over bands; arguments as the attributes of `Model`; differentiable once."""
    return NegativeLogEvidence.apply(frames, shifts, gain, variance, amplitude)


def shift_information(model: Model) -> Tensor:
    """[2 t, 2 t] Fisher information of the shifts (all dy, then all dx), the scene unknown; of all bands.

    1/2 sum_f tr(C^-1 dC C^-1 dC) over all frequencies. The common shift is not determined: what `pinv` gives is the
    Cramer-Rao bound in the gauge of zero mean.
    """
    turns = -2j * math.pi * model.aliases.each.movedim(1, 3)  # [2, y, x, a]
    variance = model.variance.expand(*model.phases.shape[:2], -1, -1)
    blocks = model.gain.new_zeros(2, 2, len(model.shifts), len(model.shifts))
    for b, gain in enumerate(model.gain.T):
        response = model.phases * model.amplitude[..., b].movedim(0, 2)[:, :, None] * gain[:, None]  # H [y, x, t, a]
        inverse = torch.linalg.inv(response @ response.mH + torch.diag_embed(variance[..., b]))
        slopes = [(response * turn[:, :, None]) @ response.mH for turn in turns]
        left, right = [inverse @ m for m in slopes], [m @ inverse for m in slopes]
        for i in (0, 1):
            for j in (0, 1):
                # dC_k = E_k M - M E_k, with E_k one at (k, k): tr(C^-1 dC_k C^-1 dC_l) for all k and l at once
                each = right[i] * right[j].mT + left[i].mT * left[j]
                each = each - inverse.mT * (slopes[i] @ left[j]) - inverse * (slopes[j] @ left[i]).mT
                blocks[i, j] += (each.real * model.aliases.counts[:, None, None]).sum((0, 1)) / 2
    return blocks.permute(0, 2, 1, 3).reshape(2 * len(model.shifts), -1)
