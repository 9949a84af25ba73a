"""Programs that want the same folder at the same time."""

import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from runs import ROOT, TINY, run, start, wait_for

from s2sr.claim import claimed, first_free

QUICK = (*TINY, "logger=csv", "threads=1")
HELD = "import sys, time; from pathlib import Path; from s2sr.claim import claimed; print(claimed(Path(sys.argv[1])))"


def test_a_folder_is_held_by_one_until_it_ends(tmp_path):
    folder = tmp_path / "not" / "yet"
    command = [sys.executable, "-c", HELD, str(folder)]
    for _ in range(2):  # the first has let go of it
        assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "True\n"
    assert claimed(folder)
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "False\n"
    assert first_free(folder) == tmp_path / "not" / "yet_2"
    assert first_free(folder) == tmp_path / "not" / "yet_3"


def test_a_folder_that_is_in_use_is_refused_before_anything_is_written(tmp_path):
    process = start(*QUICK, "hydra.run.dir=out", cwd=tmp_path)
    wait_for(tmp_path / "out" / ".hydra" / "overrides.yaml", process)
    composed = (tmp_path / "out" / ".hydra" / "config.yaml").read_text()
    other, again = (run(*o, cwd=tmp_path) for o in ((*QUICK, "psf=0.6", "hydra.run.dir=out"), ("resume=out",)))
    assert process.poll() is None, "it should still be at work"
    said = "another program is at work there; wait, or choose another hydra.run.dir\n"
    assert (other.returncode, other.stderr) == (1, f"error: out: {said}")
    assert (again.returncode, again.stderr) == (1, f"error: {tmp_path / 'out'}: {said}")
    assert process.wait(60) == 0
    assert (tmp_path / "out" / ".hydra" / "config.yaml").read_text() == composed
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(("script", "folder"), [("train.py", "outputs"), ("sweep.py", "multirun")])
def test_those_that_start_in_the_same_second_lie_beside_each_other(script, folder, tmp_path):
    now = datetime.now()
    for second in range(120):  # whichever it starts in
        assert claimed(tmp_path / folder / f"{now + timedelta(seconds=second):%Y-%m-%d_%H-%M-%S}")
    done = run(*QUICK, *(["psf=0.4,0.5"] if script == "sweep.py" else []), cwd=tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    (used,) = [path for path in (tmp_path / folder).iterdir() if any(path.iterdir())]
    assert used.name.endswith("_2")
    assert (used / "report.html").is_file()
    assert script == "train.py" or {"0", "1", "sweep.csv"} <= {path.name for path in used.iterdir()}
