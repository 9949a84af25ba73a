"""A Grid as rasterio takes and gives it."""

from __future__ import annotations

from typing import Any

import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from s2sr.model.grid import Grid


def placed(grid: Grid) -> dict[str, Any]:
    """Where a raster lies: the part of a profile that a grid decides."""
    return {"height": grid.shape[0], "width": grid.shape[1], "crs": grid.crs, "transform": Affine(*grid.transform)}


def grid_of(source: rasterio.DatasetReader) -> Grid:
    """Where an open raster lies."""
    return Grid(source.crs.to_string() if source.crs else None, source.transform[:6], source.shape)


def lies_on(source: rasterio.DatasetReader, grid: Grid) -> bool:
    """Whether an open raster has the grid's size and CRS, and its transform but for rounding."""
    same = source.shape == tuple(grid.shape) and source.crs == CRS.from_string(str(grid.crs))
    return same and source.transform.almost_equals(Affine(*grid.transform), precision=1e-6)
