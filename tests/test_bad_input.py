"""Each bad input ends in one clear line on stderr and a non-zero exit, without a traceback or anything half-written."""

import re
import shutil
import sys

import numpy as np
import psutil
import pytest
import rasterio
from runs import TINY, nothing_written, run

from s2sr import cli
from s2sr.data.demo import Demo
from s2sr.report import products

FIT = (*TINY[2:], "logger=csv")


@pytest.fixture
def scene(tmp_path):
    return Demo(size=16, n_dates=4, cloudy=0).write(tmp_path / "scene")


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run train.py's main with overrides, and return the line with which it ends."""

    def refused(*overrides, data=None):
        source = ("data=geotiff", f"data.root={data}") if data else TINY[:2]
        monkeypatch.setattr(sys, "argv", ["train.py", *source, *FIT, *overrides, f"hydra.run.dir={tmp_path / 'out'}"])
        with pytest.raises(SystemExit) as exit:
            cli.main("train")
        line = str(exit.value.code)
        assert line.startswith("error: "), line
        assert "\n" not in line
        assert len(line) < 500
        assert "Traceback" not in capsys.readouterr().out
        assert nothing_written(tmp_path / "out")
        return line

    return refused


def files(scene):
    return sorted(scene.glob("*.tif"))


def rewrite(path, *, image=None, descriptions=None, **profile):
    """Write the same file with another content or on another grid."""
    with rasterio.open(path) as source:
        kept, names, tags = source.profile, source.descriptions, source.tags()
        pixels = source.read() if image is None else image
    kept.update(profile, count=len(pixels), height=pixels.shape[1], width=pixels.shape[2])
    with rasterio.open(path, "w", **kept) as out:
        out.write(pixels.astype(kept["dtype"]))
        out.descriptions = descriptions or names
        out.update_tags(**tags)


def test_no_such_folder(refused, tmp_path):
    assert "no such folder" in refused(data=tmp_path / "nowhere")


@pytest.mark.parametrize("override", ["psf.sigma=-1", "strategy.coarse_to_fine.steps=0", "c2f.levels=[3,4]"])
def test_settings_are_checked_before_a_scene_is_loaded(refused, tmp_path, override):
    assert "no such folder" not in refused(override, data=tmp_path / "nowhere")


def test_no_geotiff_in_it(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    assert "no GeoTIFF" in refused(data=tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"crs": "EPSG:32632"}, "CRS"),
        ({"transform": rasterio.Affine(10, 0, 499990, 0, -10, 4500000)}, "transform"),
        ({"transform": rasterio.Affine(20, 0, 500000, 0, -20, 4500000)}, "transform"),
    ],
    ids=["crs", "origin", "resolution"],
)
def test_another_grid(refused, scene, change, what):
    rewrite(files(scene)[2], **change)
    line = refused(data=scene)
    assert files(scene)[2].name in line
    assert files(scene)[0].name in line
    assert f"its {what} " in line


def test_another_size(refused, scene):
    rewrite(files(scene)[1], image=np.ones((5, 16, 15)))
    line = refused(data=scene)
    assert files(scene)[1].name in line
    assert "(16, 15)" in line
    assert "(16, 16)" in line


def test_a_missing_band(refused, scene):
    rewrite(files(scene)[1], descriptions=("B02", "B03", "B05", "B08", "SCL"))
    line = refused("data.bands=[B03,B04]", data=scene)
    assert files(scene)[1].name in line
    assert "band B04 is not in (B02, B03, B05, B08, SCL)" in line


def test_a_truncated_file(refused, scene):
    path = files(scene)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{path.name}: not a GeoTIFF, or truncated" in refused(data=scene)


def test_not_a_tiff(refused, scene):
    files(scene)[3].write_text("<html>404 not found</html>")
    assert f"{files(scene)[3].name}: not a GeoTIFF" in refused(data=scene)


