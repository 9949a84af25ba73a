"""What the README tells people to type works. Only the sizes are smaller here; `make` is tried by whoever installs."""

import re
import shlex
import subprocess
import sys

import local_catalogue
import pytest
from folders import write_run
from runs import LBFGS, PRODUCTS, ROOT, environment, run

from s2sr.data.demo import Demo

README = (ROOT / "README.md").read_text()
SIZE = ("data.size=24", "data.n_dates=5")
QUICK = (*LBFGS, "logger=csv", "threads=1")
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) for language in ("bash", "python")}
COMMANDS = [line.partition(" #")[0].strip() for block in BLOCKS["bash"] for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Demo(size=49, n_dates=8, cloudy=0).write(tmp_path_factory.mktemp("readme") / "FOLDER")


@pytest.fixture
def catalogue(tmp_path):
    """Overrides that find five days of a season on disk instead of a year on the other side of a network."""
    days = [f"2024-05-{day:02}" for day in (1, 6, 11, 16, 21)]
    items = local_catalogue.season(tmp_path / "catalogue", days, names=local_catalogue.PLANETARY)
    west, south, east, north = local_catalogue.bbox((40, 40), row=8, column=8)
    place = f"data.bbox=[{west},{south},{east},{north}]"
    return [f"data.catalog={items}", place, "data.start=2024-05-01", "data.end=2024-05-31", "data.min_scenes=2"]


def test_there_are_commands():
    assert len(COMMANDS) >= 8
    modules = ("download", "forecast", "report")
    programs = ("python train.py", "python sweep.py", *(f"python -m s2sr.{name}" for name in modules))
    assert all(line.startswith(programs) for line in COMMANDS)


@pytest.mark.parametrize("line", [c for c in COMMANDS if "data.bbox" not in c and "-m s2sr." not in c])
def test_command(line, folder, tmp_path):
    _, script, *overrides = shlex.split(line)
    extra = list(QUICK)
    if "data=geotiff" in line:
        overrides = [o.replace("FOLDER", str(folder)) for o in overrides]
    elif "resume=RUN_DIR" in line:
        done = run(*SIZE, *extra, "c2f.levels=[1,2]", "hydra.run.dir=RUN_DIR", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (tmp_path / "RUN_DIR" / "metrics.json").unlink()
        extra = []
    elif "resume=SWEEP_DIR" in line:
        sweep = ("-m", "psf=0.4,0.5", "strategy=lbfgs", *SIZE, *extra, "c2f.levels=[1,2]", "hydra.sweep.dir=SWEEP_DIR")
        done = run(*sweep, cwd=tmp_path, script=script)
        assert done.returncode == 0, done.stderr
        (tmp_path / "SWEEP_DIR" / "sweep.csv").unlink()
        extra = []
    else:
        extra += [*SIZE, "c2f.levels=[1,2]"]
    done = run(*overrides, *extra, cwd=tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert found >= ({"sweep.csv", "sweep.png", "comparison.png"} if script == "sweep.py" else set(PRODUCTS))


@pytest.mark.parametrize("line", [c for c in COMMANDS if "forecast" in c])
def test_forecast(line, folder, tmp_path):
    _, _, script, *overrides = shlex.split(line.replace("FOLDER", str(folder)))
    done = run(*overrides, cwd=tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    for head in re.findall(r"^(?: +noise|dates|forecast:) .*", README, re.MULTILINE):
        assert head.split()[:2] in [row.split()[:2] for row in done.stdout.splitlines()]


@pytest.mark.parametrize("line", [c for c in COMMANDS if "s2sr.report" in c])
def test_report_command(line, tmp_path):
    write_run(tmp_path / "RUN_DIR", {"status": "ok", "scale": 4})
    _, _, script, folder = shlex.split(line)
    done = run(folder, cwd=tmp_path, script=script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "RUN_DIR/report.html\n", "")
    assert (tmp_path / "RUN_DIR" / "report.html").is_file()


@pytest.mark.parametrize("line", [c for c in COMMANDS if "data.bbox" in c])
def test_catalogue_command(line, catalogue, tmp_path):
    script, *overrides = [word for word in shlex.split(line)[1:] if word != "-m"]
    keys = {o.partition("=")[0] for o in catalogue}
    kept = [o for o in overrides if o.partition("=")[0] not in keys]
    fits = script == "train.py"
    extra = [*QUICK, "c2f.levels=[1,2]"] if fits else []
    done = run(*kept, *catalogue, *extra, cwd=tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"scene.json", "S2A_2024-05-01_R098.tif"} <= found
    assert not fits or found >= set(PRODUCTS)


def test_python(folder, tmp_path):
    (code,) = BLOCKS["python"]
    code = code.replace('"FOLDER"', repr(str(folder))).replace('"psf=sentinel2"', f'"psf=sentinel2", *{LBFGS}')
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), check=True, timeout=200)
    assert (tmp_path / "sr.tif").stat().st_size > 10_000


def test_every_choice_that_is_named_exists():
    for group in ("strategy", "psf", "c2f", "data", "logger", "misfit"):
        row = next(line for line in README.splitlines() if line.startswith(f"| `{group}="))
        choices = row.split("|")[1].partition(";")[0]
        for choice in re.findall(r"`([\w.]+)`", choices):
            assert (ROOT / "conf" / group / f"{choice}.yaml").exists(), f"{group}={choice}"
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
