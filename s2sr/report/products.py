"""The files of a run folder.

GeoTIFFs are Cloud-Optimized, float32 with NaN where there is no data (or integers: counts), with the grid's CRS and
transform to the last bit.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import torch
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from torch import Tensor

from s2sr.errors import InputError
from s2sr.files import atomic
from s2sr.model.grid import Grid
from s2sr.model.scene import Scene
from s2sr.raster import check_whole, grid_of, name_bands, placed
from s2sr.report.metrics import Array, area_average, as_numpy


@dataclass(frozen=True)
class Product:
    """The result of a run, at `scale` pixels per LR pixel and axis."""

    image: Tensor  # [b, y * scale, x * scale] reflectance
    deviation: Tensor  # [b, y * scale, x * scale] standard deviation of the image minus the truth at its resolution
    count: Tensor  # [b, y * scale, x * scale] number of clear observations
    scale: int
    splat: float  # standard deviation of the image's splats, LR pixels


def remove_earlier(folder: Path) -> None:
    """Remove files of an earlier run from which a new one would resume, or that would pass for its own."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in ("metrics.csv", "metrics.json", "report.html", "frc.png", "truth.tif", "sr_[0-9]*.tif"):
        for path in folder.glob(name):
            path.unlink()


def check_disk(folder: Path, needed: int) -> None:
    """Raises InputError if the file system of `folder` (which need not exist yet) has less than `needed` bytes free."""
    existing = next(place for place in (Path(folder).absolute(), *Path(folder).absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{folder}: the run needs {needed / 1e6:.0f} MB of disk and {free / 1e6:.0f} MB are free; "
            "free some, or choose another hydra.run.dir or a smaller crop"
        )


def write_geotiff(
    path: Path,
    image: Array,  # [b, y, x]
    grid: Grid,
    bands: Sequence[str],
    *,
    tags: Mapping[str, Any] | None = None,
) -> None:
    """A Cloud-Optimized GeoTIFF with overviews; `bands` become band descriptions, `tags` go to the default domain.

    float32, in which NaN is nodata, or the image's own type if that is an integer, without nodata.
    Raises OSError if it cannot be written, such as on a full disk.
    """
    if tuple(image.shape) != (len(bands), *grid.shape):
        raise ValueError(f"image {tuple(image.shape)} is not {(len(bands), *grid.shape)}")
    own = as_numpy(image[:1]).dtype
    counts = np.issubdtype(own, np.integer)
    dtype = own if counts else np.dtype(np.float32)
    profile = {
        "driver": "GTiff",
        "dtype": dtype.name,
        "count": len(bands),
        **placed(grid),
        "nodata": None if counts else math.nan,
        "tiled": True,
        "interleave": "band",
        "bigtiff": "if_safer",
    }
    # The COG driver can only copy; from a file it reads block by block, from memory it would hold a second image.
    with atomic(path) as target, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a grid without CRS may well be the identity
        plain = target.with_suffix(".plain.tif")
        try:
            with rasterio.open(plain, "w", **profile) as file:
                for index, band in enumerate(image, start=1):
                    file.write(as_numpy(band).astype(dtype, copy=False), index)
                name_bands(file, bands)
                file.update_tags(**{key: str(value) for key, value in (tags or {}).items()})
            rasterio.shutil.copy(
                plain,
                target,
                driver="COG",
                compress="DEFLATE",
                level=1,  # for floats, higher levels save 1 % for 50 % more time
                num_threads=torch.get_num_threads(),
                predictor="STANDARD" if counts else "FLOATING_POINT",
                overview_resampling="AVERAGE",
                bigtiff="IF_SAFER",
            )
            check_whole(target)
        except (RasterioError, CPLE_BaseError) as error:  # which does not say what the disk has said
            free = shutil.disk_usage(target.parent).free
            raise OSError(
                f"{path}: could not be written ({error.__cause__ or error}; {free / 1e6:.0f} MB of the disk are free)"
            ) from error


def read_geotiff(path: Path) -> tuple[np.ndarray, tuple[str, ...], Grid]:
    """(image [b, y, x] float32, band descriptions, grid) of a product.

    Raises rasterio.errors.RasterioIOError if it is not there or cannot be read.
    """
    with rasterio.open(path) as file:
        return file.read(out_dtype=np.float32), tuple(name or "" for name in file.descriptions), grid_of(file)


def clearest_frame(scene: Scene) -> tuple[int, Tensor]:
    """(index, frame [b, y, x], NaN where masked) of the observation to show as a single image.

    The clearest; of equally clear ones, the nearest to the temporal mean. Withheld samples are not masked.
    """
    distance = ((scene.frames - scene.temporal_mean).abs() * scene.valid).mean((1, 2, 3))
    t = min(range(len(scene)), key=lambda t: (-round(scene.observations[t].clear, 3), float(distance[t])))
    return t, scene.frames[t].where(scene.whole().valid[t], math.nan)


def write_baseline(folder: Path, scene: Scene) -> None:
    """`observation.tif` (the clearest, NaN where masked) and `mean.tif` (the temporal mean), both on the LR grid.

    They are the images to compare a product with; the reports of runs and sweeps show them.
    """
    t, frame = clearest_frame(scene)
    tags = {"datetime": scene.observations[t].datetime, "observation": scene.observations[t].name}
    write_geotiff(Path(folder) / "observation.tif", frame, scene.grid, scene.bands, tags=tags)
    tags = {"observations": ", ".join(o.name for o in scene.observations)}
    write_geotiff(Path(folder) / "mean.tif", scene.temporal_mean, scene.grid, scene.bands, tags=tags)


def write_truth(folder: Path, scene: Scene, scale: int, shift: tuple[float, float]) -> None:
    """`truth.tif`, if the truth is known, averaged to at most `scale` and aligned with the product.

    shift: as in `metrics.fidelity`.
    """
    if scene.truth:
        level = min(scale, scene.truth.scale)
        truth = area_average(scene.truth.reflectance, scene.truth.scale, level, shift)
        write_geotiff(Path(folder) / "truth.tif", truth, scene.grid.scaled(level), scene.bands)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A flat object, keys in the order given; NaN and infinity, which JSON lacks, become null."""
    with atomic(path) as target:
        text = json.dumps({key: _plain(value) for key, value in values.items()}, indent=2, allow_nan=False)
        target.write_text(text + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per row; the columns are all keys in order of first appearance; absent values are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic(path) as target, target.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)


def observation_rows(
    scene: Scene, *, shifts: Array, gains: Array, offsets: Array, noise: Array
) -> list[dict[str, Any]]:
    """One row per observation by date; rejected ones have no numbers, but the reason why they are not used.

    shifts: [t, 2] (dy, dx) LR pixels; gains, offsets (reflectance) and noise (standard deviation, reflectance): [t, b]
    or what broadcasts to it. `weight`: an observation's share of all information, its clear fraction times the mean
    over the bands of (gain / noise)^2.
    """
    shape = (len(scene), len(scene.bands))
    tables = {"gain": gains, "offset": offsets, "noise": noise}
    per_band = {name: np.broadcast_to(as_numpy(table), shape) for name, table in tables.items()}
    moved = as_numpy(shifts)
    clear = np.array([observation.clear for observation in scene.observations])
    weight = clear * ((per_band["gain"] / per_band["noise"]) ** 2).mean(1)
    weight = weight / weight.sum()
    rows = []
    for t, observation in enumerate((*scene.observations, *scene.rejected)):
        used = t < len(scene)
        row: dict[str, Any] = {"observation": observation.name, "datetime": observation.datetime}
        for k, name in enumerate(("dy", "dx")):
            row[name] = f"{moved[t, k]:.5f}" if used else ""
        for name, table in per_band.items():
            row |= {f"{name}_{band}": f"{table[t, b]:.6g}" if used else "" for b, band in enumerate(scene.bands)}
        row |= {"clear_fraction": f"{observation.clear:.4f}", "weight": f"{weight[t]:.4f}" if used else ""}
        row["used"] = "yes" if used else f"no: {observation.rejected}"
        rows.append(row)
    return sorted(rows, key=lambda row: (row["datetime"], row["observation"]))


def shifts_csv(path: Path, scene: Scene, *, shifts: Array, gains: Array, offsets: Array, noise: Array) -> None:
    """The table of `observation_rows` as a file."""
    write_csv(path, observation_rows(scene, shifts=shifts, gains=gains, offsets=offsets, noise=noise))


def _plain(value: Any) -> Any:
    """A number of any library as a Python scalar; None if not finite."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