def test_all_pixels_masked(refused, scene):
    for path in files(scene):
        rewrite(path, image=np.zeros((5, 16, 16)))
    assert "all pixels" in refused(data=scene)


def test_a_band_without_a_sample(refused, scene):
    for path in files(scene):
        with rasterio.open(path) as source:
            image = source.read()
        image[1] = 0  # nodata
        rewrite(path, image=image)
    assert "band B03 has no valid sample in any observation" in refused(data=scene)


def test_a_band_that_is_constant(refused, scene):
    for path in files(scene):
        with rasterio.open(path) as source:
            image = source.read()
        image[1] = 1500
        rewrite(path, image=image)
    assert "band B03 is 0.15 everywhere: leave it out by data.bands=[...]" in refused(data=scene)


def test_the_same_observation_over_and_over(refused, scene):
    first, *others = files(scene)
    for path in others:
        shutil.copy(first, path)
    assert "1 usable observations" in refused(data=scene)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.min_clear=half", "data.min_clear=half is not a fraction"),
        ("data.dilate=wide", "data.dilate=wide is not a number of LR pixels"),
        ("data.scl_classes=clouds", "data.scl_classes=clouds is not a list of SCL classes"),
        ("data.scl_classes=[12]", "data.scl_classes=[12] is not a list of SCL classes"),
        ("data.root=null", "data.root=None: no such folder"),
        ("data.root='???'", "Missing mandatory value: data.root"),
    ],
)
def test_an_impossible_setting_of_a_folder(refused, scene, override, said):
    assert said in refused(override, data=scene)


def test_fewer_than_two_usable(refused, scene):
    for path in files(scene)[1:]:
        rewrite(path, image=np.zeros((5, 16, 16)))
    assert "1 of 4 observations usable, at least 2 are needed" in refused(data=scene)


