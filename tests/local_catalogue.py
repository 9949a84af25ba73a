"""A STAC catalogue on disk: a simulated season, one file per band as the archives keep it, and items that name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

CRS, LEFT, TOP = "EPSG:32631", 640_000, 5_680_000
EARTH_SEARCH = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16", "SCL": "scl"}
PLANETARY = {band: band for band in EARTH_SEARCH}


def bbox(shape: tuple[int, int], *, row: int = 0, column: int = 0) -> list[float]:
    """Degrees, of so many pixels of 10 m, counted from the corner of the tile."""
    west, north = LEFT + 10 * column, TOP - 10 * row
    east, south = west + 10 * shape[1], north - 10 * shape[0]
    return list(transform_bounds(CRS, "EPSG:4326", west, south, east, north, densify_pts=21))


def write_asset(path: Path, pixels: np.ndarray, *, size: float = 10, origin: tuple[float, float] = (LEFT, TOP)) -> None:
    profile = {"driver": "GTiff", "count": 1, "height": pixels.shape[0], "width": pixels.shape[1], "nodata": 0}
    transform = Affine(size, 0, origin[0], 0, -size, origin[1])
    with rasterio.open(path, "w", crs=CRS, transform=transform, dtype=pixels.dtype, **profile) as out:
        out.write(pixels, 1)


def item(id: str, when: str, assets: dict[str, str], **properties: Any) -> dict[str, Any]:
    """`assets`: the files by name."""
    named = {"eo:cloud_cover": 5, "s2:processing_baseline": "05.10", "proj:epsg": 32631, "platform": "sentinel-2a"}
    west, south, east, north = bbox((64, 64))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    described = {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": id,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": when, "grid:code": "MGRS-31UFS", "sat:relative_orbit": 98, **named, **properties},
        "assets": {key: {"href": href, **described} for key, href in assets.items()},
        "links": [],
    }


def write_items(folder: Path, items: Sequence[dict[str, Any]]) -> Path:
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    return path


def season(folder: Path, days: Sequence[str], names: dict[str, str] = EARTH_SEARCH, **properties: Any) -> Path:
    """One tile of 64 x 64 pixels on each day, the same scene with a little noise; SCL says vegetation."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    ground = 2000 + 500 * rng.standard_normal((64, 64)).cumsum(0).cumsum(1) / 64
    items = []
    for t, day in enumerate(days):
        files = {}
        for band, key in names.items():
            coarse = band in ("B11", "SCL")
            pixels = (ground[::2, ::2] if coarse else ground) + 20 * rng.standard_normal((64, 64))[
                :: 1 + coarse, :: 1 + coarse
            ]
            pixels = np.full((32, 32), 4, np.uint8) if band == "SCL" else pixels.clip(1001, 9000).astype(np.uint16)
            files[key] = f"{t}_{band}.tif"
            write_asset(folder / files[key], pixels, size=20 if coarse else 10)
        items.append(item(f"S2A_31UFS_{day}", f"{day}T10:50:00Z", files, **properties))
    return write_items(folder, items)
