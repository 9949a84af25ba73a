"""The evidence: the probability of the observations with the scene integrated out; and the scene's posterior.

For given shifts the model is linear in the scene, and on a periodic domain each LR frequency f couples only its aliases
f_a. With G the footprint's transfer function (the PSF without splats), P the scene's power spectrum, v_t the
variance of what the scene does not explain (noise, and change with its own spectrum), g_t the gain and Y the unitary
DFT of the frames

    Y_t(f) = sum_a g_t G(f_a) exp(-2 pi i f_a . d_t) X(f_a) + N_t
    U = diag(G sqrt(P)),  H_ta = g_t exp(-2 pi i f_a . d_t) U_a,  B = I + H^H V^-1 H
    -2 log evidence = sum_f { Y^H C^-1 Y + log det C + t log 2 pi },  C = H H^H + V,  det C = det B prod_t v_t
    X given Y: mean sqrt(P) m with m = B^-1 H^H V^-1 Y,  covariance sqrt(P) B^-1 sqrt(P),  C^-1 Y = V^-1 (Y - H m)

(Tipping & Bishop 2003 in the block form of Elad & Hel-Or 2001.) The derivative along any dC is
1/2 tr[(C^-1 - C^-1 Y Y^H C^-1) dC]: all of them come from m, B^-1 and C^-1 Y.

Masked samples that were set to their conditional mean add nothing to the first term, exactly. The determinant must then
be that of the remaining samples: with a fraction c_t of them clear, B = I + H^H c V^-1 H and sum_t c_t log v_t, which
is exact for masks that are evenly spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2sr.fit.aliases import Aliases, applied, inverted

BLOCK = 2**17  # values of all observations and bands at a time, to stay in the cache


@dataclass(frozen=True)
class Frames:
    """The observations: `spectra` [t, b, y, x], their unitary rfft2, and how much of it counts."""

    spectra: Tensor
    counts: Tensor  # [y, x] how often each frequency counts
    clear: Tensor  # [t, b] fraction of the samples that were observed, not filled in
    whole: bool = False  # whether `clear` is known to be 1 everywhere


@dataclass(frozen=True)
class Model:
    """Second moments of the frames at every frequency.

    Up to the phases of the first aliases, one matrix [t, a] maps the scene to the frames at all frequencies. Complex
    numbers are stored as two real ones, [2, ...], where that makes products faster.
    """

    aliases: Aliases
    shifts: Tensor  # [t, 2] LR pixels
    gain: Tensor  # [t, b]
    noise: Tensor  # [t, b] its variance, reflectance squared
    change: Tensor  # [t, b] variance of the change, as a fraction of the scene's sum_a U_a^2
    amplitude: Tensor  # [a, b, y, x] U

    @property
    def blocks(self) -> Iterator[slice]:
        """Of rows of frequencies."""
        n, size = self.amplitude.shape[2], self.gain.numel() * self.amplitude.shape[3]
        height = max(1, BLOCK // size)
        return (slice(k, k + height) for k in range(0, n, height))

    def part(self, rows: slice) -> Model:
        aliases = replace(self.aliases, rows=self.aliases.rows[:, rows])
        return replace(self, aliases=aliases, amplitude=self.amplitude[:, :, rows])

    @cached_property
    def scene(self) -> Tensor:
        """[b, y, x] sum_a U_a^2"""
        return self.amplitude.square().sum(0)

    @cached_property
    def variance(self) -> Tensor:
        """[t, b, y, x] v"""
        return torch.addcmul(_field(self.noise), _field(self.change), self.scene)

    @cached_property
    def weights(self) -> Tensor:
        """[t, b, y, x] g^2 / v"""
        return _field(self.gain.square()) / self.variance

    @property
    def waves(self) -> Tensor:
        """[2 d, t] see `Aliases`."""
        return self.aliases.waves(self.shifts)

    @property
    def turn(self) -> Tensor:
        """[t, b, y, x] factors that remove from frames their gain and the phase of the first aliases."""
        return self.aliases.phases(-self.shifts)[:, None] / _field(self.gain)

    def posterior(self, clear: Tensor | None = None) -> Posterior:
        """The posterior of the scene if the fraction `clear` [t, b] of the samples is valid; default: all."""
        weights = self.weights if clear is None else self.weights * _field(clear)
        (a, b), _, which = self.aliases.apart
        shape = self.amplitude.shape
        found = (self.waves @ weights.flatten(1)).view(2, -1, *shape[1:])[:, which]
        entries = torch.complex(*found.mul_(self.amplitude[a] * self.amplitude[b]))
        covariance = entries.new_empty(shape[0], *shape)
        covariance[a, b], covariance[b, a] = entries, entries.conj()
        covariance.diagonal().add_(1)
        volume = inverted(covariance)
        angles = 2 * math.pi * self.shifts @ self.aliases.steps
        cos, sin = angles.cos(), angles.sin()
        phases = torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1)))
        return Posterior(weights, phases, self.amplitude, covariance, volume)

    def innovation(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Spectra [t, b, y, x] -> C^-1 Y, in that precision."""
        parts = [(rows, self.part(rows)) for rows in self.blocks]
        known = [(rows, part.turn.to(dtype.to_complex()), part.posterior().to(dtype)) for rows, part in parts]

        def innovation(spectra: Tensor) -> Tensor:
            found = []
            for rows, turn, posterior in known:
                turned = planes(spectra[:, :, rows] * turn)
                rest = turned - posterior.expected(posterior.seen(posterior.mean(turned)))
                found.append(torch.complex(*rest.mul_(posterior.weights)).mul_(turn.conj()))
            return torch.cat(found, 2)

        return innovation

    def leverage(self, posterior: Posterior) -> Tensor:
        """[t, b, y, x] (H B^-1 H^H V^-1)_tt of every observation."""
        return self._leverage(posterior, self._pairs(posterior))

    def _pairs(self, posterior: Posterior) -> Tensor:
        """[2 d, b, y, x] sums of U_a (B^-1)_ab U_b, and their conjugates, over pairs with the same difference."""
        (a, b), apart, which = self.aliases.apart
        power = self.amplitude[a] * self.amplitude[b] * (1 + (a > b)[:, None, None, None])
        each = torch.view_as_real(posterior.covariance[a, b]).movedim(-1, 0) * power
        # as a product: sums by index are not reproducible on some devices
        together = (which == torch.arange(apart.shape[1], device=which.device)[:, None]).to(each)
        return (together @ each.flatten(2)).view(-1, *each.shape[2:])

    def _leverage(self, posterior: Posterior, pairs: Tensor) -> Tensor:
        weights = posterior.weights
        return (self.waves.T @ pairs.flatten(1)).view(weights.shape).mul_(weights)

    def slopes(self, frames: Frames) -> Slopes:
        """-log evidence and its derivatives."""
        counts, clear, waves = frames.counts, _field(frames.clear), self.waves
        given = self.posterior()
        turned = planes(frames.spectra * self.turn)
        mean = given.mean(turned)
        seen = given.seen(mean)
        expected = given.expected(seen)
        rest = turned.sub_(expected)
        innovation = rest * given.weights
        energy = rest.mul_(innovation).sum(0)  # Y^H C^-1 Y without |m|^2
        agreement = (innovation * expected).sum(0)
        turning = innovation[0] * expected[1] - innovation[1] * expected[0]
        there = given if frames.whole else self.posterior(frames.clear)
        pairs = self._pairs(there)
        leverage = self._leverage(there, pairs)

        size = mean.real.square() + mean.imag.square()
        along = (clear - leverage - energy) / 2  # log v
        volume = torch.einsum("tbyx,tb->byx", self.variance.log(), frames.clear) + there.volume
        nats = (energy.sum(0) + size.sum(0) + volume + math.log(2 * math.pi) * frames.clear.sum(0)[:, None, None]) / 2
        spread = along / self.variance
        power = 2 * self.amplitude.square() * torch.einsum("tbyx,tb->byx", spread, self.change)

        # f_a = f_0 + integers
        each = turning.sum(1) * counts
        first = torch.stack((each.sum(2) @ self.aliases.rows[0], each.sum(1) @ self.aliases.columns[0]), 1)
        both = innovation.flatten(2).flatten(0, 1) @ (seen * counts).flatten(2).flatten(0, 1).T
        real, imaginary = both.view(2, len(clear), 2, -1).permute(0, 2, 1, 3)
        cos, sin = given.phases[: len(clear)].chunk(2, 1)
        across = (real[1] - imaginary[0]) * cos - (real[0] + imaginary[1]) * sin
        between = there.weights.flatten(1) @ (pairs * counts).flatten(1).T
        turns = (waves * between.T.roll(len(waves) // 2, 0)).view(2, -1, len(clear))
        of_volume = (turns[0] - turns[1]).T @ self.aliases.apart[1].T / 2
        return Slopes(
            nats=(nats * counts).sum(),
            shifts=2 * math.pi * (of_volume - first - across @ self.aliases.steps.T),
            gain=_total(leverage - agreement, counts) / self.gain,
            noise=_total(spread, counts),
            change=_total(spread * self.scene, counts),
            amplitude=(there.found - size + power) * counts,
        )


@dataclass(frozen=True)
class Posterior:
    """The posterior of the scene given turned frames: see `Model.turn`."""

    weights: Tensor  # [t, b, y, x] g^2 / v
    phases: Tensor  # [2 t, 2 a] exp(2 pi i (f_0 - f_a) . d_t), as it multiplies real and imaginary parts
    amplitude: Tensor  # [a, b, y, x] U
    covariance: Tensor  # [a, a, b, y, x] B^-1
    volume: Tensor  # [b, y, x] log det B

    def to(self, dtype: torch.dtype) -> Posterior:
        weights, phases, amplitude, volume = (
            x.to(dtype) for x in (self.weights, self.phases, self.amplitude, self.volume)
        )
        return Posterior(weights, phases, amplitude, self.covariance.to(dtype.to_complex()), volume)

    @property
    def found(self) -> Tensor:
        """[a, b, y, x] the fraction of the aliases' power that is recovered: 1 minus the diagonal of B^-1."""
        return 1 - self.covariance.diagonal().movedim(-1, 0).real

    def mean(self, turned: Tensor) -> Tensor:
        """[a, b, y, x] m, from turned frames [2, t, b, y, x]."""
        seen = self.phases.T @ (turned * self.weights).flatten(2).flatten(0, 1)
        return applied(self.covariance, torch.complex(*(seen.view(2, *self.amplitude.shape) * self.amplitude)))

    def seen(self, mean: Tensor) -> Tensor:
        """[2, a, b, y, x] G X for the mean m."""
        return torch.view_as_real(mean).movedim(-1, 0) * self.amplitude

    def expected(self, seen: Tensor) -> Tensor:
        """[2, t, b, y, x] predicted turned frames, from G X."""
        return (self.phases @ seen.flatten(2).flatten(0, 1)).view(2, *self.weights.shape)


@dataclass(frozen=True)
class Slopes:
    """-log evidence, nats, and its derivatives."""

    nats: Tensor
    shifts: Tensor  # [t, 2]
    gain: Tensor  # [t, b]
    noise: Tensor  # [t, b] along its variance
    change: Tensor  # [t, b]
    amplitude: Tensor  # [a, b, y, x] along log U


def _field(x: Tensor) -> Tensor:
    """[t, b] at all frequencies."""
    return x[..., None, None]


def _total(x: Tensor, counts: Tensor) -> Tensor:
    """[t, b] sums over frequencies [y, x]."""
    return x.flatten(2) @ counts.flatten()


def planes(z: Tensor) -> Tensor:
    """[2, ...] real and imaginary parts of z [...]."""
    return torch.view_as_real(z).movedim(-1, 0).contiguous()


class NegativeLogEvidence(torch.autograd.Function):
    """Sum over bands, nats; the gradient is computed along with the value, at twice its cost."""

    @staticmethod
    def forward(ctx, frames: Frames, aliases: Aliases, *parameters: Tensor) -> Tensor:
        model = Model(aliases, *parameters)
        found = []
        for rows in model.blocks:
            part = replace(frames, spectra=frames.spectra[:, :, rows], counts=frames.counts[rows])
            found.append(model.part(rows).slopes(part))
        total = [sum(getattr(s, name) for s in found) for name in ("nats", "shifts", "gain", "noise", "change")]
        amplitude = torch.cat([s.amplitude for s in found], 2) / model.amplitude
        ctx.save_for_backward(*total[1:], torch.where(model.amplitude == 0, 0, amplitude))
        return total[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, output: Tensor):
        return None, None, *(output * slope for slope in ctx.saved_tensors)


def negative_log_evidence(frames: Frames, model: Model) -> Tensor:
    """-log p(frames), nats, summed over bands; differentiable once, by all parameters of the model."""
    given = (model.shifts, model.gain, model.noise, model.change, model.amplitude)
    return NegativeLogEvidence.apply(frames, model.aliases, *given)


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
