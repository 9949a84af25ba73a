"""Scores of an image: sharpness, and fidelity to the truth.

Sharpness. At every scale the scores see the image through the same aperture, of the variance of an LR pixel's box,
1/12. The image's own pixel box contributes a variance of s^-2 / 12. So with N a Gaussian, lengths in LR pixels, per
band

    u = image * N(variance (1 - s^-2) / 12)          derivatives taken spectrally, the gradient at 8 samples per pixel
    c = P99 - P1 of image * N(variance 1)            the scene's contrast, at a resolution common to all methods
    edge_contrast   = P99(|grad u|) / c              1 / px
    gradient_energy = mean(|grad u|^2) / c^2         1 / px^2
    laplacian_var   = var(laplace u) / c^2           1 / px^4

An edge of height c blurred by a Gaussian of variance v has the steepest gradient c / sqrt(2 pi (v + 1/12)). None of the
scores distinguishes detail from ringing: read them beside the held-out error.

Fidelity. At 4 pixels per LR pixel (or the image's own scale if lower) against the area-averaged truth, without a
border of 6 LR pixels, after a least-squares fit a * image + b per band; the range is P99.5 - P0.5 of the truth; mean
over bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from scipy import fft, ndimage, sparse
from torch import Tensor
from torch.nn.functional import interpolate

BORDER = 6  # LR pixels excluded from fidelity on each side
FIDELITY_SCALE = 4  # pixels per LR pixel at which images are compared with the truth
SSIM_WINDOW = 7  # pixels
ROWS = 64  # rows of samples computed at a time
SHARPNESS = ("edge_contrast", "laplacian_var", "gradient_energy")

Array = Tensor | np.ndarray


def sharpness(image: Array, scale: int) -> dict[str, float]:
    """`edge_contrast`, `laplacian_var` and `gradient_energy` of an image, means over bands, by this module's formulas.

    image: [b, y, x] at `scale` pixels per LR pixel, each the mean over its pixel; gain and offset do not matter.
    Pixels that are NaN, or within 1.5 LR pixels of one, do not count. A band without contrast has no sharpness and
    makes the scores NaN.
    """
    bands = as_numpy(image)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        scores = list(pool.map(_band_sharpness, bands, [scale] * len(bands)))
    return {name: float(np.mean([score[name] for score in scores])) for name in SHARPNESS}


def bicubic(image: Tensor, scale: int) -> Tensor:
    """[b, y, x] interpolated to [b, y * scale, x * scale]; pixels are areas, so the footprint is unchanged."""
    # antialias adds no blur here, but selects Keys' a = -1/2, which reproduces ramps, unlike the default -3/4
    return interpolate(image[None], scale_factor=scale, mode="bicubic", align_corners=False, antialias=True)[0]


def area_average(image: Array, scale: int, to: int, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """[b, y * to, x * to] exact box means of [b, y * scale, x * scale], its content moved by `shift` (LR pixels).

    A positive shift moves it to larger row and column coordinates; border pixels are extended. Computed in the image's
    precision, or float32 for integers.
    """
    bands = as_numpy(image)
    shares = (_coverage(n, scale, to, moved) for n, moved in zip(bands.shape[1:], shift, strict=True))
    down, across = (share.astype(np.promote_types(bands.dtype, np.float32)) for share in shares)
    return np.stack([(across @ (down @ band).T).T for band in bands])


def fidelity(
    image: Array, truth: Array, *, scale: int, truth_scale: int, shift: Array | tuple[float, float] = (0.0, 0.0)
) -> dict[str, float]:
    """`psnr` (dB) and `ssim` of an image against the truth, means over bands, by this module's rule.

    image: [b, y * scale, x * scale]; truth: [b, y * truth_scale, x * truth_scale] over the same footprint.
    shift: (dy, dx) LR pixels, the mean over observations of (true shift - shift the image was made with). Pixel i of
        observation t sees the truth at i + 1/2 - true[t] and the image at i + 1/2 - estimated[t], so what lies at p in
        the truth lies at p + true[t] - estimated[t] in the image. A temporal mean was made with shifts of 0.
    NaN where less than one SSIM window is left inside the border.
    """
    from skimage.metrics import structural_similarity

    level = min(FIDELITY_SCALE, scale, truth_scale)
    dy, dx = (float(d) for d in shift)
    inside = (slice(None), *[slice(BORDER * level, -BORDER * level)] * 2)
    expected = area_average(truth, truth_scale, level, (dy, dx))[inside].astype(np.float64)
    found = area_average(image, scale, level)[inside].astype(np.float64)
    if expected.shape != found.shape:
        raise ValueError(
            f"image {tuple(image.shape)} at {scale}x and truth {tuple(truth.shape)} at {truth_scale}x differ"
        )
    if min(expected.shape[1:]) < SSIM_WINDOW:
        return {"psnr": math.nan, "ssim": math.nan}
    psnr, ssim = [], []
    for x, y in zip(found, expected, strict=True):
        variance = x.var()
        a = np.mean((x - x.mean()) * (y - y.mean())) / variance if variance > 0 else 0.0
        fitted = a * (x - x.mean()) + y.mean()
        value_range = float(np.subtract(*np.percentile(y, [99.5, 0.5])))
        with np.errstate(divide="ignore", invalid="ignore"):
            psnr.append(10 * np.log10(value_range**2 / np.mean((fitted - y) ** 2)))
        ssim.append(structural_similarity(y, fitted, data_range=value_range, win_size=SSIM_WINDOW))
    return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(ssim))}


def shift_rmse(estimated: Array, true: Array) -> float:
    """Root mean square difference of [t, 2] shifts over all components, LR pixels, less the mean one (the gauge)."""
    difference = as_numpy(estimated).astype(float) - as_numpy(true).astype(float)
    return float(np.sqrt(np.mean((difference - difference.mean(0)) ** 2)))


def percentile(values: np.ndarray, percent: float) -> float:
    """numpy's percentile, with its linear interpolation, in a quarter of the time."""
    place = percent / 100 * (values.size - 1)
    below = math.floor(place)
    parted = np.partition(values, below, axis=None)
    low = float(parted[below])
    return low + (place - below) * (float(parted[below + 1 :].min(initial=np.inf)) - low) if place > below else low


