"""A season of a small place as an archive has it: Cloud-Optimized GeoTIFFs by tile and date, and STAC items for them.

The ground is the demo's. The items have the fields that real ones of the Planetary Computer and of Earth Search have.
In the season: baselines with and without the offset of 1000, also where their date would say otherwise; one product
processed twice; two overlapping tiles of one zone and one of the next; a cloud over the area in a clear tile and a
clear area in a cloudy tile; pixels without data; 20 m bands.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform_bounds, transform_geom

from s2sr.data.demo import Demo

BANDS = ("B02", "B03", "B04", "B08")
EARTH_SEARCH = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16", "SCL": "scl"}
COLLECTION = {"planetary_computer": "sentinel-2-l2a", "earth_search": "sentinel-2-c1-l2a"}
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
SHAPE = 96, 144  # of the ground, pixels of 10 m
FIRST = datetime(2021, 12, 2, 10, 54, 21, tzinfo=UTC)
AREA = (30, 66), (20, 56)  # rows and columns of the ground, in tile 31UFS only
TWO_TILES = (30, 66), (56, 104)  # across both
NO_DATA = (slice(30, 34), slice(20, 24))

Span = tuple[int, int]


@dataclass(frozen=True)
class Take:
    """One product: a tile on a day."""

    day: int  # of the season, an index
    tile: str = "31UFS"
    baseline: str = "05.09"
    orbit: int = 51
    tile_cloud: float = 3.0  # per cent, as the catalogue says
    cloud: tuple[Span, Span] | None = None  # rows and columns of the ground under cloud
    brighter: float = 0.0  # reflectance by which this version differs
    ground: int | None = None  # the day whose ground it shows, where not its own
    holes: bool = False

    @property
    def when(self) -> datetime:
        return FIRST + timedelta(days=5 * self.day)

    @property
    def made(self) -> datetime:
        return self.when + timedelta(days=1 + 100 * float(self.baseline))

    @property
    def id(self) -> str:
        return (
            f"{self.platform}_MSIL2A_{self.when:%Y%m%dT%H%M%S}_R{self.orbit:03d}_T{self.tile}_{self.made:%Y%m%dT%H%M%S}"
        )

    @property
    def platform(self) -> str:
        return "S2A" if self.day % 2 == 0 else "S2B"

    @property
    def name(self) -> str:
        """Of the observation's file."""
        return f"{self.platform}_{self.when:%Y-%m-%d}_R{self.orbit:03d}"

    @property
    def offset(self) -> int:
        """DN of no reflectance."""
        return 1000 if float(self.baseline) >= 4 else 0


TILES = {  # EPSG code and columns of the ground
    "31UFS": (32631, (0, 88)),
    "31UGS": (32631, (64, 144)),
    "32ULB": (32632, (0, 144)),
}
OVERCAST = (0, 96), (0, 144)
SEASON = (
    Take(0, baseline="02.14", holes=True),
    Take(1, baseline="05.00", orbit=8),
    Take(2, baseline="03.01", brighter=0.02),
    Take(2, baseline="05.00"),  # the same acquisition, processed again
    Take(3, orbit=8),
    Take(3, orbit=8, tile="31UGS"),
    Take(4, tile_cloud=55.0),
    Take(5, orbit=8, tile_cloud=5.0, cloud=OVERCAST),
    Take(6, tile_cloud=90.0),
    Take(7, orbit=8, tile="32ULB"),
    Take(8, baseline="04.00"),
    Take(8, baseline="05.11", tile="32ULB", brighter=0.02),
    Take(9, orbit=8, cloud=((30, 40), (0, 144))),
    Take(10),
    Take(11, baseline="03.01", orbit=8, ground=2),  # what day 2 shows, in the other baseline
)
CLEAR = (0, 1, 2, 3, 4, 7, 8, 10, 11)  # days on which the area is, in a tile up to 60 % cloud


def take(day: int, tile: str = "31UFS") -> Take:
    """The newest product."""
    return max((t for t in SEASON if (t.day, t.tile) == (day, tile)), key=lambda t: t.baseline)


