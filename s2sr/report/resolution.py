"""Which frequencies of a product are real, from two reconstructions of disjoint halves of the dates.

If the truth X were all that two halves have in common, their Fourier ring correlation F(f) would tell how much of it
each contains, and their mean would correlate with X by

    C = sqrt(2 F / (1 + F)),        resolved where C > 1/2, that is F > 1/7

(Rosenthal & Henderson 2003). But halves that share a prior also share what it invents, whatever the data: with TV their
F stays near 3/4 at every frequency (docs/log.md). So each half is compared with the dates of the other, which it has
never seen. Each of its rings P_r is put through the forward model for those dates, and the frames are regressed on all
rings together: the slope b_r estimates <X, P_r> / <P_r, P_r>, 1 for real detail and 0 for invented detail; its standard
error shows where the instrument is blind. Then

    C_half = b_r sqrt(<P_r, P_r> / S_r),        F = C_half,1 C_half,2

where S is the power of the scene: the product's own up to 0.4 cycles per pixel, beyond it the power law fitted from 0.1
to 0.4. C falls with frequency, so the nearest falling curve is compared with 1/2; frequencies at which the standard
error of C exceeds 1/4 count as unresolved. Frequencies are cycles per detector pixel within this module, cycles per LR
pixel outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import fft
from scipy.optimize import isotonic_regression
from torch import Tensor

from s2sr.model.field import SplatField
from s2sr.model.scene import Scene
from s2sr.report.figures import COLOURS, DPI, FAINT, INK, TEXT
from s2sr.report.metrics import area_average

EDGES = np.arange(0, 1.11, 0.05)  # of the rings, cycles per detector pixel
RINGS = (EDGES[:-1] + EDGES[1:]) / 2
TOGETHER = 4  # number of lowest rings that share a slope
POWER_LAW = slice(2, 8)  # rings from which it is fitted, 0.1 to 0.4
CRITERION = 0.5  # C; F = 1/7
KNOWN = 0.25  # largest standard error of a C that counts as known
FADE = 8  # LR pixels over which images are faded out before their Fourier transform

Array = np.ndarray


@dataclass(frozen=True)
class Resolution:
    """The correlation of a product with the truth by band and ring of `RINGS`, and how well it is known."""

    bands: tuple[str, ...]
    widths: Array  # [b] detector pixels, LR pixels
    correlation: Array  # [b, ring] C
    error: Array  # [b, ring] its standard error

    @property
    def frequencies(self) -> Array:
        """[b] highest frequency up to which C is known to exceed 1/2, cycles per LR pixel."""
        pairs = zip(self.correlation, self.error, strict=True)
        return np.array([crossing(falling(c, e)) for c, e in pairs]) / self.widths

    def metrics(self, name: str, metre: float | None) -> dict[str, float]:
        """`NAME_frequency` and `NAME_resolution_m`, half its period; per band, and for their mean frequency.

        metre: length of an LR pixel; None: unknown, and so is the resolution in metres.
        """
        f = self.frequencies
        each = {"": float(f.mean()), **{f"_{band}": float(x) for band, x in zip(self.bands, f, strict=True)}}
        found = {f"{name}_frequency{key}": x for key, x in each.items()}
        return found | ({f"{name}_resolution_m{key}": metre / (2 * x) for key, x in each.items()} if metre else {})


def by_truth(scene: Scene, field: SplatField, offset: tuple[float, float]) -> Resolution:
    """The resolution measured against the truth. offset: (dy, dx) LR pixels from the truth to the product."""
    if scene.truth is None:
        raise ValueError("the scene's truth is not known")
    level, widths = min(field.scale, scene.truth.scale), _widths(field)
    truth = area_average(scene.truth.reflectance, scene.truth.scale, level, offset)
    found = ring_correlation(field.render(field.grid.scaled(level)).cpu().numpy(), truth, level, widths)
    return Resolution(field.bands, widths, found, np.zeros_like(found))


def by_halves(
    field: SplatField,
    halves: Sequence[SplatField],  # two, solved for disjoint dates
    scenes: Sequence[Scene],  # with the valid samples of each half
    noise: Tensor,  # [t, b] reflectance
) -> Resolution:
    """The resolution of `field` estimated from two halves of the dates, by this module's formulas."""
    widths = _widths(field)
    rings = RINGS / widths[:, None]
    powers = np.stack([power for _, power in spectrum(field)], 1)
    law = np.stack([power_law(f, power) for f, power in zip(rings, powers, strict=True)])
    shares, errors = [], []
    for half, other in zip(halves, reversed(scenes), strict=True):
        slope, error, power = slopes(half, spectrum(half), other, noise)
        amplitude = np.sqrt(power / law)
        shares.append(slope * amplitude)
        errors.append(error * amplitude)
    ring = np.clip(shares[0] * shares[1], 0, 1)
    return Resolution(field.bands, widths, np.sqrt(2 * ring / (1 + ring)), np.hypot(*errors) / 2)


