"""Where a grid lies, according to rasterio and to the ellipsoid."""

from __future__ import annotations

import pytest
from pyproj import Geod, Transformer

from s2sr.model.grid import Grid
from s2sr.raster import metres


@pytest.mark.parametrize(
    ("crs", "step", "corner"),
    [
        ("EPSG:32631", 10, (640000, 5680000)),
        ("EPSG:3857", 10, (500000, 6600000)),
        ("EPSG:3035", 20, (4700000, 1900000)),
        ("EPSG:2263", 33, (980000, 200000)),  # US survey feet
        ("EPSG:4326", 9e-5, (4.5, 51.2)),
    ],
)
def test_a_pixels_sides_in_metres_are_the_geodesics(crs, step, corner):
    grid = Grid(crs, (step, 0.0, corner[0], 0.0, -step, corner[1]), (24, 30))
    at = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
    x, y = corner[0] + 15 * step, corner[1] - 12 * step
    geod = Geod(ellps="WGS84")
    down = geod.inv(*at(x, y), *at(x, y - step))[2]
    right = geod.inv(*at(x, y), *at(x + step, y))[2]
    assert metres(grid) == pytest.approx((down, right), rel=1e-5)


def test_without_a_crs_nothing_is_known():
    assert metres(Grid(None, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), (2, 2))) is None
    assert metres(Grid('LOCAL_CS["x",UNIT["metre",1]]', (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), (2, 2))) is None
