"""The file of one downloaded observation: written whole or not at all, and checked for damage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from s2sr.data.catalogue.transfer import reason
from s2sr.files import atomic
from s2sr.model.grid import Grid
from s2sr.raster import lies_on, name_bands, placed


def write(
    path: Path,
    layers: np.ndarray,  # [b, y, x] uint16
    grid: Grid,
    bands: Sequence[str],
    *,
    scales: Sequence[float],
    offsets: Sequence[float],
    tags: dict[str, Any],
) -> None:
    """A Cloud-Optimized GeoTIFF that appears at `path` only when it is whole, which reading it back has shown.

    Raises OSError if it could not be written, such as on a full disk.
    """
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(layers),
        **placed(grid),
        "nodata": 0,
        "interleave": "band",
        "tiled": True,
    }
    # made in memory, and written by Python: it tells why a disk refuses, GDAL does not always notice
    with MemoryFile() as plain, MemoryFile() as whole:
        with plain.open(**profile) as out:
            out.write(layers)
            name_bands(out, bands)
            out.scales, out.offsets = tuple(scales), tuple(offsets)
            out.update_tags(**{key: str(value) for key, value in tags.items()})
        with plain.open() as out:
            # no overviews: the fit reads every pixel; level 1: half the time of 6, and as small after the predictor
            options = {
                "compress": "DEFLATE",
                "level": 1,
                "predictor": "YES",
                "overviews": "NONE",
                "bigtiff": "IF_SAFER",
            }
            rasterio.shutil.copy(out, whole.name, driver="COG", **options)
        content = bytes(whole.getbuffer())
        try:
            with atomic(path) as target:
                target.write_bytes(content)
                if target.read_bytes() != content:
                    raise OSError(0, "the disk gave back other bytes than it was given")
        except OSError as error:
            raise OSError(f"{path}: could not be written ({error.strerror})") from error


def damage(path: Path, grid: Grid, bands: Sequence[str], *, items: str | None = None) -> str | None:
    """Why a file is not the whole observation on `grid` with `bands`, of `items`; None: it is. Every pixel is read."""
    try:
        with rasterio.open(path, driver="GTiff") as source:
            if not lies_on(source, grid):
                return "another grid"
            if not set(bands) <= set(source.descriptions):
                return "bands are missing"
            if items is not None and source.tags().get("items") != items:
                return "made from other items"
            for index in source.indexes:
                source.read(index)
    except RasterioError as error:
        return reason(error)
    return None
