"""Downloads that go wrong: servers that fail, files that break, interruptions, and items that are not to be trusted."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from downloads import DATES, download, expected, names, observations, reflectance
from runs import start
from stac_catalogue import CLEAR, SEASON, take

from s2sr.errors import InputError

FAULTS = {
    "429": {"kind": 429, "retry_after": 1},
    "500": {"kind": 500, "times": 2},
    "503": {"kind": 503},
    "reset": {"kind": "reset"},
    "stall": {"kind": "stall", "pattern": r"/B04\.tif"},
    "truncated": {"kind": "truncate"},
    "empty": {"kind": "empty"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_survived(world, files, saved, tmp_path, fault):
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)])
    injected = files.fail(**{"pattern": r"/(B04|SCL)\.tif"} | FAULTS[fault])
    kept = download(world, saved(items), tmp_path / "scene", "data.bands=[B03,B04]")
    assert len(injected.seen) == (3 if fault == "stall" else 6), "each of these files was hit"
    assert sorted(kept) == names((0, 1, 3))
    for day in (0, 1, 3):
        path = tmp_path / "scene" / f"{take(day).name}.tif"
        for band in ("B03", "B04"):
            truth = expected(world, path, take(day), band)
            np.testing.assert_allclose(reflectance(path, band), truth, rtol=0, atol=1e-9)


def test_the_pauses_grow(world, files, saved, tmp_path):
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1)])
    files.fail("B04", 429, times=3)
    download(world, saved(items), tmp_path / "scene", "data.bands=[B04]", "data.backoff=0.2")
    for day in (0, 1):
        first, second, third, fourth, *_ = files.requests(f"{take(day).id}/B04")
        assert [r.status for r in (first, second, third)] == [429] * 3
        pauses = second.start - first.end, third.start - second.end, fourth.start - third.end
        assert 0.1 < pauses[0] < 0.4
        assert pauses[2] > 2 * pauses[0]


def test_what_cannot_be_had_is_left_out_and_tried_again(world, files, saved, tmp_path, caplog):
    catalog = saved(world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)]))
    broken = files.fail(f"{take(1).id}/B04", 500, times=10**6)
    kept = download(world, catalog, tmp_path / "scene", "data.attempts=2")
    assert sorted(kept) == names((0, 3))
    assert take(1).name in caplog.text
    broken.times = 0
    files.log.clear()
    kept = download(world, catalog, tmp_path / "scene")
    assert sorted(kept) == names((0, 1, 3))
    assert {r.path.split("/")[0] for r in files.requests()} == {take(1).id}


def test_a_portal_that_answers_everything_is_no_raster(world, files, saved, tmp_path):
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)])
    files.fail(f"{take(1).id}/B04", "page", times=10**6)
    kept = download(world, saved(items), tmp_path / "scene", "data.attempts=2")
    assert sorted(kept) == names((0, 3))


def stamps(root):
    return {path.name: path.stat().st_mtime_ns for path in Path(root).glob("*.tif")}


def test_a_second_call_reads_nothing(api, world, files, tmp_path):
    root = tmp_path / "scene"
    download(world, api, root)
    before = stamps(root)
    files.log.clear()
    download(world, api, root)
    assert stamps(root) == before
    assert not files.log


def damaged(path, how):
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "tail of zeros":  # what a file system leaves where the power failed
        path.write_bytes(content[: len(content) * 2 // 3] + bytes(len(content) - len(content) * 2 // 3))
    elif how == "another grid":
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.transform = file.transform @ rasterio.Affine.translation(1, 0)


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "tail of zeros", "another grid"])
def test_only_what_is_missing_or_broken_is_fetched(world, files, saved, tmp_path, how):
    catalog, root = saved(world.items("planetary_computer", files.base)), tmp_path / "scene"
    whole = download(world, catalog, root)
    damaged(root / f"{take(3).name}.tif", how)
    before = stamps(root)
    files.log.clear()
    again = download(world, catalog, root)
    # within one process GDAL may still hold blocks
    assert {r.path.split("/")[0] for r in files.log} <= {take(3).id}
    assert {name for name, when in stamps(root).items() if before.get(name) != when} == {f"{take(3).name}.tif"}
    for name, (dn, _, _) in whole.items():
        np.testing.assert_array_equal(dn, again[name][0])


def started(world, catalog, root, cwd):
    bbox = ",".join(map(str, world.bbox()))
    given = (
        f"data.catalog={catalog}",
        f"data.bbox=[{bbox}]",
        f"data.root={root}",
        "data.workers=2",
        "data.bands=[B03,B04]",
        *DATES,
    )
    return start(*given, cwd=cwd, script="s2sr.download")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_an_interrupted_download_is_carried_on(world, files, saved, tmp_path, how):
    catalog, root = saved(world.items("planetary_computer", files.base)), tmp_path / "scene"
    files.latency = 0.1
    process = started(world, catalog, root, tmp_path)
    try:
        deadline = time.monotonic() + 60
        while len(list(root.glob("[!.]*.tif"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pressed = time.monotonic()
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert time.monotonic() - pressed < 10
        assert "Traceback" not in out + err
        assert "interrupted" in err
    left = observations(root)  # each opens and reads to the end
    assert 2 <= len(left) < len(CLEAR)

    files.latency = 0
    files.log.clear()
    whole = download(world, catalog, root, "data.bands=[B03,B04]")
    assert sorted(whole) == names()
    fetched = {next(t.name for t in SEASON if t.id == r.path.split("/")[0]) for r in files.requests()}
    assert fetched == set(whole) - set(left)
    assert not list(root.glob(".*")), "nothing half-written stays"
    files.log.clear()
    fresh = download(world, catalog, tmp_path / "fresh", "data.bands=[B03,B04]")
    for name, (dn, _, _) in whole.items():
        np.testing.assert_array_equal(dn, fresh[name][0])


SIGNER = """
from pathlib import Path
def sign(href, *, again=False):
    counter = Path({folder!r}) / "counter"
    n = int(counter.read_text()) if counter.exists() else 0
    if again:
        counter.write_text(str(n := n + 1))
    return f"{{href}}?sig={{n}}"
