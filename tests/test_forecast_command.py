"""python -m s2sr.forecast: what it says, what it imports, how long it takes, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hydra import compose, initialize_config_dir
from runs import environment, run

from s2sr import forecast
from s2sr.data.demo import Demo
from s2sr.overrides import CONF

ROOT = Path(__file__).resolve().parents[1]
NUMBER = r"([\d.]+)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    demo = Demo(size=(40, 52), n_dates=8, bands=("B02", "B03", "B04"), pixels_per_lr=8)
    return demo.write(tmp_path_factory.mktemp("forecast") / "FOLDER")


@pytest.fixture
def said(monkeypatch, capsys):
    """Run the command with overrides, and return what it prints."""

    def said(*overrides):
        monkeypatch.setattr(sys, "argv", ["forecast", *map(str, overrides)])
        threads = torch.get_num_threads()
        forecast.main()
        torch.set_num_threads(threads)
        return capsys.readouterr().out

    return said


def numbers(text: str) -> dict[str, float]:
    found = re.search(rf"shifts to {NUMBER} px; detail to {NUMBER} cycles per pixel \({NUMBER} m", text)
    return dict(zip(("shift", "detail", "metres"), map(float, found.groups()), strict=True))


def table(text: str) -> dict[int, float]:
    """The detail for each number of dates."""
    rows = re.findall(rf"^ +(\d+) +{NUMBER} px +{NUMBER} ", text, re.MULTILINE)
    return {int(dates): float(detail) for dates, _, detail in rows}


def test_of_a_folder(said, folder):
    text = said(f"data.root={folder}", "threads=1")
    assert "8 observations from 2023-05-02" in text
    with initialize_config_dir(str(CONF), version_base="1.3"):
        seen = forecast.conditions(compose("forecast", [f"data.root={folder}", "threads=1"]))
    noise, contrast = seen.noise.log().mean(0).exp(), seen.spectrum.variance().sqrt()
    for b, band in enumerate(("B02", "B03", "B04")):
        row = re.search(rf"^{band} +{NUMBER} +{NUMBER} +{NUMBER} ", text, re.MULTILINE)
        own = [float(x[b]) for x in (noise, contrast, seen.spectrum.slope)]
        assert [float(x) for x in row.groups()] == pytest.approx(own, rel=0.03)
    found = numbers(text)
    assert 0.0005 < found["shift"] < 0.01
    assert 0.4 < found["detail"] < 0.8
    assert found["metres"] == pytest.approx(10 / (2 * found["detail"]), abs=0.1)


def test_of_a_large_folder_shifts_are_estimated_in_the_middle(said, folder, monkeypatch):
    whole = numbers(said(f"data.root={folder}"))
    monkeypatch.setattr(forecast, "CENTRE", 32)
    middle = said(f"data.root={folder}")
    assert "40 x 52 pixels" in middle
    assert numbers(middle) == pytest.approx(whole, rel=0.25)  # as accurate as all of it allows


def test_without_a_folder_it_is_that_of_the_numbers(said):
    usual = numbers(said())
    assert numbers(said("noise=0.001"))["detail"] > usual["detail"] > numbers(said("noise=0.02"))["detail"]
    assert numbers(said("contrast=0.1"))["shift"] < usual["shift"]
    assert numbers(said("jitter=0.3"))["detail"] > usual["detail"]
    assert numbers(said("psf.sigma=0.6"))["detail"] < usual["detail"]
    assert numbers(said("crop=200"))["shift"] == pytest.approx(usual["shift"] / 2, abs=1e-4)
    assert "20 dates" in said("n_obs=20", "data.bands=[B04]", "jitter=[0.3,0.05]")


def test_both_axes(said):
    text = said("jitter=[0.3,0.05]", "data.bands=[B04]", "slope=2.0", "noise=0.002", "n_obs=16")
    assert "spread by 0.30 px along y, 0.05 px along x" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("B04"))
    along_y, along_x = map(float, row[-4:-2])
    assert along_y > along_x + 0.05


def test_what_is_given_counts_more_than_what_the_folder_shows(said, folder):
    own = said(f"data.root={folder}")
    for given, shown in (("noise=0.009", "0.009"), ("slope=3.3", "3.3"), ("contrast=0.123", "0.123")):
        assert shown not in own
        assert shown in said(f"data.root={folder}", given)
    assert "4 dates" in said(f"data.root={folder}", "n_obs=4")
    assert "spread by 0.31 px along y" in said(f"data.root={folder}", "jitter=0.31")


def test_more_dates_bring_more(said):
    found = table(said("dates=[3,9,27]"))
    assert list(found) == [3, 9, 27]
    assert found[3] < found[9] < found[27]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["data.root=nowhere"], "data.root=nowhere: no such folder"),
        (["jitter=-1"], "jitter=-1: it must be a number"),
        (["jitter=[1,2,3]"], "jitter=[1, 2, 3]"),
        (["jitter=wide"], "jitter=wide"),
        (["contrast=0"], "contrast=0"),
        (["slope=steep"], "slope=steep"),
        (["noise=-0.1"], "noise=-0.1"),
        (["n_obs=1"], "n_obs=1"),
        (["crop=0"], "crop=0"),
        (["dates=12"], "dates=12: it must be a list"),
        (["dates=[4,1]"], "dates=[4, 1]"),
        (["psf.sigma=-1"], "psf.sigma must be a positive number"),
        (["data.bands=B02"], "data.bands=B02"),
        (["sigma=0.4"], "sigma"),
        (["psf=0.95"], "psf/0.95"),
        (["data=planetary_computer", "data.root=nowhere"], "nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_arguments_end_in_a_line(overrides, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["forecast", *overrides])
    with pytest.raises(SystemExit) as end:
        forecast.main()
    assert str(end.value.code).startswith("error: ")
    assert line in str(end.value.code)
    assert "\n" not in str(end.value.code)
    assert "Traceback" not in "".join(capsys.readouterr())


def test_it_imports_little_and_takes_under_two_seconds_beyond_that(tmp_path):
    """100 x 100 pixels, 14 dates, four bands; seconds of the processor, so that other work does not count."""
    demo = Demo(size=50, n_dates=14, pixels_per_lr=8).write(tmp_path / "FOLDER")
    for path in demo.glob("*.tif"):
        with rasterio.open(path) as source:
            pixels, profile, names, scales = source.read(), source.profile, source.descriptions, source.scales
        with rasterio.open(path, "w", **profile | {"height": 100, "width": 100}) as out:
            out.write(np.tile(pixels, (1, 2, 2)))
            out.descriptions, out.scales = names, scales
    code = f"""
