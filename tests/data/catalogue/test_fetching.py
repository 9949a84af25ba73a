"""From a catalogue to a scene folder and a product, through real servers on loopback; pixels against plain rasterio."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from downloads import DATES, download, expected, names, reflectance
from rasterio.warp import transform_bounds
from runs import LBFGS, run
from stac_catalogue import BANDS, CLEAR, EARTH_SEARCH, SEASON, TWO_TILES, take, write_cog


def test_search_download_and_search_again(api, world, files, tmp_path):
    """One query, in the words of both catalogues, to servers that filter and to one that only pretends to."""
    found = {}
    for data in ("planetary_computer", "earth_search"):
        bands = "data.bands=[B02,B03,B04,B08,B11]"
        found[data] = download(world, api, tmp_path / data, bands, data=data)
        assert list(found[data]) == names()
    for name, (dn, tags, bands) in found["planetary_computer"].items():
        np.testing.assert_array_equal(dn, found["earth_search"][name][0])
        assert bands == (*BANDS, "B11", "SCL")
        assert tags["datetime"][:10] in name
        assert f"R{int(tags['relative_orbit']):03d}" in name
    for day in CLEAR:
        if day == 7:  # resampled from the next zone
            continue
        path = tmp_path / "earth_search" / f"{take(day).name}.tif"
        for band in (*BANDS, "B11"):
            truth = expected(world, path, take(day), band)
            np.testing.assert_allclose(reflectance(path, band), truth, rtol=0, atol=1e-9, err_msg=f"{path.name} {band}")


def test_the_same_pixels_through_plain_rasterio(world, files, saved, tmp_path):
    download(world, saved(world.items("planetary_computer", files.base)), tmp_path / "scene", "data.bands=[B04,B11]")
    for day in set(CLEAR) - {7}:
        with rasterio.open(tmp_path / "scene" / f"{take(day).name}.tif") as file:
            assert file.crs.to_epsg() == 32631
            assert file.res == (10, 10)
            assert (file.nodata, set(file.dtypes)) == (0, {"uint16"})
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            for index, band in enumerate(file.descriptions, 1):
                with rasterio.open(world.path(take(day), band)) as source:
                    window = source.window(*file.bounds)
                    assert window.col_off == int(window.col_off)
                    assert window.row_off == int(window.row_off)
                    dn = source.read(1, window=window).astype(int)
                step = round(source.res[0] / 10)
                dn = dn.repeat(step, 0).repeat(step, 1)
                stored_offset = 1000 if band != "SCL" else 0
                own_offset = take(day).offset if band != "SCL" else 0
                np.testing.assert_array_equal(file.read(index), np.where(dn, dn - own_offset + stored_offset, 0))


def test_reflectance_is_the_same_across_baselines(world, files, saved, tmp_path):
    """The later date has the older baseline, so deciding by date would have been wrong."""
    for data in ("planetary_computer", "earth_search"):
        folder = tmp_path / data
        kept = download(world, saved(world.items(data, files.base)), folder, data=data)
        new, old = take(2), take(11)
        assert (new.offset, old.offset) == (1000, 0)
        assert (kept[new.name][1]["processing_baseline"], kept[old.name][1]["processing_baseline"]) == (
            "05.00",
            "03.01",
        )
        for band in BANDS:
            one, other = (reflectance(folder / f"{product.name}.tif", band) for product in (new, old))
            np.testing.assert_array_equal(one, other)


def test_no_data_stays_no_data(world, files, saved, tmp_path):
    kept = download(world, saved(world.items("planetary_computer", files.base)), tmp_path / "scene")
    path = tmp_path / "scene" / f"{take(0).name}.tif"
    holes = np.isnan(expected(world, path, take(0), "B02"))
    assert holes.sum() == 16
    assert ((kept[take(0).name][0] == 0) == holes).all(), "in every band and SCL, and nowhere else"


def test_the_newest_processing_of_an_acquisition(world, files, saved, tmp_path):
    kept = download(world, saved(world.items("planetary_computer", files.base)), tmp_path / "scene")
    assert kept[take(2).name][1]["items"] == take(2).id
    old = next(t for t in SEASON if t.day == 2 and t.baseline == "03.01")
    assert not files.requests(old.id)


def test_the_native_zone_goes_before_the_newest_baseline(world, files, saved, tmp_path):
    kept = download(world, saved(world.items("planetary_computer", files.base)), tmp_path / "scene")
    assert kept[take(8).name][1]["items"] == take(8).id
    path = tmp_path / "scene" / f"{take(8).name}.tif"
    np.testing.assert_allclose(reflectance(path, "B04"), expected(world, path, take(8), "B04"), rtol=0, atol=1e-9)
    assert not files.requests("T32ULB.*/B0")[len(files.requests(f"{take(7, '32ULB').id}/B0")) :]


def test_a_tile_of_the_next_zone_is_warped_onto_the_grid(world, files, saved, tmp_path):
    kept = download(world, saved(world.items("planetary_computer", files.base)), tmp_path / "scene")
    product = take(7, "32ULB")
    path = tmp_path / "scene" / f"{product.name}.tif"
    dn, tags, _ = kept[product.name]
    assert tags["items"] == product.id
    assert (dn != 0).all()
    for band in BANDS:
        truth = expected(world, path, replace(product, tile="31UFS"), band)
        found = reflectance(path, band)
        # resampled twice by cubic convolution, here and into the tile; half a pixel astray would show
        assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.9
        shifted = np.corrcoef(found[:, 1:].ravel(), truth[:, :-1].ravel())[0, 1]
        assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > shifted + 0.05


def test_an_area_across_two_tiles_is_mosaicked(world, files, saved, tmp_path):
    items = world.items("planetary_computer", files.base, [t for t in SEASON if t.day in (0, 3, 7)])
    kept = download(world, saved(items), tmp_path / "scene", area=TWO_TILES)
    dn, tags, _ = kept[take(3).name]
    assert set(tags["items"].split(", ")) == {t.id for t in SEASON if t.day == 3}
    assert (dn != 0).all()
    path = tmp_path / "scene" / f"{take(3).name}.tif"
    for band in BANDS:
        np.testing.assert_allclose(reflectance(path, band), expected(world, path, take(3), band), rtol=0, atol=1e-9)
    assert (kept[take(0).name][0][-1][:, -8:] == 0).all(), "day 0 has one of the tiles only"


def test_the_tiles_of_a_split_granule_are_put_together(world, files, saved, tmp_path):
    """A datatake was cut while it crossed a tile: two products of one tile, day and baseline have a part each."""
    halves = []
    for part, made in (("north", "2021-12-18T00:00:00Z"), ("south", "2021-12-18T01:00:00Z")):
        [item] = world.items("planetary_computer", files.base, [take(3)])
        item["id"] = f"{item['id']}_{part}"
        item["properties"]["s2:generation_time"] = made
        with rasterio.open(world.path(take(3), "B02")) as source:
            west, south, east, north = source.bounds
        middle = (south + north) / 2
        bounds = (west, middle, east, north) if part == "north" else (west, south, east, middle)
        w, s, e, n = transform_bounds("EPSG:32631", "EPSG:4326", *bounds)
        item |= {
            "bbox": [w, s, e, n],
            "geometry": {"type": "Polygon", "coordinates": [[[w, s], [e, s], [e, n], [w, n], [w, s]]]},
        }
        for band in (*BANDS, "SCL"):
            with rasterio.open(world.path(take(3), band)) as source:
                image, transform = source.read(1), source.transform
            half = len(image) // 2
            image[slice(half, None) if part == "north" else slice(0, half)] = 0
            write_cog(world.folder / part / f"{band}.tif", image, transform, "EPSG:32631", blocks=128)
            item["assets"][band]["href"] = f"{files.base}/{part}/{band}.tif"
        halves.append(item)
    items = [*world.items("planetary_computer", files.base, [take(0), take(1)]), *halves]
    kept = download(world, saved(items), tmp_path / "scene")
    assert (kept[take(3).name][0] != 0).all()


def test_clouds_over_the_area_decide_and_cost_next_to_nothing(world, files, saved, tmp_path):
    kept = download(world, saved(world.items("planetary_computer", files.base)), tmp_path / "scene")
    assert take(4).name in kept, "a cloudy tile, clear over the area"
    for day in (5, 9):
        assert files.requests(f"{take(day).id}/SCL"), "looked at"
        assert not files.requests(f"{take(day).id}/B"), "and left"
    assert not files.requests(take(6).id), "the tile's own cloud cover is enough"
    seen = max(r.end for r in files.requests("SCL"))
    assert seen <= min(r.start for r in files.requests("/B0"))


def test_cloud_is_allowed_step_by_step(world, files, saved, tmp_path):
    catalog = saved(world.items("planetary_computer", files.base))
    kept = download(world, catalog, tmp_path / "relaxed", "data.min_scenes=10")
    assert sorted(kept) == names({*CLEAR, 9})
    assert 20 < float(kept[take(9).name][1]["cloud_over_area_percent"]) < 35
    kept = download(world, catalog, tmp_path / "strict", "data.min_scenes=10", "data.relax=false")
    assert sorted(kept) == names()


def test_the_clearest_are_taken(world, files, saved, tmp_path):
    catalog = saved(world.items("planetary_computer", files.base))
    kept = download(
        world, catalog, tmp_path / "scene", "data.min_scenes=2", "data.max_scenes=4", "data.max_aoi_cloud=40"
    )
    assert len(kept) == 4
    assert not {take(5).name, take(9).name, take(0).name} & set(kept), "cloudy, cloudy, with holes"


@pytest.mark.parametrize(
    ("override", "days"),
    [
        ("data.orbits=[51]", {d for d in CLEAR if take(d, "32ULB" if d == 7 else "31UFS").orbit == 51}),
        ("data.season=[01-01,01-31]", {7, 8, 10, 11}),
        ("data.season=[12-20,01-10]", {4, 7}),
        ("data.max_cloud_cover=50", set(CLEAR) - {4}),
        ("data.end=2021-12-17", {0, 1, 2, 3}),
    ],
)
def test_filters(world, files, saved, tmp_path, override, days):
    for data in ("planetary_computer", "earth_search"):
        catalog = saved(world.items(data, files.base))
        kept = download(world, catalog, tmp_path / data, override, "data.relax=false", data=data)
        assert sorted(kept) == names(days)


def test_scene_json(world, files, saved, tmp_path):
    catalog = saved(world.items("planetary_computer", files.base))
    kept = download(world, catalog, tmp_path / "scene")
    plan = json.loads((tmp_path / "scene" / "scene.json").read_text())
    assert {"version", "query", "grid", "observations", "items"} <= set(plan)
    assert [one["file"] for one in plan["observations"]] == [
        f"{name}.tif" for name in sorted(kept, key=lambda name: name[4:])
    ]
    used = {id for one in plan["observations"] for id in one["items"]}
    items = {item["id"]: item for item in plan["items"]["features"]}
    assert set(items) == used
    given = {item["id"]: item for item in json.loads(Path(catalog).read_text())["features"]}
    assert all(items[id] == given[id] for id in used), "as the catalogue said"


def test_real_items(real_api, world, files, shared_data, tmp_path):
    """Ten months of a Belgian village, in both catalogues' own words, against the scene folder they were made from."""
    cogs = shared_data / "stac_local_cogs"
    with rasterio.open(next(cogs.glob("*_blue.tif"))) as source:
        west, south, east, north = source.bounds
        inner = transform_bounds(source.crs, "EPSG:4326", west + 300, south + 300, east - 300, north - 300)
    area = f"data.bbox=[{','.join(map(str, inner))}]"
    for data in ("planetary_computer", "earth_search"):
        root = tmp_path / data
        dates = ("data.start=2020-10-01", "data.end=2021-12-31")
        kept = download(world, real_api, root, area, *dates, data=data)
        assert len(kept) == 10
        for path in sorted(root.glob("*.tif")):
            month = re.search(r"(\d{4})-(\d\d)-(\d\d)", path.name)
            for band in BANDS:
                with rasterio.open(
                    next(cogs.glob(f"*_{''.join(month.groups())}_*_{EARTH_SEARCH[band]}.tif"))
                ) as source:
                    with rasterio.open(path) as file:
                        window = source.window(*file.bounds)
                    dn = source.read(1, window=window).astype(float)
                truth = np.where(dn == 0, np.nan, (dn - 1000) * 1e-4)
                np.testing.assert_allclose(reflectance(path, band), truth, rtol=0, atol=1e-9)


