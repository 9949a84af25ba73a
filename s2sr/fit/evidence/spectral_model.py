"""The model of the frames' spectra, linear in the scene's and Gaussian; and the scene's posterior.

For given shifts the model is linear in the scene, and on a periodic domain each LR frequency f couples only its aliases
f_a. With G the footprint's transfer function (the PSF without splats), P the scene's power spectrum, v_t the
variance of what the scene does not explain (noise, and change with its own spectrum), g_t the gain and Y the unitary
DFT of the frames

    Y_t(f) = sum_a g_t G(f_a) exp(-2 pi i f_a . d_t) X(f_a) + N_t
    U = diag(G sqrt(P)),  H_ta = g_t exp(-2 pi i f_a . d_t) U_a,  B = I + H^H V^-1 H,  C = H H^H + V
    X given Y: mean sqrt(P) m with m = B^-1 H^H V^-1 Y,  covariance sqrt(P) B^-1 sqrt(P),  C^-1 Y = V^-1 (Y - H m)

(Tipping & Bishop 2003 in the block form of Elad & Hel-Or 2001.) If only a fraction c_t of the samples is clear and the
rest is set to its conditional mean, B = I + H^H c V^-1 H, which is exact for masks that are evenly spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases, applied, inverted

BLOCK = 2**17  # values of all observations and bands at a time, to stay in the cache


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
    change: Tensor  # [t, b] its power at the LR pixels' Nyquist frequency, reflectance squared
    changing: Tensor  # [b, y, x] of unit power, as frames see it: the sum of `of_change` over aliases
    amplitude: Tensor  # [a, b, y, x] U

    @property
    def blocks(self) -> Iterator[slice]:
        """Rows of frequencies, as many at a time as stay in the cache."""
        n, size = self.amplitude.shape[2], self.gain.numel() * self.amplitude.shape[3]
        height = max(1, BLOCK // size)
        return (slice(k, k + height) for k in range(0, n, height))

    def part(self, rows: slice) -> Model:
        aliases = replace(self.aliases, rows=self.aliases.rows[:, rows])
        return replace(self, aliases=aliases, changing=self.changing[:, rows], amplitude=self.amplitude[:, :, rows])

    @cached_property
    def variance(self) -> Tensor:
        """[t, b, y, x] v"""
        return torch.addcmul(self.noise[..., None, None], self.change[..., None, None], self.changing)

    @cached_property
    def weights(self) -> Tensor:
        """[t, b, y, x] g^2 / v"""
        return self.gain.square()[..., None, None] / self.variance

    @cached_property
    def waves(self) -> Tensor:
        """[2 d, t] see `Aliases`."""
        return self.aliases.waves(self.shifts)

    @property
    def turn(self) -> Tensor:
        """[t, b, y, x] factors that remove from frames their gain and the phase of the first aliases."""
        return self.aliases.phases(-self.shifts)[:, None] / self.gain[..., None, None]

    def posterior(self, clear: Tensor | None = None) -> Posterior:
        """The posterior of the scene if the fraction `clear` [t, b] of the samples is valid; default: all."""
        weights = self.weights if clear is None else self.weights * clear[..., None, None]
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
        return Posterior(self.aliases, weights, phases, self.amplitude, covariance, volume)

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
        weights = posterior.weights
        return (self.waves.T @ posterior.pairs.flatten(1)).view(weights.shape).mul_(weights)

    def precision(self, posterior: Posterior) -> Tensor:
        """[t, b, y, x] (C^-1)_tt of every observation."""
        return (1 - self.leverage(posterior)) / self.variance


@dataclass(frozen=True)
class Posterior:
    """The posterior of the scene given turned frames: see `Model.turn`."""

    aliases: Aliases
    weights: Tensor  # [t, b, y, x] g^2 / v
    phases: Tensor  # [2 t, 2 a] exp(2 pi i (f_0 - f_a) . d_t), as it multiplies real and imaginary parts
    amplitude: Tensor  # [a, b, y, x] U
    covariance: Tensor  # [a, a, b, y, x] B^-1
    volume: Tensor  # [b, y, x] log det B

    def to(self, dtype: torch.dtype) -> Posterior:
        return replace(
            self,
            weights=self.weights.to(dtype),
            phases=self.phases.to(dtype),
            amplitude=self.amplitude.to(dtype),
            covariance=self.covariance.to(dtype.to_complex()),
            volume=self.volume.to(dtype),
        )

    @property
    def found(self) -> Tensor:
        """[a, b, y, x] the fraction of the aliases' power that is recovered: 1 minus the diagonal of B^-1."""
        return 1 - self.covariance.diagonal().movedim(-1, 0).real

    @cached_property
    def pairs(self) -> Tensor:
        """[2 d, b, y, x] sums of U_a (B^-1)_ab U_b, and their conjugates, over pairs with the same difference."""
        (a, b), apart, which = self.aliases.apart
        power = self.amplitude[a] * self.amplitude[b] * (1 + (a > b)[:, None, None, None])
        each = torch.view_as_real(self.covariance[a, b]).movedim(-1, 0) * power
        # as a product: sums by index are not reproducible on some devices
        together = (which == torch.arange(apart.shape[1], device=which.device)[:, None]).to(each)
        return (together @ each.flatten(2)).view(-1, *each.shape[2:])

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


def of_change(transfer: Tensor, basis: Tensor, slope: Tensor) -> Tensor:
    """[a, b, ...] the spectrum of a change of unit power as frames see it: G^2 times a power law.

    transfer: [a, b, ...] G. basis: [a, ...] of the slope, see `Spectrum.basis`. slope: [b].
    """
    return transfer.square() * (slope.double().view(-1, *[1] * (basis.dim() - 1)) * basis[:, None]).exp()


def planes(z: Tensor) -> Tensor:
    """[2, ...] real and imaginary parts of z [...]."""
    return torch.view_as_real(z).movedim(-1, 0).contiguous()