import json, sys, time
import s2sr.forecast
start = time.process_time()
sys.argv = ["forecast", "data.root={demo}", "threads=1"]
s2sr.forecast.main()
print(json.dumps([time.process_time() - start, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""
    env = environment(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "14 observations" in done.stdout
    assert "100 x 100 pixels" in done.stdout
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    assert not {"lightning", "wandb", "matplotlib", "pandas", "skimage", "pystac_client"} & set(modules)
    assert seconds < 2


def test_a_run_says_it_first_and_keeps_the_numbers(tmp_path):
    done = run(
        "data.size=24",
        "data.n_dates=4",
        "data.pixels_per_lr=8",
        "strategy=lbfgs",
        "c2f.levels=[1]",
        "strategy.coarse_to_fine.rounds=1",
        "logger=csv",
        "threads=1",
        "hydra.run.dir=out",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if "forecast: " in line)
    assert at < next(i for i, line in enumerate(lines) if "coarse_to_fine" in line)
    said = numbers(lines[at])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["forecast_shift_px"] == pytest.approx(said["shift"], abs=1e-4)
    assert metrics["forecast_frequency"] == pytest.approx(said["detail"], abs=0.01)
    assert metrics["forecast_resolution_m"] == pytest.approx(said["metres"], abs=0.1)
