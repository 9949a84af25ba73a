"""comparison.png: the product beside one observation, the bicubic mean and, if known, the truth.

All panels share one percentile stretch, so that what looks brighter or sharper is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rasterio
from matplotlib.figure import Figure
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from torch import Tensor

from s2sr.model.scene import Scene
from s2sr.raster import metres, placed
from s2sr.report.figures import Panel, Stretch, Window, rgb, sheet, sized, zoom_window
from s2sr.report.metrics import Array, area_average, bicubic
from s2sr.report.products import clearest_frame

log = logging.getLogger(__name__)


def score_line(metrics: Mapping[str, Any], keys: Sequence[str], suffix: str = "") -> str:
    """One short line with those of `keys` that are known, for a panel."""
    texts = {
        "edge_contrast": "edge {:.3f}",
        "psnr": "PSNR {:.2f}",
        "ssim": "SSIM {:.3f}",
        "holdout_rmse": "held-out {:.4f}",
    }
    found = [(texts[key], metrics.get(key + suffix)) for key in keys]
    return "  ".join(text.format(value) for text, value in found if value is not None and math.isfinite(value))


def comparison(
    scene: Scene,
    product: Array,  # [b, y * scale, x * scale]
    scale: int,
    *,
    stretch: Stretch | None = None,
    metrics: Mapping[str, Any] | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Figure:
    """One observation | bicubic of the temporal mean | reconstruction | truth and basemap if any, above a zoom of each.

    stretch: default: the product's. metrics: as in metrics.json, for the titles. shift: as in `metrics.fidelity`,
    aligns the truth with the product.
    """
    stretch, mean = stretch or Stretch.of(product, scene.bands), scene.temporal_mean
    images = _images(scene, product, mean, scale, metrics=metrics or {}, shift=shift)
    pictures = [(rgb(image, scene.bands, stretch), factor, title, facts) for image, factor, title, facts in images]
    picture, credit = aerial(scene, scale)
    if picture is not None:
        pictures.append((picture, scale, "Aerial picture", "another sensor, another day"))
    side = 520 if len(pictures) >= 4 else 640
    height, width = scene.grid.shape
    window: Window | None = None
    _, metre = metres(scene.grid) or (None, None)
    rows: list[list[Panel]] = [[], []]
    for picture, factor, title, facts in pictures:
        overview, size = sized(picture, factor, scale, (0, 0, height, width), side)
        window = window or zoom_window(mean, scale, max(overview.shape))
        row, column, rows_shown, _ = window
        detail, detail_size = sized(picture, factor, scale, window, max(overview.shape))
        first = not rows[0]
        frame = (row * size, column * size, rows_shown * size)
        rows[0].append(Panel(overview, title, facts, size / metre if metre and first else None, frame))
        rows[1].append(Panel(detail, metre=detail_size / metre if metre and first else None))
    return sheet(rows, credit)


def _images(
    scene: Scene,
    product: Array,  # [b, y * scale, x * scale]
    mean: Tensor,  # [b, y, x]
    scale: int,
    *,
    metrics: Mapping[str, Any],
    shift: tuple[float, float],
) -> list[tuple[Array, int, str, str]]:
    """(reflectance, pixels per LR pixel, title, facts) of each image to compare."""
    shown = ("edge_contrast", "psnr", "ssim")
    t, observed = clearest_frame(scene)
    dates = sorted(o.datetime[:10] for o in scene.observations)
    facts = score_line(metrics, shown, "_bicubic") or f"{len(dates)} observations"
    images: list[tuple[Array, int, str, str]] = [
        (observed, 1, "One observation", scene.observations[t].datetime[:10]),
        (bicubic(mean, scale), scale, "Bicubic of the mean", facts),
        (product, scale, f"Reconstruction, {scale}x", score_line(metrics, shown) or f"{dates[0]} to {dates[-1]}"),
    ]
    if scene.truth is not None:
        level = min(scale, scene.truth.scale)
        truth = area_average(scene.truth.reflectance, scene.truth.scale, level, shift)
        images.append((truth, level, "Truth", f"averaged to {level}x"))
    return images


def aerial(scene: Scene, scale: int) -> tuple[np.ndarray | None, str]:
    """(the scene's basemap, uint8 [y * scale, x * scale, 3]; its attribution). None if there is none to read."""
    if scene.basemap is None:
        return None, ""
    try:
        with (
            rasterio.open(scene.basemap, driver="GTiff") as source,
            WarpedVRT(source, **placed(scene.grid.scaled(scale)), resampling=Resampling.bilinear) as warped,
        ):
            picture = np.moveaxis(warped.read([1, 2, 3]), 0, -1)
            return picture, f"Aerial picture: {source.tags().get('attribution', scene.basemap.name)}"
    except (RasterioError, IndexError, ValueError) as error:
        log.warning("%s: not shown (%s)", scene.basemap, error)
        return None, ""
