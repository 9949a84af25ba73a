import csv
import json
import re

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from runs import LBFGS, PRODUCTS, SCENE, run

from s2sr import experiment
from s2sr.data.demo import Demo
from s2sr.report.glossary import parse

SHARPNESS = ("edge_contrast", "laplacian_var", "gradient_energy")
ALWAYS = (
    "status",
    *SHARPNESS,
    *(f"{name}_bicubic" for name in SHARPNESS),
    "residual_rms",
    "psf_sigma",
    *(f"psf_sigma_{band}" for band in ("B02", "B03", "B04", "B08")),
    "scale",
    "n_obs",
    "strategy",
    "evals",
    "runtime_s",
    "peak_memory_mb",
    "std_mean",
)
BANDS = ("B02", "B03", "B04", "B08")
HELD_OUT = tuple(
    f"holdout_{score}{baseline}{band}"
    for score in ("rmse", "median")
    for baseline in ("", "_temporal_mean", "_bicubic", "_wiener")
    for band in ("", *(f"_{name}" for name in BANDS))
)
WITH_TRUTH = ("psnr", "ssim", "psnr_bicubic", "ssim_bicubic", "shift_rmse_px", "coverage_68", "coverage_95_q4")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with most of the global keys, typed in the way of a user."""
    cwd = tmp_path_factory.mktemp("train")
    scene = (*SCENE[1:], "data.size=[26,24]", "data.n_dates=7", "data.cloudy=0")
    keys = ("psf=0.5", "crop=21", "n_obs=5", "noise=0.003", "report.scale=3", "seed=1", "threads=1")
    done = run(*scene, *LBFGS, *keys, "strategy.polish.steps=3", "logger=csv", "hydra.run.dir=out", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done, cwd / "out"


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def rows_of(folder):
    with (folder / "shifts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_names_the_files_that_it_wrote(trained):
    done, folder = trained
    lines = done.stdout.splitlines()
    assert lines[-len(PRODUCTS) :] == [f"out/{name}" for name in PRODUCTS]
    assert all((folder / name).stat().st_size for name in PRODUCTS)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout  # no bar where there is no terminal


def test_the_run_is_estimated_before_it_starts(trained):
    lines = trained[0].stdout.splitlines()
    estimate = next(n for n, line in enumerate(lines) if "memory" in line and "disk" in line)
    first_level = next(n for n, line in enumerate(lines) if "coarse_to_fine x1" in line)
    assert estimate < first_level


def test_run_folder(trained):
    folder = trained[1]
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    levels = {"coarse_to_fine_x1.ckpt", "coarse_to_fine_x2.ckpt", "polish_x2.ckpt", "refit_x2.ckpt"}
    assert kept == {"last.ckpt", *levels}
    assert (folder / ".hydra" / "config.yaml").is_file()
    assert (folder / "metrics.csv").is_file()
    assert not (folder / "wandb").exists()
    assert not list(folder.rglob(".*.part")), "left from writing beside"


def test_metrics(trained):
    metrics = metrics_of(trained[1])
    assert set(metrics) >= {*ALWAYS, *WITH_TRUTH, *HELD_OUT}
    assert all(0 < metrics[name] < 0.1 for name in HELD_OUT)
    parts = {re.sub("_q[1-4]$", "", key) for key in metrics}  # quarters of local contrast
    assert {key for key in parts if parse(key, BANDS) is None} == {"status"}, "say in glossary.METRICS what they mean"
    assert (metrics["status"], metrics["strategy"]) == ("ok", "lbfgs_adam")
    assert (metrics["scale"], metrics["n_obs"], metrics["psf_sigma"]) == (3, 5, pytest.approx(0.5))
    in_noise = [metrics[f"consistency_rms_{band}"] ** 2 for band in BANDS]
    assert metrics["residual_rms"] == pytest.approx(0.003 * (sum(in_noise) / 4) ** 0.5, rel=1e-3)
    assert metrics["evals"] > 3
    assert metrics["runtime_s"] > 0
    assert not any(isinstance(value, dict | list) for value in metrics.values()), "flat"


def test_the_curves_end_at_the_reports_scores(trained):
    with (trained[1] / "metrics.csv").open(newline="") as file:
        levels = [row for row in csv.DictReader(file) if row["heldout/holdout_rmse"]]
    last = {key: float(levels[-1][f"heldout/{key}"]) for key in ("holdout_rmse", "holdout_rmse_temporal_mean")}
    metrics = metrics_of(trained[1])
    assert last["holdout_rmse"] == pytest.approx(metrics["holdout_rmse"], rel=1e-4)
    # the fit's own gain and offset, not those that suit the mean best
    assert last["holdout_rmse_temporal_mean"] == pytest.approx(metrics["holdout_rmse_temporal_mean"], rel=0.06)


def test_shifts(trained):
    rows = rows_of(trained[1])
    assert len(rows) == 7
    used = [row for row in rows if row["used"] == "yes"]
    assert len(used) == 5
    assert all(row["used"].startswith("no: not among the 5 clearest") for row in rows if row not in used)
    for axis in ("dy", "dx"):
        assert sum(float(row[axis]) for row in used) == pytest.approx(0, abs=5e-5)
    assert {row["noise_B02"] for row in used} == {"0.003"}


def test_product_in_an_independent_reader(trained):
    with rasterio.open(trained[1] / "sr.tif") as product:
        assert product.descriptions == ("B02", "B03", "B04", "B08")
        assert product.shape == (63, 63)
        assert set(product.dtypes) == {"float32"}
        assert np.isnan(product.nodata)
        assert product.crs.is_projected
        image = product.read()
        transform = product.transform
        tags = product.tags()
    assert np.isfinite(image).all()
    assert 0 < image.mean() < 0.6
    scene = Demo(size=(26, 24), seed=1).load()
    a, _, c, _, e, f = scene.grid.transform
    np.testing.assert_allclose(
        transform[:6], (a / 3, 0, c + a, 0, e / 3, f + 2 * e), rtol=1e-12
    )  # rows 2-22, columns 1-21
    assert {"datetimes", "s2sr_version", "configuration_sha256", "attribution"} <= set(tags)
    assert tags["datetimes"].count("2023-") == 5


def test_the_uncertainty_lies_on_the_products_grid(trained):
    names = ("sr.tif", "sr_std.tif", "sr_count.tif")
    product, std, count = (rasterio.open(trained[1] / name) for name in names)
    assert product.transform == std.transform == count.transform
    assert product.shape == std.shape == count.shape
    assert std.descriptions == product.descriptions
    assert (std.read() > 0).all()
    assert (count.count, count.read().max()) == (1, 5)
    assert count.tags()["datetimes"] == product.tags()["datetimes"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("strategy=magic", ("Could not find 'strategy/magic'", "Available options in 'strategy'", "lbfgs_adam")),
        ("psf=0.55", ("Could not find 'psf/0.55'", "Available options in 'psf'", "sentinel2")),
        ("psf.sigm=0.5", ("Could not override 'psf.sigm'",)),
        ("psf.sigma={B99:.4}", ("Could not override 'psf.sigma'", "Key 'B99' is not in struct")),
    ],
)
def test_a_wrong_name_ends_in_hydras_own_list(override, said, tmp_path):
    done = run(override, "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode != 0
    assert all(text in done.stderr for text in said), done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    done = run("hydra.run.dir=file/out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 20] Not a directory: 'file/out'\n"


def test_real_scene(shared_data, tmp_path):
    root = shared_data / "apulia_clear"
    overrides = ("data=geotiff", f"data.root={root}", "crop=24", "c2f.levels=[1,2]", "strategy=lbfgs", "logger=csv")
    metrics = experiment.run(experiment.configuration(*overrides, *LBFGS), tmp_path)
    assert set(metrics) >= {name for name in ALWAYS if name != "psf_sigma_B08"}
    assert "psnr" not in metrics
    assert metrics["n_obs"] >= 10
    files = sorted(root.glob("*.tif"))
    with rasterio.open(files[0]) as source, rasterio.open(tmp_path / "sr.tif") as product:
        assert product.crs == source.crs
        assert product.shape == (48, 48)
        row, column = (source.height - 24) // 2, (source.width - 24) // 2
        corner = source.window_transform(Window(column, row, 24, 24))
        expected = (corner.a / 2, 0, corner.c, 0, corner.e / 2, corner.f)
        np.testing.assert_allclose(product.transform[:6], expected, rtol=1e-12)
        stack = np.stack([rasterio.open(path).read(1).astype(float) for path in files])
        part = stack[:, row : row + 24, column : column + 24] * source.scales[0]
        assert product.read(1).mean() == pytest.approx(part.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("train.py", ("train is powered by", "strategy: adam, adam_lbfgs", "docs/configuration.md")),
        ("sweep.py", ("sweep is powered by", "strategy: adam, adam_lbfgs", "docs/configuration.md")),
        ("s2sr.download", ("python -m s2sr.download data.bbox=",)),
        ("s2sr.forecast", ("python -m s2sr.forecast data.root=",)),
        ("s2sr.report", ("python -m s2sr.report FOLDER",)),
    ],
)
def test_all_programs_explain_themselves(tmp_path, script, said):
    done = run("--help", cwd=tmp_path, script=script)
    assert (done.returncode, done.stderr) == (0, "")
    for words in said:
        assert words in done.stdout
