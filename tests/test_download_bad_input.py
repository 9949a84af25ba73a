"""Each bad input of a download ends within 30 s in one line on stderr and a non-zero exit; nothing is half-written."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import sys
import time
from functools import partial

import pytest
from runs import start
from stac_catalogue import collection, take

from s2sr import download

BBOX = "data.bbox=[5.009,51.248,5.014,51.2514]"
DATES = ("data.start=2021-12-01", "data.end=2022-01-31")
PATIENCE = 90  # seconds, also beside other work; without a limit of its own a search waits for many minutes


@pytest.fixture
def catalog(world, files, saved):
    """A catalogue of five clear dates."""
    return saved(world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 2, 3, 4)]))


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run the download with overrides, and return the line with which it ends."""

    def refused(*overrides):
        root = tmp_path / "scene"
        given = (*DATES, f"data.root={root}", "data.backoff=0.05", "data.timeout=1", *overrides)
        monkeypatch.setattr(sys, "argv", ["download", *given])
        start = time.monotonic()
        with pytest.raises(SystemExit) as end:
            download.main()
        assert time.monotonic() - start < PATIENCE
        line = str(end.value.code)
        assert line.startswith("error: "), line
        assert "\n" not in line
        assert len(line) < 600
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        left = {path.name for path in root.rglob("*")} if root.is_dir() else set()
        assert left <= {"scene.json"}
        return line

    return refused


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.bbox=[5.014,51.248,5.009,51.2514]", "west 5.014 is not west of east 5.009"),
        ("data.bbox=[5.009,51.2514,5.014,51.248]", "south 51.2514 is not south of north 51.248"),
        ("data.bbox=[179.9,10,-179.9,10.1]", "antimeridian"),
        ("data.bbox=[179.9,10,180.1,10.1]", "outside the globe"),
        ("data.bbox=[5,89.9,5.1,91]", "outside the globe"),
        ("data.bbox=[5,88.9,5.1,89]", "UTM"),
        ("data.bbox=[-120.5,-13.4,-120.4999,-13.3999]", "too small"),
        ("data.bbox=[5,51,5.1]", "four numbers"),
        ("data.bbox=[a,b,c,d]", "four numbers"),
        ("data.bbox=[5,51,6,.nan]", "four numbers"),
        ("data.bbox=null", "data.bbox=[west,south,east,north]"),
        ("data.bbox=[5,51,7,53]", "GB; data.yes=true"),
        ("data.end=2021-11-30", "data.end=2021-11-30 is before data.start=2021-12-01"),
        ("data.start=yesterday", "data.start=yesterday"),
        ("data.season=[12-01]", "data.season"),
        ("data.season=[13-01,14-01]", "data.season"),
        ("data.bands=[B02,B13]", "no band B13; choose from B02, B03, B04, B08"),
        ("data.bands=[]", "data.bands"),
        ("data.bands=[SCL]", "no band SCL"),
        ("data.max_cloud_cover=200", "data.max_cloud_cover=200"),
        ("data.max_aoi_cloud=-1", "data.max_aoi_cloud=-1"),
        ("data.min_scenes=1", "data.min_scenes=1"),
        ("data.max_scenes=4", "data.max_scenes=4 is less than data.min_scenes=8"),
        ("data.workers=0", "data.workers=0"),
        ("data.orbits=[143]", "no scene found"),
        ("data.catalog=/nowhere/items.json", "/nowhere/items.json"),
        ("data.no_such_key=1", "no_such_key"),
        ("data.catalog=ftp://127.0.0.1/stac", "ftp://127.0.0.1/stac"),
    ],
)
def test_an_impossible_value(refused, catalog, override, said):
    assert said in refused(f"data.catalog={catalog}", BBOX, override)


def test_the_gigabytes_are_said_and_may_be_agreed_to(refused, catalog):
    line = refused(f"data.catalog={catalog}", "data.bbox=[3,50,5,52]")
    gigabytes = float(line.partition(" GB")[0].rpartition(" ")[2])
    assert gigabytes == pytest.approx(14e3 * 22e3 * 5 * 2 * 32 / 1e9, rel=0.1)  # pixels, layers, bytes, observations
    assert "no scene" in refused(f"data.catalog={catalog}", "data.bbox=[-3,30,-1,32]", "data.yes=true")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("bbox 1 2 3 4", "not GeoJSON"),
        ('{"type": "Point", "coordinates": [5, 51]}', "Point"),
        ('{"type": "Polygon", "coordinates": []}', "polygon"),
    ],
)
def test_an_area_in_a_file(refused, catalog, tmp_path, content, said):
    if content:
        (tmp_path / "area.geojson").write_text(content)
    line = refused(f"data.catalog={catalog}", f"data.aoi={tmp_path / 'area.geojson'}")
    assert said in line
    assert "area.geojson" in line


def test_an_area_twice(refused, catalog, tmp_path):
    assert "one of them" in refused(f"data.catalog={catalog}", BBOX, f"data.aoi={tmp_path / 'area.geojson'}")


@pytest.mark.parametrize("content", ["<html></html>", "[]", "{}", '{"features": [{"id": "x"}]}', '{"features": 3}'])
def test_a_local_catalogue_that_is_none(refused, tmp_path, content):
    (tmp_path / "items.json").write_text(content)
    assert "items.json" in refused(f"data.catalog={tmp_path / 'items.json'}", BBOX)


