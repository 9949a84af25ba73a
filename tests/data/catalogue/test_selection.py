from dataclasses import replace

import numpy as np
import pytest
from local_catalogue import item

from s2sr.data.catalogue.area import Area
from s2sr.data.catalogue.product import Product
from s2sr.data.catalogue.selection import choose, passes

AREA = Area.of(bbox=[5.0, 51.2, 5.02, 51.22], aoi=None)


def box(west, south, east, north):
    return {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    }


def product(id, *, day="2023-05-02", geometry=None, **properties):
    content = item(id, f"{day}T10:50:00Z", {"B02": "b02.tif"}, **properties)
    content["geometry"] = geometry or box(4, 50, 6, 52)
    return Product(content)


def ids(found):
    return [[p.id for p in one.products] for one in found]


def test_one_per_day_satellite_and_orbit():
    same = [
        product("a"),
        product("b", day="2023-05-07"),
        product("c", platform="sentinel-2b", **{"sat:relative_orbit": 8}),
    ]
    assert sorted(ids(passes(same, AREA))) == [["a"], ["b"], ["c"]]
    names = {one.name for one in passes(same, AREA)}
    assert names == {"S2A_2023-05-02_R098", "S2A_2023-05-07_R098", "S2B_2023-05-02_R008"}


def test_of_reprocessed_ones_the_newest():
    given = [
        product("new", **{"s2:processing_baseline": "05.10"}),
        product("old", **{"s2:processing_baseline": "02.14"}),
        product("newer", **{"s2:processing_baseline": "05.10", "s2:generation_time": "2024-01-01"}),
    ]
    for order in (given, given[::-1]):
        assert ids(passes(order, AREA)) == [["newer"]]


def test_of_overlapping_tiles_the_one_that_covers():
    part = product("part", geometry=box(4, 50, 5.01, 52), **{"grid:code": "MGRS-31UES"})
    whole = product("whole")
    assert ids(passes([part, whole], AREA)) == [["whole"]]


def test_a_tile_that_is_delivered_in_parts_is_put_together():
    given = [product("upper", geometry=box(4, 51.21, 6, 52)), product("lower", geometry=box(4, 50, 6, 51.21))]
    assert sorted(ids(passes(given, AREA))[0]) == ["lower", "upper"]


def test_tiles_that_share_an_area_are_mosaicked():
    left = product("left", geometry=box(4, 50, 5.015, 52), **{"grid:code": "MGRS-31UES"})
    right = product("right", geometry=box(5.005, 50, 6, 52))
    outside = product("outside", geometry=box(5.005, 50, 6, 51.21), **{"grid:code": "MGRS-31UFT"})
    assert ids(passes([right, left, outside], AREA)) == [["left", "right"]]


def test_a_tile_that_adds_nothing_is_not_read():
    """Neither shows the eastern half."""
    left = product("left", geometry=box(4, 50, 5.01, 52), **{"grid:code": "MGRS-31UES"})
    corner = product("corner", geometry=box(4, 51.21, 5.01, 52), **{"grid:code": "MGRS-31UFT"})
    assert ids(passes([left, corner], AREA)) == [["left"]]


def test_the_own_zone_comes_first():
    other = product("other", **{"grid:code": "MGRS-32ULB", "proj:epsg": 32632})
    most = product("most", geometry=box(4, 50, 5.0199, 52))
    assert ids(passes([other, most], AREA))[0][0] == "most"


def test_a_pass_over_the_pacific_is_one_day():
    shifted = [product("a", geometry=box(178, -18, 179, -17)), product("b", geometry=box(178, -18, 179, -17))]
    shifted[0].item["properties"] |= {"datetime": "2023-05-01T23:59:58Z"}
    shifted[1].item["properties"] |= {"datetime": "2023-05-02T00:00:10Z", "grid:code": "MGRS-60KYF"}
    assert {p.local_day.isoformat() for p in shifted} == {"2023-05-02"}


def test_cloud_counts_over_the_area_and_of_what_was_seen():
    scl = np.full(AREA.grid.shape, 4)
    scl[~AREA.inside] = 9  # clouds around it do not matter
    seen = passes([product("a")], AREA)[0].seen(scl, AREA)
    assert (seen.cloud, seen.coverage, seen.clear) == (0, 100, 100)
    half = AREA.grid.shape[0] // 2
    scl[:half] = 0
    scl[half:, : AREA.grid.shape[1] // 4] = 10
    seen = seen.seen(scl, AREA)
    assert seen.coverage == pytest.approx(50, abs=2)
    assert seen.cloud == pytest.approx(25, abs=3)
    assert seen.seen(np.zeros_like(scl), AREA).cloud == 100


@pytest.fixture
def candidates():
    days = [f"2023-05-{day:02d}" for day in range(1, 9)]
    made = passes([product(day, day=day) for day in days], AREA)
    return [replace(one, cloud=cloud) for one, cloud in zip(made, (30, 0, 0.5, 3, 0.2, 8, 70, 0), strict=True)]


@pytest.mark.parametrize(
    ("relax", "least", "clouds", "allowed"),
    [
        (False, 6, [0, 0, 0.2, 0.5], 1),
        (True, 4, [0, 0, 0.2, 0.5], 1),
        (True, 5, [0, 0, 0.2, 0.5, 3], 5),
        (True, 8, [0, 0, 0.2, 0.5, 3, 8, 30, 70], 80),
        (True, 9, [0, 0, 0.2, 0.5, 3, 8, 30, 70], 100),
    ],
)
def test_the_clearest_first_and_relaxed_step_by_step(candidates, relax, least, clouds, allowed):
    rule = {"max_cloud": 1, "min_coverage": 50, "relax": relax}
    chosen, used = choose(candidates, **rule, least=least, most=32)
    assert ([one.cloud for one in chosen], used) == (clouds, allowed)
    chosen, _ = choose(candidates, **rule, least=least, most=2)
    assert [one.cloud for one in chosen] == [0, 0]


def test_what_shows_too_little_of_the_area_is_no_candidate(candidates):
    partial = [replace(one, coverage=40) for one in candidates]
    assert choose(partial, max_cloud=1, min_coverage=50, relax=True, least=2, most=9)[0] == []