"""


def test_links_are_signed_when_read_and_signed_again_when_refused(world, files, saved, tmp_path, monkeypatch):
    (tmp_path / "signer_of_this_test.py").write_text(SIGNER.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path)
    files.gate = lambda path, query: None if query.startswith("sig=") and int(query[4:]) >= 1 else 403
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)])
    kept = download(
        world, saved(items), tmp_path / "scene", "data.sign.path=signer_of_this_test.sign", "data.workers=1"
    )
    assert sorted(kept) == names((0, 1, 3))
    assert any(r.status == 403 for r in files.log)
    for path in (tmp_path / "scene").iterdir():
        assert b"sig=" not in path.read_bytes(), path.name


def test_nothing_of_an_item_becomes_a_path(world, files, saved, tmp_path):
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)])
    items[0] |= {"id": "../../escaped"}
    items[0]["properties"]["platform"] = "../../escaped"
    items[1] |= {"id": "/tmp/escaped\x00"}
    kept = download(world, saved(items), tmp_path / "deep" / "er" / "scene")
    assert len(kept) == 3
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    inside = {path for path in written if path.is_relative_to(tmp_path / "deep" / "er" / "scene")}
    assert written - inside == {tmp_path / "items.json"}


@pytest.mark.parametrize(
    "href", ["file://{secret}", "{secret}", "/vsicurl/{url}", "ftp://127.0.0.1/B04.tif", "s3://b/B04.tif"]
)
def test_a_server_cannot_name_local_files(world, files, tmp_path, href, served_items):
    """Items of an API may link to http(s) only, whatever is behind the link."""
    secret = world.path(take(1), "B04")
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)])
    items[1]["assets"]["B04"]["href"] = href.format(secret=secret, url=f"{files.base}/x.tif")
    root = tmp_path / "scene"
    with suppress(InputError):
        download(world, served_items(items), root)
    assert take(1).name not in observations(root)


def test_a_remote_file_that_names_local_ones_is_refused(world, files, saved, tmp_path):
    """The name of a GeoTIFF leads to a VRT, which GDAL would follow."""
    path = world.folder / "trojan" / "B04.tif"
    path.parent.mkdir(exist_ok=True)
    secret = world.path(take(1), "B04")
    with rasterio.open(secret) as source:
        path.write_text(
            f'<VRTDataset rasterXSize="{source.width}" rasterYSize="{source.height}"><SRS>EPSG:32631</SRS>'
            f"<GeoTransform>{', '.join(map(str, source.transform.to_gdal()))}</GeoTransform>"
            f'<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )
    items = world.items("planetary_computer", files.base, [take(d) for d in (0, 1, 3)])
    items[1]["assets"]["B04"]["href"] = f"{files.base}/trojan/B04.tif"
    kept = download(world, saved(items), tmp_path / "scene", "data.attempts=2")
    assert sorted(kept) == names((0, 3))


@pytest.fixture
def served_items(tmp_path_factory):
    """A STAC API of a test's own items."""
    from contextlib import ExitStack

    from stac_catalogue import COLLECTION, collection
    from stac_servers import Unavailable, rustac

    with ExitStack() as stack:

        def serve(items):
            try:
                folder = tmp_path_factory.mktemp("own")
                return stack.enter_context(rustac(folder, [collection(c) for c in COLLECTION.values()], items))
            except Unavailable as why:
                pytest.skip(str(why))

        yield serve
