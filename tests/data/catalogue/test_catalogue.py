"""A query to a catalogue on disk. Servers, faults and interruptions: test_fetching.py, test_fetching_faults.py."""

import json
import logging

import numpy as np
import pytest
import rasterio
from local_catalogue import EARTH_SEARCH, bbox, season

from s2sr.data import catalogue
from s2sr.data.catalogue import Catalogue
from s2sr.data.harmonise import by_raster_bands
from s2sr.errors import InputError

DAYS = ["2023-05-02", "2023-05-07", "2023-05-12"]


@pytest.fixture
def make(tmp_path):
    archive = season(tmp_path / "archive", DAYS)

    def make(**changed):
        given = {
            "catalog": str(archive),
            "collection": "sentinel-2-c1-l2a",
            "assets": EARTH_SEARCH,
            "offset": by_raster_bands,
            "bbox": bbox((24, 24), row=8, column=8),
            "start": "2023-05-01",
            "end": "2023-05-31",
            "root": tmp_path / "scene",
            "min_scenes": 3,
            "attempts": 1,
        }
        return Catalogue(**given | changed)

    return make


def test_a_scene_folder_that_loads(make):
    source = make(bands=["B02", "B11"])
    source.prepare()
    scene = source.load()
    assert (scene.bands, len(scene)) == (("B02", "B11"), 3)
    assert [o.datetime for o in scene.observations] == [f"{day}T10:50:00Z" for day in DAYS]
    assert scene.attribution == "Contains modified Copernicus Sentinel data 2023"
    with rasterio.open(source.folder / "S2A_2023-05-07_R098.tif") as file:
        tags = file.tags()
    assert (tags["relative_orbit"], tags["platform"], tags["processing_baseline"]) == ("98", "sentinel-2a", "05.10")


def test_a_wider_season_adds_to_the_folder_and_a_narrower_one_uses_less(make):
    make(end="2023-05-08", min_scenes=2).prepare()
    first = {path: path.stat().st_mtime_ns for path in make().folder.glob("*.tif")}
    assert len(first) == 2
    make().prepare()
    assert len(make().load()) == 3
    assert {path: path.stat().st_mtime_ns for path in first} == first
    narrow = make(end="2023-05-08", min_scenes=2)
    narrow.prepare()
    assert len(narrow.load()) == 2


def test_the_second_time_says_that_all_is_there(make, caplog):
    caplog.set_level(logging.INFO)
    make().prepare()
    assert caplog.messages[-1].endswith("3 observations downloaded")
    make().prepare()
    assert caplog.messages[-1].endswith("all 3 observations are already there")


def test_another_area_does_not_go_into_the_same_folder(make):
    make().prepare()
    with pytest.raises(InputError, match="holds another area"):
        make(bbox=bbox((20, 20), row=8, column=8)).prepare()


def test_a_damaged_scene_json_is_made_again(make, caplog):
    source = make()
    source.prepare()
    (source.folder / "scene.json").write_text("{")
    source.prepare()
    assert "searching again" in caplog.text
    assert len(json.loads((source.folder / "scene.json").read_text())["observations"]) == 3


def test_more_bands_are_added(make):
    make(bands=["B02"]).prepare()
    make(bands=["B02", "B03"]).prepare()
    assert make(bands=["B02", "B03"]).load().bands == ("B02", "B03")


def test_fewer_than_wanted_is_a_warning(make, caplog):
    with caplog.at_level(logging.INFO):
        make(min_scenes=8).prepare()
    assert "3 observations are fewer than data.min_scenes=8; by cloud over the area: 3 up to 1 %" in caplog.text


def test_fewer_than_two_is_an_error(make):
    with pytest.raises(InputError, match=r"1 of 1 acquisitions .*at least 2 are needed"):
        make(end="2023-05-03").prepare()


def test_a_folder_is_named_after_area_and_dates(make):
    assert (
        str(make(root=None, bbox=[1.25, 2, 3, 4]).folder) == "data/sentinel-2-c1-l2a_1.25_2_3_4_2023-05-01_2023-05-31"
    )
    assert "sf_2023-05-01" in str(make(root=None, bbox=None, aoi="areas/sf.geojson").folder)


def test_a_full_disk_is_seen_before(make, monkeypatch):
    usage = catalogue.shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(catalogue.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"of disk and 0.00 GB are free"):
        make().prepare()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bands": ["B02", "B99"]}, "there is no band B99; choose from B02, B03, B04, B08, B11"),
        ({"bands": "B02"}, r"write data.bands=\[B02"),
        ({"bands": ["SCL"]}, "there is no band SCL"),
        ({"max_aoi_cloud": 101}, "not a percentage"),
        ({"min_scenes": 1}, "data.min_scenes=1"),
        ({"max_scenes": 2}, "data.max_scenes=2 is less than"),
        ({"workers": 0}, "data.workers=0"),
        ({"bbox": [5, 50, 7, 52]}, r"99.8 GB; data.yes=true"),
        ({"start": None}, "name the season"),
        ({"start": "2024-01-01"}, "is before"),
        ({"end": "2023-05-01", "start": "2023-05-01"}, "no scene found"),
    ],
)
def test_impossible_settings(make, changed, said):
    with pytest.raises(InputError, match=said):
        make(**changed).prepare()
    assert not make().folder.exists()


def test_a_file_at_the_place_of_the_folder(make, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        make(root=tmp_path / "taken").prepare()


def test_the_grid_is_the_sources_own(make):
    source = make()
    source.prepare()
    grid = source.load().grid
    with rasterio.open(source.folder.parent / "archive" / "0_B02.tif") as band:
        column, row = ~band.transform @ (grid.transform[2], grid.transform[5])
        window = ((int(row), int(row) + grid.shape[0]), (int(column), int(column) + grid.shape[1]))
        expected = band.read(1, window=window) * 1e-4 - 0.1
    np.testing.assert_allclose(source.load().frames[0, 0], expected, atol=1e-6)
