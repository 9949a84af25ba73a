"""Where a run's curves go: always into metrics.csv, and into a Weights & Biases run for those who want one."""

from __future__ import annotations

import csv
import logging
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from s2sr.errors import InputError
from s2sr.report.glossary import NOTES

log = logging.getLogger(__name__)

MODES = ("online", "offline", "disabled")


def csv_logger(*, folder: Path, group: str | None, job_type: str, config: Mapping[str, Any]) -> list[Logger]:
    """metrics.csv in the run folder, which report.html draws; a resumed run appends to it."""
    path = folder / "metrics.csv"
    earlier: list[dict[str, Any]] = []
    if path.is_file():
        with path.open(newline="") as file:
            earlier = list(csv.DictReader(file))
    logger = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not empty")
        logger.experiment.metrics += earlier  # Lightning has deleted the file
    return [logger]


def wandb_logger(
    *,
    folder: Path,
    group: str | None,
    job_type: str,
    config: Mapping[str, Any],
    project: str = "s2sr",
    mode: str | None = None,
) -> list[Logger]:
    """Besides metrics.csv a run in `folder`/wandb, in the mode asked for, else online if logged in, else offline.

    Never asks for anything, and goes offline where there is no key or the server does not answer in 15 s.
    Raises InputError for an unknown mode, or an environment that Weights & Biases cannot read.
    """
    import wandb

    if mode not in (None, *MODES):
        raise InputError(f"logger.mode={mode}; choose from {', '.join(MODES)}")
    try:
        settings = wandb.Settings(init_timeout=15, finish_timeout=60, silent=True, console="off")
        wandb.setup(settings)
    except ValueError as error:  # it reads the environment, too
        raise InputError(f"a setting of Weights & Biases (WANDB_...): {' '.join(str(error).split())}") from error
    mode = mode or os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    if mode == "online" and not _logged_in():
        log.warning("dashboard: no key for Weights & Biases, so the run is logged offline; log in with `wandb login`")
        mode = "offline"
    own = _run_id(folder)
    common: dict[str, Any] = {
        "dir": folder,
        "project": project,
        "name": f"{group}/{folder.name}" if group not in (None, folder.name) else folder.name,
        "group": group,
        "job_type": job_type,
        "notes": NOTES[job_type],
        "config": dict(config),
        "id": own,
        "settings": settings,
    }
    try:
        # only a server can resume a run
        run = wandb.init(mode=mode, resume="allow" if own and mode == "online" else None, **common)  # type: ignore[arg-type]
    except Exception as error:  # no failure of network or server may cost the fit
        log.warning(
            "dashboard: Weights & Biases cannot be reached, so the run is logged offline (%s)",
            str(error).splitlines()[0],
        )
        run = wandb.init(mode="offline", **common)
    if not run.disabled:
        place = shlex.quote(str(folder / "wandb"))
        offline = f"offline; look with `wandb leet {place}`, upload with `wandb sync {place}/offline-run-*`"
        _tell(f"dashboard: {offline if run.offline else run.url}")
    return [WandbLogger(experiment=run), *csv_logger(folder=folder, group=group, job_type=job_type, config=config)]


@cache
def _tell(text: str) -> None:
    """Log a line once, however many runs of a sweep have the same to say."""
    log.info("%s", text)


def summarise(loggers: Sequence[Logger], metrics: Mapping[str, Any]) -> None:
    """The final numbers, those of metrics.json, as the run's summary in the dashboard."""
    for run in wandb_runs(loggers):
        run.summary.update(dict(metrics))


def _logged_in() -> bool:
    import wandb

    try:
        return wandb.login(prompt=False, verify=False)
    except Exception as error:  # such as an invalid key
        log.warning("dashboard: %s", str(error).splitlines()[0])
        return False


def _run_id(folder: Path) -> str | None:
    """The id of the wandb run in the folder, if any: a resumed run continues it."""
    if not (folder / "checkpoints" / "last.ckpt").exists():
        return None
    earlier = sorted(path.name.removeprefix("offline-") for path in (folder / "wandb").glob("*run-*-*"))
    return earlier[-1].rpartition("-")[2] if earlier else None


def wandb_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A table with numeric columns, for sorting and plotting."""
    import wandb

    def number(value: Any) -> Any:
        try:
            return float(value)
        except (TypeError, ValueError):
            return value if value or value == 0 else None

    columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
    # mixed: rejected observations and failed runs lack numbers
    return wandb.Table(
        columns=columns, data=[[number(row.get(str(c))) for c in columns] for row in rows], allow_mixed_types=True
    )


def wandb_runs(loggers: Sequence[Logger]) -> list[Any]:
    """The dashboards' own objects, to which pictures and tables can be logged."""
    return [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]


def link_runs(folder: Path, jobs: Sequence[Path]) -> None:
    """Beside a sweep's own runs links to those of its jobs: one folder to look at, and to upload."""
    for run in (run for job in jobs for run in (job / "wandb").glob("*run-*-*")):
        with suppress(OSError):  # it is there already, or the file system has no links
            (folder / "wandb" / run.name).symlink_to(os.path.relpath(run, folder / "wandb"), target_is_directory=True)


def log_point(loggers: Sequence[Logger], evals: int, point: Mapping[str, Any]) -> None:
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.log({**point, "evals": evals})
        else:
            logger.log_metrics({**point, "evals": evals}, step=evals)
