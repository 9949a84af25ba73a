import csv
import itertools
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene
from s2sr.report.products import write_baseline, write_geotiff, write_json
from s2sr.report.jobs import read_jobs, swept
from s2sr.report.sweep import Collate, collate

BANDS = ("B02", "B03", "B04")


def write_job(folder, overrides, *, metrics=None, scale=4, shape=(16, 20), bands=BANDS):
    """A run folder as a run leaves it; metrics=None: it has died without a word."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if metrics is None:
        return
    write_json(folder / "metrics.json", metrics)
    if metrics["status"] == "ok":
        generator = torch.Generator().manual_seed(0)
        frames = torch.rand(2, len(bands), *shape, generator=generator)
        grid = Grid("EPSG:32633", (10.0, 0.0, 499980.0, 0.0, -10.0, 4200000.0), shape)
        observations = tuple(Observation(f"S2_{t}", f"2023-06-{t + 1:02d}", 1.0) for t in range(2))
        scene = Scene(frames, torch.ones_like(frames, dtype=torch.bool), grid, bands, observations)
        write_baseline(folder, scene)
        product = frames.mean(0).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        write_geotiff(folder / "sr.tif", product, grid.scaled(scale), bands)


def ok(edge=0.5, **more):
    return {"status": "ok", "edge_contrast": edge, "edge_contrast_bicubic": 0.3, **more}


def table(folder):
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def size(path):
    with Image.open(path) as image:
        image.load()
        return image.size


def test_collation_of_one_key(tmp_path):
    for n, sigma in enumerate((0.3, 0.4, 0.5, 0.6)):
        metrics = ok(sigma, psnr=24 - (sigma - 0.45) ** 2, psnr_bicubic=22.0, holdout_rmse=None)
        write_job(tmp_path / str(n), ["data=demo", f"psf.sigma={sigma}"], metrics=metrics)
    assert collate(tmp_path) == []
    rows = table(tmp_path)
    assert list(rows[0])[:5] == ["job", "psf.sigma", "status", "error", "edge_contrast"]
    assert [row["psf.sigma"] for row in rows] == ["0.3", "0.4", "0.5", "0.6"]
    assert [float(row["edge_contrast"]) for row in rows] == [0.3, 0.4, 0.5, 0.6]
    assert rows[0]["holdout_rmse"] == ""
    width, height = size(tmp_path / "comparison.png")  # six panels in two rows of four
    assert width >= 4 * 380
    assert height >= 2 * 300
    assert size(tmp_path / "sweep.png") == (1100, 75 + 2 * 270)  # one plot for each known score


def test_failed_jobs_are_named_and_do_not_lose_the_others(tmp_path):
    write_job(tmp_path / "0", ["psf.sigma=0.3"], metrics=ok())
    write_job(tmp_path / "1", ["psf.sigma=-1"], metrics={"status": "failed", "error": "psf.sigma must be\npositive"})
    write_job(tmp_path / "2", ["psf.sigma=0.5"])
    write_job(tmp_path / "3", ["psf.sigma=0.6"], metrics=ok())
    (tmp_path / "3" / "metrics.json").write_text('{"status": "ok", "edge')
    write_job(tmp_path / "4", ["psf.sigma=0.7"], metrics=ok())
    (tmp_path / "4" / "sr.tif").unlink()
    write_job(tmp_path / "10", ["psf.sigma=0.8"], metrics=ok(0.7))
    (tmp_path / "wandb").mkdir()  # not a job
    failed = collate(tmp_path)
    assert [line.split(":")[0] for line in failed] == [
        "1 (psf.sigma=-1)", "2 (psf.sigma=0.5)", "3 (psf.sigma=0.6)", "4 (psf.sigma=0.7)",
    ]  # fmt: skip
    assert "must be\npositive" in failed[0]
    assert "no metrics.json" in failed[1]
    assert "cannot be read" in failed[2]
    assert "no sr.tif" in failed[3]
    rows = table(tmp_path)
    assert [(row["job"], row["status"]) for row in rows] == [
        ("0", "ok"), ("1", "failed"), ("2", "failed"), ("3", "failed"), ("4", "failed"), ("10", "ok"),
    ]  # fmt: skip
    assert rows[1]["error"] == "psf.sigma must be positive"
    assert size(tmp_path / "comparison.png")[0] >= 4 * 380
    assert size(tmp_path / "sweep.png")[0] == 1100


def test_a_sweep_that_failed_altogether_has_tables_only(tmp_path):
    write_job(tmp_path / "0", ["psf.sigma=0.3"])
    assert len(collate(tmp_path)) == 1
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0", "README.md", "report.html", "sweep.csv"]
    assert "no metrics.json" in (tmp_path / "README.md").read_text()


def test_two_keys_groups_and_a_metric_of_the_same_name(tmp_path):
    grid = itertools.product(("lbfgs", "lbfgs_adam"), ("'0.3'", "'0.4'"))
    for n, (strategy, psf) in enumerate(grid):
        metrics = ok(0.1 * n, psnr=20 + n, strategy=strategy)
        write_job(tmp_path / str(n), [f"strategy={strategy}", f"psf={psf}"], metrics=metrics)
    assert collate(tmp_path) == []
    row = table(tmp_path)[2]
    assert (row["strategy"], row["psf"], row["strategy (run)"]) == ("lbfgs_adam", "0.3", "lbfgs_adam")
    assert size(tmp_path / "sweep.png") == (1100, 75 + 28 + 2 * 270)  # one line of legend


def test_values_that_are_dictionaries_lists_or_nothing(tmp_path):
    values = ["{B02:0.39,B03:0.41,B04:0.45}", "[2,4]", "null", "a=b", "0.4"]
    for n, value in enumerate(values):
        write_job(tmp_path / str(n), [f"+psf.sigma={value}", "~strategy.polish"], metrics=ok(0.1 * n))
    assert collate(tmp_path) == []
    assert [row["psf.sigma"] for row in table(tmp_path)] == values
    assert swept(read_jobs(tmp_path)) == ["psf.sigma"]


def test_scenes_scales_and_bands_may_differ(tmp_path):
    write_job(tmp_path / "0", ["crop=16"], metrics=ok(), scale=2)
    write_job(tmp_path / "1", ["crop=10"], metrics=ok(), scale=8, shape=(10, 10))
    write_job(tmp_path / "2", ["crop=12"], metrics=ok(), scale=3, shape=(12, 12), bands=("B08",))
    assert collate(tmp_path) == []
    assert size(tmp_path / "comparison.png")[0] >= 4 * 300


@pytest.mark.parametrize("count", [1, 40])
def test_any_number_of_jobs(tmp_path, count):
    for n in range(count):
        write_job(tmp_path / str(n), [f"strategy.polish.tv.value={10.0**-n}"], metrics=ok(), scale=2, shape=(8, 8))
    assert collate(tmp_path) == []
    assert len(table(tmp_path)) == count
    width, height = size(tmp_path / "comparison.png")
    assert max(width, height) < 4000
    assert width >= 2 * 380


def test_panels_share_one_stretch(tmp_path):
    for n in range(2):
        write_job(tmp_path / str(n), [f"seed={n}"], metrics=ok(), shape=(16, 16))
    twice = torch.full((3, 64, 64), 5.0)  # far brighter than everything else: white, not stretched by itself
    write_geotiff(tmp_path / "1" / "sr.tif", twice, Grid(None, (1, 0, 0, 0, 1, 0), (64, 64)), BANDS)
    collate(tmp_path)
    with Image.open(tmp_path / "comparison.png") as image:
        drawn = np.asarray(image)[..., :3]
    last = drawn[100:-100, 3 * (drawn.shape[1] - 20) // 4 + 60 :][:, :200]
    assert (last == 255).all()


def test_callback_names_the_failures_and_exits_with_1(tmp_path, capsys):
    from omegaconf import OmegaConf

    write_job(tmp_path / "0", ["seed=0"], metrics=ok())
    write_job(tmp_path / "1", ["seed=1"], metrics={"status": "failed", "error": "all pixels are masked"})
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(SystemExit) as stop:
        Collate().on_multirun_end(config, config_name="sweep")
    assert stop.value.code == 1
    assert "failed job 1 (seed=1): all pixels are masked" in capsys.readouterr().err
    (tmp_path / "0" / "sr.tif").write_text("not a TIFF")
    with pytest.raises(SystemExit):
        Collate().on_multirun_end(config)


def test_hydra_calls_it_and_exits_with_1(tmp_path):
    """Hydra turns an exception of a callback into a warning; SystemExit has to come through."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
            import hydra, json, pathlib
            from hydra.core.hydra_config import HydraConfig

            @hydra.main(version_base="1.3", config_path=None, config_name="app")
            def main(cfg):
                folder = pathlib.Path(HydraConfig.get().runtime.output_dir)
                (folder / "metrics.json").write_text(json.dumps({"status": "failed", "error": f"no {cfg.x}"}))

            main()
        """)
    )
    config = {
        "defaults": ["_self_"],
        "x": 0,
        "hydra": {
            "mode": "MULTIRUN",
            "sweep": {"dir": str(tmp_path / "out")},
            "callbacks": {"collate": {"_target_": "s2sr.report.sweep.Collate"}},
        },
    }
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "app.py", "--config-dir", str(tmp_path), "x=1,2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "failed job 1 (x=2): no 2" in done.stderr
    assert [row["x"] for row in table(tmp_path / "out")] == ["1", "2"]
