import platform
import subprocess
import sys

import pytest
import yaml

from s2sr import cli
from s2sr.errors import InputError


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """The folder of an interrupted run that was started in tmp_path/start."""
    (tmp_path / "start").mkdir()
    folder = tmp_path / "it's a=run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
    settings = {"hydra": {"runtime": {"cwd": str(tmp_path / "start")}, "mode": "RUN"}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return folder


def test_resume_becomes_the_folders_own_configuration(run_dir, tmp_path):
    arguments = cli.resumed([f"resume={run_dir.name}", "logger.mode=offline", "trainer.accelerator=cpu"])
    assert f"--config-dir={run_dir / '.hydra'}" in arguments
    assert arguments[-2:] == ["logger.mode=offline", "trainer.accelerator=cpu"]
    assert cli.Path.cwd() == tmp_path / "start"


def test_a_home_is_found_that_no_shell_has_put_in(run_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"--config-dir={run_dir / '.hydra'}" in cli.resumed([f"resume=~/{run_dir.name}"])


@pytest.mark.parametrize("other", ["psf=0.5", "seed=1", "data.root=/elsewhere", "hydra.run.dir=x", "loggerx.mode=a"])
def test_other_settings_do_not_come_with_resume(run_dir, other):
    with pytest.raises(InputError, match="leave out") as error:
        cli.resumed([f"resume={run_dir}", other, "trainer.accelerator=cpu"])
    assert other in str(error.value)
    assert "accelerator" not in str(error.value)


def test_only_an_unfinished_run_resumes(run_dir, tmp_path):
    with pytest.raises(InputError, match="not the folder of a run"):
        cli.resumed([f"resume={tmp_path}"])
    for name in ("sr.tif", "metrics.json", "report.html"):
        assert cli.resumed([f"resume={run_dir}"])
        (run_dir / name).write_text('{"status": "ok"}')
    with pytest.raises(InputError, match="has finished"):
        cli.resumed([f"resume={run_dir}"])


def test_the_folder_it_was_started_in_is_gone(run_dir, tmp_path):
    (tmp_path / "start").rmdir()
    with pytest.raises(InputError, match=r"started in .*start, which is no longer there"):
        cli.resumed([f"resume={run_dir}"])


def test_a_failed_resume_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", f"resume={tmp_path}"])
    with pytest.raises(SystemExit) as exit:
        cli.main("train")
    assert exit.value.code == f"error: resume={tmp_path}: not the folder of a run, it has no .hydra/config.yaml"


def test_settings_that_a_full_disk_has_cut_off(run_dir):
    path = run_dir / ".hydra" / "hydra.yaml"
    path.write_text(path.read_text()[:9])
    with pytest.raises(InputError, match=r"hydra.yaml is missing or not whole: start it anew"):
        cli.resumed([f"resume={run_dir}"])


@pytest.fixture
def sweep_dir(run_dir):
    """The folder of an interrupted sweep, beside the run."""
    settings = {
        "mode": "MULTIRUN",
        "sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"},
        "overrides": {
            "task": ["psf='0.3','0.4'", "data.size=24"],
            "hydra": [
                "hydra.mode=MULTIRUN",
                "hydra.sweep.dir=here",
                "hydra/launcher=joblib",
                "hydra.launcher.n_jobs=2",
            ],
        },
        "job": {"config_name": "sweep"},
        "runtime": {
            "cwd": str(run_dir.parent / "start"),
            "config_sources": [
                {"path": "/conf", "provider": "main"},
                {"path": "/own", "provider": "command-line"},
            ],
        },
    }
    folder = run_dir.parent / "a sweep"
    folder.mkdir()
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": settings}))
    return folder


def test_a_resumed_sweep_is_the_same_command_in_the_same_folder(sweep_dir):
    found = cli.resumed([f"resume={sweep_dir}"])
    assert found == [
        *("--config-dir=/own", "--config-name=sweep", "--multirun", "psf='0.3','0.4'", "data.size=24"),
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir='{sweep_dir}'"),
    ]
    assert cli.Path.cwd().name == "start"
    found = cli.resumed(["-m", f"resume={sweep_dir}", "hydra/launcher=basic"])
    assert [o for o in found if "launcher" in o] == ["hydra/launcher=basic"]


def test_a_sweep_whose_jobs_would_be_others_is_not_resumed(sweep_dir):
    with pytest.raises(InputError, match=r"leave out seed=1 \("):
        cli.resumed([f"resume={sweep_dir}", "seed=1", "hydra.launcher.n_jobs=1"])
    path = sweep_dir / "multirun.yaml"
    text = path.read_text()
    for was, instead in (("BasicSweeper", "OptunaSweeper"), ("psf='0.3','0.4'", "psf=shuffle(0.3,0.4)")):
        assert was in text
        path.write_text(text.replace(was, instead))
        with pytest.raises(InputError, match="its jobs would be others"):
            cli.resumed([f"resume={sweep_dir}"])


AGAIN = """
import resource, torch
from s2sr.cli import keep_memory
keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
found = []
for _ in range(8):  # an aligned block may not fit into those that were freed first
    before = faults()
    torch.ones(2**24)
    found.append(faults() - before)
print(min(found))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_what_is_freed_stays_with_the_process(monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # of 16 384 pages
