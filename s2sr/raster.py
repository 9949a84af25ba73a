"""Between Grid and rasterio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window

from s2sr.model.grid import Grid

COLOURS = {"B04": ColorInterp.red, "B03": ColorInterp.green, "B02": ColorInterp.blue}
RADIUS, ECCENTRICITY = 6378137.0, 0.0818192  # of WGS 84: equator, metres


def placed(grid: Grid) -> dict[str, Any]:
    """The part of a rasterio profile that a grid determines."""
    return {"height": grid.shape[0], "width": grid.shape[1], "crs": grid.crs, "transform": Affine(*grid.transform)}


def grid_of(source: rasterio.DatasetReader) -> Grid:
    """The grid of an open raster."""
    return Grid(source.crs.to_string() if source.crs else None, source.transform[:6], source.shape)


def name_bands(target: rasterio.io.DatasetWriter, bands: Sequence[str]) -> None:
    """Set band descriptions, and true colour for viewers, which would otherwise show the first three bands."""
    target.descriptions = tuple(bands)
    if COLOURS.keys() <= set(bands):
        target.colorinterp = [COLOURS.get(band, ColorInterp.undefined) for band in bands]


def check_whole(path: Path) -> None:
    """Raises RasterioIOError for a file that ends too early: GDAL tells nobody when a disk is full as it closes one.

    The last block of each band is read: those of a Cloud-Optimized GeoTIFF lie in order, at the end of the file.
    """
    with rasterio.open(path) as file:
        file.read(window=Window(file.width - 1, file.height - 1, 1, 1))


def lies_on(source: rasterio.DatasetReader, grid: Grid) -> bool:
    """Whether an open raster has the grid's size and CRS and, up to rounding, its transform."""
    same = source.shape == tuple(grid.shape) and source.crs == CRS.from_string(str(grid.crs))
    return same and source.transform.almost_equals(Affine(*grid.transform), precision=1e-6)


def metres(grid: Grid) -> tuple[float, float] | None:
    """Pixel size on the ground (row step, column step) in the middle of a grid, metres; None if the CRS is unknown.

    From the radii of curvature of the WGS 84 ellipsoid, since map units may be degrees, feet or stretched metres
    (Mercator).
    """
    if grid.crs is None or not ((crs := CRS.from_user_input(grid.crs)).is_projected or crs.is_geographic):
        return None
    row, column = (n / 2 for n in grid.shape)
    x, y, _ = grid.matrix @ [[column, column, column + 1], [row, row + 1, row], [1, 1, 1]]
    longitude, latitude = map(np.radians, transform(crs, "EPSG:4326", x, y))
    curved = 1 - ECCENTRICITY**2 * math.sin(latitude[0]) ** 2
    north, east = RADIUS * (1 - ECCENTRICITY**2) / curved**1.5, RADIUS / curved**0.5 * math.cos(latitude[0])
    down, right = np.hypot(north * (latitude[1:] - latitude[0]), east * (longitude[1:] - longitude[0])).tolist()
    return down, right
