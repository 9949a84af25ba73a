"""The area requested by the user, and the grid that all its observations share.

The grid is Sentinel-2's own: UTM, 10 m, of the zone that holds most of the area. Its bounds are multiples of 20 m, as
the corners of all tiles are: 10 m and 20 m pixels fall on it whole, and nothing from that zone is ever resampled.
Zones as in the Military Grid Reference System, with its exceptions for Norway and Svalbard, since the tiles follow it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from s2sr.errors import InputError
from s2sr.model.grid import Grid

PIXEL = 10  # metres
ALIGN = 20  # metres
SMALLEST = 16  # pixels, of the shorter side
WIDEST = 12  # degrees of longitude
DEGREE = 111_320  # metres, of latitude

Box = tuple[float, float, float, float]  # west, south, east, north


@dataclass(frozen=True)
class Area:
    """What is to be observed: longitudes and latitudes in degrees."""

    polygon: BaseGeometry
    name: str  # as the user gave it, for messages

    @classmethod
    def of(cls, *, bbox: Sequence[float] | None, aoi: str | Path | None) -> Area:
        """From four numbers or a GeoJSON file.

        Raises InputError where it is neither, in the wrong order, not on the globe or too small.
        """
        if (bbox is None) == (aoi is None):
            raise InputError("name the area: data.bbox=[west,south,east,north] or data.aoi=FILE.geojson, one of them")
        area = cls(_rectangle(bbox), f"data.bbox={_text(bbox)}") if bbox is not None else cls(*_geojson(aoi))
        west, south, east, north = area.bounds
        if west < -180 or east > 180 or south < -90 or north > 90:
            raise InputError(f"{area.name}: outside the globe; longitudes are -180 to 180, latitudes -90 to 90")
        if south < -80 or north > 84:
            raise InputError(f"{area.name}: outside of UTM, which Sentinel-2 is delivered in (latitudes -80 to 84)")
        if east - west > 180:
            raise InputError(f"{area.name}: spans {east - west:.0f} degrees; across the antimeridian, give two areas")
        if min(area.size) < 2 * SMALLEST:
            rows, columns = area.grid.shape
            if min(rows, columns) < SMALLEST or area.inside.sum() < SMALLEST:
                raise InputError(
                    f"{area.name}: too small, {rows} x {columns} pixels of {PIXEL} m; "
                    f"at least {SMALLEST} x {SMALLEST} are needed"
                )
        return area

    @property
    def bounds(self) -> Box:
        return self.polygon.bounds

    @property
    def size(self) -> tuple[int, int]:
        """Approximate rows and columns of the grid, even for an area that is too large for one."""
        west, south, east, north = self.bounds
        shrunk = math.cos(math.radians((south + north) / 2))
        return round((north - south) * DEGREE / PIXEL), round((east - west) * DEGREE * shrunk / PIXEL)

    @cached_property
    def grid(self) -> Grid:
        """The smallest grid that contains the area. Raises InputError if the area is too wide for one UTM zone."""
        if self.bounds[2] - self.bounds[0] > WIDEST:
            raise InputError(
                f"{self.name}: {self.bounds[2] - self.bounds[0]:.0f} degrees wide, one UTM grid holds {WIDEST}; "
                "give several areas"
            )
        crs = f"EPSG:{self.epsg}"
        west, south, east, north = Geometry(self.polygon, "EPSG:4326").to_crs(crs, resolution=0.01).boundingbox
        # tolerate rounding: a corner on a multiple must not add a row
        west, south = (math.floor(v / ALIGN + 1e-6) * ALIGN for v in (west, south))
        east, north = (math.ceil(v / ALIGN - 1e-6) * ALIGN for v in (east, north))
        geobox = GeoBox.from_bbox((west, south, east, north), crs, resolution=PIXEL, tight=True)
        rows, columns = geobox.shape
        return Grid(crs, tuple(geobox.affine)[:6], (rows, columns))  # type: ignore[arg-type]

    @cached_property
    def epsg(self) -> int:
        """The UTM zone that holds most of the area."""
        shares = {epsg: self.polygon.intersection(box(*cell)).area for epsg, cell in _cells(self.bounds)}
        return max(shares, key=lambda epsg: shares[epsg])

    @cached_property
    def inside(self) -> np.ndarray:
        """[y, x] bool, the grid's pixels whose centre is in the area."""
        outline = Geometry(self.polygon, "EPSG:4326").to_crs(f"EPSG:{self.epsg}", resolution=0.01)
        return geometry_mask([outline.json], self.grid.shape, Affine(*self.grid.transform), invert=True)


def _cells(bounds: Box) -> Iterator[tuple[int, Box]]:
    """Parts of the UTM zones that touch `bounds`: (EPSG code, their bounds)."""
    for south, north in ((-80, 0), (0, 56), (56, 64), (64, 72), (72, 84)):
        for zone in range(1, 61):
            west, east = 6 * zone - 186, 6 * zone - 180
            if south == 56 and zone in (31, 32):
                west, east = ((0, 3), (3, 12))[zone - 31]
            if south == 72 and 31 <= zone <= 37:
                if zone % 2 == 0:
                    continue
                west, east = ((0, 9), (9, 21), (21, 33), (33, 42))[(zone - 31) // 2]
            if west <= bounds[2] and bounds[0] <= east and south <= bounds[3] and bounds[1] <= north:
                yield (32600 if south >= 0 else 32700) + zone, (west, south, east, north)


def _rectangle(bbox: Sequence[float]) -> BaseGeometry:
    try:
        west, south, east, north = map(float, bbox)
        if isinstance(bbox, str) or not all(map(math.isfinite, (west, south, east, north))):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(f"data.bbox={_text(bbox)}: write four numbers, [west,south,east,north] in degrees") from None
    if west >= east:
        raise InputError(
            f"data.bbox={_text(bbox)}: west {west:g} is not west of east {east:g}; the order is "
            "[west,south,east,north], and an area across the antimeridian has to be given as two"
        )
    if south >= north:
        raise InputError(
            f"data.bbox={_text(bbox)}: south {south:g} is not south of north {north:g}; "
            "the order is [west,south,east,north]"
        )
    return box(west, south, east, north)


def _geojson(aoi: str | Path | None) -> tuple[BaseGeometry, str]:
    path = Path(str(aoi)).expanduser()
    try:
        content = json.loads(path.read_text())
        features = content.get("features", [content])
        polygon = unary_union([shape(feature.get("geometry", feature)) for feature in features])
    except OSError as error:
        raise InputError(f"data.aoi={aoi}: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, ShapelyError) as error:
        raise InputError(f"data.aoi={aoi}: not GeoJSON ({error})") from error
    if polygon.geom_type not in ("Polygon", "MultiPolygon") or polygon.is_empty or not polygon.is_valid:
        raise InputError(f"data.aoi={aoi}: holds a {polygon.geom_type} that is empty or not valid; draw a polygon")
    return polygon, f"data.aoi={aoi}"


def _text(bbox: Sequence[float] | None) -> str:
    return str(bbox).replace(" ", "")
