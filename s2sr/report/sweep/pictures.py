"""The products of a sweep under one stretch: as PNGs, as layers of the page's viewer, and side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from s2sr.raster import metres
from s2sr.report.comparison import score_line
from s2sr.report.figures import Panel, Stretch, rgb, sheet, sized, zoom_window
from s2sr.report.jobs import Job
from s2sr.report.metrics import bicubic
from s2sr.report.page import SIDE, Picture, Raster
from s2sr.report.products import read_geotiff

PANEL = 400  # screen pixels of a panel
PIXELS = 40_000_000  # of all layers together
SHOWN = ("edge_contrast", "psnr", "holdout_rmse")


def layers(jobs: Sequence[Job], keys: Sequence[str]) -> Iterator[Picture]:
    """The first job's observation and bicubic mean, every job's product that shows the same place, and the truth."""
    side = min(SIDE, int(math.sqrt(PIXELS / len(jobs))))
    first = jobs[0].folder
    product = Raster.read(first / "sr.tif", side)
    mean, stretch = Raster.read(first / "mean.tif", side), product.stretch()
    yield Raster.read(first / "observation.tif", side).drawn("observation", "One observation", "", stretch)
    facts = score_line(jobs[0].metrics, SHOWN, "_bicubic")
    yield mean.smooth(product.image.shape[1:]).drawn("bicubic", "Bicubic of the mean", facts, stretch)
    for job in jobs:
        own = Raster.read(job.folder / "sr.tif", side)
        if Raster.read(job.folder / "mean.tif", side).grid == mean.grid and own.bands == product.bands:
            name = f"{job.folder.name}_{job.label(keys, 60)}"
            yield own.drawn(name, job.label(keys, 60), score_line(job.metrics, SHOWN), stretch)
    if (first / "truth.tif").is_file():
        yield Raster.read(first / "truth.tif", side).drawn("truth", "Truth", "", stretch)


def comparison(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """Observation, bicubic of the mean, one panel per job, and the truth: the most detailed part, one stretch."""
    mean, bands, grid = read_geotiff(jobs[0].folder / "mean.tif")
    observation, _, _ = read_geotiff(jobs[0].folder / "observation.tif")
    first = jobs[0].metrics
    parts: list[tuple[np.ndarray, int, str, str]] = []
    for job in jobs:
        product, names, _ = read_geotiff(job.folder / "sr.tif")
        own, _, place = read_geotiff(job.folder / "mean.tif")
        scale = product.shape[-1] // own.shape[-1]
        if not parts:
            stretch = Stretch.of(product, bands)
            window = zoom_window(mean, scale, PANEL, pixels=32)
            smooth = bicubic(torch.from_numpy(mean), scale).numpy()
            parts.append((rgb(_cut(observation, 1, window), bands, stretch), 1, "One observation", "nearest neighbour"))
            facts = score_line(first, SHOWN, "_bicubic")
            parts.append((rgb(_cut(smooth, scale, window), bands, stretch), scale, "Bicubic of the mean", facts))
        # another scene (its folder, crop or bands were swept) has no pixels in common with the first: show it by itself
        same = place == grid and names == bands
        area = window if same else zoom_window(own, scale, PANEL, pixels=32)
        picture = rgb(_cut(product, scale, area), names, stretch if same else None)
        parts.append((picture, scale, job.label(keys, width=32), score_line(job.metrics, SHOWN)))
    if (path := jobs[0].folder / "truth.tif").is_file():
        truth, _, _ = read_geotiff(path)
        scale = truth.shape[-1] // mean.shape[-1]
        parts.append((rgb(_cut(truth, scale, window), bands, stretch), scale, "Truth", f"averaged to {scale}x"))
    finest = max(scale for _, scale, _, _ in parts)
    _, metre = metres(grid) or (None, None)
    panels: list[Panel] = []
    for picture, scale, title, facts in parts:
        rows, columns = (n // scale for n in picture.shape[:2])
        drawn, size = sized(picture, scale, finest, (0, 0, rows, columns), PANEL)
        panels.append(Panel(drawn, title, facts, size / metre if metre and not panels else None))
    wrap = min(len(panels), max(4, math.ceil(math.sqrt(1.5 * len(panels)))))
    return sheet([panels[k : k + wrap] for k in range(0, len(panels), wrap)])


def file_name(layer: Picture, folder: Path) -> Path:
    """Where the layer's PNG goes: letters, digits and `=._-` only."""
    return folder / ("".join(c if c.isalnum() or c in "=._-" else "_" for c in layer.name)[:100] + ".png")


def _cut(image: np.ndarray, scale: int, window: tuple[int, int, int, int]) -> np.ndarray:
    row, column, rows, columns = (n * scale for n in window)
    return image[:, row : row + rows, column : column + columns]
