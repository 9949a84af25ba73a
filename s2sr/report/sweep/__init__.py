"""What a sweep leaves behind: one table, figures and a page of all its runs.

Written into the sweep's folder: `sweep.csv`, `sweep.png` (scores against the swept value), `comparison.png` (all runs
side by side), `pictures/` (a PNG for each value, under one stretch), `README.md` and `report.html`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.utils import instantiate

from s2sr.report.charts import swept_scores
from s2sr.report.dashboard import log_sweep
from s2sr.report.figures import save, write_png
from s2sr.report.jobs import read_jobs, swept, table
from s2sr.report.products import write_csv
from s2sr.report.sweep.page import write_sweep_page
from s2sr.report.sweep.pictures import comparison, file_name, layers


class Collate(Callback):
    """Hydra callback for `hydra.callbacks`: collates the sweep's folder; failed jobs are named, and it exits with 1."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        log = logging.getLogger(__name__)
        try:
            failed = collate(folder)
            if "logger" in config:
                log_sweep(instantiate(config.logger, _convert_="all"), folder)
        except Exception as error:  # Hydra would turn it into a warning and exit with 0
            log.exception("the sweep in %s could not be collated", folder)
            raise SystemExit(1) from error
        log.info("report.html, README.md, sweep.csv and the pictures are in %s", folder)
        if failed:
            # not the log: Hydra's may be switched off, and a failure has to be seen
            print(*(f"failed job {line}" for line in failed), sep="\n", file=sys.stderr)
            raise SystemExit(1)


def collate(folder: Path) -> list[str]:
    """Writes what this module's docstring lists; pictures only if any job succeeded. One line for each that failed."""
    jobs = read_jobs(folder)
    if not jobs:
        return [f"none: there is no job folder in {folder}"]
    keys = swept(jobs)
    write_csv(folder / "sweep.csv", table(jobs, keys))
    done = [job for job in jobs if not job.error]
    shown = list(layers(done, keys)) if done else []
    for layer in shown:
        write_png(file_name(layer, folder / "pictures"), layer.pixels)
    chart = swept_scores(done, keys) if done else None
    if chart:
        save(comparison(done, keys), folder / "comparison.png")
        save(chart, folder / "sweep.png")
    write_sweep_page(folder, jobs, keys, shown, chart)
    return [f"{job.folder.name} ({job.label(keys)}): {job.error}" for job in jobs if job.error]
