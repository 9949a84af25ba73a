import csv
import json
import os
import shutil
import signal

import pytest
import yaml
from dashboards import offline_runs, records
from PIL import Image
from runs import LBFGS, SCENE, run, start, wait_for

from s2sr.report.charts import MARKED

TINY = (*SCENE, "data.size=16", "data.n_dates=3", "threads=1")


def rows_of(folder):
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_pictures(folder):
    for name in ("comparison.png", "sweep.png"):
        with Image.open(folder / name) as image:
            image.load()
            assert min(image.size) > 200


@pytest.fixture(scope="module")
def with_a_failure(tmp_path_factory):
    """A sweep of three jobs of which the middle one cannot run."""
    cwd = tmp_path_factory.mktemp("failure")
    values = ("-m", "psf.sigma=0.4,-1,0.5")
    fit = ("strategy=lbfgs", *LBFGS)
    return run(
        *values, *TINY, *fit, "hydra.sweep.dir=sweeps/first", cwd=cwd, script="sweep.py"
    ), cwd / "sweeps" / "first"


def test_a_failed_job_is_named_and_loses_nothing_else(with_a_failure):
    done, folder = with_a_failure
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "failed job" in line]
    assert line.startswith(
        "failed job 1 (psf.sigma=-1): InputError: psf.sigma must be a positive number up to 2 pixels"
    )
    assert "Traceback" not in done.stdout + done.stderr
    rows = rows_of(folder)
    assert [(row["psf.sigma"], row["status"]) for row in rows] == [("0.4", "ok"), ("-1", "failed"), ("0.5", "ok")]
    assert rows[0]["edge_contrast"] != rows[2]["edge_contrast"]
    assert rows[0]["psnr"]
    assert_pictures(folder)
    for job in ("0", "1", "2"):
        told = (folder / job / "train.log").read_text().splitlines()
        assert all(line.split()[1] == f"#{job}" for line in told), told
        assert set(told) <= set(done.stdout.splitlines())
    assert json.loads((folder / "1" / "metrics.json").read_text())["status"] == "failed"
    assert not (folder / "1" / "sr.tif").exists()


def test_jobs_are_runs_of_one_group(with_a_failure):
    folder = with_a_failure[1]
    seen = {}
    for job in ("0", "2"):
        (kept,) = offline_runs(folder / job)
        record = next(record["run"] for record in records(kept) if record["type"] == "run")
        assert record["run_group"] == "first"
        assert record["job_type"] == "sweep"
        assert record["display_name"] == f"first/{job}"
        seen[record["run_id"]] = record["config"]["update"]["psf"]["sigma"]
    assert sorted(seen.values()) == [0.4, 0.5]


def test_the_sweep_opens_on_its_scores_against_the_swept_value(with_a_failure):
    folder = with_a_failure[1]
    (kept,) = [kept for kept in offline_runs(folder) if not kept.is_symlink()]
    found = records(kept)
    record = next(record["run"] for record in found if record["type"] == "run")
    assert (record["run_group"], record["job_type"], record["display_name"]) == ("first", "collate", "first")
    axes = {r["metric"]["name"]: r["metric"].get("step_metric") for r in found if r["type"] == "metric"}
    assert axes == {"psf.sigma": None, **dict.fromkeys((f"scores/{key}" for key in MARKED), "psf.sigma")}
    rows = [r["history"]["item"] for r in found if r["type"] == "history"]
    points = {row["psf.sigma"]: row["scores/edge_contrast"] for row in rows if "psf.sigma" in row}
    ok = {float(row["psf.sigma"]): float(row["edge_contrast"]) for row in rows_of(folder) if row["status"] == "ok"}
    assert points == pytest.approx(ok)
    shown = {path.name.partition("_")[0] for path in kept.glob("files/media/images/pictures/*")}
    assert shown == {"sweep", "comparison"}


def test_the_sweep_has_a_page_and_so_has_every_job(with_a_failure):
    folder = with_a_failure[1]
    for name in ("report.html", "README.md", "0/report.html", "2/report.html"):
        assert (folder / name).is_file()
    text = (folder / "README.md").read_text()
    assert "python sweep.py -m psf.sigma=0.4,-1,0.5 data.size=24" in text
    assert 'href="0/report.html"' in (folder / "report.html").read_text()


