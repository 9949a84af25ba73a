"""The file of a downloaded observation: whole, or seen to be damaged, or not there."""

from __future__ import annotations

import resource
import signal

import numpy as np
import pytest
import rasterio

from s2sr.data.catalogue.storing import damage, write
from s2sr.model.grid import Grid

GRID = Grid("EPSG:32631", (10.0, 0.0, 640_000.0, 0.0, -10.0, 5_680_000.0), (24, 32))


def numbers(shape):
    return np.random.default_rng(0).integers(1, 200, shape).astype(np.uint16)


@pytest.fixture
def saved(tmp_path):
    def saved(layers, name="S2A.tif", grid=GRID):
        tags = {"items": "a, b"}
        write(tmp_path / name, layers, grid, ("B02", "SCL"), scales=(1e-4, 1), offsets=(-0.1, 0), tags=tags)
        return tmp_path / name

    return saved


def test_what_is_written_is_read_back_whole(saved, tmp_path):
    layers = numbers((2, 24, 32))
    path = saved(layers)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), layers)
        assert (file.descriptions, file.scales, file.offsets) == (("B02", "SCL"), (1e-4, 1), (-0.1, 0))
        assert (file.nodata, file.tags()["items"]) == (0, "a, b")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert list(tmp_path.iterdir()) == [path]
    assert damage(path, GRID, ("B02", "SCL"), items="a, b") is None


def test_damage_is_seen(saved):
    path = saved(numbers((2, 600, 600)), grid=Grid(GRID.crs, GRID.transform, (600, 600)))
    grid = Grid(GRID.crs, GRID.transform, (600, 600))
    assert damage(path, grid, ("B02", "SCL")) is None
    assert damage(path, GRID, ("B02", "SCL")) == "another grid"
    assert damage(path, Grid("EPSG:32632", grid.transform, grid.shape), ("B02",)) == "another grid"
    assert damage(path, grid, ("B02", "B03")) == "bands are missing"
    assert damage(path, grid, ("B02",), items="a") == "made from other items"
    whole = path.read_bytes()
    for part in (0, 100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:part])
        assert damage(path, grid, ("B02", "SCL")), part


def test_a_disk_that_fills_leaves_nothing(saved, tmp_path):
    """A limit on the size of files stands for the full disk: writing fails in the middle of one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        layers = np.random.default_rng(0).integers(1, 9000, (2, 300, 300)).astype(np.uint16)
        with pytest.raises(OSError, match=r"could not be written \(File too large"):
            saved(layers, grid=Grid(GRID.crs, GRID.transform, (300, 300)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