def as_numpy(x: Array) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


@lru_cache(maxsize=4)  # bands have the same size
def _coverage(size: int, scale: int, to: int, moved: float) -> sparse.csr_array:
    """[size * to / scale, size] the share of each old pixel in each new one; border pixels are extended."""
    first, last = np.arange(size, dtype=float), np.arange(1.0, size + 1)
    first[0], last[-1] = -np.inf, np.inf
    edges = (np.arange(size * to // scale + 1) / to - moved) * scale
    overlap = np.minimum(edges[1:, None], last) - np.maximum(edges[:-1, None], first)
    return sparse.csr_array(np.maximum(overlap, 0) * (to / scale))


def _band_sharpness(band: np.ndarray, scale: int) -> dict[str, float]:
    valid = np.isfinite(band)
    if not valid.any():
        return dict.fromkeys(SHARPNESS, math.nan)
    everywhere = bool(valid.all())
    level = (band if everywhere else band[valid]).mean(dtype=np.float64)
    modes = _zeros(band.shape)
    np.subtract(band, level, out=modes, casting="same_kind")
    if not everywhere:
        modes[~valid] = 0
        known = ndimage.binary_erosion(valid, iterations=math.ceil(1.5 * scale), border_value=1)
    for axis in (1, 0):
        modes = fft.dct(modes, axis=axis, norm="ortho", overwrite_x=True)

    def seen(field: np.ndarray) -> np.ndarray:
        if everywhere:
            return field
        centres = (
            ((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(field.shape, band.shape, strict=True)
        )
        return field[known[np.ix_(*centres)]]

    # `rate`: samples needed after the blur; more for extremes, which would else depend on the sampling phase
    smooth = seen(_Series(modes, scale, rate=2, variance=1.0).values())
    contrast = percentile(smooth, 99) - percentile(smooth, 1) if smooth.size else 0.0
    if contrast <= 1e-6 * abs(level):  # the precision of float32
        return dict.fromkeys(SHARPNESS, math.nan)
    variance = (1 - scale**-2) / 12
    squared = seen(_Series(modes, scale, rate=8, variance=variance).squared_gradient())
    laplacian = seen(_Series(modes, scale, rate=4, variance=variance).laplacian())
    return {
        "edge_contrast": math.sqrt(percentile(squared, 99)) / contrast,
        "laplacian_var": float(laplacian.var(dtype=np.float64)) / contrast**2,
        "gradient_energy": float(squared.mean(dtype=np.float64)) / contrast**2,
    }


class _Series:
    """The image of cosine `modes` [y, x] under N(variance), at `rate` samples per LR pixel and axis."""

    def __init__(self, modes: np.ndarray, scale: int, *, rate: int, variance: float) -> None:
        self.shape = [n * rate // scale for n in modes.shape]
        self.omega = []  # radians per LR pixel along each axis
        for n, size in zip(modes.shape, self.shape, strict=True):
            omega = np.arange(min(n, size), dtype=np.float32) * (np.pi * scale / n)
            self.omega.append(omega[variance / 2 * omega**2 < 17])  # the others vanish in float32
        rows, columns = (np.exp(-variance / 2 * omega**2) for omega in self.omega)
        rows *= math.sqrt(math.prod(self.shape) / modes.size)
        self.modes = modes[: len(rows), : len(columns)] * rows[:, None]
        self.modes *= columns

    def values(self) -> np.ndarray:
        """[y, x]"""
        return self._along(self._down())

    def laplacian(self) -> np.ndarray:
        """[y, x] 1 / px^2"""
        rows, columns = self.omega
        return self._along(self._down(-(rows[:, None] ** 2) - columns**2))

    def squared_gradient(self) -> np.ndarray:
        """[y, x] 1 / px^2, a few rows at a time, which stay in the cache."""
        rows, columns = self.omega
        down, across = self._down(rows[:, None], odd=1), self._down(columns)
        squared = np.empty(self.shape, np.float32)
        for first in range(0, len(squared), ROWS):
            part = slice(first, first + ROWS)
            dy, dx = self._along(down[part]), self._along(across[part], odd=1)
            np.add(np.square(dy, out=dy), np.square(dx, out=dx), out=squared[part])
        return squared

    def _down(self, factor: np.ndarray | float = 1.0, *, odd: int = 0) -> np.ndarray:
        """[y, columns] the modes times a factor, as samples along columns; odd: of a derivative, so sine modes."""
        field = _zeros((self.shape[0], self.modes.shape[1]))
        used = np.broadcast_to(factor, self.modes.shape)[odd:]  # sine modes start at the first harmonic
        np.multiply(self.modes[odd:], used, out=field[: len(used)])
        return (fft.idst if odd else fft.idct)(field, axis=0, norm="ortho", overwrite_x=True)

    def _along(self, field: np.ndarray, *, odd: int = 0) -> np.ndarray:
        """[y, x] of what `_down` made."""
        return (fft.idst if odd else fft.idct)(field[:, odd:], n=self.shape[1], axis=1, norm="ortho")


def _zeros(shape: Sequence[int]) -> np.ndarray:
    """[y, x] float32 with padded rows; otherwise the samples of a column would compete for one cache line."""
    return np.zeros((shape[0], shape[1] + 16), np.float32)[:, : shape[1]]
