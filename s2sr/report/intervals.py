"""The uncertainty of a product: two files, a picture, and the coverage of the truth.

`sr_std.tif` is the standard deviation of sr.tif minus the truth at the same resolution: blurred by the product's splat,
averaged over the product's pixels, at the observations' mean geolocation, without a fit of brightness. `sr_count.tif`
counts the clear observations of each pixel.

Coverage is the fraction of |product - truth| <= k std, mean over bands, without a border of 6 LR pixels: of all pixels,
and of each quarter of local contrast, the product's standard deviation in a square of 3 LR pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from torch import Tensor

from s2sr.model.scene import Scene
from s2sr.report.figures import GAP, INK, TEXT, Stretch, figure_of, rgb, sized
from s2sr.report.metrics import BORDER, area_average
from s2sr.report.products import Product, write_geotiff
from s2sr.report.scores import offset_to_truth

INTERVALS = {68: 1.0, 95: 1.96}  # per cent of a normal distribution: standard deviations on either side
SIDE = 560  # screen pixels of a map
CONTRAST = 3  # LR pixels, side of the square in which local contrast is measured


def write(folder: Path, scene: Scene, product: Product, *, tags: Mapping[str, Any]) -> None:
    """Write `sr_std.tif` and `sr_count.tif`, the latter with a single band if all bands are masked alike."""
    scale, count = product.scale, product.count
    grid = scene.grid.scaled(scale)
    what = {
        "quantity": "standard deviation of sr.tif minus the truth at its resolution, reflectance",
        "resolution": f"Gaussian of {product.splat:.4g} pixels of 10 m, averaged over pixels of {1 / scale:.4g}",
        "interval_68": "sr.tif +- 1 std",
        "interval_95": "sr.tif +- 1.96 std",
    }
    write_geotiff(folder / "sr_std.tif", product.deviation, grid, scene.bands, tags={**tags, **what})
    alike = bool((count == count[0]).all())
    counted = {**tags, "quantity": f"clear observations at the pixel, of {len(scene)}"}
    names = ("count",) if alike else scene.bands
    write_geotiff(folder / "sr_count.tif", count[: len(names)], grid, names, tags=counted)


def numbers(scene: Scene, product: Product, shifts: Tensor) -> dict[str, float]:
    """`std_mean` and, if the truth is known, the coverage. shifts: [t, 2] of the product, LR pixels."""
    found = {"std_mean": float(product.deviation.mean())}
    if scene.truth:
        truth = seen(scene, scale=product.scale, splat=product.splat, shifts=shifts)
        found |= coverage(product.image.numpy(), product.deviation.numpy(), truth, product.scale)
    return found


def seen(scene: Scene, *, scale: int, splat: float, shifts: Tensor) -> np.ndarray:
    """[b, y * scale, x * scale] the truth at the resolution and position of a product with these shifts."""
    truth = scene.truth
    assert truth is not None
    # 1/6: variance of two raster boxes: the pixel itself, and the box it is averaged over
    sigma = math.sqrt((splat * truth.scale) ** 2 + 1 / 6)
    blurred = [ndimage.gaussian_filter(band, sigma, mode="nearest") for band in truth.reflectance.numpy()]
    return area_average(np.stack(blurred), truth.scale, scale, tuple(offset_to_truth(scene, shifts).tolist()))


def coverage(image: np.ndarray, deviation: np.ndarray, truth: np.ndarray, scale: int) -> dict[str, float]:
    """`coverage_68`, `coverage_95`, and the same of each quarter of local contrast: `coverage_68_q1` (lowest) to `_q4`.

    All arguments [b, y * scale, x * scale]. NaN where nothing is left inside the border.
    """
    inside = (slice(None), *[slice(BORDER * scale, -BORDER * scale)] * 2)
    z = np.abs((image - truth) / deviation)[inside]
    quarter = np.stack([quarters(band) for band in local_contrast(image, scale)[inside]]) if z.size else z
    found = {}
    for percent, k in INTERVALS.items():
        within = z <= k
        found[f"coverage_{percent}"] = float(within.mean()) if z.size else math.nan
        for q in range(4):
            found[f"coverage_{percent}_q{q + 1}"] = float(within[quarter == q].mean()) if z.size else math.nan
    return found


def picture(product: Product, bands: tuple[str, ...], *, stretch: Stretch, most: int) -> Figure:
    """Product | standard deviation (mean over bands) | count (least over bands) out of `most`, with colour bars."""
    colours = rgb(product.image, bands, stretch)
    maps = colours, product.deviation.mean(0).numpy(), product.count.amin(0).float().numpy()
    colours, std, least = (sized(values, 1, 1, (0, 0, *colours.shape[:2]), SIDE)[0] for values in maps)
    size = std.shape
    bar, head = 84, 34
    total = (3 * (size[1] + GAP) + 2 * bar + GAP, size[0] + head + 2 * GAP)
    figure = figure_of(*total)
    low, high = np.percentile(std, [0.5, 99.5])
    panels: list[tuple[str, np.ndarray, dict[str, Any], str]] = [
        ("Reconstruction", colours, {"cmap": "gray"}, ""),
        ("Standard deviation", std, {"cmap": "magma", "vmin": low, "vmax": high}, "reflectance, mean over bands"),
        ("Clear observations", least, {"cmap": "viridis", "vmin": 0, "vmax": most}, f"of {most}"),
    ]
    left = GAP
    for title, values, style, label in panels:
        place = (left / total[0], GAP / total[1], size[1] / total[0], size[0] / total[1])
        axes = figure.add_axes(place)
        drawn = axes.imshow(values, interpolation="none", aspect="auto", **style)
        axes.set_axis_off()
        figure.text(left / total[0], 1 - 14 / total[1], title, size=TEXT, weight="bold", color=INK, va="top")
        left += size[1] + GAP
        if label:
            scale_of = figure.add_axes(((left - GAP + 8) / total[0], GAP / total[1], 14 / total[0], place[3]))
            figure.colorbar(drawn, cax=scale_of).set_label(label, size=TEXT - 2)
            left += bar
    return figure


def local_contrast(image: np.ndarray, scale: int) -> np.ndarray:
    side = CONTRAST * scale + (CONTRAST * scale + 1) % 2  # odd: the square is centred
    squares = []
    for band in image.astype(np.float64):
        mean = ndimage.uniform_filter(band, side)
        squares.append(ndimage.uniform_filter((band - band.mean()) ** 2, side) - (mean - band.mean()) ** 2)
    return np.stack(squares)


def quarters(values: np.ndarray) -> np.ndarray:
    """0 to 3: the quarter of the values that each is in."""
    return np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values)
