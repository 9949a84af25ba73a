import json

import numpy as np
import pytest

from s2sr.data.harmonise import OFFSET, SCALE, baseline, by_baseline, by_raster_bands, harmonised
from s2sr.errors import InputError


def item(**properties):
    return {"id": "S2A", "properties": properties, "assets": {}}


@pytest.mark.parametrize(("version", "offset"), [("02.12", 0), ("03.01", 0), ("04.00", -0.1), ("05.11", -0.1)])
def test_the_baseline_decides_and_not_the_date(version, offset):
    for when in ("2016-01-01T00:00:00Z", "2025-01-01T00:00:00Z"):
        assert by_baseline(item(**{"s2:processing_baseline": version, "datetime": when}), "B02") == (SCALE, offset)


def test_the_baseline_is_found_in_the_product_uri_too():
    uri = "S2A_MSIL2A_20240422T173911_N0510_R098_T13TDE_20240423T004950.SAFE"
    assert baseline(item(**{"s2:product_uri": uri})) == 5.10
    with pytest.raises(InputError, match="S2A: its processing baseline is unknown"):
        by_baseline(item(), "B02")


def test_real_items_of_both_archives(shared_data):
    found = json.loads((shared_data / "stac_items" / "item-collection.json").read_text())["features"][0]
    assert by_raster_bands(found, "red") == (1e-4, -0.1)
    items = json.loads((shared_data / "stac_items" / "s2_items_from_cassettes.json").read_text())
    items = items if isinstance(items, list) else items["features"]
    planetary = [i for i in items if "B02" in i["assets"] and i["collection"] == "sentinel-2-l2a"]
    assert {by_baseline(i, "B02") for i in planetary} == {(1e-4, 0.0 if baseline(i) < 4 else -0.1) for i in planetary}
    applied = [i for i in items if i["properties"].get("earthsearch:boa_offset_applied")]
    assert applied
    assert all(by_raster_bands(i, "red")[1] == 0 for i in applied)


def test_declared_in_the_stac_1_1_manner():
    described = {"assets": {"red": {"bands": [{"name": "B04"}], "raster:scale": 0.0001, "raster:offset": -0.1}}}
    assert by_raster_bands(item() | described, "red") == (1e-4, -0.1)
    described["assets"]["red"] = {"bands": [{"raster:scale": 0.0001, "raster:offset": 0}]}
    assert by_raster_bands(item() | described, "red") == (1e-4, 0)
    with pytest.raises(InputError, match="declares no scale"):
        by_raster_bands({"id": "S2A", "properties": {}, "assets": {"red": {}}}, "red")


def test_reflectance_is_the_same_across_baselines():
    reflectance = np.array([-0.05, 0.0001, 0.0, 0.2, 1.3, 2.1])
    newer = np.rint((reflectance + 0.1) / SCALE).astype(np.uint16)
    older = np.rint(reflectance[1:] / SCALE).astype(np.uint16)  # had no room for what is negative
    np.testing.assert_array_equal(harmonised(newer, scale=SCALE, offset=OFFSET), newer)
    again = harmonised(older, scale=SCALE, offset=0.0)
    np.testing.assert_array_equal(again[older != 0], newer[1:][older != 0])
    assert again.dtype == np.uint16


def test_no_data_stays_no_data_and_nothing_else_becomes_it():
    dn = np.arange(65536).astype(np.uint16)
    for scale, offset in ((1e-4, 0.0), (1e-4, -0.1), (1e-4, -0.2), (2e-4, -0.1)):
        stored = harmonised(dn, scale=scale, offset=offset)
        np.testing.assert_array_equal(stored == 0, dn == 0)
