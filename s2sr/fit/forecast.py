"""What a fit will recover, before there is one.

With B as in `spectral_model`, the posterior variance of X at the frequency f_a is P(f_a) (B^-1)_aa. So e = (B^-1)_aa is
the expected error as a fraction of the signal's power: 0 where the frames determine it, 1 where they say nothing.

Detail counts as recovered up to the lowest frequency at which the error's amplitude reaches half the signal's, e = 1/4:
along an axis by the profile of e, over all directions by its mean on rings |f|. The shifts enter through the aliases,
which cannot be told apart if all dates see them alike.

How well the shifts can be known is the Cramer-Rao bound. Both assume the model: Gaussian scenes with the power law of
`Spectrum`, one shift per date, and (for e) known shifts. Change between dates counts as noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence.information import shift_information
from s2sr.fit.evidence.patch import Fit
from s2sr.fit.evidence.spectral_model import Model
from s2sr.model.spectrum import Spectrum

PIXEL = 10.0  # metres, an LR pixel
HALF = 0.25  # of the signal's power: an error of half the amplitude
FINE = 64  # frequencies per axis on which e is sampled
COARSE = 16  # at most, for the shifts' information, a smooth sum: 1.2 % more than with 96
EXACT = 1e-5  # reflectance: a lower noise makes covariances singular


class Reach(NamedTuple):
    """The highest recovered frequencies of one band, cycles per LR pixel."""

    all: float  # over all directions
    y: float  # of detail that varies along the rows' axis
    x: float  # along the columns' axis


@dataclass(frozen=True)
class Forecast:
    """What a fit will recover; prints as one line."""

    shift: float  # lowest possible root mean square error, LR pixels
    frequency: float  # the highest recovered, cycles per LR pixel, mean over bands
    bands: dict[str, Reach]

    @property
    def resolution(self) -> float:
        """Half the period of the finest recovered detail, metres: the pixel size that just resolves it."""
        return half_period(self.frequency)

    @property
    def scale(self) -> int:
        """The least product scale (pixels per LR pixel) whose Nyquist frequency covers every band and axis."""
        finest = max(max(reach) for reach in self.bands.values())
        return next(s for s in range(1, 9) if s / 2 >= finest)

    def metrics(self) -> dict[str, float]:
        """As in metrics.json."""
        found = {"shift_px": self.shift, "frequency": self.frequency, "resolution_m": self.resolution}
        return {f"forecast_{name}": value for name, value in found.items()}

    def __str__(self) -> str:
        if self.frequency == 0:
            return "forecast: nothing will be recovered with an error under half of the signal"
        return (
            f"forecast: shifts to {self.shift:.4f} px; detail to {self.frequency:.2f} cycles per pixel "
            f"({self.resolution:.1f} m per half period) with an error under half of the signal; "
            f"scale {self.scale} shows it all, more is interpolation and prior"
        )


def half_period(frequency: float) -> float:
    """Metres, of a frequency in cycles per LR pixel."""
    return PIXEL / (2 * frequency) if frequency else math.inf


@dataclass(frozen=True)
class Conditions:
    """The conditions that determine how much of a scene can be recovered. Tensors are float64."""

    bands: tuple[str, ...]
    shape: tuple[int, int]  # LR pixels
    shifts: Tensor  # [t, 2] LR pixels
    noise: Tensor  # [t, b] reflectance, per measurement, as if all were valid, independent and of gain 1
    sigma: Tensor  # [b] of the PSF, LR pixels
    widths: Tensor  # [b] of the detector, LR pixels
    spectrum: Spectrum

    @classmethod
    def of(cls, fit: Fit) -> Conditions:
        """The conditions estimated by a fit."""
        field = fit.field
        noise = fit.noise / field.radiometry.gain
        shifts, noise, sigma, widths = (
            x.detach().double() for x in (field.shifts, noise, field.sigma_psf, field.widths)
        )
        return cls(field.bands, field.grid.shape, shifts, noise.clamp(min=EXACT), sigma, widths, fit.spectrum)

    def expected(self, dates: int, *, jitter: Sequence[float], seed: int = 0) -> Conditions:
        """The same with so many dates of typical noise, their shifts drawn with standard deviations (dy, dx)."""
        random = torch.Generator().manual_seed(seed)
        shifts = torch.randn(dates, 2, generator=random, dtype=torch.float64)
        shifts = (shifts - shifts.mean(0)) / shifts.std(0) * torch.tensor(jitter)
        return replace(self, shifts=shifts, noise=self.noise.log().mean(0).exp().expand(dates, -1))

    def jitter(self) -> tuple[float, float]:
        """Standard deviations (dy, dx) of the shifts, LR pixels."""
        y, x = self.shifts.std(0).tolist()
        return y, x

    def seen(self, bands: Sequence[int], shape: tuple[int, int]) -> Model:
        """Second moments of frames of `shape` measurements, in bands of one width and in pixels of their own grid.

        The pitch of that grid is the detector's width, however the file stores the samples.
        """
        pitch, aliases = self.widths[bands[0]], Aliases.of(shape, device=self.shifts.device)
        power = torch.stack([self.spectrum(b, aliases.squared() / pitch**2) for b in bands], 1)
        transfer = aliases.transfer(self.sigma[bands] / pitch, self.widths[bands] / pitch)
        noise = self.noise[:, bands].square()
        unchanged, gain = (torch.zeros_like(noise), torch.zeros_like(power[0])), torch.ones_like(noise)
        return Model(aliases, self.shifts / pitch, gain, noise, *unchanged, transfer * power.sqrt() / pitch)

    @torch.no_grad()
    def shift_error(self) -> float:
        """The lowest root mean square error of the shifts, LR pixels: the Cramer-Rao bound for zero-mean shifts."""
        total = torch.zeros(())
        for pitch in self.widths.unique().tolist():
            rows, columns = (min(max(1, int(n / pitch)), COARSE) for n in self.shape)
            model = self.seen((self.widths == pitch).nonzero()[:, 0].tolist(), (rows, columns))
            measurements = math.prod(self.shape) / pitch**2
            total = total + shift_information(model) * (measurements / (rows * columns) / pitch**2)
        bound = float(torch.linalg.pinv(total, rtol=1e-9, hermitian=True).diagonal().mean().sqrt())
        return bound or math.inf  # without any information pinv is 0

    @torch.no_grad()
    def reach(self, band: int) -> Reach:
        """The frequencies up to which a band is recovered."""
        model, pitch = self.seen([band], (FINE, FINE)), float(self.widths[band])
        aliases, shares = model.aliases, 1 - model.posterior().found[:, 0]  # e
        rings = (aliases.squared().sqrt() * FINE / 2).round().long()  # of two frequencies' width
        counts = aliases.counts.expand(shares.shape)
        size = int(rings.max()) + 1
        total, number = (
            torch.zeros(size, dtype=shares.dtype, device=shares.device).index_add(0, rings.flatten(), x.flatten())
            for x in (shares * counts, counts)
        )
        ring = torch.arange(size) * 2 / FINE
        # the pairs of aliases are in the order of `Aliases.pairs`; the first alias of 0 is 0
        rows, columns = len(aliases.rows), len(aliases.columns)
        grid = shares.unflatten(0, (rows, columns))
        return Reach(
            crossing(ring, (total / number).cpu()) / pitch,
            crossing(aliases.rows.flatten().abs().cpu(), grid[:, 0, :, 0].flatten().cpu()) / pitch,
            crossing(aliases.columns.flatten().abs().cpu(), grid[0, :, 0].flatten().cpu()) / pitch,
        )

    @property
    def frequency(self) -> float:
        """The highest that is recovered, cycles per LR pixel: the mean over bands."""
        return sum(self.reach(b).all for b in range(len(self.bands))) / len(self.bands)

    def forecast(self) -> Forecast:
        bands = {band: self.reach(b) for b, band in enumerate(self.bands)}
        return Forecast(self.shift_error(), sum(reach.all for reach in bands.values()) / len(bands), bands)


def crossing(frequency: Tensor, share: Tensor) -> float:
    """The lowest frequency at which the error's share [n] of the signal's power reaches 1/4; at most 1.

    The share is interpolated linearly between frequencies [n], given in any order.
    """
    order = frequency.argsort()
    f, e = frequency[order], share[order]
    above = (e >= HALF).nonzero()
    if not len(above) or f[int(above[0])] > 1:
        return 1.0
    k = int(above[0])
    return float(f[k] - (f[k] - f[k - 1]) * (e[k] - HALF) / (e[k] - e[k - 1])) if k else 0.0
