"""Which frequencies of a product are real: its correlation C(f) with the truth, ring by ring.

Resolved is where C > 1/2. C falls with frequency, so the nearest falling curve is compared with 1/2; frequencies at
which the standard error of C exceeds 1/4 count as unresolved. Frequencies are cycles per detector pixel within this
module and `halves`, cycles per LR pixel outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.optimize import isotonic_regression

from s2sr.model.field import SplatField
from s2sr.model.scene import Scene
from s2sr.report.metrics import area_average

EDGES = np.arange(0, 1.11, 0.05)  # of the rings, cycles per detector pixel
RINGS = (EDGES[:-1] + EDGES[1:]) / 2
TOGETHER = 4  # number of lowest rings, of few modes: they share a slope, and none counts as below the criterion
CRITERION = 0.5  # C
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
    level, widths = min(field.scale, scene.truth.scale), widths_of(field)
    truth = area_average(scene.truth.reflectance, scene.truth.scale, level, offset)
    found = ring_correlation(field.render(field.grid.scaled(level)).cpu().numpy(), truth, level, widths)
    return Resolution(field.bands, widths, found, np.zeros_like(found))


def widths_of(field: SplatField) -> Array:
    """[b] widths of the bands' detector pixels, LR pixels."""
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
