"""An interrupted run ends, resumed, with the same product as one that was left alone."""

import csv
import os
import signal
import time

import numpy as np
import pytest
import rasterio
from runs import SCENE, nothing_written, run, start, wait_for

# steps enough for an interruption between the first checkpoint and the end
LONG = (
    *SCENE,
    "strategy.polish.steps=900",
    "+strategy.polish.part=100",
    "logger=csv",
    "threads=1",
    "hydra.run.dir=out",
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("whole")
    done = run(*LONG, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "out"


def assert_interrupted(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert err.strip() == "interrupted; continue with: python train.py resume=out"
    assert "Traceback" not in out


def levels_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return {row["level"] for row in csv.DictReader(file)}


def assert_same(one, other):
    assert levels_of(one) == levels_of(other), "the log goes on"
    assert (one / "shifts.csv").read_text() == (other / "shifts.csv").read_text()
    with rasterio.open(one / "sr.tif") as a, rasterio.open(other / "sr.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_killed_in_the_fit_and_resumed_from_elsewhere(uninterrupted, tmp_path):
    folder = tmp_path / "out"
    process = start(*LONG, cwd=tmp_path)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    process.kill()
    process.communicate()
    assert not (folder / "sr.tif").exists()

    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    done = run(f"resume={folder}", "trainer.accelerator=cpu", cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(uninterrupted, folder)
    assert str(folder / "sr.tif") in done.stdout.splitlines()
    assert not [path for path in elsewhere.iterdir() if path.name[0] != "."]  # it is the home of this test, too

    done = run(f"resume={folder}", cwd=elsewhere)
    assert done.returncode == 1
    assert done.stderr == f"error: resume={folder}: the run has finished, see metrics.json there\n"


def test_ctrl_c_in_the_fit(uninterrupted, tmp_path):
    folder = tmp_path / "out"
    process = start(*LONG, cwd=tmp_path)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGINT)
    assert_interrupted(process)
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert not (folder / "sr.tif").exists()
    assert not (folder / "metrics.json").exists()

    done = run("resume=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(uninterrupted, folder)


def test_ctrl_c_before_the_first_checkpoint(uninterrupted, tmp_path):
    folder = tmp_path / "out"
    process = start(*LONG, cwd=tmp_path)
    wait_for(folder / "train.log", process)
    time.sleep(0.5)  # it is importing, for seconds
    process.send_signal(signal.SIGINT)
    assert_interrupted(process)
    assert nothing_written(folder)

    done = run("resume=out", cwd=tmp_path)  # from the beginning
    assert done.returncode == 0, done.stderr
    assert_same(uninterrupted, folder)


def test_ctrl_c_while_the_products_are_made(uninterrupted, tmp_path):
    """The terminal sends it to all processes of the program, the dashboard's too."""
    folder = tmp_path / "out"
    dashboard = [argument for argument in LONG if argument != "logger=csv"]
    process = start(*dashboard, cwd=tmp_path, start_new_session=True)
    wait_for(folder / "sr.tif", process)
    os.killpg(process.pid, signal.SIGINT)
    assert_interrupted(process)
    assert not (folder / "metrics.json").exists()

    done = run("resume=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(uninterrupted, folder)


def test_another_run_in_the_same_folder_is_another_run(tmp_path):
    options = (*SCENE, "strategy=lbfgs", "logger=csv", "threads=1", "hydra.run.dir=out")
    first = run(*options, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "out"
    product, log = (folder / "sr.tif").read_bytes(), (folder / "metrics.csv").read_text()
    refused = run(*options, "noise=-1", cwd=tmp_path)
    assert refused.returncode == 1
    assert (folder / "metrics.json").is_file(), "what is refused removes nothing"
    done = run(*options, "psf=0.6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "sr.tif").read_bytes() != product
    assert not (folder / "metrics.csv").read_text().startswith(log)
