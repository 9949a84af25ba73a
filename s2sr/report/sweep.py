"""What a sweep leaves behind: one table and two figures of all its runs.

Read from the job folders of a Hydra multirun: `metrics.json` (`status` is "ok", else `error` says why not),
`.hydra/overrides.yaml`, `sr.tif`, and `observation.tif` and `mean.tif` as `products.write_baseline` leaves them.
Written into the sweep's folder: `sweep.csv`, `comparison.png` (all runs under one stretch) and `sweep.png` (scores
against the swept value).
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hydra.experimental.callback import Callback
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s2sr.report.figures import (
    COLOURS,
    DPI,
    FAINT,
    INK,
    TEXT,
    Panel,
    Stretch,
    fit,
    rgb,
    save,
    scores,
    sheet,
    zoom_window,
)
from s2sr.report.metrics import bicubic
from s2sr.report.products import read_geotiff, write_csv

PLOTTED = {
    "edge_contrast": "edge contrast, 1 / LR pixel",
    "psnr": "PSNR, dB",
    "holdout_rmse": "held-out rmse, reflectance",
}
PANEL = 400  # screen pixels


class Collate(Callback):
    """Hydra callback for `hydra.callbacks`: collates the sweep's folder; failed jobs are named, and it exits with 1."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        log = logging.getLogger(__name__)
        try:
            failed = collate(folder)
        except Exception as error:  # Hydra would turn it into a warning and exit with 0
            log.exception("the sweep in %s could not be collated", folder)
            raise SystemExit(1) from error
        log.info("sweep.csv, comparison.png and sweep.png are in %s", folder)
        if failed:
            # not the log: Hydra's may be switched off, and a failure has to be seen
            print(*(f"failed job {line}" for line in failed), sep="\n", file=sys.stderr)
            raise SystemExit(1)


@dataclass(frozen=True)
class Job:
    folder: Path
    overrides: dict[str, str]  # key to value as written on the command line, without quotes
    metrics: dict[str, Any]
    error: str = ""  # empty: it succeeded

    def label(self, keys: Sequence[str], width: int = 10**6) -> str:
        """The swept keys and values; beyond `width` characters with the keys' last parts only, or cut off."""
        pairs = [(key, self.overrides.get(key, "")) for key in keys]
        text = "  ".join(f"{key}={value}" for key, value in pairs) or f"job {self.folder.name}"
        if len(text) > width:
            text = "  ".join(f"{key.rpartition('.')[2]}={value}" for key, value in pairs)
        return text if len(text) <= width else f"{self.folder.name}: {text}"[: width - 1] + "…"


def collate(folder: Path) -> list[str]:
    """Writes sweep.csv and, if any job succeeded, comparison.png and sweep.png; one line for each job that failed."""
    jobs = read_jobs(folder)
    if not jobs:
        return [f"none: there is no job folder in {folder}"]
    keys = swept(jobs)
    write_csv(folder / "sweep.csv", [_row(job, keys) for job in jobs])
    done = [job for job in jobs if not job.error]
    if done:
        save(comparison(done, keys), folder / "comparison.png")
        save(plot(done, keys), folder / "sweep.png")
    return [f"{job.folder.name} ({job.label(keys)}): {job.error}" for job in jobs if job.error]


def read_jobs(folder: Path) -> list[Job]:
    """The jobs by number: every subfolder that has a number for a name or that Hydra has written into."""
    folders = [
        path for path in folder.iterdir() if path.is_dir() and (path.name.isdigit() or (path / ".hydra").is_dir())
    ]
    return [_read(path) for path in sorted(folders, key=lambda path: (path.name.zfill(9), path.name))]


def swept(jobs: Sequence[Job]) -> list[str]:
    """The override keys whose values differ between jobs."""
    written = [job.overrides for job in jobs if job.overrides]
    keys = dict.fromkeys(key for overrides in written for key in overrides)
    return [key for key in keys if len({overrides.get(key) for overrides in written}) > 1]