class World:
    """The season on disk, under `folder`."""

    def __init__(self, folder: Path, *, blocks: int = 128) -> None:
        scene = Demo(size=SHAPE, n_dates=12, cloudy=0, pixels_per_lr=8).load()
        self.folder = folder
        self.crs = scene.grid.crs
        self.transform = Affine(*scene.grid.transform)
        # to a DN, so that both baselines can say the same
        self.frames = np.rint(scene.frames.double().numpy() * 1e4).clip(10) / 1e4  # [t, b, y, x] reflectance
        for product in SEASON:
            self._write(product, blocks)

    def truth(self, product: Take, band: str) -> np.ndarray:
        """[y, x] reflectance of the ground as the product has it, NaN where it has no data."""
        frame = self.frames[product.day if product.ground is None else product.ground]
        if band == "B11":  # 20 m, on the 10 m grid
            coarse = frame[3].reshape(SHAPE[0] // 2, 2, SHAPE[1] // 2, 2).mean((1, 3))
            image = np.rint(coarse * 0.6e4).repeat(2, 0).repeat(2, 1) / 1e4
        else:
            image = frame[BANDS.index(band)].copy()
        image = image + product.brighter
        if product.cloud:
            (top, bottom), (left, right) = product.cloud
            image[top:bottom, left:right] = 0.55
        if product.holes:
            image[NO_DATA] = np.nan
        return image

    def classes(self, product: Take) -> np.ndarray:
        """[y, x] SCL."""
        scl = np.full(SHAPE, 4, np.uint8)
        scl[:, ::8] = scl[:, 1::8] = 5
        if product.cloud:
            (top, bottom), (left, right) = product.cloud
            scl[top:bottom, left:right] = 9
        if product.holes:
            scl[NO_DATA] = 0
        return scl

    def bbox(self, area: tuple[Span, Span] = AREA) -> list[float]:
        """(west, south, east, north) of rows and columns of the ground, in degrees."""
        (top, bottom), (left, right) = area
        west, north = self.transform @ (left, top)
        east, south = self.transform @ (right, bottom)
        return [round(v, 6) for v in transform_bounds(self.crs, "EPSG:4326", west, south, east, north)]

    def part(self, raster: rasterio.DatasetReader) -> tuple[slice, slice]:
        """Where a raster on the ground's pixels lies on it."""
        column, row = ~self.transform @ (raster.transform.c, raster.transform.f)
        row, column = round(row), round(column)
        return slice(row, row + raster.height), slice(column, column + raster.width)

    def path(self, product: Take, band: str) -> Path:
        return self.folder / product.id / f"{band}.tif"

    def items(self, flavour: str, base: str, products: Sequence[Take] = SEASON) -> list[dict[str, Any]]:
        """STAC items with links below `base`, in the words of a catalogue."""
        return [self.item(flavour, base, product) for product in products]

    def item(self, flavour: str, base: str, product: Take) -> dict[str, Any]:
        epsg, _ = TILES[product.tile]
        when, made = (t.isoformat().replace("+00:00", "Z") for t in (product.when, product.made))
        with rasterio.open(self.path(product, "B02")) as source:
            bounds = source.bounds
            outline = transform_geom(source.crs, "EPSG:4326", _rectangle(*bounds))
        corners = np.array(outline["coordinates"][0])
        baseline = product.baseline.replace(".", "")
        common = {
            "datetime": when,
            "platform": f"Sentinel-2{product.platform[-1]}",
            "constellation": "Sentinel 2",
            "instruments": ["msi"],
            "eo:cloud_cover": product.tile_cloud,
            "proj:epsg": epsg,
            "s2:product_uri": f"{product.id[:26]}_N{baseline}_{product.id[27:]}.SAFE",
            "s2:processing_baseline": product.baseline,
            "s2:generation_time": made,
            "s2:product_type": "S2MSI2A",
        }
        if flavour == "planetary_computer":
            own = {"s2:mgrs_tile": product.tile, "sat:relative_orbit": product.orbit, "sat:orbit_state": "descending"}
        else:
            own = {"platform": f"sentinel-2{product.platform[-1].lower()}", "grid:code": f"MGRS-{product.tile}"}
        name = product.id if flavour == "planetary_computer" else f"{product.id}_L2A"
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": name,
            "collection": COLLECTION[flavour],
            "geometry": outline,
            "bbox": [*corners.min(0).tolist(), *corners.max(0).tolist()],
            "properties": common | own,
            "links": [],
            "assets": dict(self._asset(flavour, base, product, band) for band in (*BANDS, "B11", "SCL")),
        }

    def _asset(self, flavour: str, base: str, product: Take, band: str) -> tuple[str, dict[str, Any]]:
        gsd = 20 if band in ("B11", "SCL") else 10
        asset: dict[str, Any] = {"href": f"{base}/{product.id}/{band}.tif", "type": COG_TYPE, "roles": ["data"]}
        if flavour == "planetary_computer":
            return band, asset | {"gsd": float(gsd)}
        described: dict[str, Any] = {"nodata": 0, "data_type": "uint16", "spatial_resolution": gsd}
        if band != "SCL":
            described |= {"scale": 0.0001, "offset": -product.offset / 1e4}
        return EARTH_SEARCH[band], asset | {"gsd": gsd, "raster:bands": [described]}

    def _write(self, product: Take, blocks: int) -> None:
        epsg, (left, right) = TILES[product.tile]
        for band in (*BANDS, "B11", "SCL"):
            if band == "SCL":
                dn = self.classes(product)
            else:
                reflectance = self.truth(product, band)
                seen = np.isfinite(reflectance)
                dn = np.where(seen, np.rint(np.where(seen, reflectance, 0) * 1e4) + product.offset, 0).astype(np.uint16)
            step = 2 if band in ("B11", "SCL") else 1
            image, transform = dn[::step, left:right:step], self.transform @ Affine.translation(left, 0)
            transform = transform @ Affine.scale(step)
            if epsg != 32631:
                image, transform = _in_zone(image, transform, epsg, 10 * step, self.crs)
            write_cog(self.path(product, band), image, transform, f"EPSG:{epsg}", blocks=blocks)


