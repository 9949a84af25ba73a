"""report.html of a run, from the files in its folder. What an interrupted run lacks is named, the rest shown."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from s2sr.report import page
from s2sr.report.charts import progress
from s2sr.report.comparison import score_line
from s2sr.report.diagnostics import shift_plot
from s2sr.report.glossary import BASELINES, FILES, GROUPS, rows
from s2sr.report.page import Picture, Raster

REQUIRED = ("sr.tif", "mean.tif", "observation.tif", "metrics.json", "shifts.csv", "metrics.csv", ".hydra/config.yaml")
FIGURES = ("uncertainty.png", "frc.png", "consistency.png")
HEADLINES = (
    "holdout_rmse",
    "holdout_median",
    "psnr",
    "edge_contrast",
    "frc_resolution_m",
    "detail_limit_px",
    "shift_rmse_px",
)
SHOWN = ("edge_contrast", "psnr", "ssim", "holdout_rmse")


def write_run_page(folder: Path) -> list[str]:
    """Write report.html; returns the names of missing files."""
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    metrics = json.loads(_text(folder / "metrics.json") or "{}")
    history, observations = (_table(folder / name) for name in ("metrics.csv", "shifts.csv"))
    settings = settings_of(folder / ".hydra" / "hydra.yaml")
    tags, bands = page.tags(folder / "sr.tif")
    numbers = rows(metrics, bands)
    page.write(
        "run.html",
        folder / "report.html",
        title=folder.resolve().name,
        missing=missing,
        error=metrics.get("error", ""),
        summary=_summary(observations, metrics, bands),
        pictures=_pictures(folder, metrics),
        charts=_charts(history, observations),
        figures=[(FILES[n].capitalize(), page.file_uri(folder / n)) for n in FIGURES if (folder / n).is_file()],
        headlines=[row for key in HEADLINES for row in numbers if row.key == key],
        numbers=numbers,
        groups=GROUPS,
        baselines=BASELINES,
        compared=[key for key in BASELINES if any(key in row.values for row in numbers)],
        bands=bands,
        **_observations(observations, bands),
        command=command(settings),
        tags=tags,
        configuration=_text(folder / ".hydra" / "config.yaml"),
        files=page.listed(folder),
        sweep=settings.get("mode") == "MULTIRUN" and (folder.parent / "multirun.yaml").is_file(),
    )
    return missing


def settings_of(path: Path) -> dict[str, Any]:
    """Hydra's own part of the configuration that was run; empty where it was not kept."""
    return (yaml.safe_load(_text(path)) or {}).get("hydra", {})


def command(settings: Mapping[str, Any], script: str = "train.py") -> str:
    """The command line, as it was typed; empty if the settings are not known. `script`: with its own options."""
    if not settings:
        return ""
    # the sweep's own folder is left out: done again there, it would write over itself
    own = [o for o in settings["overrides"]["hydra"] if not o.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    if settings["mode"] == "MULTIRUN" and script == "train.py":  # a job of a sweep, by itself
        own = []
    # the command line quotes numbers that choose a file (psf=0.5) by itself
    task = [
        re.sub(r"'([\w.+-]+)'", r"\1", o) if "." not in o.partition("=")[0] else o
        for o in settings["overrides"]["task"]
    ]
    return f"python {script} {shlex.join([*task, *own])}".strip()


def _summary(observations: Sequence[Mapping[str, str]], metrics: Mapping[str, Any], bands: Sequence[str]) -> str:
    """One line: what was observed, how it was solved."""
    days = sorted(row["datetime"][:10] for row in observations if row["used"] == "yes")
    parts = [f"{len(days)} observations from {days[0]} to {days[-1]}"] if days else []
    parts += [" ".join(bands)] if bands else []
    parts += [f"{metrics['scale']}x"] if "scale" in metrics else []
    parts += [f"strategy {metrics['strategy']}"] if "strategy" in metrics else []
    return ", ".join(parts)


def _pictures(folder: Path, metrics: Mapping[str, Any]) -> list[Picture]:
    """The available layers, under the product's stretch; without a product, the mean's."""
    names = ("sr", "mean", "observation", "truth")
    found = {name: Raster.read(folder / f"{name}.tif") for name in names if (folder / f"{name}.tif").is_file()}
    if not found:
        return []
    finest = next(iter(found.values()))
    stretch, layers = finest.stretch(), []
    if "observation" in found:
        date = page.tags(folder / "observation.tif")[0].get("datetime", "")[:10]
        layers.append(found["observation"].drawn("observation", "One observation", date, stretch))
    if "mean" in found:
        smooth, facts = found["mean"].smooth(finest.image.shape[1:]), score_line(metrics, SHOWN, "_bicubic")
        layers.append(smooth.drawn("bicubic", "Bicubic of the mean", facts, stretch))
    if "sr" in found:
        layers.append(found["sr"].drawn("reconstruction", "Reconstruction", score_line(metrics, SHOWN), stretch))
    if "truth" in found:
        layers.append(found["truth"].drawn("truth", "Truth", "", stretch))
    return layers


def _charts(
    history: Sequence[Mapping[str, str]], observations: Sequence[Mapping[str, str]]
) -> list[tuple[str, Markup]]:
    """(caption, SVG) of the curves and the shifts."""
    charts = []
    if history:
        caption = "The objective and, where a level ends, the scores, against evaluations of the objective"
        charts.append((caption, page.svg(progress(history), "progress", caption)))
    used = [row for row in observations if row["used"] == "yes"]
    if used:
        shifts = np.array([(float(row["dy"]), float(row["dx"])) for row in used])
        caption = "The shifts of the observations in the outline of one LR pixel (10 m), numbered by date"
        charts.append((caption, page.svg(shift_plot(shifts, [row["datetime"] for row in used]), "shifts", caption)))
    return charts


def _observations(table: Sequence[Mapping[str, str]], bands: Sequence[str]) -> dict[str, Any]:
    """`per_band`: the columns that have one value per band; `observations`: rows as in shifts.csv."""
    columns = table[0] if table else {}
    return {
        "per_band": [
            name for name in ("gain", "offset", "noise") if any(f"{name}_{band}" in columns for band in bands)
        ],
        "observations": table,
    }


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(path).splitlines()))
