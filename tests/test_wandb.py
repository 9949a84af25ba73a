"""The dashboard without an account: runs are kept offline, read back here, and never asked for or waited for."""

import csv
import json
import os
import pty
import re
import subprocess
import time

import numpy as np
import pytest
import torch
import yaml
from dashboards import inspect, offline_runs, records
from PIL import Image
from runs import LBFGS, SCENE, TINY, command, environment, run

from s2sr.report.figures import Stretch, rgb
from s2sr.report.glossary import PANELS
from s2sr.report.metrics import bicubic
from s2sr.report.products import read_geotiff

SCORES = ("edge_contrast", "laplacian_var", "gradient_energy")
IMAGES = ("1_observation", "2_bicubic", "3_reconstruction", "4_truth", "residual")


def read(folder):
    """(run record, history rows, summary, all records) of an offline run."""
    found = records(folder)
    kinds = {kind: [record[kind] for record in found if record["type"] == kind] for kind in ("run", "history")}
    (first,) = kinds["run"][:1]
    return first, kinds["history"], json.loads(inspect(folder, "--summary"))["summary"], found


def flat(row):
    """A history record as {key: value}, however the reader nests it."""
    row = row.get("update", row.get("item", row.get("row", row)))
    if isinstance(row, list):
        row = {item.get("key") or "/".join(item["nested_key"]): json.loads(item["value_json"]) for item in row}
    return row


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("logged")
    done = run(*SCENE, *LBFGS, "strategy.polish.steps=25", "hydra.run.dir=out/here", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done, cwd / "out" / "here"


def test_without_a_key_it_is_offline_and_says_how_to_look_and_to_upload(logged):
    done, folder = logged
    assert len(offline_runs(folder)) == 1
    (line,) = [line for line in done.stdout.splitlines() if "dashboard" in line]
    assert f"`wandb leet {folder / 'wandb'}`" in line
    assert f"`wandb sync {folder / 'wandb'}/offline-run-*`" in line
    assert done.stderr == ""
    assert "wandb:" not in done.stdout


def test_it_takes_no_more_of_the_disk_than_it_says(logged):
    done, folder = logged
    (said,) = re.findall(r"and (\d+) MB of disk", done.stdout)
    files = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(files.values()) < 1e6 * int(said)


def test_no_settings_are_written_for_the_user(logged):
    cwd = logged[1].parents[1]
    strays = {path.name for path in cwd.iterdir()} - {"out", ".cache", ".config", ".local"}
    assert strays == set()
    assert not [path for path in cwd.rglob("*") if path.name in ("settings", ".netrc")]


def test_the_run_knows_its_configuration_and_kind(logged):
    _, folder = logged
    record, _, _, _ = read(offline_runs(folder)[0])
    assert record["project"] == "s2sr"
    assert record["display_name"] == "here"
    assert record["job_type"] == "train"
    assert not record.get("run_group")
    kept = record["config"]["update"]
    composed = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert {key: kept[key] for key in ("psf", "c2f", "radiometry", "report")} == {
        key: composed[key] for key in ("psf", "c2f", "radiometry", "report")
    }
    assert set(composed) <= set(kept)
    assert kept["strategy"]["polish"]["steps"] == 25


def test_history(logged):
    _, folder = logged
    _, history, _, records = read(offline_runs(folder)[0])
    rows = [flat(row) for row in history]
    keys = set().union(*rows)
    assert keys >= {"evals", "fit/loss", "fit/misfit", "fit/tv", "fit/tv_weight", "shifts/spread_px"}
    assert keys >= {f"sharpness/{name}" for name in SCORES} | {"fidelity/psnr", "shifts/shift_rmse_px"}
    assert all("evals" in row for row in rows)
    evals = [row["evals"] for row in rows]
    assert evals == sorted(evals)
    levels = [row for row in rows if "sharpness/edge_contrast" in row]
    assert len(levels) == 4, "x1, x2, the polish and the refit"
    pictures = [row for row in rows if any(key.startswith("pictures/") for key in row)]
    assert len(pictures) == 4
    shown = {key.split("/")[1].split(".")[0] for row in pictures for key in row if key.startswith("pictures/")}
    assert shown == set(IMAGES)
    assert ["shifts/plot" in key for row in pictures for key in [" ".join(row)]] == [True] * 3 + [False]
    assert all("level" in row for row in levels)
    assert len({row["fidelity/psnr_bicubic"] for row in levels}) == 1, "levels are compared at one scale"
    assert ["heldout/holdout_rmse" in row for row in levels] == [True] * 3 + [False], "the refit has seen the samples"
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    assert any(metric.get("name") == "evals" and metric["options"]["hidden"] for metric in metrics)
    assert any(metric.get("glob_name") == "*" and metric.get("step_metric") == "evals" for metric in metrics)


def media(folder, name):
    """The newest table of a name."""
    return json.loads(
        max(folder.glob(f"files/media/table/{name}_*.table.json"), key=lambda p: p.stat().st_mtime).read_text()
    )


def test_every_panel_is_in_a_named_section(logged):
    _, history, _, _ = read(offline_runs(logged[1])[0])
    keys = {key for row in map(flat, history) for key in row} - {"evals", "level"}
    sections = {key.partition("/")[0] for key in keys if "/" in key and not key.startswith("_")}
    assert sections == set(PANELS)
    assert all("/" in key or key.startswith("_") for key in keys)


def test_the_run_says_what_its_panels_show(logged):
    record, _, _, _ = read(offline_runs(logged[1])[0])
    assert [line.partition(":")[0] for line in record["notes"].splitlines()[1:-1]] == [f"* {name}" for name in PANELS]


def test_pictures_have_one_stretch_that_of_the_mean(logged):
    folder = offline_runs(logged[1])[0] / "files" / "media" / "images" / "pictures"
    mean, bands, _ = read_geotiff(logged[1] / "mean.tif")
    observation, _, _ = read_geotiff(logged[1] / "observation.tif")
    stretch = Stretch.of(mean, bands)
    for name, image in {"1_observation": observation, "2_bicubic": bicubic(torch.from_numpy(mean), 2)}.items():
        last = max(folder.glob(f"{name}_*.png"), key=lambda path: path.stat().st_mtime)
        with Image.open(last) as picture:
            np.testing.assert_array_equal(np.asarray(picture), rgb(image, bands, stretch))


def test_the_table_of_observations_has_numbers(logged):
    table = media(offline_runs(logged[1])[0], "shifts/observations")
    with (logged[1] / "shifts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table["columns"] == list(rows[0])
    column = {name: [row[n] for row in table["data"]] for n, name in enumerate(table["columns"])}
    assert [day[:10] for day in column["datetime"]] == [row["datetime"][:10] for row in rows]
    assert column["clear_fraction"] == pytest.approx([float(row["clear_fraction"]) for row in rows])
    assert sum(column["weight"]) == pytest.approx(1, abs=1e-3)
    assert all(isinstance(value, float) for value in column["gain_B02"] + column["dy"])


def test_held_out_error_and_edge_contrast_are_on_one_chart(logged):
    _, history, _, _ = read(offline_runs(logged[1])[0])
    levels = [row for row in map(flat, history) if "heldout/holdout_rmse" in row]
    (path,) = {
        path.name.rpartition("_")[0].rpartition("_")[0]
        for path in offline_runs(logged[1])[0].glob("files/media/table/heldout/*")
    }
    chart = media(offline_runs(logged[1])[0], f"heldout/{path}")
    lines = {}
    for _, name, value in chart["data"]:
        lines.setdefault(name, []).append(value)
    heldout, edges = "held-out error / temporal mean's", "edge contrast / bicubic's"
    ratio = [row["heldout/holdout_rmse"] / row["heldout/holdout_rmse_temporal_mean"] for row in levels]
    assert lines[heldout] == pytest.approx(ratio)
    assert lines[edges] == pytest.approx(
        [r["sharpness/edge_contrast"] / r["sharpness/edge_contrast_bicubic"] for r in levels]
    )


def test_the_tv_weight_is_seen_to_fade(logged):
    _, history, _, _ = read(offline_runs(logged[1])[0])
    weights = [row["fit/tv_weight"] for row in map(flat, history) if "fit/tv_weight" in row]
    assert weights[0] > weights[-1]


def test_summary_ends_with_the_final_metrics(logged):
    _, _, summary, _ = read(offline_runs(logged[1])[0])
    metrics = json.loads((logged[1] / "metrics.json").read_text())
    for key in ("edge_contrast", "psnr", "n_obs", "strategy", "evals"):
        assert summary[key] == pytest.approx(metrics[key])
    assert "fit/loss" in summary


def test_a_resumed_run_goes_on_in_its_own(logged):
    _, folder = logged
    (first,) = offline_runs(folder)
    (folder / "metrics.json").unlink()  # as if it had been killed while it wrote its products
    time.sleep(1)  # wandb's folders are named to the second
    done = run(f"resume={folder}", "logger.mode=offline", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    runs = offline_runs(folder)
    assert len(runs) == 2
    assert {path.name.rpartition("-")[2] for path in runs} == {first.name.rpartition("-")[2]}
    assert json.loads((folder / "metrics.json").read_text())["status"] == "ok"


def test_a_server_that_does_not_answer_is_given_up_soon(tmp_path):
    start = time.monotonic()
    keys = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40}
    done = run(*TINY, "logger.mode=online", "hydra.run.dir=out", cwd=tmp_path, **keys)
    assert time.monotonic() - start < 90  # the run and 15 s of waiting; wandb's own patience would be 90 s
    assert done.returncode == 0, done.stderr
    assert "Weights & Biases cannot be reached, so the run is logged offline" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    (kept,) = offline_runs(tmp_path / "out")
    assert read(kept)[1]


def test_online_without_a_key_on_a_terminal_does_not_ask(tmp_path):
    """On a terminal wandb would ask for a key; there the progress bar is seen too."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*TINY, "logger.mode=online", "hydra.run.dir=out"),
        cwd=tmp_path,
        env=environment(tmp_path, TERM="xterm", COLUMNS="120"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # the other side has closed
        pass
    os.close(ours)
    text = seen.decode()
    assert process.wait(60) == 0, text
    assert "no key for Weights & Biases, so the run is logged offline" in text
    assert "evals" in text
    assert "coarse_to_fine x2" in text
    assert len(offline_runs(tmp_path / "out")) == 1


def test_an_environment_that_wandb_cannot_read_is_one_line(tmp_path):
    done = run(*TINY, "hydra.run.dir=out", cwd=tmp_path, WANDB_MODE="ofline")
    assert done.returncode == 1
    assert done.stderr.startswith("error: a setting of Weights & Biases (WANDB_...)")
    assert done.stderr.count("\n") == 1
    assert "'ofline'" in done.stderr


def test_an_unknown_mode_is_refused(tmp_path):
    from s2sr.errors import InputError
    from s2sr.report.loggers import wandb_logger

    with pytest.raises(InputError, match=r"logger\.mode=onlin; choose from online, offline, disabled"):
        wandb_logger(folder=tmp_path, group=None, job_type="train", config={}, mode="onlin")