def test_basemap(world, files, saved, tmp_path):
    tile = world.folder / "tiles" / "aerial.png"
    tile.parent.mkdir(exist_ok=True)
    picture = np.zeros((3, 256, 256), np.uint8)
    picture[0], picture[1], picture[2] = 200, 100, 50
    with rasterio.open(tile, "w", driver="PNG", width=256, height=256, count=3, dtype="uint8") as out:
        out.write(picture)
    catalog = saved(world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)]))
    url = f"{files.base}/tiles/aerial.png?{{z}}-{{y}}-{{x}}"
    root = tmp_path / "scene"
    download(world, catalog, root, "data.basemap=true", f"data.basemap_url='{url}'", "data.basemap_scale=2")
    with rasterio.open(root / "basemap.tif") as basemap, rasterio.open(root / f"{take(0).name}.tif") as lr:
        assert basemap.crs == lr.crs
        assert basemap.bounds == lr.bounds
        assert basemap.shape == (2 * lr.height, 2 * lr.width)
        assert "Esri" in str(basemap.tags())
        np.testing.assert_allclose(basemap.read([1, 2, 3]).mean((1, 2)), (200, 100, 50), atol=2)


def test_a_missing_basemap_stops_nothing(world, files, saved, tmp_path):
    catalog = saved(world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)]))
    url = f"{files.base}/nowhere/{{z}}/{{y}}/{{x}}.png"
    root = tmp_path / "scene"
    download(world, catalog, root, "data.basemap=true", f"data.basemap_url='{url}'", "data.basemap_scale=2")
    assert not (root / "basemap.tif").exists()
    assert len(list(root.glob("S2*.tif"))) == 3


def test_download_fit_product(api, world, files, tmp_path):
    """What a user does: one command leads from the catalogue to the product."""
    bbox = ",".join(map(str, world.bbox()))
    given = (f"data.catalog={api}", f"data.bbox=[{bbox}]", "data.root=scene", *DATES, "c2f.levels=[1,2]")
    done = run(
        "data=planetary_computer", *given, "strategy=lbfgs", *LBFGS, "logger=csv", "hydra.run.dir=out", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["status"] == "ok"
    assert metrics["n_obs"] >= 8
    with (
        rasterio.open(tmp_path / "scene" / f"{take(4).name}.tif") as lr,
        rasterio.open(tmp_path / "out" / "sr.tif") as sr,
    ):
        assert sr.crs == lr.crs
        assert sr.bounds == lr.bounds
        assert sr.shape == (2 * lr.height, 2 * lr.width)
        assert "Copernicus Sentinel" in sr.tags()["attribution"]
        seen = np.nanmean([reflectance(tmp_path / "scene" / f"{name}.tif", "B04") for name in names()], 0)
        assert abs(sr.read(sr.descriptions.index("B04") + 1).mean() - seen.mean()) < 0.01
    assert not list((tmp_path / "scene").glob(".*"))
