"""The runs of a sweep, read from the job folders of a Hydra multirun.

Read are `metrics.json` (`status` is "ok", or `error` tells why not) and `.hydra/overrides.yaml`; without the rasters
`sr.tif`, `observation.tif` and `mean.tif` a job has failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SIGMA = ("psf.sigma", "psf")  # keys that set sigma: its value is in the metrics
OBSERVED = ("data", "crop", "n_obs", "seed", "holdout")  # keys that decide which samples judge a run


@dataclass(frozen=True)
class Job:
    """One job, as read from its folder."""

    folder: Path
    overrides: dict[str, str]  # key to value as written on the command line, without quotes
    metrics: dict[str, Any]
    error: str = ""  # empty if it succeeded

    def label(self, keys: Sequence[str], width: int = 10**6) -> str:
        """The swept keys and values; beyond `width` characters the last parts of keys and paths only, or cut off."""
        pairs = [(key, self.overrides.get(key, "")) for key in keys]
        text = "  ".join(f"{key}={value}" for key, value in pairs) or f"job {self.folder.name}"
        if len(text) > width:
            text = "  ".join(f"{key.rpartition('.')[2]}={value.rstrip('/').rpartition('/')[2]}" for key, value in pairs)
        return text if len(text) <= width else f"{self.folder.name}: {text}"[: width - 1] + "…"

    def number(self, key: str) -> float | None:
        """A metric, if it is a finite number."""
        value = self.metrics.get(key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def value(self, key: str) -> float | None:
        """An override, if it is a number; for sigma the resulting value, also for `auto` and names."""
        found = self.number("psf_sigma") if key in SIGMA else None
        if found is not None:
            return round(found, 6)  # digits of float32
        try:
            number = float(self.overrides.get(key, ""))
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def evidence(self) -> tuple[float, float] | None:
        """(sigma, its standard error), means over the bands, of a run that estimated sigma; LR pixels."""
        errors = [
            error
            for key in self.metrics
            if key.startswith("psf_sigma_") and key.endswith("_std") and (error := self.number(key)) is not None
        ]
        sigma = self.number("psf_sigma")
        return (sigma, math.hypot(*errors) / len(errors)) if errors and sigma is not None else None


def read_jobs(folder: Path) -> list[Job]:
    """The jobs by number: every subfolder named by a number or with a .hydra folder."""
    folders = [
        path for path in folder.iterdir() if path.is_dir() and (path.name.isdigit() or (path / ".hydra").is_dir())
    ]
    return [_read(path) for path in sorted(folders, key=lambda path: (path.name.zfill(9), path.name))]


def swept(jobs: Sequence[Job]) -> list[str]:
    """The override keys whose values differ between jobs."""
    written = [job.overrides for job in jobs if job.overrides]
    keys = dict.fromkeys(key for overrides in written for key in overrides)
    return [key for key in keys if len({overrides.get(key) for overrides in written}) > 1]


def lines(jobs: Sequence[Job], keys: Sequence[str]) -> tuple[str, bool, dict[str, list[Job]]]:
    """(the key to draw scores against, whether all its values are numbers, the jobs by the other keys' values)."""

    def numeric(key: str) -> bool:
        found = [job.value(key) for job in jobs]
        return None not in found and (len(found) < 2 or len(set(found)) > 1)

    # a numeric key makes the better axis, and best one along which scores can be compared
    axis, *others = sorted(keys, key=lambda key: (not numeric(key), key in judging(keys))) or [""]
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.label(others) if others else "", []).append(job)
    return axis, bool(axis) and numeric(axis), found


def judging(keys: Sequence[str]) -> list[str]:
    """Those of the swept keys that decide which samples judge a run."""
    return [key for key in keys if key.partition(".")[0] in OBSERVED and not key.startswith("holdout.refit")]


def alike(jobs: Sequence[Job], keys: Sequence[str]) -> list[list[Job]]:
    """The jobs that the same samples judge, together: scores can be compared between them alone."""
    found: dict[str, list[Job]] = {}
    own = judging(keys)
    for job in jobs:
        found.setdefault(job.label(own) if own else "", []).append(job)
    return list(found.values())


def table(jobs: Sequence[Job], keys: Sequence[str]) -> list[dict[str, Any]]:
    """One row per job: the swept values, status, all metrics."""
    return [_row(job, keys) for job in jobs]


def best(jobs: Sequence[Job], key: str, better: str) -> Job | None:
    """The job with the highest or lowest of a score; None where there is nothing to choose from."""
    known = [(value, k) for k, job in enumerate(jobs) if (value := job.number(key)) is not None]
    if len(known) < 2:
        return None
    return jobs[(max(known) if better == "higher" else min(known))[1]]


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
    # the requested and the actual value may differ (n_obs), so both are kept
    return row | {f"{key} (run)" if key in row else key: value for key, value in metrics.items()}
