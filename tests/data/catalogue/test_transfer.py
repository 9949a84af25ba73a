import numpy as np
import pytest
import rasterio
import rasterio.shutil
from local_catalogue import write_asset
from rasterio.enums import Resampling
from stac_servers import file_server

from s2sr.data.catalogue.transfer import Reader, TransferError
from s2sr.data.signing import planetary_computer
from s2sr.model.grid import Grid

GRID = Grid("EPSG:32631", (10.0, 0.0, 640_000.0, 0.0, -10.0, 5_680_000.0), (24, 32))
ORIGIN = (640_000, 5_680_000)


def numbers(shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


def read(path, grid=GRID, resampling=Resampling.cubic, **how):
    return Reader(attempts=1, **how).read(str(path), grid, resampling=resampling)


def shifted(rows, columns):
    return (ORIGIN[0] + 10 * columns, ORIGIN[1] - 10 * rows)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (-10, -6), (4, 8), (-10, 8), (4, -6), (23, 31), (24, 0), (0, 32)])
def test_pixels_come_as_they_are_wherever_the_raster_lies(tmp_path, row, column):
    pixels = numbers((30, 40))
    write_asset(tmp_path / "a.tif", pixels, origin=shifted(row, column))
    plane = np.zeros((300, 300), np.uint16)
    plane[100 + row : 130 + row, 100 + column : 140 + column] = pixels
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), plane[100:124, 100:132])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (-4, -6), (6, 10)])
def test_20_m_pixels_are_repeated(tmp_path, row, column):
    pixels = numbers((20, 20), np.uint8)
    write_asset(tmp_path / "a.tif", pixels, size=20, origin=shifted(row, column))
    plane = np.zeros((300, 300), np.uint8)
    plane[100 + row : 140 + row, 100 + column : 140 + column] = pixels.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), plane[100:124, 100:132])


def test_another_nodata_value_becomes_zero(tmp_path):
    pixels = numbers((24, 32))
    pixels[3, 4] = 65535
    write_asset(tmp_path / "a.tif", pixels)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.nodata = 65535
    pixels[3, 4] = 0
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


def test_half_a_pixel_off_is_resampled_and_smooth_stays_smooth(tmp_path):
    y, x = np.mgrid[:60, :60]
    ramp = (1000 + 10 * x + 20 * y).astype(np.uint16)
    write_asset(tmp_path / "a.tif", ramp, origin=(ORIGIN[0] - 105, ORIGIN[1] + 105))
    found = read(tmp_path / "a.tif")
    expected = 1000 + 10 * (np.arange(32) + 10.5) + 20 * (np.arange(24)[:, None] + 10.5)
    np.testing.assert_allclose(found, expected, atol=1)


def test_a_jpeg2000(tmp_path):
    pixels = numbers((24, 32))
    write_asset(tmp_path / "a.tif", pixels)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.jp2", driver="JP2OpenJPEG", quality=100, reversible="YES")
    np.testing.assert_array_equal(read(tmp_path / "a.jp2"), pixels)


def test_another_format_is_refused(tmp_path):
    write_asset(tmp_path / "a.tif", numbers((24, 32)))
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    (tmp_path / "a.vrt").rename(tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.driver == "VRT"  # GDAL would have read it
    with pytest.raises(TransferError, match="not recognized"):
        read(tmp_path / "b.tif")


def test_what_does_not_exist_is_asked_for_once(tmp_path):
    with file_server(tmp_path) as server:
        href = server.mount() + "/a.tif"
        with pytest.raises(TransferError) as error:
            Reader(attempts=4, backoff=0.01).read(href, GRID, resampling=Resampling.nearest)
        assert len(server.requests("a.tif", "HEAD") + server.requests("a.tif")) <= 2
    assert "times" not in str(error.value)
    assert "404" in str(error.value)


def test_what_is_signed_is_not_told():
    secret = "http://127.0.0.1:9/a.tif?sig=secret"
    with pytest.raises(TransferError) as error:
        Reader(attempts=2, backoff=0.01, sign=lambda href, again: secret).read(
            "http://127.0.0.1:9/a.tif", GRID, resampling=Resampling.nearest
        )
    assert "secret" not in str(error.value)
    assert "127.0.0.1:9/a.tif" in str(error.value)
    assert "2 times" in str(error.value)


def test_only_azure_links_are_signed():
    for href in ("https://example.org/a.tif", "http://127.0.0.1/blob.core.windows.net/a.tif", "/data/a.tif"):
        assert planetary_computer(href) == href
        assert planetary_computer(href, again=True) == href