def test_nan_and_inf_are_masked_and_no_error(scene, tmp_path):
    from s2sr.experiment import run as fit
    from s2sr.observations import configuration

    with rasterio.open(files(scene)[0]) as source:
        image = source.read().astype(np.float32)[:4] * 1e-4
    image[:, 3, 4], image[:, 8, 9] = np.nan, np.inf
    rewrite(files(scene)[0], image=image, dtype="float32", nodata=None, descriptions=("B02", "B03", "B04", "B08"))
    fit(configuration("data=geotiff", f"data.root={scene}", *FIT), tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "sr.tif") as product:
        assert np.isfinite(product.read()).all()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("crop=25", "crop=25 does not fit the scene of 24 x 24 pixels"),
        ("crop=0", "crop=0"),
        ("crop=1", "crop=1: it must be a whole number from 4"),
        ("n_obs=1", "n_obs=1"),
        ("c2f.levels=[0]", "positive integers"),
        ("c2f.levels=[-2]", "positive integers"),
        ("c2f.levels=[1.5]", "positive integers"),
        ("c2f.levels=[]", "positive integers"),
        ("c2f.levels=2", "positive integers"),
        ("c2f.levels=[fine]", "positive integers"),
        ("c2f.levels=[3,4]", "3 does not divide 4"),
        ("c2f.levels=[4,2]", "4 does not divide 2"),
        ("psf.sigma=0", "psf.sigma must be a positive number up to 2 pixels of the band's own grid, not 0"),
        ("psf.sigma=-0.4", "psf.sigma must be a positive number up to 2 pixels of the band's own grid, not -0.4"),
        ("psf.sigma=1e6", "psf.sigma must be a positive number up to 2 pixels of the band's own grid, not 1000000.0"),
        ("psf.sigma=wide", "psf.sigma must be a positive number up to 2 pixels of the band's own grid, not wide"),
        ("psf.sigma.B03=4.1", "up to 2 pixels of the band's own grid, not 4.1 (band B03)"),  # metres
        (
            "strategy.coarse_to_fine.steps=0",
            "strategy.coarse_to_fine: a stage needs steps, rounds and part of at least 1",
        ),
        ("strategy.coarse_to_fine.blocks=[[weigths]]", "weigths"),
        ("strategy.coarse_to_fine.levels=fine", "choose from all, coarsest, seen, finer, finest"),
        ("strategy.coarse_to_fine.steps=many", "full_key: strategy.coarse_to_fine"),
        ("strategy.coarse_to_fine.blocks=weights", "a stage's blocks are weights; write lists of lists"),
        ("strategy.coarse_to_fine.blocks=[]", "strategy=lbfgs has no stage left"),
        ("~strategy.coarse_to_fine._target_", "strategy.coarse_to_fine: not a stage; it needs _target_"),
        ("~strategy.coarse_to_fine", "strategy=lbfgs has no stage left"),
        ("psf.learn=3", "psf.learn=3: it must be true or false"),
        ("radiometry.gain=some", "radiometry.gain=some: it must be true or false"),
        ("radiometry=null", "radiometry=None: it is a group of keys"),
        ("holdout=half", "holdout=half: it is a group of keys"),
        ("seed=99999999999", "seed=99999999999: it must be less than 4294967296"),
        ("trainer.accelerator=abacus", "trainer: You selected an invalid accelerator"),
        ("+trainer.max_epochs=3", "trainer: "),
        ("trainer.devices=2", "trainer: devices=2: a fit runs on one"),
        ("data.size=0", "data.size=0"),
        ("report.date=2030-01-01", "no observation within 10 days; there are 2023-05-02, "),
        ("report.date=june", "report.date=june: not a date such as 2024-06-01"),
        ("report.frc=maybe", "report.frc=maybe: it must be true or false"),
        ("holdout.judged=0", "holdout.judged=0: a fraction between 0 and 1"),
        ("holdout.judged=1", "holdout.judged=1: a fraction between 0 and 1"),
        ("holdout.dates=4", "holdout.dates=4 leaves 1 of 5 observations to fit"),
        ("holdout.refit=true", "holdout.refit=true: it is a stage"),
    ],
)
def test_an_impossible_value(refused, override, said):
    assert said in refused(override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("c2f.levels=[3,4]", "3 does not divide 4"),
        ("holdout.judged=1", "holdout.judged=1"),
        ("psf.learn=3", "psf.learn=3"),
        ("psf.sigma=4.1", "not 4.1"),
    ],
)
def test_what_can_be_told_without_a_scene_is_told_before_one_is_fetched(refused, override, said):
    assert said in refused(override, data="nowhere")


def test_too_few_dates_to_split(refused):
    assert "report.frc=true splits the dates in two halves: 3 are too few" in refused("report.frc=true", "n_obs=3")


def test_not_enough_disk(refused, monkeypatch):
    monkeypatch.setattr(products.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    line = refused()
    assert "of disk" in line
    assert "0 MB are free" in line


def test_not_enough_memory(refused, monkeypatch):
    available = psutil.virtual_memory()._replace(available=10**8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    line = refused()
    assert "of memory" in line
    assert "choose crop=" in line


def test_memory_that_cannot_be_had_is_one_line_too(refused):
    assert "choose data.size=" in refused("data.size=100000")


def test_the_program_itself(tmp_path):
    done = run(*TINY, "logger=csv", "crop=99", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: crop=99 does not fit the scene of 24 x 24 pixels\n"
    assert "Traceback" not in done.stdout
    assert nothing_written(tmp_path / "out")


def test_what_a_disk_refuses_is_one_line_and_no_end(tmp_path):
    (tmp_path / "out" / "sr.tif").mkdir(parents=True)
    done = run(*TINY, "logger=csv", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert re.fullmatch(r"error: .*sr\.tif.*; .* continue with: python train\.py resume=out\n", done.stderr)
    (tmp_path / "out" / "sr.tif").rmdir()
    assert run("resume=out", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "sr.tif").is_file()