def comparison(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """Observation, bicubic of the mean and one panel per job: the most detailed part of the scene, one stretch."""
    mean, bands, grid = read_geotiff(jobs[0].folder / "mean.tif")
    observation, _, _ = read_geotiff(jobs[0].folder / "observation.tif")
    first = jobs[0].metrics
    shown = ("edge_contrast", "psnr", "holdout_rmse")
    parts: list[tuple[np.ndarray, int, str, str]] = []
    for job in jobs:
        product, names, _ = read_geotiff(job.folder / "sr.tif")
        own, _, place = read_geotiff(job.folder / "mean.tif")
        scale = product.shape[-1] // own.shape[-1]
        if not parts:
            stretch = Stretch.of(product, bands)
            window = zoom_window(mean, scale, PANEL, pixels=32)
            smooth = bicubic(torch.from_numpy(mean), scale).numpy()
            parts.append((rgb(_cut(observation, 1, window), bands, stretch), 1, "One observation", "nearest neighbour"))
            facts = scores(first, shown, "_bicubic")
            parts.append((rgb(_cut(smooth, scale, window), bands, stretch), scale, "Bicubic of the mean", facts))
        # another scene (its folder, crop or bands were swept) has no pixels in common with the first: show it by itself
        same = place == grid and names == bands
        area = window if same else zoom_window(own, scale, PANEL, pixels=32)
        picture = rgb(_cut(product, scale, area), names, stretch if same else None)
        parts.append((picture, scale, job.label(keys, width=32), scores(job.metrics, shown)))
    finest = max(scale for _, scale, _, _ in parts)
    panels = []
    for picture, scale, title, facts in parts:
        rows, columns = (n // scale for n in picture.shape[:2])
        panels.append(Panel(fit(picture, scale, finest, (0, 0, rows, columns), PANEL)[0], title, facts))
    wrap = min(len(panels), max(4, math.ceil(math.sqrt(1.5 * len(panels)))))
    return sheet([panels[k : k + wrap] for k in range(0, len(panels), wrap)])


def plot(jobs: Sequence[Job], keys: Sequence[str]) -> Figure:
    """The known of `PLOTTED` against the swept value, one line per value of the other keys; a star marks the best."""
    # a numeric key makes the better axis, whichever comes first
    axis, *others = sorted(keys, key=lambda key: not _numeric(jobs, key)) or [""]
    lines: dict[str, list[Job]] = {}
    for job in jobs:
        lines.setdefault(job.label(others) if others else "", []).append(job)
    values = list(dict.fromkeys(job.overrides.get(axis, job.folder.name) for job in jobs))
    numeric = _numeric(jobs, axis)
    place = {value: float(value) if numeric else float(k) for k, value in enumerate(values)}
    known = [key for key in PLOTTED if any(_number(job, key) is not None for job in jobs)]

    rotated = not numeric and sum(map(len, values)) > 90
    width, left, right, bottom = 1100, 110, 30, 260 if rotated else 90
    top = 20 + 28 * math.ceil(len(lines) / 3) * (len(lines) > 1)
    height = top + bottom + 320 * max(1, len(known))
    figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI, facecolor="white")
    for index, key in enumerate(known):
        low = bottom + 320 * (len(known) - 1 - index)
        axes = figure.add_axes((left / width, low / height, (width - left - right) / width, 265 / height))
        _plot_score(axes, key, lines, axis, place, numeric)
        axes.set_title(PLOTTED[key], size=TEXT, weight="bold", color=INK, loc="left")
        best = _best(jobs, key)
        if best:
            x = place[best.overrides.get(axis, best.folder.name)]
            axes.plot(x, best.metrics[key], marker="*", ms=20, color="none", mec=INK, mew=1.3, zorder=4)
            note = f"best {best.metrics[key]:.4g}: {best.label(keys, 60)}"
            axes.set_title(note, size=TEXT - 2, color=FAINT, loc="right")
        _ticks(axes, place, numeric, rotated, labelled=index == len(known) - 1)
        if index == len(known) - 1:
            axes.set_xlabel(axis or "job", size=TEXT)
        if index == 0 and len(lines) > 1:
            handles, labels = axes.get_legend_handles_labels()
            corner = (left / width, 1 - 8 / height)
            style: dict[str, Any] = {"ncols": 3, "fontsize": TEXT - 2, "frameon": False, "borderpad": 0}
            figure.legend(handles, labels, loc="upper left", bbox_to_anchor=corner, **style)
    return figure


def _plot_score(
    axes: Axes, key: str, lines: dict[str, list[Job]], axis: str, place: dict[str, float], numeric: bool
) -> None:
    for k, (label, jobs) in enumerate(lines.items()):
        points = [(place[job.overrides.get(axis, job.folder.name)], _number(job, key)) for job in jobs]
        x, y = np.array(sorted((x, y) for x, y in points if y is not None)).reshape(-1, 2).T
        style = "-" if numeric else ""  # nothing lies between two categories
        axes.plot(x, y, marker="o", ls=style, color=COLOURS[k % len(COLOURS)], label=label, clip_on=False, zorder=3)
    every = [job for jobs in lines.values() for job in jobs]
    base = [(place[job.overrides.get(axis, job.folder.name)], _number(job, f"{key}_bicubic")) for job in every]
    known = sorted({(x, y) for x, y in base if y is not None})
    if known:
        axes.plot(*zip(*known, strict=True), marker="_", ms=14, ls="--", lw=1, color=FAINT, zorder=1)
        axes.annotate("bicubic", known[-1], (0, 5), textcoords="offset points", ha="right", size=TEXT - 3, color=FAINT)
    axes.margins(x=0.03, y=0.12)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=TEXT - 2)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(axes: Axes, place: dict[str, float], numeric: bool, rotated: bool, *, labelled: bool) -> None:
    at = list(place.values())
    if numeric and min(at) > 0 and max(at) >= 100 * min(at):
        axes.set_xscale("log")
    gap = min(np.diff(sorted(at)), default=1.0)
    if not numeric or (axes.get_xscale() == "linear" and gap * 14 > max(at) - min(at)) or len(at) <= 8:
        names = [name if len(name) <= 28 else name[:27] + "…" for name in place]
        turn: dict[str, Any] = {"rotation": 90} if len(at) > 12 else {"rotation": 30, "ha": "right"}
        axes.set_xticks(at, names, **(turn if rotated else {}))
        axes.set_xticks([], minor=True)
    if not labelled:
        axes.tick_params(labelbottom=False)


