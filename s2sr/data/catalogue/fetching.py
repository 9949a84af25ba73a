"""Download passes of a catalogue in parallel, as one GeoTIFF each.

Reflectance is 1e-4 DN - 0.1 in every file. A pass that cannot be read is skipped and named; files are never partial.
"""

from __future__ import annotations

import logging
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from s2sr.data.catalogue.area import Area
from s2sr.data.catalogue.selection import Pass
from s2sr.data.catalogue.stac import link
from s2sr.data.catalogue.storing import damage, write
from s2sr.data.catalogue.transfer import Reader, TransferError
from s2sr.data.harmonise import OFFSET, SCALE, Item, harmonised
from s2sr.data.observation_file import ATTRIBUTION
from s2sr.errors import InputError

log = logging.getLogger(__name__)

HOPELESS = 3  # failures without a success, after which the problem is not a single file


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Downloads passes into a folder."""

    folder: Path
    area: Area
    bands: tuple[str, ...]
    catalog: str  # URL or file, against which relative links count
    assets: Mapping[str, str]  # names of the catalogue's assets by band, SCL among them
    offset: Callable[[Item, str], tuple[float, float]]  # (item, asset) -> scale and offset of its DN
    reader: Reader
    workers: int  # parallel reads

    @property
    def _layers(self) -> tuple[str, ...]:
        return (*self.bands, "SCL")

    @property
    def _bytes_of_layer(self) -> int:
        return 2 * math.prod(self.area.grid.shape)

    @property
    def bytes_of_pass(self) -> int:
        return len(self._layers) * self._bytes_of_layer

    def clouds(self, candidates: Sequence[Pass]) -> dict[Pass, bytes]:
        """The passes with their cloud and coverage, and each one's SCL, compressed. Those that fail are left out."""
        found: dict[Pass, bytes] = {}
        with self._reading("clouds", total=len(candidates) * self._bytes_of_layer) as (read, bar):

            def look(one: Pass) -> None:
                scl = self._mosaic(one, "SCL")
                found[one.seen(scl, self.area)] = zlib.compress(scl.tobytes(), 1)

            _each({one: read.submit(look, one) for one in candidates}, lambda: bar(self._bytes_of_layer, 1))
        return dict(sorted(found.items(), key=lambda pair: pair[0].datetime))

    def fetch(self, missing: Sequence[Pass], scl: dict[Pass, bytes]) -> None:
        """One file per pass. Those that fail are named in a warning, and the next call tries them again."""
        total = len(missing) * len(self.bands) * self._bytes_of_layer
        # just enough passes at once to keep the readers busy, to save memory
        at_once = 1 + math.ceil(self.workers / len(self._layers))
        with (
            self._reading("bands", total=total) as (read, bar),
            ThreadPoolExecutor(at_once) as finish,
        ):

            def download(one: Pass) -> None:
                def layer(band: str) -> np.ndarray:
                    if band == "SCL" and one in scl:
                        return np.frombuffer(zlib.decompress(scl[one]), np.uint16).reshape(self.area.grid.shape)
                    found = self._mosaic(one, band)
                    bar(0 if band == "SCL" else self._bytes_of_layer, 0)
                    return found

                self._save(one, np.stack(list(read.map(layer, self._layers))))

            try:
                failed = _each({one: finish.submit(download, one) for one in missing}, lambda: bar(0, 1))
            except BaseException:
                self.reader.stop.set()
                raise
        if failed:
            log.warning("%d of %d observations were not downloaded; the same command tries again", failed, len(missing))
        log.info("%s: %d observations downloaded", self.folder, len(missing) - failed)

    def _mosaic(self, one: Pass, band: str) -> np.ndarray:
        """[y, x] uint16 of a band, or SCL, on the grid: the first product's pixels, gaps filled by the next ones."""
        asset = self.assets[band]
        found = np.zeros(self.area.grid.shape, np.uint16)
        for product in one.products:
            href = link(self.catalog, product.item, asset)
            if band == "SCL":
                layer = self.reader.read(href, self.area.grid, resampling=Resampling.nearest)
            else:
                scale, offset = self.offset(product.item, asset)
                dn = self.reader.read(href, self.area.grid, resampling=Resampling.cubic)
                layer = harmonised(dn, scale=scale, offset=offset)
            np.copyto(found, layer, where=found == 0, casting="unsafe")
        return found

    def _save(self, one: Pass, layers: np.ndarray) -> None:
        first, n = one.products[0], len(self.bands)
        tags = {
            "datetime": one.datetime.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "items": ", ".join(product.id for product in one.products),
            "platform": first.properties.get("platform", ""),
            "relative_orbit": "" if first.orbit is None else first.orbit,
            "processing_baseline": ", ".join(dict.fromkeys(f"{p.baseline:05.2f}" for p in one.products)),
            "cloud_over_area_percent": f"{one.cloud:.2f}",
            "coverage_percent": f"{one.coverage:.2f}",
            "attribution": f"{ATTRIBUTION} {one.datetime.year}",
            "s2sr_version": version("s2sr"),
        }
        write(
            self._path(one),
            layers,
            self.area.grid,
            self._layers,
            scales=(*[SCALE] * n, 1.0),
            offsets=(*[OFFSET] * n, 0.0),
            tags=tags,
        )

    def _path(self, one: Pass) -> Path:
        return self.folder / f"{one.name}.tif"

    def is_whole(self, one: Pass) -> bool:
        """Whether the pass is there, on this grid, with all bands and readable to the end; logs damage."""
        path = self._path(one)
        if not path.exists():
            return False
        fault = damage(path, self.area.grid, self._layers, items=", ".join(product.id for product in one.products))
        if fault:
            log.warning("%s: %s; downloading it again", path.name, fault)
        return fault is None

    @contextmanager
    def _reading(self, what: str, *, total: int) -> Iterator[tuple[ThreadPoolExecutor, Callable[[int, int], None]]]:
        """(pool of readers, callback for the numbers of bytes and scenes done)."""
        progress = Progress(
            TextColumn(f"{what} {{task.fields[scenes]}} scenes"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            transient=True,
            disable=not sys.stdout.isatty(),
        )
        task = progress.add_task("", total=total, scenes=0)
        scenes = 0

        def bar(n_bytes: int, n_scenes: int) -> None:
            nonlocal scenes
            scenes += n_scenes
            progress.update(task, advance=n_bytes, scenes=scenes)

        with progress, ThreadPoolExecutor(self.workers) as pool:
            try:
                yield pool, bar
            except BaseException:
                self.reader.stop.set()  # otherwise queued reads would still run
                raise


def _each(jobs: dict[Pass, Future[None]], done: Callable[[], None]) -> int:
    """The number of failed jobs; each is named in a warning. done: called after every job.

    Raises InputError if the disk is full, or if the first jobs all fail.
    """
    names = {job: one for one, job in jobs.items()}
    failed, worked = 0, False
    for job in as_completed(names):
        one = names[job]
        try:
            job.result()
            worked = True
        except (TransferError, InputError) as error:
            failed += 1
            log.warning("%s is left out: %s", one.name, error)
            if not worked and failed >= min(HOPELESS, len(jobs)):
                raise InputError(f"nothing could be read: {error}") from error
        except OSError as error:
            raise InputError(str(error)) from error
        done()
    return failed
