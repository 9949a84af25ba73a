import pytest
from local_catalogue import bbox, item, write_items

from s2sr.data.catalogue.area import Area
from s2sr.data.catalogue.season import Season
from s2sr.data.catalogue.stac import link, search
from s2sr.errors import InputError

AREA = Area.of(bbox=bbox((32, 32)), aoi=None)


@pytest.fixture
def find(tmp_path):
    def find(items, *, start="2023-05-01", end="2023-05-31", season=None, cloud=60, orbits=None):
        return search(
            str(write_items(tmp_path, items)),
            "sentinel-2-l2a",
            area=AREA,
            season=Season.of(start, end, season),
            max_cloud_cover=cloud,
            orbits=orbits,
        )

    return find


def test_everything_is_filtered_here_whatever_the_catalogue_returns(find):
    far = item("far", "2023-05-02T10:00:00Z", {})
    far["geometry"] = {"type": "Polygon", "coordinates": [[[9, 9], [10, 9], [10, 10], [9, 9]]]}
    items = [
        item("late", "2023-06-01T00:00:00Z", {}),
        item("last", "2023-05-31T23:59:59Z", {}),
        item("first", "2023-05-01T00:00:00Z", {}),
        item("cloudy", "2023-05-02T10:00:00Z", {}, **{"eo:cloud_cover": 60.1}),
        item("limit", "2023-05-03T10:00:00Z", {}, **{"eo:cloud_cover": 60}),
        item("unknown", "2023-05-04T10:00:00Z", {}, **{"eo:cloud_cover": None}),
        item("other", "2023-05-03T10:00:00Z", {}) | {"collection": "sentinel-2-l1c"},
        far,
    ]
    found, cloudy = find(items)
    assert [p.id for p in found] == ["first", "limit", "unknown", "last"]
    assert cloudy == 1
    assert [p.id for p in find(items, orbits=[98])[0]] == ["first", "limit", "unknown", "last"]
    assert find(items, orbits=[7])[0] == []


@pytest.mark.parametrize(
    "href",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "/vsicurl/http://a/b.tif",
        "s3://a/b.tif",
        "zip+https://a/b.zip!c",
        "../b.tif",
    ],
)
def test_a_remote_catalogue_links_to_http_only(href):
    with pytest.raises(InputError, match="not an http or https link"):
        link("https://stac.example", item("a", "2023-05-01T00:00:00Z", {"B02": href}), "B02")


def test_a_local_catalogue_links_to_files_too(tmp_path):
    catalog = str(tmp_path / "items.json")
    one = item("a", "2023-05-01T00:00:00Z", {"near": "./b.tif", "far": "file:///c.tif", "web": "https://x/d.tif"})
    assert link(catalog, one, "near") == str(tmp_path / "b.tif")
    assert link(catalog, one, "far") == "/c.tif"
    assert link(catalog, one, "web") == "https://x/d.tif"
    for href in ("/vsicurl/http://a/b.tif", "s3://a/b", "file://host/b.tif"):
        with pytest.raises(InputError, match="not an http"):
            link(catalog, item("a", "2023-05-01T00:00:00Z", {"B02": href}), "B02")
    with pytest.raises(InputError, match="no asset B99 among near, far, web"):
        link(catalog, one, "B99")


@pytest.mark.parametrize("text", ["{", "[]", '{"type": "Catalog"}', "<html>"])
def test_a_file_that_is_no_catalogue(tmp_path, text):
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(InputError, match="not an ItemCollection"):
        search(
            str(tmp_path / "items.json"),
            "c",
            area=AREA,
            season=Season.of("2023-05-01", "2023-05-02", None),
            max_cloud_cover=60,
            orbits=None,
        )
