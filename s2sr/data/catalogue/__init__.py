"""`data=planetary_computer`, `data=earth_search`: an area and a season of a STAC catalogue, as a scene folder.

    search -> one pass per day, satellite and orbit -> SCL over the area -> the clearest -> bands -> a file each

The folder holds Cloud-Optimized GeoTIFFs (uint16, the bands and SCL, all on one grid; reflectance = 1e-4 DN - 0.1) and
`scene.json`: the query, the selection and the catalogue's items, unsigned. The selection is made once: a later call
with the same query reuses it, and reads only what is missing or damaged.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from s2sr.data.catalogue.area import Area
from s2sr.data.catalogue.basemap import ESRI, ESRI_ATTRIBUTION, fetch
from s2sr.data.catalogue.fetching import Fetcher
from s2sr.data.catalogue.plan import NAME, planned, save
from s2sr.data.catalogue.season import Season
from s2sr.data.catalogue.selection import Pass, by_cloud, choose, passes
from s2sr.data.catalogue.stac import search
from s2sr.data.catalogue.transfer import Reader
from s2sr.data.geotiff import SceneFolder
from s2sr.data.harmonise import Item
from s2sr.errors import InputError
from s2sr.model.scene import Scene

log = logging.getLogger(__name__)

LARGE = 5e9  # bytes of pixels, beyond which the user must agree


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """A query to a STAC catalogue and the folder for its result."""

    catalog: str  # URL of a STAC API, or a file with an ItemCollection
    collection: str
    assets: dict[str, str]  # names of the catalogue's assets by band, SCL among them
    offset: Callable[[Item, str], tuple[float, float]]  # (item, asset) -> scale and offset of its DN
    sign: Callable[..., str] | None = None  # (href, again=False) -> href that can be read now
    bbox: Sequence[float] | None = None  # west, south, east, north, degrees
    aoi: str | Path | None = None  # GeoJSON file, instead of bbox
    start: str | date | None = None
    end: str | date | None = None  # included
    season: Sequence[str] | None = None  # MM-DD, MM-DD: of each year
    bands: Sequence[str] = ("B02", "B03", "B04", "B08")
    orbits: Sequence[int] | None = None  # relative orbits; None: all
    max_cloud_cover: float = 60  # of the tile, per cent
    max_aoi_cloud: float = 1  # of the area, per cent
    relax: bool = True  # allow more cloud over the area until there are `min_scenes`
    min_coverage: float = 50  # of the area, per cent that an observation must show
    min_scenes: int = 8
    max_scenes: int = 32
    root: str | Path | None = None  # the scene folder; None: data/ and a name from area and dates
    refresh: bool = False  # search again, also where the folder has the answer
    yes: bool = False  # download however much it is
    workers: int = 8  # parallel reads
    timeout: int = 30  # seconds without a byte after which a transfer is repeated
    attempts: int = 6
    backoff: float = 1.0  # seconds before the second attempt; doubles
    basemap: bool = False  # an aerial mosaic as well
    basemap_url: str = ESRI
    basemap_attribution: str = ESRI_ATTRIBUTION
    basemap_scale: int | None = None  # its pixels per LR pixel and axis; None: the finest of `levels`
    levels: Sequence[int] = (4,)
    exclude: Sequence[str | date] = ()  # this and what follows: as in SceneFolder
    min_clear: float = 0.3
    dilate: int = 2
    scl_classes: Sequence[int] = (0, 1, 3, 8, 9, 10)
    mask_snow: bool = False

    def prepare(self) -> None:
        """Download what is missing in the folder.

        Raises InputError where the settings, the catalogue, the network or the disk make it impossible, and
        KeyboardInterrupt after Ctrl-C; what was finished until then stays, whole.
        """
        self._check()
        chosen, scl = self._plan()
        missing = [one for one in chosen if not self._fetcher.is_whole(one)]
        if missing:
            self._check_disk(len(missing))
            self._fetcher.fetch(missing, scl)
        else:
            log.info("%s: all %d observations are already there", self.folder, len(chosen))
        if self.basemap:
            scale = self.basemap_scale or max(self.levels)
            fetch(
                self.folder / "basemap.tif",
                self._area.grid.scaled(scale),
                url=self.basemap_url,
                attribution=self.basemap_attribution,
                timeout=self.timeout,
            )

    def load(self, *, crop: int | None = None) -> Scene:
        """The usable ones of the selected observations; `crop` and errors as in SceneFolder."""
        chosen = {f"{one.name}.tif" for one in self._planned or ()}
        others = sorted(path.stem for path in self.folder.glob("*.tif") if path.name not in {*chosen, "basemap.tif"})
        return SceneFolder(
            root=self.folder,
            bands=self.bands,
            exclude=[*self.exclude, *others],
            min_clear=self.min_clear,
            dilate=self.dilate,
            scl_classes=self.scl_classes,
            mask_snow=self.mask_snow,
        ).load(crop=crop)

    @cached_property
    def folder(self) -> Path:
        """The scene folder."""
        if self.root is not None:
            return Path(self.root).expanduser()
        place = "_".join(f"{v:g}" for v in self.bbox or ()) if self.aoi is None else Path(self.aoi).stem
        return Path("data") / f"{self.collection.replace('/', '_')}_{place}_{self.start}_{self.end}"

    @cached_property
    def _area(self) -> Area:
        return Area.of(bbox=self.bbox, aoi=self.aoi)

    @cached_property
    def _season(self) -> Season:
        return Season.of(self.start, self.end, self.season)

    @cached_property
    def _fetcher(self) -> Fetcher:
        reader = Reader(sign=self.sign, timeout=self.timeout, attempts=self.attempts, backoff=self.backoff)
        return Fetcher(
            folder=self.folder,
            area=self._area,
            bands=tuple(self.bands),
            catalog=self.catalog,
            assets=self.assets,
            offset=self.offset,
            reader=reader,
            workers=self.workers,
        )

    def _check(self) -> None:
        if isinstance(self.bands, str) or not self.bands:
            raise InputError(f"data.bands={self.bands} is not a list of bands; write data.bands=[B02,B03,B04]")
        offered = [band for band in self.assets if band != "SCL"]
        for band in self.bands:
            if band not in offered:
                raise InputError(f"data.bands: there is no band {band}; choose from {', '.join(offered)}")
        for name in ("max_cloud_cover", "max_aoi_cloud", "min_coverage"):
            if not 0 <= getattr(self, name) <= 100:
                raise InputError(f"data.{name}={getattr(self, name)} is not a percentage (0 to 100)")
        for name, least in {"min_scenes": 2, "max_scenes": 2, "workers": 1, "timeout": 1, "attempts": 1}.items():
            if not (isinstance(value := getattr(self, name), int) and value >= least):
                raise InputError(f"data.{name}={value} is not a whole number of {least} or more")
        if self.max_scenes < self.min_scenes:
            raise InputError(f"data.max_scenes={self.max_scenes} is less than data.min_scenes={self.min_scenes}")
        _ = self._season
        rows, columns = self._area.size
        layers = len(self.bands) + 1  # SCL
        amount = 2 * rows * columns * layers * self.max_scenes
        if amount > LARGE and not self.yes:
            raise InputError(
                f"{self._area.name}: about {rows} x {columns} pixels, {layers} layers and up to "
                f"{self.max_scenes} observations are {amount / 1e9:.1f} GB; data.yes=true downloads them"
            )

    def _check_disk(self, n: int) -> None:
        needed = n * self._fetcher.bytes_of_pass
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise InputError(
                f"data.root={self.folder}: {n} observations need up to {needed / 1e9:.2f} GB of disk and "
                f"{free / 1e9:.2f} GB are free; free some, or choose another data.root"
            )

    @property
    def _query(self) -> dict[str, Any]:
        """All settings on which the selection depends."""
        names = ("catalog", "collection", "season", "orbits", "max_cloud_cover", "max_aoi_cloud", "relax")
        given = {name: getattr(self, name) for name in (*names, "min_coverage", "min_scenes", "max_scenes")}
        dates = {"start": str(self.start), "end": str(self.end)}
        return {"area": self._area.polygon.__geo_interface__, **dates, **given}

    @property
    def _planned(self) -> list[Pass] | None:
        """The selection saved for this query. Raises InputError if the folder is for another area."""
        if not (self.folder / NAME).exists():  # without a plan no area need be given
            return None
        return planned(self.folder, self._area.grid, self._query)

    def _plan(self) -> tuple[list[Pass], dict[Pass, bytes]]:
        """The passes to download and, after a new search, their SCL, compressed."""
        earlier = self._planned
        if earlier is not None and not self.refresh:
            return earlier, {}
        products, cloudier = search(
            self.catalog,
            self.collection,
            area=self._area,
            season=self._season,
            max_cloud_cover=self.max_cloud_cover,
            orbits=self.orbits,
        )
        where = f"{self.collection}, {self.start} to {self.end}, tile cloud up to {self.max_cloud_cover:g} %"
        more = f"; {cloudier} more are cloudier" if cloudier else ""
        if not products:
            raise InputError(
                f"{self._area.name}: no scene found in {self.catalog} ({where}{more}); "
                "try other dates, area, data.max_cloud_cover or data.orbits"
            )
        candidates = passes(products, self._area)
        scl = self._fetcher.clouds(candidates)
        chosen, allowed = choose(
            list(scl),
            max_cloud=self.max_aoi_cloud,
            min_coverage=self.min_coverage,
            relax=self.relax,
            least=self.min_scenes,
            most=self.max_scenes,
        )
        found = f"{self._area.name}: {len(chosen)} of {len(candidates)} acquisitions ({where}{more})"
        table = f"by cloud over the area: {by_cloud(list(scl))}"
        if len(chosen) < 2:
            raise InputError(f"{found} are clear up to {allowed:g} % over the area, at least 2 are needed; {table}")
        log.info("%s are clear up to %g %% over the area", found, allowed)
        if len(chosen) < self.min_scenes:
            log.warning("%d observations are fewer than data.min_scenes=%d; %s", len(chosen), self.min_scenes, table)
        elif allowed > self.max_aoi_cloud:
            log.warning("data.max_aoi_cloud=%g was relaxed to %g; %s", self.max_aoi_cloud, allowed, table)
        chosen = sorted(chosen, key=lambda one: one.datetime)
        save(self.folder, self._area.grid, self._query, chosen)
        return chosen, {one: scl[one] for one in chosen}
