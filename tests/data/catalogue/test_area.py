import json

import numpy as np
import pytest
from pyproj import Transformer
from shapely.geometry import mapping, shape

from s2sr.data.catalogue.area import Area
from s2sr.errors import InputError


@pytest.mark.parametrize(
    ("bbox", "epsg"),
    [
        ([-122.186, 47.629, -122.056, 47.719], 32610),
        ([149.1, -35.3, 149.2, -35.2], 32755),
        ([5.95, 50.5, 6.2, 50.6], 32632),  # across two zones, most of it in the second
        ([5.8, 50.5, 6.05, 50.6], 32631),
        ([5.3, 60.3, 5.4, 60.4], 32632),  # Bergen: zone 32 is wider there
        ([8.5, 78.2, 9.4, 78.3], 32631),  # Svalbard: there is no zone 32
        ([10.0, -0.3, 10.1, 0.1], 32732),  # across the equator
    ],
)
def test_the_zone_that_holds_most_of_it(bbox, epsg):
    assert Area.of(bbox=bbox, aoi=None).epsg == epsg


@pytest.mark.parametrize("bbox", [[-122.186, 47.629, -122.056, 47.719], [5.95, 50.55, 6.2, 50.6]])
def test_the_grid_is_the_smallest_of_whole_20_m_pixels_around_it(bbox):
    grid = Area.of(bbox=bbox, aoi=None).grid
    a, b, left, d, e, top = grid.transform
    assert (a, b, d, e) == (10, 0, 0, -10)
    right, bottom = left + 10 * grid.shape[1], top - 10 * grid.shape[0]
    assert all(v % 20 == 0 for v in (left, top, right, bottom))
    to = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
    lon, lat = np.meshgrid(np.linspace(bbox[0], bbox[2], 201), np.linspace(bbox[1], bbox[3], 201))
    x, y = to.transform(lon, lat)
    assert 0 <= x.min() - left < 20.1
    assert 0 <= right - x.max() < 20.1
    assert 0 <= y.min() - bottom < 20.1
    assert 0 <= top - y.max() < 20.1


def test_a_geojson_polygon_is_what_is_inside(tmp_path):
    triangle = {"type": "Polygon", "coordinates": [[[5.3, 50.6], [5.32, 50.6], [5.3, 50.61], [5.3, 50.6]]]}
    wrapped = {"type": "Feature", "properties": {}, "geometry": triangle}
    for name, content in (
        ("geometry", triangle),
        ("feature", wrapped),
        ("collection", {"type": "FeatureCollection", "features": [wrapped]}),
    ):
        path = tmp_path / f"{name}.geojson"
        path.write_text(json.dumps(content))
        area = Area.of(bbox=None, aoi=path)
        assert mapping(area.polygon)["type"] == "Polygon"
        assert area.polygon.equals(shape(triangle))
        assert area.inside.mean() == pytest.approx(0.5, abs=0.04)  # the grid is tilted against the meridians


@pytest.mark.parametrize(
    ("bbox", "said"),
    [
        ([6, 50, 5, 51], "west 6 is not west of east 5"),
        ([5, 51, 6, 50], "south 51 is not south of north 50"),
        ([179, -17, -179, -16], "across the antimeridian"),
        ([5, 50, 6], "four numbers"),
        ([5, 50, 6, "north"], "four numbers"),
        ([5, 50, 6, float("nan")], "four numbers"),
        ([170, 0, 190, 2], "outside the globe"),
        ([5, 80, 6, 91], "outside the globe"),
        ([5, 84, 6, 86], "outside of UTM"),
        ([5.33, 50.63, 5.3302, 50.6302], "too small"),
    ],
)
def test_an_impossible_rectangle(bbox, said):
    with pytest.raises(InputError, match=said):
        Area.of(bbox=bbox, aoi=None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not GeoJSON"),
        ("[]", "not GeoJSON"),
        ('{"type": "Point", "coordinates": [5, 50]}', "draw a polygon"),
        ('{"type": "FeatureCollection", "features": []}', "draw a polygon"),
    ],
)
def test_an_impossible_file(tmp_path, content, said):
    path = tmp_path / "aoi.geojson"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        Area.of(bbox=None, aoi=path)


def test_one_of_the_two(tmp_path):
    for given in ({"bbox": None, "aoi": None}, {"bbox": [5, 50, 6, 51], "aoi": tmp_path}):
        with pytest.raises(InputError, match="one of them"):
            Area.of(**given)
    with pytest.raises(InputError, match="No such file"):
        Area.of(bbox=None, aoi=tmp_path / "nowhere.geojson")


def test_an_area_wider_than_a_zone_is_known_before_a_grid_is_made():
    area = Area.of(bbox=[-100, -50, 60, 52], aoi=None)
    assert area.size == pytest.approx((1.135e6, 1.78e6), rel=0.01)
    with pytest.raises(InputError, match="several areas"):
        area.grid  # noqa: B018
