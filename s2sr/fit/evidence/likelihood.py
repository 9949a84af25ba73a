"""The evidence: the probability of the frames with the scene integrated out; and its derivatives.

    -2 log evidence = sum_f { Y^H C^-1 Y + log det C + t log 2 pi },   det C = det B prod_t v_t

with Y, B, C and v as in `spectral_model`. The derivative along any dC is 1/2 tr[(C^-1 - C^-1 Y Y^H C^-1) dC]: all of
them come from m, B^-1 and C^-1 Y.

Masked samples that were set to their conditional mean add nothing to the first term, exactly. The determinant must then
be that of the remaining samples: with a fraction c_t of them clear, it has B of that fraction, and sum_t c_t log v_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence.spectral_model import Model, planes


@dataclass(frozen=True)
class Frames:
    """The observations: `spectra` [t, b, y, x], their unitary rfft2, and how much of it counts."""

    spectra: Tensor
    counts: Tensor  # [y, x] how often each frequency counts
    clear: Tensor  # [t, b] fraction of the samples that were observed, not filled in
    whole: bool = False  # whether `clear` is known to be 1 everywhere

    def part(self, rows: slice) -> Frames:
        return replace(self, spectra=self.spectra[:, :, rows], counts=self.counts[rows])


def negative_log_evidence(frames: Frames, model: Model) -> Tensor:
    """-log p(frames), nats, summed over bands; differentiable once, by all parameters of the model."""
    given = (model.shifts, model.gain, model.noise, model.change, model.changing, model.amplitude)
    return NegativeLogEvidence.apply(frames, model.aliases, *given)


class NegativeLogEvidence(torch.autograd.Function):
    """Sum over bands, nats; the gradient is computed along with the value, at twice its cost."""

    @staticmethod
    def forward(ctx, frames: Frames, aliases: Aliases, *parameters: Tensor) -> Tensor:
        model = Model(aliases, *parameters)
        parts = [slopes(frames.part(rows), model.part(rows)) for rows in model.blocks]
        *sums, changing, amplitudes = zip(*parts, strict=True)
        nats, *total = (sum(each) for each in sums)
        amplitude = torch.cat(amplitudes, 2) / model.amplitude
        amplitude = torch.where(model.amplitude == 0, 0, amplitude)
        ctx.save_for_backward(*total, torch.cat(changing, 1), amplitude)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx, output: Tensor):
        return None, None, *(output * slope for slope in ctx.saved_tensors)


class Slopes(NamedTuple):
    """-log evidence, nats, and its derivatives."""

    nats: Tensor
    shifts: Tensor  # [t, 2]
    gain: Tensor  # [t, b]
    noise: Tensor  # [t, b] along its variance
    change: Tensor  # [t, b]
    changing: Tensor  # [b, y, x]
    amplitude: Tensor  # [a, b, y, x] along log U


def slopes(frames: Frames, model: Model) -> Slopes:
    """-log evidence and its derivatives."""
    counts, clear, waves = frames.counts, frames.clear[..., None, None], model.waves
    given = model.posterior()
    turned = planes(frames.spectra * model.turn)
    mean = given.mean(turned)
    seen = given.seen(mean)
    expected = given.expected(seen)
    rest = turned.sub_(expected)
    innovation = rest * given.weights
    energy = rest.mul_(innovation).sum(0)  # Y^H C^-1 Y without |m|^2
    agreement = (innovation * expected).sum(0)
    turning = innovation[0] * expected[1] - innovation[1] * expected[0]
    there = given if frames.whole else model.posterior(frames.clear)
    leverage = model.leverage(there)

    size = mean.real.square() + mean.imag.square()
    along = (clear - leverage - energy) / 2  # log v
    volume = torch.einsum("tbyx,tb->byx", model.variance.log(), frames.clear) + there.volume
    nats = (energy.sum(0) + size.sum(0) + volume + math.log(2 * math.pi) * clear.sum(0)) / 2
    spread = along / model.variance

    # f_a = f_0 + integers
    each = turning.sum(1) * counts
    first = torch.stack((each.sum(2) @ model.aliases.rows[0], each.sum(1) @ model.aliases.columns[0]), 1)
    both = innovation.flatten(2).flatten(0, 1) @ (seen * counts).flatten(2).flatten(0, 1).T
    real, imaginary = both.view(2, len(clear), 2, -1).permute(0, 2, 1, 3)
    cos, sin = given.phases[: len(clear)].chunk(2, 1)
    across = (real[1] - imaginary[0]) * cos - (real[0] + imaginary[1]) * sin
    between = there.weights.flatten(1) @ (there.pairs * counts).flatten(1).T
    turns = (waves * between.T.roll(len(waves) // 2, 0)).view(2, -1, len(clear))
    of_volume = (turns[0] - turns[1]).T @ model.aliases.apart[1].T / 2
    return Slopes(
        nats=(nats * counts).sum(),
        shifts=2 * math.pi * (of_volume - first - across @ model.aliases.steps.T),
        gain=_total(leverage - agreement, counts) / model.gain,
        noise=_total(spread, counts),
        change=_total(spread * model.changing, counts),
        changing=torch.einsum("tbyx,tb->byx", spread, model.change) * counts,
        amplitude=(there.found - size) * counts,
    )


def _total(x: Tensor, counts: Tensor) -> Tensor:
    """[t, b] sums over frequencies [y, x]."""
    return x.flatten(2) @ counts.flatten()
