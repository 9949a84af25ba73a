"""What the evidence is computed of: the clearest square of the frames, for bands that are measured on one grid.

A band is treated on the grid of its own measurements: of 20 m, if a file repeats each 20 m sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from s2sr.fit.evidence.spectral_model import Model, of_change
from s2sr.fit.evidence.window import Window

if TYPE_CHECKING:
    from s2sr.model.field import SplatField
    from s2sr.model.sampling import Sampling
    from s2sr.model.spectrum import Spectrum


class Fit(Protocol):
    """What has an evidence: a Problem, or a sample of a scene before there is one."""

    field: SplatField
    frames: Tensor  # [t, b, y, x] reflectance
    valid: Tensor  # [t, b, y, x] bool
    trusted: Tensor  # [t, b, y, x] bool: the valid samples that agree with other observations
    filled: dict[Sampling, Tensor]  # [t, b, y, x] the part that is used, untrusted samples as predicted
    spectrum: Spectrum

    @property
    def noise(self) -> Tensor: ...  # [t, b] standard deviation, reflectance

    @property
    def change(self) -> Tensor: ...  # [t, b] its power at the LR pixels' Nyquist frequency, reflectance squared

    @property
    def change_slope(self) -> Tensor: ...  # [b] of its spectrum, a power law


class Patch:
    """Some bands of a fit, which share one sampling, seen through a window that is fixed for a round.

    numbers: indices of the bands. side, taper and lowest: see `Evidence`.
    """

    def __init__(
        self, fit: Fit, numbers: list[int], sampling: Sampling, *, side: int, taper: float, lowest: float
    ) -> None:
        self.fit, self.sampling = fit, sampling
        self.bands = bands = torch.tensor(numbers, device=fit.frames.device)
        self.pitch = pitch = sampling.pitch
        rows, columns = sampling.slices()
        _, _, y, x = clearest(fit.valid[:, bands, rows, columns], side // pitch)
        self.part = (slice(None), bands, _every(rows, y), _every(columns, x))
        height, width = fit.valid[self.part].shape[2:]
        shifts = fit.field.shifts.detach().double() / pitch
        self.window = Window((height, width), shifts, taper=taper / pitch, lowest=lowest * pitch)
        self.squared = self.window.aliases.squared() / pitch**2  # cycles per LR pixel
        self.basis = fit.spectrum.basis(self.squared)
        power = self.window.power
        self.clear = (fit.trusted[self.part] * power).sum((2, 3)) / power.sum((2, 3))  # [t, b]

    def model(self) -> Model:
        """The second moments at the current parameters, in double precision and pixels of the bands' own grid."""
        fit, field, bands = self.fit, self.fit.field, self.bands
        gain, noise, change = (x[:, bands].double() for x in (field.radiometry.gain, fit.noise, fit.change))
        density = fit.spectrum.coefficients[bands].double() @ self.basis.flatten(0, 2).T
        root = (density / 2).exp().view(len(bands), *self.squared.shape).movedim(1, 0)
        shifts, transfer = field.shifts.double() / self.pitch, self.transfer()
        changing = self.change(transfer).sum(0)
        return Model(self.window.aliases, shifts, gain, noise.square(), change, changing, transfer * root / self.pitch)

    def transfer(self) -> Tensor:
        """[a, b, y, x] G"""
        sigma, widths = (x[self.bands].double() / self.pitch for x in (self.fit.field.sigma_psf, self.fit.field.widths))
        return self.window.aliases.transfer(sigma, widths)

    def change(self, transfer: Tensor) -> Tensor:
        """[a, b, y, x] the spectrum of a change of unit power, as seen through G."""
        return of_change(transfer, self.basis[..., 1], self.fit.change_slope[self.bands]) / self.pitch**2


def clearest(valid: Tensor, side: int) -> tuple[slice, slice, slice, slice]:
    """The part of [t, b, y, x], at most `side` along y and x, with the most valid samples; of equals, the first."""
    starts = []
    for n in valid.shape[2:]:
        whole = min(n, side)
        starts.append([slice(k, k + whole) for k in range(n % whole // 2, n - whole + 1, whole)])
    parts = [(slice(None), slice(None), y, x) for y in starts[0] for x in starts[1]]
    return max(parts, key=lambda part: int(valid[part].sum()))


def _every(grid: slice, part: slice) -> slice:
    """A contiguous part of the pixels selected by a slice, as one slice."""
    return slice(grid.start + part.start * grid.step, grid.start + part.stop * grid.step, grid.step)