def write_cog(path: Path, image: np.ndarray, transform: Affine, crs: str, *, blocks: int) -> None:
    """Write `image` [y, x] in the form of archives: tiled, deflated, nodata 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = image.shape
    profile = {"driver": "GTiff", "dtype": image.dtype, "count": 1, "height": height, "width": width, "nodata": 0}
    with MemoryFile() as memory:
        with memory.open(**profile, crs=crs, transform=transform) as out:
            out.write(image, 1)
        with memory.open() as out:
            rasterio.shutil.copy(out, path, driver="COG", compress="DEFLATE", predictor="YES", blocksize=blocks)


def collection(name: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": "Sentinel-2 Level-2A",
        "license": "proprietary",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2015-06-27T10:25:31Z", None]]},
        },
        "links": [],
    }


def real_items(shared: Path, base: str) -> list[dict[str, Any]]:
    """The real COGs of `shared`/stac_local_cogs in the words of both catalogues, and real items of other places."""
    local = json.loads((shared / "stac_local_cogs" / "items.json").read_text())["features"]
    elsewhere = json.loads((shared / "stac_items" / "item-collection.json").read_text())["features"]
    template = json.loads((shared / "stac_items" / "sgp-sentinel-2-l2a-pc.json").read_text())
    template = template["features"][0] if isinstance(template, dict) else template[0]
    found = [*elsewhere, template]
    for item in local:
        item = copy.deepcopy(item)
        # cloned from an item of tile 13TDE, whose product it is not
        item["properties"] |= {"proj:epsg": 32631, "s2:product_uri": item["id"]}
        for asset in item["assets"].values():
            asset["href"] = f"{base}/{Path(asset['href']).name}"
        found.append(item)
        twin = copy.deepcopy(template)
        twin |= {"id": f"{item['id']}_PC", "geometry": item["geometry"], "bbox": item["bbox"]}
        when = item["properties"]["datetime"]
        own = {"datetime": when, "proj:epsg": 32631, "s2:mgrs_tile": "31UFS", "eo:cloud_cover": 0.0}
        twin["properties"] |= own | {"s2:product_uri": "", "sat:relative_orbit": 51}
        for band, name in EARTH_SEARCH.items():
            if name in item["assets"]:
                twin["assets"][band]["href"] = item["assets"][name]["href"]
        found.append(twin)
    return found


def _in_zone(image: np.ndarray, transform: Affine, epsg: int, pixel: int, crs: str) -> tuple[np.ndarray, Affine]:
    """The image on the grid of another UTM zone, whose corners are multiples of 20 m."""
    height, width = image.shape
    west, north = transform @ (0, 0)
    east, south = transform @ (width, height)
    west, south, east, north = transform_bounds(crs, f"EPSG:{epsg}", west, south, east, north)
    west, north = (west // 20) * 20, (north // 20 + 1) * 20
    columns, rows = (-int(-(east - west) // pixel), -int(-(north - south) // pixel))
    there = Affine(pixel, 0, west, 0, -pixel, north)
    found = np.zeros((rows, columns), image.dtype)
    how = Resampling.nearest if image.dtype == np.uint8 else Resampling.cubic
    reproject(
        image, found, src_transform=transform, src_crs=crs, src_nodata=0,
        dst_transform=there, dst_crs=f"EPSG:{epsg}", dst_nodata=0, resampling=how,
    )  # fmt: skip
    return found, there


def _rectangle(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return {"type": "Polygon", "coordinates": [ring]}
