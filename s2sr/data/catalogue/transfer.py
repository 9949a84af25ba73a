"""Read remote rasters onto a grid with rasterio, despite network failures.

GDAL reads only the blocks of a Cloud-Optimized GeoTIFF that a window needs. It is restricted to two formats here, so
that a file in disguise (such as a VRT, which can refer to any local file) is refused; odc-stac would let GDAL choose.
A failed read is retried with a freshly signed link, after a pause that doubles each time.
"""

from __future__ import annotations

import logging
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from s2sr.model.grid import Grid
from s2sr.raster import placed

log = logging.getLogger(__name__)

LONGEST_PAUSE = 30  # seconds
CURL_LOOKS_BACK = 6  # seconds over which curl averages the speed, by which it detects a stall late


class TransferError(OSError):
    """A raster could not be read; the message tells why."""


class Stopped(Exception):
    """The user has interrupted."""


@dataclass(frozen=True)
class Reader:
    """How remote rasters are read."""

    sign: Callable[..., str] | None = None  # (href, again=False) -> href; again: the last one was refused
    timeout: int = 30  # seconds without data after which a transfer is retried
    attempts: int = 6
    backoff: float = 1.0  # seconds before the second attempt
    stop: Event = field(default_factory=Event)  # set: no further attempts

    def read(self, href: str, grid: Grid, *, resampling: Resampling) -> np.ndarray:
        """[y, x] the raster's first band on `grid`, 0 where it has no data.

        Pixels that coincide with the grid's, or are a multiple of their size, are copied; others resampled. Raises
        TransferError after the last attempt, or at once if the raster does not exist.
        """
        again = False
        for attempt in range(1, self.attempts + 1):
            if self.stop.is_set():
                raise Stopped
            try:
                signed = self.sign(href, again=again) if self.sign else href
                with rasterio.Env(**self._options(attempt)), _opened(signed) as source:
                    return _onto(source, grid, resampling)
            except (RasterioError, OSError, ValueError) as error:  # requests' own are OSErrors
                said = reason(error)
            status = re.search(r"HTTP(?: \w+ code ?:)? (\d{3})\b", said)
            if attempt == self.attempts or (status and status[1] in ("404", "410")):
                break
            # GDAL does not always report the status
            again = attempt > 1 or "not recognized" in said or bool(status and status[1] in ("401", "403"))
            log.debug("%s: %s; attempt %d of %d", href, said, attempt, self.attempts)
            # random, so that simultaneous failures are not retried simultaneously
            self.stop.wait(min(self.backoff * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.75, 1.25))
        if "not recognized" in said:  # GDAL also says so of an error response
            said = _refusal(signed, self.timeout) or said
        raise TransferError(f"{href.partition('?')[0]}: {said}" + (f", {attempt} times" if attempt > 1 else ""))

    def _options(self, attempt: int) -> dict[str, Any]:
        options = {
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no side files are looked for
            "GDAL_HTTP_CONNECTTIMEOUT": self.timeout,
            "GDAL_HTTP_LOW_SPEED_TIME": max(1, self.timeout - CURL_LOOKS_BACK),
            "GDAL_HTTP_LOW_SPEED_LIMIT": 1,  # bytes per second
            "GDAL_HTTP_MAX_RETRY": 0,  # repeated here, where the link can be signed again
        }
        # GDAL caches what it knows of a file, even a failure; forgetting costs one more request
        return options | ({"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/"} if attempt > 1 else {})


def _opened(href: str) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        is_jpeg2000 = href.partition("?")[0].lower().endswith(".jp2")
        return rasterio.open(href, driver="JP2OpenJPEG" if is_jpeg2000 else "GTiff")


def _onto(source: rasterio.DatasetReader, grid: Grid, resampling: Resampling) -> np.ndarray:
    """[y, x] the first band on `grid`, 0 where there is no data."""
    rows, columns = grid.shape
    place = np.linalg.inv(grid.matrix) @ np.reshape(source.transform, (3, 3))  # from the source's pixels to the grid's
    times, (left, top) = round(place[0, 0]), place[:2, 2].tolist()
    fits = (
        source.crs == CRS.from_string(str(grid.crs))
        and times >= 1
        and abs(place[:2, :2] - times * np.eye(2)).max() < 1e-6
        and max(abs(v - times * round(v / times)) for v in (left, top)) < 1e-3
    )
    if not fits:
        nodata = {"src_nodata": source.nodata or 0, "nodata": 0}
        with WarpedVRT(source, **placed(grid), resampling=resampling, **nodata) as warped:
            return warped.read(1)
    # in the source's pixels: where the grid starts, and the part of the source in it
    row, column = -round(top / times), -round(left / times)
    first_row, first_column = max(row, 0), max(column, 0)
    last_row = min(row - (-rows // times), source.height)
    last_column = min(column - (-columns // times), source.width)
    found = np.zeros(grid.shape, source.dtypes[0])
    if last_row <= first_row or last_column <= first_column:
        return found
    window = Window(first_column, first_row, last_column - first_column, last_row - first_row)  # type: ignore[call-arg]
    part = source.read(1, window=window)
    if source.nodata not in (None, 0):
        part[part == source.nodata] = 0
    part = part.repeat(times, 0).repeat(times, 1) if times > 1 else part
    y, x = (first_row - row) * times, (first_column - column) * times
    part = part[: rows - y, : columns - x]
    found[y : y + part.shape[0], x : x + part.shape[1]] = part
    return found


def _refusal(href: str, timeout: float) -> str:
    """The HTTP status with which a server refuses the first byte; empty if it does not, or cannot be reached."""
    import requests

    if not href.startswith(("http://", "https://")):
        return ""
    try:
        with requests.get(href, headers={"Range": "bytes=0-0"}, stream=True, timeout=timeout) as answer:
            return "" if answer.ok else f"HTTP {answer.status_code} {answer.reason}"
    except requests.RequestException:
        return ""


def reason(error: BaseException) -> str:
    """The cause of an error in one line, without the address, which may contain a signature."""
    while isinstance(error.__cause__, BaseException):
        error = error.__cause__
    text = re.sub(r"\S*(?:https?://|/vsicurl/)\S*", "", " ".join(str(error).split())).strip(" :'")
    return text[:200] or type(error).__name__
