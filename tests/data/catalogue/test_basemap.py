import io
import logging

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import transform
from stac_servers import file_server

from s2sr.data.catalogue.area import Area
from s2sr.data.catalogue.basemap import WORLD, fetch, tiles

GRID = Area.of(bbox=[5.3205, 50.6292, 5.3330, 50.6370], aoi=None).grid.scaled(4)
CREDIT = {"attribution": "somebody", "timeout": 5}


def mercator(grid, row, column):
    a, _, left, _, e, top = grid.transform
    (x,), (y,) = transform(grid.crs, "EPSG:3857", [left + a * (column + 0.5)], [top + e * (row + 0.5)])
    return x, y


@pytest.fixture
def served(tmp_path):
    """A map whose red and green are the place itself: the tile's column and row, and the pixel's."""
    zoom, xs, ys = tiles(GRID)
    for x in xs:
        for y in ys:
            column, row = np.meshgrid((x - xs[0]) * 256 + np.arange(256), (y - ys[0]) * 256 + np.arange(256))
            colours = np.stack([column // 8, row // 8, np.full_like(row, 200)], -1).astype(np.uint8)
            path = tmp_path / "tiles" / str(zoom) / str(y) / f"{x}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            Image.fromarray(colours).save(content, "PNG")
            path.write_bytes(content.getvalue())
    with file_server(tmp_path / "tiles") as server:
        server.map = server.mount() + "/{z}/{y}/{x}.png"
        yield server


def test_tiles_cover_the_grid_at_its_resolution():
    zoom, xs, ys = tiles(GRID)
    size = WORLD / 2**zoom
    for row in (0, GRID.shape[0] - 1):
        for column in (0, GRID.shape[1] - 1):
            x, y = mercator(GRID, row, column)
            assert xs[0] * size <= x + WORLD / 2 <= (xs[-1] + 1) * size
            assert ys[0] * size <= WORLD / 2 - y <= (ys[-1] + 1) * size
    ground = size / 256 * np.cos(np.radians(50.633))
    assert 2.5 / 2 < ground < 2.5 * 1.1


def test_it_lies_where_it_belongs(served, tmp_path):
    path = tmp_path / "basemap.tif"
    assert fetch(path, GRID, url=served.map, **CREDIT)
    zoom, xs, ys = tiles(GRID)
    pixel = WORLD / 2**zoom / 256
    with rasterio.open(path) as file:
        picture = file.read()
        assert (file.shape, file.crs, file.tags()["attribution"]) == (GRID.shape, GRID.crs, "somebody")
    for row, column in ((5, 7), (100, 200), (300, 50), (GRID.shape[0] - 5, GRID.shape[1] - 5)):
        x, y = mercator(GRID, row, column)
        assert picture[0, row, column] == pytest.approx((x + WORLD / 2) / pixel / 8 - xs[0] * 32, abs=1.5)
        assert picture[1, row, column] == pytest.approx((WORLD / 2 - y) / pixel / 8 - ys[0] * 32, abs=1.5)
    requests = len(served.requests())
    assert fetch(path, GRID, url=served.map, **CREDIT)
    assert len(served.requests()) == requests  # it is there


@pytest.mark.parametrize("fault", [404, "page", "truncate"])
def test_its_absence_is_a_warning(served, tmp_path, caplog, fault):
    served.fail("png", fault, times=10)
    with caplog.at_level(logging.WARNING):
        assert not fetch(tmp_path / "out" / "basemap.tif", GRID, url=served.map, **CREDIT)
    assert [record.getMessage().startswith("no basemap: ") for record in caplog.records] == [True]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "url", ["file:///etc/{z}{x}{y}", "https://[", "http://127.0.0.1:9/{z}/{x}/{y}", "https://a/{q}"]
)
def test_a_wrong_address_is_a_warning_too(tmp_path, caplog, url):
    with caplog.at_level(logging.WARNING):
        assert not fetch(tmp_path / "basemap.tif", GRID, url=url, **CREDIT)
    assert len(caplog.records) == 1
    assert url in caplog.text or not url.startswith("file")