def test_a_job_resumes_by_itself_in_its_group(with_a_failure):
    folder = with_a_failure[1] / "0"
    settings = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())["hydra"]
    assert settings["mode"] == "MULTIRUN"
    from s2sr.cli import group_of

    assert group_of(folder) == "first"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A sweep of three jobs in turn; in the second it gets Ctrl-C, as a terminal sends it to all processes."""
    cwd = tmp_path_factory.mktemp("interrupted")
    options = (*TINY, "strategy=lbfgs", "logger=csv", "hydra.sweep.dir=a sweep")
    process = start("-m", "psf=0.3,0.4,0.5", *options, cwd=cwd, script="sweep.py", start_new_session=True)
    wait_for(cwd / "a sweep" / "1" / "checkpoints" / "last.ckpt", process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert err.strip() == "interrupted; continue with: python sweep.py resume='a sweep'"
    return cwd / "a sweep"


def test_a_sweep_is_carried_on(interrupted, tmp_path):
    """Called from elsewhere, it keeps what has finished, goes on with what was under way, and does the rest."""
    folder = interrupted
    assert not (folder / "2").exists()
    first = (folder / "0" / "sr.tif").stat()
    done = run(f"resume={folder}", cwd=tmp_path, script="sweep.py")
    assert done.returncode == 0, done.stderr
    assert (folder / "0" / "sr.tif").stat() == first
    assert "#0 has finished already" in done.stdout
    assert "#1 coarse_to_fine x1" not in done.stdout, "it was in the checkpoint"
    assert "#1 coarse_to_fine x2" in done.stdout
    rows = rows_of(folder)
    assert [(row["psf"], row["status"]) for row in rows] == [("0.3", "ok"), ("0.4", "ok"), ("0.5", "ok")]
    assert_pictures(folder)
    assert "python sweep.py -m psf=0.3,0.4,0.5 data.size=24" in (folder / "README.md").read_text()
    assert not [path for path in tmp_path.iterdir() if path.name[0] != "."]


@pytest.fixture(scope="module")
def two_groups(tmp_path_factory):
    """A sweep of two groups, one of numbers and one of names, with the joblib launcher."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    cwd = tmp_path_factory.mktemp("groups")
    steps = ("strategy=lbfgs,adam", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = run("-m", "psf=0.3,0.4", *steps, *TINY, "hydra.sweep.dir=out", cwd=cwd, script="sweep.py")
    assert done.returncode == 0, done.stderr
    return done, cwd / "out"


def test_groups_in_parallel(two_groups):
    rows = rows_of(two_groups[1])
    assert [(row["psf"], row["strategy"]) for row in rows] == [
        ("0.3", "lbfgs"),
        ("0.3", "adam"),
        ("0.4", "lbfgs"),
        ("0.4", "adam"),
    ]
    assert {row["status"] for row in rows} == {"ok"}
    assert [float(row["psf_sigma"]) for row in rows] == pytest.approx([0.3, 0.3, 0.4, 0.4])
    assert_pictures(two_groups[1])


def test_lines_share_their_panels(two_groups):
    """There is a run for each value of the other key; its name and configuration tell which."""
    done, folder = two_groups
    said = [line for line in done.stdout.splitlines() if "wandb leet out/wandb" in line]
    assert len(said) == 1
    found = {}
    for kept in offline_runs(folder):
        if kept.is_symlink():
            continue
        told = records(kept)
        record = [r["run"] for r in told if r["type"] == "run"]
        assert {r["job_type"] for r in record} == {"collate"}
        rows = [r["history"]["item"] for r in told if r["type"] == "history"]
        found[record[-1]["display_name"]] = {row["psf"]: row["scores/psnr"] for row in rows if "psf" in row}
        assert {path.name.partition("_")[0] for path in kept.glob("files/media/images/pictures/*")} == {
            "sweep",
            "comparison",
        }
    rows = rows_of(folder)
    assert found == {
        f"out strategy={name}": {
            float(row["psf"]): pytest.approx(float(row["psnr"])) for row in rows if row["strategy"] == name
        }
        for name in ("lbfgs", "adam")
    }


def test_one_folder_shows_and_uploads_all_runs_of_a_sweep(two_groups, tmp_path):
    """This also holds when the folder has been moved."""
    moved = tmp_path / "moved"
    shutil.copytree(two_groups[1], moved, symlinks=True)
    shown = offline_runs(moved)
    names = {r["run"]["display_name"] for kept in shown for r in records(kept) if r["type"] == "run"}
    assert names >= {f"out/{job}" for job in range(4)} | {"out strategy=lbfgs", "out strategy=adam"}
    assert {path.resolve().parents[1].name for path in shown if path.is_symlink()} == {"0", "1", "2", "3"}

    assert not list((tmp_path / "out").glob("*/wandb"))
