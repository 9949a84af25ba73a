"""A scene folder: one GeoTIFF per observation (see `observation_file`), all on one grid (CRS, transform, size).

Files are *.tif and *.tiff directly in the folder, except `basemap.tif` and hidden files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from rasterio.crs import CRS

from s2sr.data.observation_file import ObservationFile, canonical, date_in
from s2sr.errors import InputError
from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene

log = logging.getLogger(__name__)

OPTICAL = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")  # 10 m and 20 m
DARK = 0.03  # reflectance that something in every scene exceeds


@dataclass(frozen=True, kw_only=True)
class SceneFolder:
    """A folder of observations, and the choice of observations and samples to use."""

    root: str | Path
    bands: Sequence[str] | None = None  # None: the 10 m and 20 m bands that all files have
    exclude: Sequence[str | date] = ()  # dates (2023-07-03; 2023-07 for a month) or file names
    min_clear: float = 0.3  # fraction of an observation's samples that must be valid
    dilate: int = 2  # LR pixels by which the SCL mask is dilated
    scl_classes: Sequence[int] = (0, 1, 3, 8, 9, 10)  # masked
    mask_snow: bool = False  # also mask SCL class 11

    def prepare(self) -> None:
        """Nothing to fetch: the files are there."""

    def load(self, *, crop: int | None = None) -> Scene:
        """The usable observations by date; the others are in `rejected`, each with the reason.

        crop: side of the central square to keep, LR pixels; usability is decided on whole frames. Raises InputError if
        it does not fit, if the folder, a file or the bands cannot be used, or if fewer than 2 observations are usable.
        """
        self._check_settings()
        files, excluded = self._describe_files()
        _check_one_grid(files)
        bands = self._choose_bands(files)
        grid, part = files[0].grid, (slice(None), slice(None))
        if crop is not None:
            part = grid.centre(crop)
            grid = grid.crop(part[0].start, part[1].start, (crop, crop))

        # Filled in place: a copy of a large stack is not affordable.
        frames = np.empty((len(files), len(bands), *grid.shape), np.float32)
        valid = np.empty(frames.shape, bool)
        used, cloudy = self._fill(frames, valid, files, bands, part)
        if len(used) < 2:
            raise InputError(self._too_few(used, cloudy, excluded))
        if len(used) < 5:
            log.warning("%s: only %d usable observations; 8 or more are advisable", self.root, len(used))
        if len(values := frames[0][valid[0]]):
            typical, most = np.median(values), values.max()  # digital numbers as floats; or an 8-bit picture
            odd = f"median reflectance of {typical:.4g}" if typical > 2 else f"largest reflectance of {most:.4g}"
            if typical > 2 or most < DARK:
                log.warning("%s: a %s: are scale and offset tags missing?", used[0].name, odd)
        return Scene(
            frames=torch.from_numpy(frames[: len(used)]),
            valid=torch.from_numpy(valid[: len(used)]),
            grid=grid,
            bands=bands,
            observations=tuple(used),
            rejected=tuple(sorted([*cloudy, *excluded], key=lambda o: o.datetime)),
            attribution="; ".join(dict.fromkeys(file.attribution for file in files)),
            basemap=picture if (picture := Path(self.root).expanduser() / "basemap.tif").is_file() else None,
        )

    def _check_settings(self) -> None:
        if isinstance(self.bands, str):
            raise InputError(f"data.bands={self.bands} is not a list; write data.bands=[{self.bands}]")
        if not (isinstance(self.min_clear, int | float) and 0 <= self.min_clear <= 1):
            raise InputError(f"data.min_clear={self.min_clear} is not a fraction between 0 and 1")
        if not (type(self.dilate) is int and self.dilate >= 0):
            raise InputError(f"data.dilate={self.dilate} is not a number of LR pixels (0, 1, 2, ...)")
        if isinstance(self.scl_classes, str) or not set(self.scl_classes) <= set(range(12)):
            raise InputError(f"data.scl_classes={self.scl_classes} is not a list of SCL classes (0 to 11)")

    def _describe_files(self) -> tuple[list[ObservationFile], list[Observation]]:
        """The files by date, and the observations that `exclude` names, not opened if their names contain the date."""
        exclude = self.exclude or ()
        entries = [str(entry) for entry in (exclude if isinstance(exclude, list | tuple) else [exclude])]
        files, excluded = [], []
        for path in _geotiffs(Path(str(self.root)).expanduser()):
            when = date_in(path.stem) or ""
            file = None
            if not any(_names(entry, path.stem, when) for entry in entries):
                file = ObservationFile.of(path)
                when = file.datetime
            if file is None or any(_names(entry, path.stem, when) for entry in entries):
                excluded.append(Observation(path.stem, when, math.nan, "excluded"))
            else:
                files.append(file)
        for entry in entries:
            if not any(_names(entry, o.name, o.datetime) for o in excluded):
                log.warning("%s: data.exclude=[%s] matches no observation", self.root, entry)
        if not files:
            raise InputError(f"{self.root}: data.exclude leaves none of the {len(excluded)} observations")
        return sorted(files, key=lambda file: (file.datetime, file.name)), excluded

    def _choose_bands(self, files: list[ObservationFile]) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(canonical(str(band)) for band in self.bands or OPTICAL))
        for file in files:
            present = f"({', '.join(file.bands)})"
            if self.bands:
                for band in chosen:
                    if band not in file.bands:
                        raise InputError(f"{file.name}: band {band} is not in {present}; choose data.bands=[...]")
            elif not set(chosen) & set(file.bands):
                raise InputError(
                    f"{file.name}: its bands {present} are none of {', '.join(chosen)}; name them so by their band "
                    f"descriptions, choose data.bands=[...] or data.exclude=[{file.name}]"
                )
            chosen = tuple(band for band in chosen if band in file.bands)
        return chosen

    def _fill(
        self,
        frames: np.ndarray,  # [t, b, y, x]
        valid: np.ndarray,  # [t, b, y, x]
        files: Sequence[ObservationFile],
        bands: Sequence[str],
        part: tuple[slice, slice],
    ) -> tuple[list[Observation], list[Observation]]:
        """Read the usable observations into `frames` and `valid`; returns (these, those that are too cloudy)."""
        used: list[Observation] = []
        cloudy: list[Observation] = []
        classes = (*self.scl_classes, 11) if self.mask_snow else self.scl_classes
        for file in files:
            t = len(used)
            frames[t], valid[t], clear = file.read(bands, part, classes=classes, dilate=self.dilate)
            observation = Observation(file.path.stem, file.datetime, clear)
            if clear > 0 and clear >= self.min_clear:
                used.append(replace(observation, clear=float(valid[t].mean())))
            else:
                reason = f"clear fraction {clear:.2f} is below data.min_clear={self.min_clear:g}"
                cloudy.append(replace(observation, rejected=reason))
        return used, cloudy

    def _too_few(self, used: list[Observation], cloudy: list[Observation], excluded: list[Observation]) -> str:
        clear = sorted((o.clear for o in [*used, *cloudy]), reverse=True)
        if clear[0] == 0:
            return f"{self.root}: all pixels of all {len(clear)} observations are masked (nodata, not finite or SCL)"
        table = ", ".join(f"{sum(c >= edge for c in clear)} from {edge:g}" for edge in (0.9, 0.7, 0.5, 0.3, 0.1, 0.01))
        second = math.floor(100 * clear[1]) / 100 if len(clear) > 1 else 0
        remedy = f"try data.min_clear={second:g}" if 0 < second < self.min_clear else "add observations"
        return (
            f"{self.root}: {len(used)} of {len(clear)} observations usable, at least 2 are needed; by clear fraction: "
            f"{table}; {len(excluded)} excluded; {remedy}"
        )


def _names(entry: str, stem: str, when: str) -> bool:
    """Whether an entry of `exclude` is this file's name or the beginning of its date."""
    return stem in (entry, Path(entry).stem) or when.replace("-", "").startswith(entry.replace("-", ""))


