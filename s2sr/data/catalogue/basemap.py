"""An aerial picture of the area, from the tiles of a web map (XYZ, Web Mercator), for the eye to compare with.

Tile (x, y) at zoom z covers 2 pi R / 2^z metres of EPSG:3857, counted from the north-west corner, in 256 x 256 pixels.
It is a picture, not a measurement, and not essential: every failure is only a warning.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine, array_bounds
from rasterio.warp import reproject, transform_bounds

from s2sr.files import atomic
from s2sr.model.grid import Grid
from s2sr.raster import lies_on, placed

log = logging.getLogger(__name__)

ESRI = "https://server.arcgisonline.com/ArcGIS/rest/services/World_Imagery/MapServer/tile/{z}/{y}/{x}"
ESRI_ATTRIBUTION = "Esri World Imagery: Esri, Maxar, Earthstar Geographics, and the GIS User Community"
WORLD = 2 * math.pi * 6378137  # metres
SIDE = 256  # pixels of a tile
MOST = 1024  # tiles; beyond, a coarser zoom is used
FINEST = 19  # zoom
PARALLEL = 8


def fetch(path: Path, grid: Grid, *, url: str, attribution: str, timeout: float) -> bool:
    """Write `path`, uint8 RGB on `grid`, unless it exists with this grid and url; returns whether it exists now.

    `url` has {z}, {x} and {y}. The attribution is kept in the file's tags.
    """
    try:
        if not _is_there(path, grid, url):
            mosaic, transform = _mosaic(grid, url, timeout)
            _write(path, _warped(mosaic, transform, grid), grid, {"attribution": attribution, "source": url})
        return True
    except Exception as error:  # nothing may depend on a picture
        reason = " ".join(str(error).split())[:200]
        log.warning("no basemap: %s: %s", type(error).__name__, reason)
        return False


def _is_there(path: Path, grid: Grid, url: str) -> bool:
    if not path.exists():
        return False
    with rasterio.open(path, driver="GTiff") as file:
        return lies_on(file, grid) and file.tags().get("source") == url


def tiles(grid: Grid) -> tuple[int, range, range]:
    """(zoom, columns, rows) of the tiles that cover the grid, their pixels no coarser than its own where there are."""
    rows, columns = grid.shape
    bounds = array_bounds(rows, columns, Affine(*grid.transform))
    west, south, east, north = transform_bounds(grid.crs, "EPSG:3857", *bounds, densify_pts=51)
    pixel = (east - west) / columns
    zoom = min(FINEST, math.ceil(math.log2(WORLD / SIDE / pixel) - 0.1))
    while True:
        size = WORLD / 2**zoom
        x = range(int((west + WORLD / 2) // size), int((east + WORLD / 2) // size) + 1)
        y = range(int((WORLD / 2 - north) // size), int((WORLD / 2 - south) // size) + 1)
        if len(x) * len(y) <= MOST:
            return zoom, x, y
        zoom -= 1


def _mosaic(grid: Grid, url: str, timeout: float) -> tuple[np.ndarray, Affine]:
    """[3, y, x] uint8 and its transform in EPSG:3857."""
    import requests
    from PIL import Image
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    if not url.startswith(("http://", "https://")):
        raise ValueError(f"data.basemap_url={url} is not an http or https link")
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # retries are not worth a message
    zoom, xs, ys = tiles(grid)
    picture = np.zeros((3, len(ys) * SIDE, len(xs) * SIDE), np.uint8)
    with requests.Session() as session, ThreadPoolExecutor(PARALLEL) as pool:
        retry = Retry(total=4, connect=1, backoff_factor=0.5, status_forcelist=[429, 500, 502, 503, 504])
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=PARALLEL))
        session.headers["User-Agent"] = "s2sr"

        def get(place: tuple[int, int]) -> None:
            x, y = place
            answer = session.get(url.format(z=zoom, x=x, y=y), timeout=(5, timeout))
            answer.raise_for_status()
            with Image.open(io.BytesIO(answer.content), formats=["JPEG", "PNG", "WEBP"]) as tile:
                if max(tile.size) > 4 * SIDE:
                    raise ValueError(f"a tile of {tile.size} pixels")
                colours = np.asarray(tile.convert("RGB").resize((SIDE, SIDE)))
            row, column = (y - ys[0]) * SIDE, (x - xs[0]) * SIDE
            picture[:, row : row + SIDE, column : column + SIDE] = colours.transpose(2, 0, 1)

        jobs = [pool.submit(get, (x, y)) for x in xs for y in ys]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    size = WORLD / 2**zoom
    corner = (xs[0] * size - WORLD / 2, WORLD / 2 - ys[0] * size)
    return picture, Affine(size / SIDE, 0, corner[0], 0, -size / SIDE, corner[1])


def _warped(picture: np.ndarray, transform: Affine, grid: Grid) -> np.ndarray:
    """[3, y, x] uint8 on the grid; averaged where its pixels are coarser."""
    out = np.zeros((3, *grid.shape), np.uint8)
    coarser = abs(grid.transform[0]) > 1.5 * transform.a
    reproject(
        picture,
        out,
        src_transform=transform,
        src_crs="EPSG:3857",
        dst_transform=Affine(*grid.transform),
        dst_crs=grid.crs,
        resampling=Resampling.average if coarser else Resampling.cubic,
    )
    return out


def _write(path: Path, picture: np.ndarray, grid: Grid, tags: dict[str, str]) -> None:
    profile = {
        "driver": "COG",
        "dtype": "uint8",
        "count": 3,
        **placed(grid),
        "compress": "DEFLATE",
    }
    with atomic(path) as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(target, "w", **profile) as out:
            out.write(picture)
            out.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
            out.descriptions = ("red", "green", "blue")
            out.update_tags(**tags)