@pytest.mark.parametrize(
    "content",
    ["<html>hello</html>", "[]", "{}", '{"type": "Catalog"}', json.dumps(collection("sentinel-2-l2a"))],
    ids=["page", "list", "object", "stub", "collection"],
)
def test_not_a_stac_api(refused, world, files, content):
    (world.folder / "not_stac").write_text(content)
    line = refused(f"data.catalog={files.base}/not_stac", BBOX)
    assert "not a STAC API" in line
    assert "not_stac" in line


def test_nothing_at_that_address(refused, files):
    assert "not a STAC API (HTTP 404)" in refused(f"data.catalog={files.base}/nothing", BBOX)


def test_no_such_host(refused):
    assert "is there a network?" in refused("data.catalog=http://stac.invalid/v1", BBOX)


def test_no_scene_found(api, refused):
    line = refused(f"data.catalog={api}", BBOX, "data.start=2019-01-01", "data.end=2019-02-01")
    assert "no scene found" in line
    line = refused(f"data.catalog={api}", "data.bbox=[5.2,51.2,5.21,51.21]")
    assert "no scene found" in line


def test_no_such_collection(api, refused):
    line = refused(f"data.catalog={api}", "data.collection=sentinel-3", BBOX)
    assert "sentinel-3" in line


def test_all_under_cloud(refused, world, files, saved):
    items = world.items("planetary_computer", files.base, [take(5), take(9), take(0)])
    line = refused(f"data.catalog={saved(items)}", BBOX, "data.relax=false")
    assert "at least 2 are needed" in line
    assert "by cloud over the area" in line


def test_fewer_than_wished_is_a_warning(catalog, tmp_path, monkeypatch, caplog):
    given = (*DATES, BBOX, f"data.catalog={catalog}", f"data.root={tmp_path / 'scene'}")
    monkeypatch.setattr(sys, "argv", ["download", *given])
    download.main()
    assert "5 observations are fewer than data.min_scenes=8" in caplog.text
    assert len(list((tmp_path / "scene").glob("*.tif"))) == 5


def test_an_item_without_the_asset(refused, world, files, saved):
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)])
    for item in items:
        del item["assets"]["B08"]
    assert "B08" in refused(f"data.catalog={saved(items)}", BBOX)


def test_no_asset_can_be_read(refused, files, catalog):
    files.fail("B0", 500, times=10**6)
    line = refused(f"data.catalog={catalog}", BBOX, "data.attempts=2")
    assert "500" in line


def test_a_disk_that_is_nearly_full(refused, catalog, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    line = refused(f"data.catalog={catalog}", BBOX)
    assert "of disk" in line
    assert "0.00 GB are free" in line


def test_a_root_that_cannot_be(refused, catalog, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/scene" in refused(f"data.catalog={catalog}", BBOX, f"data.root={tmp_path / 'file' / 'scene'}")


def test_another_area_in_the_same_folder(catalog, tmp_path, monkeypatch):
    given = (*DATES, f"data.catalog={catalog}", f"data.root={tmp_path / 'scene'}")
    monkeypatch.setattr(sys, "argv", ["download", BBOX, *given])
    download.main()
    before = {path.name: path.read_bytes() for path in (tmp_path / "scene").iterdir()}
    monkeypatch.setattr(sys, "argv", ["download", "data.bbox=[5.009,51.248,5.013,51.2504]", *given])
    with pytest.raises(SystemExit, match="another area"):
        download.main()
    assert {path.name: path.read_bytes() for path in (tmp_path / "scene").iterdir()} == before


PROGRAM = (BBOX, *DATES, "data.root=scene")


def ended_with_a_line(process):
    try:
        out, err = process.communicate(timeout=2 * PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out
    return err


def test_a_disk_that_fills_up(catalog, tmp_path):
    """The process may write 8 kB to a file, as if there were no more room; scene.json is larger."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (8192, limit))
    given = (*PROGRAM, f"data.catalog={catalog}")
    ended_with_a_line(start(*given, cwd=tmp_path, script="s2sr.download", preexec_fn=full))
    assert not list((tmp_path / "scene").glob("*"))
    assert not list((tmp_path / "scene").glob(".*"))


def test_how_long_a_user_waits_without_a_network(files, tmp_path):
    """From the shell, imports included, all at once: a refusal, silence, a failing server; and in train.py."""
    files.fail("stac", 500, times=10**6)
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        refusing, speechless = (f"http://127.0.0.1:{s.getsockname()[1]}/stac" for s in (closed, silent))
        catalogs = {
            "refusal": refusing,
            "silence": speechless,  # the kernel accepts, nobody answers
            "failing": f"{files.base}/stac",
        }
        begun = time.monotonic()
        running = {
            name: start(*PROGRAM, f"data.catalog={catalog}", cwd=tmp_path, script="s2sr.download")
            for name, catalog in catalogs.items()
        }
        fit = ("data=planetary_computer", "logger=csv", f"data.catalog={refusing}")
        running["fit"] = start(*PROGRAM, *fit, cwd=tmp_path)
        said = {}
        for name, process in running.items():
            said[name] = ended_with_a_line(process)
            assert time.monotonic() - begun < PATIENCE, name
    for name in ("refusal", "silence", "fit"):
        assert "is there a network?" in said[name]
    assert "500" in said["failing"]
    assert not (tmp_path / "scene").exists()