def _widths(field: SplatField) -> Array:
    return field.widths.cpu().numpy().astype(float)


def ring_correlation(a: Array, b: Array, scale: int, widths: Array) -> Array:
    """[b, ring] sum Re(A B*) / sqrt(sum |A|^2 sum |B|^2) over the rings of images [b, y, x], faded out at the border.

    scale: pixels per LR pixel; widths: [b] detector pixels, LR pixels. NaN for a ring without samples.
    """
    inside = [np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) for n in a.shape[1:]]
    fade = [np.sin(np.pi / 2 * np.clip(x / min(FADE * scale, len(x) / 2), 0, 1)) ** 2 for x in inside]
    window = fade[0][:, None] * fade[1]
    rows, columns = fft.fftfreq(a.shape[1], 1 / scale)[:, None], fft.rfftfreq(a.shape[2], 1 / scale)
    found = []
    for x, y, width in zip(a, b, widths, strict=True):
        X, Y = (fft.rfft2(window * (z - np.average(z, weights=window))) for z in (x, y))
        X[0, 0] = Y[0, 0] = 0  # only rounding errors, which in a small image would be all of the first ring
        place = np.digitize(width * np.hypot(rows, columns), EDGES).ravel() - 1
        # rfft2 omits conjugates, except in the first column and the last of an even number, which contain them
        twice = np.where((columns > 0) & (columns < scale / 2), 2.0, 1.0)
        both, one, two = (
            np.bincount(place, (v * twice).ravel(), len(EDGES))[: len(RINGS)]
            for v in ((X * Y.conj()).real, abs(X) ** 2, abs(Y) ** 2)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(both / np.sqrt(one * two))
    return np.stack(found)


def falling(curve: Array, error: Array) -> Array:
    """The non-increasing curve [ring] nearest to the given one in units of its error; 0 where not known."""
    known = np.flatnonzero((error <= KNOWN) & np.isfinite(curve))
    found = np.zeros(len(curve))
    # a minimum error, so that one exact ring does not outweigh all others
    weights = 1 / (error[known] ** 2 + 0.01**2)
    found[known] = isotonic_regression(curve[known], weights=weights, increasing=False).x
    return found


def crossing(curve: Array) -> float:
    """Where a curve [ring] first falls below the criterion, cycles per detector pixel; the last ring's edge if never.

    NaN (a ring beyond the lattice's Nyquist frequency) counts as below.
    """
    curve = np.nan_to_num(curve)
    below = np.flatnonzero((curve < CRITERION) & (np.arange(len(curve)) >= TOGETHER))
    if not len(below):
        return float(EDGES[-1])
    k = below[0]
    above = max(float(curve[k - 1]), CRITERION)
    return float(RINGS[k - 1] + (RINGS[k] - RINGS[k - 1]) * (above - CRITERION) / (above - curve[k]))


def power_law(frequency: Array, power: Array) -> Array:
    """A spectrum [ring] up to 0.4 cycles per pixel, extended by the power law fitted from 0.1 to 0.4."""
    slope, level = np.polyfit(np.log(frequency[POWER_LAW]), np.log(power[POWER_LAW]), 1)
    beyond = np.arange(len(power)) >= POWER_LAW.stop
    return np.where(beyond, np.exp(level + slope * np.log(frequency)), power)


def spectrum(field: SplatField) -> Iterator[tuple[Tensor, Array]]:
    """For each ring, (weights [b, y, x] of that ring alone; power [b] of the field, reflectance squared per mode).

    By cosine transforms, which have no jump at the lattice's border; the power is that inside the footprint, NaN for
    rings beyond the lattice's Nyquist frequency.
    """
    weights, lattice = field.weights.detach().cpu().numpy(), field.lattice
    rows, columns = (np.arange(n) * lattice.scale / (2 * n) for n in lattice.shape)
    f = np.hypot(rows[:, None], columns)
    splat = np.exp(-2 * (np.pi * lattice.sigma * f) ** 2)
    border = lattice.margin * lattice.scale
    place = np.digitize(_widths(field)[:, None, None] * f, EDGES) - 1
    coefficients = fft.dctn(weights, axes=(1, 2), norm="ortho")
    for k in range(len(RINGS)):
        ring = np.where(place == k, coefficients, 0)
        seen = fft.idctn(ring * splat, axes=(1, 2), norm="ortho")[:, border:-border, border:-border]
        with np.errstate(invalid="ignore"):
            power = np.square(seen, dtype=float).mean((1, 2)) / (place == k).mean((1, 2))
        yield torch.from_numpy(fft.idctn(ring, axes=(1, 2), norm="ortho")).to(field.weights), power


@torch.no_grad()
def slopes(
    field: SplatField, rings: Iterable[tuple[Tensor, Array]], scene: Scene, noise: Tensor
) -> tuple[Array, Array, Array]:
    """[b, ring] slopes of a scene's valid frames on the rings of a field's `spectrum`, their errors, and the power.

    Least squares in units of the noise, twice: the second time without residuals beyond 3 robust standard deviations
    (change between the dates). NaN for rings beyond the lattice's Nyquist frequency.
    """
    ring = deepcopy(field)
    dates = scene.valid.flatten(1).any(1)
    offset, std = (x[dates][..., None, None] for x in (field.radiometry.offset, noise))

    def seen(weights: Tensor) -> Tensor:
        ring.weights.copy_(weights)
        return (ring()[dates] - offset) / std

    frames = (scene.frames[dates] - offset) / std
    every = [(seen(weights), power) for weights, power in rings]
    regressors = [sum((x for x, _ in every[1:TOGETHER]), every[0][0]), *(x for x, _ in every[TOGETHER:])]
    found = np.full((2, len(field.bands), len(regressors)), np.nan)
    for b in range(len(field.bands)):
        clear = scene.valid[dates, b]
        y = frames[:, b][clear].double().numpy()
        x = np.stack([r[:, b][clear].double().numpy() for r in regressors], 1)
        known = x.any(0)
        x = x[:, known]
        residual = y - x @ np.linalg.lstsq(x, y)[0]
        usual = abs(residual) <= 3 * 1.4826 * np.median(abs(residual))
        x, y = x[usual], y[usual]
        inverse = np.linalg.inv(x.T @ x)
        slope = inverse @ (x.T @ y)
        variance = np.square(y - x @ slope).sum() / (len(y) - len(slope))
        found[:, b, known] = slope, np.sqrt(variance * inverse.diagonal())
    slope, error = np.concatenate([found[..., :1].repeat(TOGETHER, -1), found[..., 1:]], -1)
    return slope, error, np.stack([power for _, power in every], 1)


def curves(
    found: Resolution,
    halves: Sequence[SplatField],
    *,
    truth: Resolution | None = None,
    forecast: float | None = None,  # cycles per LR pixel up to which an error of 1/4 of the power was forecast
    metre: float | None = None,
) -> Figure:
    """C against frequency per band, with that of the truth, if known, and the correlation of the halves."""
    scale = halves[0].scale
    first, second = (half.render().cpu().numpy() for half in halves)
    agreement = ring_correlation(first, second, scale, found.widths)
    figure = Figure(figsize=(9.6, 6), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.08, 0.11, 0.89, 0.74))
    for b, (band, resolved) in enumerate(zip(found.bands, found.frequencies, strict=True)):
        f, colour = RINGS / found.widths[b], COLOURS[b % len(COLOURS)]
        c = np.where(found.error[b] <= KNOWN, found.correlation[b], np.nan)
        length = f" = {metre / (2 * resolved):.1f} m" if metre else ""
        axes.fill_between(f, c - found.error[b], c + found.error[b], color=colour, alpha=0.15, lw=0)
        axes.plot(f, c, color=colour, lw=2, label=f"{band}: up to {resolved:.2f}{length}")
        axes.plot(f, agreement[b], color=colour, lw=1, ls=":")
        if truth:
            axes.plot(f, truth.correlation[b], color=colour, lw=1.2, ls="--")
        axes.plot(resolved, CRITERION, "o", color=colour, ms=7, mec="white", zorder=4)
    axes.axhline(CRITERION, color=FAINT, lw=1)
    if forecast:
        promised = math.sqrt(1 - 1 / 4)  # C of an estimate whose error has 1/4 of the power
        axes.plot(forecast, promised, "*", color=INK, ms=13, mec="white", zorder=4)
        beside: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top"}  # the curves lie above
        beside["path_effects"] = [withStroke(linewidth=3, foreground="white")]
        axes.annotate("forecast", (forecast, promised), (-6, -3), size=TEXT - 2, color=INK, **beside)
    axes.set(xlim=(0, EDGES[-1] / found.widths.min()), ylim=(-0.02, 1.02))
    axes.set_xlabel("cycles per LR pixel", size=TEXT)
    axes.set_ylabel("correlation", size=TEXT)
    axes.tick_params(labelsize=TEXT - 2)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", fontsize=TEXT - 2, frameon=False)
    style: dict[str, Any] = {"color": FAINT, "size": TEXT - 2, "va": "top"}
    figure.text(0.08, 0.97, "Which detail is real", **style | {"color": INK, "size": TEXT, "weight": "bold"})
    lines = "solid: product with truth, estimated from two halves" + (", dashed: measured" if truth else "")
    figure.text(0.08, 0.925, lines, **style)
    figure.text(0.08, 0.885, "dotted: one half with the other, including what their common prior made up", **style)
    return figure
