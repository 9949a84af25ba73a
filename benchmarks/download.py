"""A download against the least it could cost, and against odc.stac.load of the same items written to disk.

python benchmarks/download.py [--side 1024] [--items 8] [--workers 8] [--latency 0.02] [--repetitions 3]

Needs `pip install odc-stac`, without which s2sr does.

Serves noisy Cloud-Optimized GeoTIFFs (blocks of 512 pixels with overviews, as the Planetary Computer has them) from
another process on loopback, each answer `latency` seconds late. Both read them in turn, each time in a fresh process,
with the same number of threads, bands and SCL, onto the same grid, and write one GeoTIFF per date with the same
options; importing is not timed. Prints the median seconds (of the processor: all threads of that process), requests and
bytes per scene, and the minimum: the blocks that the area touches, and a request for the head of each file and for
each run of such blocks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.warp import transform_bounds, transform_geom

BANDS = ("B02", "B03", "B04", "B08")
LAYERS = (*BANDS, "SCL")
CRS, WEST, NORTH = "EPSG:32631", 600_000, 5_700_000
MARGIN = 300  # pixels of 10 m from the tile's corner to the area
COG = {"driver": "COG", "compress": "DEFLATE", "predictor": "YES"}
Spent = tuple[float, float, int, int]  # seconds, those of the processor, requests, bytes


def cog(path: Path, image: np.ndarray, pixel: float) -> None:
    height, width = image.shape
    place = {"crs": CRS, "transform": Affine(pixel, 0, WEST, 0, -pixel, NORTH), "nodata": 0}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", dtype=image.dtype, count=1, height=height, width=width, **place) as out:
            out.write(image, 1)
        with memory.open() as out:
            rasterio.shutil.copy(out, path, blocksize=512, **COG)


def archive(folder: Path, n: int, side: int) -> None:
    """Write n dates of one tile that has about twice the area's extent."""
    tile = -(-(side + 2 * MARGIN) // 512) * 512
    y, x = np.mgrid[:tile, :tile] / 97
    hills = 1400 + 300 * np.sin(y) * np.cos(x)

    def write(job: tuple[int, str]) -> None:
        t, band = job
        rng = np.random.default_rng([t, LAYERS.index(band)])
        if band == "SCL":
            cog(folder / f"{t}_SCL.tif", rng.integers(4, 6, (tile // 2, tile // 2), dtype=np.uint8), 20)
        else:
            cog(folder / f"{t}_{band}.tif", (hills + rng.normal(0, 60, hills.shape)).astype(np.uint16), 10)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, [(t, band) for t in range(n) for band in LAYERS]))


def items(folder: Path, n: int, base: str) -> list[dict[str, Any]]:
    with rasterio.open(folder / "0_B02.tif") as source:
        w, s, e, north = source.bounds
    ring = [(w, s), (e, s), (e, north), (w, north), (w, s)]
    outline = transform_geom(CRS, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
    corners = np.array(outline["coordinates"][0])
    return [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"S2A_MSIL2A_202406{t + 1:02d}T105421_R051_T31UFS_202406{t + 2:02d}T000000",
            "collection": "sentinel-2-l2a",
            "geometry": outline,
            "bbox": [*corners.min(0).tolist(), *corners.max(0).tolist()],
            "properties": {
                "datetime": f"2024-06-{t + 1:02d}T10:54:21Z",
                "platform": "Sentinel-2A",
                "eo:cloud_cover": 1.0,
                "proj:epsg": 32631,
                "s2:mgrs_tile": "31UFS",
                "s2:processing_baseline": "05.10",
                "sat:relative_orbit": 51,
            },
            "links": [],
            "assets": {
                band: {"href": f"{base}/{t}_{band}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
                for band in LAYERS
            },
        }
        for t in range(n)
    ]


def serve(folder: Path, latency: float, orders: Connection) -> None:
    """Serve from a process of its own, which answers `mount` by a fresh URL, `log` by (requests, bytes) since."""
    path = Path(__file__).resolve().parents[1] / "tests" / "stac_servers.py"
    spec = importlib.util.spec_from_file_location("stac_servers", path)
    assert spec
    assert spec.loader
    servers = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = servers  # where dataclasses look their module up
    spec.loader.exec_module(servers)
    with servers.file_server(folder) as files:
        while (order := orders.recv()) != "end":
            if order == "mount":
                orders.send(files.mount())
                files.latency = latency
            else:
                orders.send((len(files.log), sum(request.sent for request in files.log)))


def ours(catalog: Path, root: Path, bbox: list[float], workers: int, result: Connection) -> None:
    from s2sr.observations import build, configuration

    dates = ("data.start=2024-06-01", "data.end=2024-06-30", "data.min_scenes=2")
    given = (f"data.catalog={catalog}", f"data.root={root}", f"data.workers={workers}", *dates)
    source = build(configuration("data=planetary_computer", f"data.bbox={bbox}", *given).data)
    start = time.perf_counter(), time.process_time()
    source.prepare()
    result.send((time.perf_counter() - start[0], time.process_time() - start[1]))


def odc(catalog: Path, root: Path, like: dict[str, Any], workers: int, result: Connection) -> None:
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    grid = GeoBox(like["shape"], Affine(*like["transform"]), like["crs"])
    types = {"*": {"data_type": "uint16", "nodata": 0}, "SCL": {"data_type": "uint8", "nodata": 0}}
    root.mkdir()

    def save(date: Any) -> None:
        height, width = grid.shape
        profile = {"dtype": "uint16", "count": len(LAYERS), "height": height, "width": width, "nodata": 0}
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff", **profile, crs=like["crs"], transform=grid.affine, tiled=True, interleave="band"
            ) as out:
                out.write(np.stack([date[band].values.astype(np.uint16) for band in LAYERS]))
                out.descriptions = LAYERS
            with memory.open() as out:
                rasterio.shutil.copy(out, root / f"{str(date.time.values)[:10]}.tif", overviews="NONE", level=1, **COG)

    start = time.perf_counter(), time.process_time()
    found = odc.stac.load(
        [pystac.Item.from_dict(item) for item in json.loads(catalog.read_text())["features"]],
        bands=LAYERS,
        geobox=grid,
        groupby="id",
        stac_cfg={"sentinel-2-l2a": {"assets": types}},
        resampling="nearest",
        pool=workers,
    )
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(save, (found.isel(time=t) for t in range(found.sizes["time"]))))
    result.send((time.perf_counter() - start[0], time.process_time() - start[1]))


def least(folder: Path, n: int, like: dict[str, Any]) -> tuple[float, float]:
    """(requests, bytes) per scene: the head of each asset, and every run of blocks that the grid touches."""
    (rows, columns), place = like["shape"], Affine(*like["transform"])
    east, south = place @ (columns, rows)
    requests = total = 0
    for t in range(n):
        for band in LAYERS:
            with rasterio.open(folder / f"{t}_{band}.tif") as source:
                window = source.window(place.c, south, east, place.f)
                height, width = source.block_shapes[0]
                blocks = []
                for j in range(int(window.row_off) // height, int(window.row_off + window.height - 1) // height + 1):
                    for i in range(int(window.col_off) // width, int(window.col_off + window.width - 1) // width + 1):
                        where, size = (
                            int(source.get_tag_item(f"BLOCK_{what}_{i}_{j}", "TIFF", bidx=1))
                            for what in ("OFFSET", "SIZE")
                        )
                        blocks.append((where, size))
            total += sum(size for _, size in blocks)
            # a block of a COG has 4 bytes before and after it
            runs = 1 + sum(where + size + 8 < following for (where, size), (following, _) in pairwise(sorted(blocks)))
            requests += 1 + runs
    return requests / n, total / n


def same(one: Path, other: Path) -> bool:
    """Whether the pixels of two scene folders agree, date by date."""
    files = [sorted(folder.glob("*.tif"), key=lambda path: path.stem[-15:]) for folder in (one, other)]
    dates = [{path.stem[path.stem.index("2024") :][:10]: path for path in paths} for paths in files]
    if set(dates[0]) != set(dates[1]):
        return False
    for date in dates[0]:
        with rasterio.open(dates[0][date]) as a, rasterio.open(dates[1][date]) as b:
            if not (a.read() == b.read()).all():
                return False
    return True


def measured(folder: Path, options: argparse.Namespace) -> tuple[dict[str, list[Spent]], dict[str, Any]]:
    """What both spent in each of their turns, and the grid onto which they read."""
    processes = multiprocessing.get_context("spawn")
    west, north, extent = WEST + 10 * MARGIN, NORTH - 10 * MARGIN, 10 * options.side
    bbox = list(transform_bounds(CRS, "EPSG:4326", west, north - extent, west + extent, north))
    orders, theirs = processes.Pipe()
    server = processes.Process(target=serve, args=(folder / "archive", options.latency, theirs), daemon=True)
    server.start()
    seen: dict[str, list[Spent]] = {"s2sr": [], "odc.stac.load": []}
    like: dict[str, Any] = {}
    for turn in range(options.repetitions):
        for name in seen:
            orders.send("mount")
            catalog, root = folder / "items.json", folder / f"{name}_{turn}"
            features = items(folder / "archive", options.items, orders.recv())
            catalog.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
            receive, send = processes.Pipe(duplex=False)
            run, where = (ours, bbox) if name == "s2sr" else (odc, like)
            worker = processes.Process(target=run, args=(catalog, root, where, options.workers, send), daemon=True)
            worker.start()
            worker.join(300)
            if worker.exitcode or not receive.poll():
                raise SystemExit(f"{name} did not finish: {worker.exitcode}")
            orders.send("log")
            requests, sent = orders.recv()
            seen[name].append((*receive.recv(), requests, sent))
            if name == "s2sr":
                like = json.loads((root / "scene.json").read_text())["grid"]
    orders.send("end")
    server.join(10)
    return seen, like


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"side": 1024, "items": 8, "workers": 8, "repetitions": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--latency", type=float, default=0.02)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "archive").mkdir()
        archive(folder / "archive", options.items, options.side)
        seen, like = measured(folder, options)
        equal = same(folder / "s2sr_0", folder / "odc.stac.load_0")
        minimum = least(folder / "archive", options.items, like)

    rows, columns = like["shape"]
    print(
        f"{options.items} dates, {rows} x {columns} pixels, {len(BANDS)} bands and SCL, {options.workers} threads, "
        f"{1000 * options.latency:g} ms per answer, {multiprocessing.cpu_count()} cores; "
        f"{options.repetitions} runs each, in turn; the pixels {'agree' if equal else 'DIFFER'}"
    )
    print("                       seconds (range)         of processor   requests per scene   MB per scene")
    for name, turns in seen.items():
        seconds, processor, requests, sent = (list(column) for column in zip(*turns, strict=True))
        print(
            f"{name:20s} {statistics.median(seconds):8.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
            f"{statistics.median(processor):14.2f}{statistics.median(requests) / options.items:18.1f}"
            f"{statistics.median(sent) / options.items / 1e6:18.2f}"
        )
    print(f"{'minimum':20s}{'':40s}{minimum[0]:15.1f}{minimum[1] / 1e6:18.2f}")
    times = [statistics.median(s for s, *_ in turns) for turns in seen.values()]
    print(f"s2sr takes {times[0] / times[1]:.2f} times as long as odc.stac.load (no more than 1.2 is wanted)")


if __name__ == "__main__":
    main()