def _read(folder: Path) -> Job:
    overrides = _overrides(folder / ".hydra" / "overrides.yaml")
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
    except FileNotFoundError:
        return Job(folder, overrides, {}, "no metrics.json")
    except (OSError, ValueError) as error:
        return Job(folder, overrides, {}, f"metrics.json cannot be read: {error}")
    if not isinstance(metrics, dict):
        return Job(folder, overrides, {}, "metrics.json is not an object")
    missing = [name for name in ("sr.tif", "mean.tif", "observation.tif") if not (folder / name).is_file()]
    if metrics.get("status") != "ok":
        return Job(folder, overrides, metrics, str(metrics.get("error") or f"status {metrics.get('status')}"))
    return Job(folder, overrides, metrics, f"no {' and no '.join(missing)}" if missing else "")


def _overrides(path: Path) -> dict[str, str]:
    try:
        lines = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return {}
    split = [str(line).partition("=") for line in lines or []]
    return {key.lstrip("+~"): value.strip("'\"") for key, _, value in split}


def _row(job: Job, keys: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"job": job.folder.name}
    row |= {key: job.overrides.get(key, "") for key in keys}
    row |= {"status": "failed" if job.error else "ok", "error": " ".join(job.error.split())}
    metrics = {key: value for key, value in job.metrics.items() if key not in ("status", "error")}
    # what was asked for and what the run used may differ (n_obs), so both are kept
    return row | {f"{key} (run)" if key in row else key: value for key, value in metrics.items()}


def _number(job: Job, key: str) -> float | None:
    value = job.metrics.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numeric(jobs: Sequence[Job], key: str) -> bool:
    try:
        return bool(key) and all(math.isfinite(float(job.overrides.get(key, ""))) for job in jobs)
    except ValueError:
        return False


def _best(jobs: Sequence[Job], key: str) -> Job | None:
    """The best by a score that knows the truth or held-out pixels; sharpness has no best."""
    known = [(value, k) for k, job in enumerate(jobs) if (value := _number(job, key)) is not None]
    if key == "edge_contrast" or len(known) < 2:
        return None
    return jobs[max(known)[1] if key == "psnr" else min(known)[1]]


def _cut(image: np.ndarray, scale: int, window: tuple[int, int, int, int]) -> np.ndarray:
    row, column, rows, columns = (n * scale for n in window)
    return image[:, row : row + rows, column : column + columns]
