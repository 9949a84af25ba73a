"""One GeoTIFF of a scene folder: its date, bands and grid, and its samples as reflectance.

Band descriptions name the bands (B2 and b02 are B02). reflectance = DN * scale + offset by each band's own tags;
without tags (scale 1, offset 0) integers use 1e-4 and 0, and floats are reflectance. nodata is the file's, or 0 for
integers. A band SCL masks. The date is the tag `datetime` (ISO 8601), or that in the file's name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from s2sr.data.masks import measured, scl_mask
from s2sr.errors import InputError
from s2sr.model.grid import Grid
from s2sr.model.scene import iso
from s2sr.raster import grid_of

ATTRIBUTION = "Contains modified Copernicus Sentinel data"
BAND = re.compile(r"B(0?[1-9]|1[0-2]|8A)", re.IGNORECASE)
DATE_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?:T(\d\d):?(\d\d):?(\d\d))?(?!\d)")


@dataclass(frozen=True)
class ObservationFile:
    """A GeoTIFF that holds one observation: what its tags say of it, and its samples."""

    path: Path
    datetime: str  # ISO 8601, UTC
    bands: tuple[str, ...]
    grid: Grid
    attribution: str

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def of(cls, path: Path) -> ObservationFile:
        """Raises InputError for what is no GeoTIFF, or has no date."""
        with _opened(path) as source:
            tags = source.tags()
            return cls(
                path=path,
                datetime=_when(path, tags.get("datetime")),
                bands=tuple(canonical(name or f"unnamed {i}") for i, name in enumerate(source.descriptions, 1)),
                grid=grid_of(source),
                attribution=tags.get("attribution", ATTRIBUTION),
            )

    def read(
        self, bands: Sequence[str], part: tuple[slice, slice], *, classes: Sequence[int], dilate: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """([b, y, x] reflectance of a part, 0 where invalid; its validity; the valid fraction of the whole frame).

        classes: of SCL that are masked, with `dilate` pixels around them. Raises InputError if the file is truncated.
        """
        indices = [self.bands.index(band) for band in bands]
        with _opened(self.path) as source:
            stored = source.read([i + 1 for i in indices])
            scale, offset = np.array(source.scales)[indices], np.array(source.offsets)[indices]
            valid = measured(stored, nodata=source.nodata)
            if "SCL" in self.bands:
                valid &= ~scl_mask(source.read(self.bands.index("SCL") + 1), classes=classes, dilate=dilate)
        if np.issubdtype(stored.dtype, np.integer):
            scale = np.where((scale == 1) & (offset == 0), 1e-4, scale)
        clear = float(valid.mean())
        stored, valid = stored[:, *part], valid[:, *part]
        return np.where(valid, stored * scale[:, None, None] + offset[:, None, None], 0), valid, clear


def canonical(band: str) -> str:
    """B02 for B2 (Earth Engine's name) and b02, SCL for scl; other names unchanged."""
    if found := BAND.fullmatch(band):
        return f"B{found[1].upper():0>2}"
    return "SCL" if band.upper() == "SCL" else band


def date_in(name: str) -> str | None:
    """The date in a file's name, ISO 8601."""
    for match in DATE_IN_NAME.finditer(name):
        year, _, *rest = match.groups(default="0")
        try:
            return iso(datetime(int(year), *map(int, rest)))  # type: ignore[arg-type]
        except ValueError:  # eight digits that are not a date
            continue
    return None


def _when(path: Path, tag: str | None) -> str:
    if tag is not None:
        try:
            return iso(datetime.fromisoformat(tag))
        except ValueError:
            raise InputError(f"{path.name}: its tag datetime={tag} is not ISO 8601 (2023-06-23T10:00:31Z)") from None
    if (when := date_in(path.stem)) is None:
        raise InputError(f"{path.name}: no date; give it a tag datetime (ISO 8601) or a name such as S2_2023-06-23.tif")
    return when


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as source:
                yield source
    except RasterioError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(
            f"{path.name}: not a GeoTIFF, or truncated ({reason}); replace it or data.exclude=[{path.name}]"
        ) from error
