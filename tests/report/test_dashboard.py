"""What a sweep logs; the dashboard of a run is tested in test_wandb.py, by a run."""

from __future__ import annotations

import json
from functools import partial

from dashboards import offline_runs, records
from folders import write_job

from s2sr.report.dashboard import log_sweep
from s2sr.report.loggers import wandb_logger


def test_where_names_are_swept_scores_are_bars(tmp_path, monkeypatch):
    """One run for each value of the other key, here with two jobs and with one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "sweep"
    for n, (strategy, misfit) in enumerate((("lbfgs", "huber"), ("adam", "huber"), ("lbfgs", "quadratic"))):
        metrics = {"status": "ok", "psnr": 20.0 + n}
        write_job(folder / str(n), [f"strategy={strategy}", f"misfit={misfit}"], metrics=metrics)
    log_sweep(partial(wandb_logger, mode="offline"), folder)
    found = {}
    for kept in offline_runs(folder):
        told = records(kept)
        (*_, name) = [record["run"]["display_name"] for record in told if record["type"] == "run"]
        misfit = next(record["config"]["update"]["misfit"] for record in told if record["type"] == "config")
        assert name == f"sweep misfit={misfit}"
        (bars,) = kept.glob("files/media/table/scores/psnr*.table.json")
        found[misfit] = json.loads(bars.read_text())["data"]
    assert found == {
        "huber": [["strategy=lbfgs", 20.0], ["strategy=adam", 21.0]],
        "quadratic": [["strategy=lbfgs", 22.0]],
    }