def _geotiffs(root: Path) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"data.root={root}: {'a file, not a folder' if root.exists() else 'no such folder'}")
    paths = sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in (".tif", ".tiff") and path.name.lower() != "basemap.tif" and path.name[0] != "."
    )
    if not paths:
        raise InputError(f"data.root={root}: no GeoTIFF (*.tif, *.tiff) in this folder")
    return paths


def _check_one_grid(files: Sequence[ObservationFile]) -> None:
    first, *others = files
    for file in others:
        for what, one, other, same in (
            ("size (rows, columns)", first.grid.shape, file.grid.shape, first.grid.shape == file.grid.shape),
            ("CRS", first.grid.crs, file.grid.crs, _same_crs(first.grid.crs, file.grid.crs)),
            ("transform", first.grid.transform, file.grid.transform, _same_corners(first.grid, file.grid)),
        ):
            if not same:
                raise InputError(
                    f"{file.name}: its {what} {other} differs from {one} in {first.name}; bring all files onto one grid"
                )


def _same_crs(one: str | None, other: str | None) -> bool:
    return one == other or (one is not None and other is not None and CRS.from_string(one) == CRS.from_string(other))


def _same_corners(one: Grid, other: Grid) -> bool:
    """To a thousandth of a pixel: writers round the transform differently."""
    rows, columns = one.shape
    corners = np.array([[0, 0, 1], [columns, 0, 1], [0, rows, 1], [columns, rows, 1]]).T
    return bool(abs(np.linalg.solve(one.matrix, other.matrix @ corners) - corners).max() < 1e-3)
