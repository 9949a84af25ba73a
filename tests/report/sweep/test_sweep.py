import csv
import itertools
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml
from folders import BANDS, write_job
from PIL import Image

from s2sr.model.grid import Grid
from s2sr.report.jobs import read_jobs, swept
from s2sr.report.products import write_geotiff, write_truth
from s2sr.report.sweep import Collate, collate


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
    write_job(tmp_path / "4", ["psf.sigma=0.7"], metrics=ok(0.9))
    (tmp_path / "4" / "sr.tif").unlink()
    write_job(tmp_path / "5", ["psf.sigma=0.8"], metrics=ok())
    (tmp_path / "5" / "metrics.json").write_text("[]")
    (tmp_path / "5" / ".hydra" / "overrides.yaml").write_text("[psf.sig")
    write_job(tmp_path / "10", ["psf.sigma=0.8"], metrics=ok(0.7))
    (tmp_path / "wandb").mkdir()  # not a job
    failed = collate(tmp_path)
    assert [line.split(":")[0] for line in failed] == [
        "1 (psf.sigma=-1)", "2 (psf.sigma=0.5)", "3 (psf.sigma=0.6)", "4 (psf.sigma=0.7)",
        "5 (psf.sigma=)",
    ]  # fmt: skip
    assert "must be\npositive" in failed[0]
    assert "no metrics.json" in failed[1]
    assert "cannot be read" in failed[2]
    assert "no sr.tif" in failed[3]
    assert "metrics.json is not an object" in failed[4]
    rows = table(tmp_path)
    assert [(row["job"], row["status"]) for row in rows] == [
        ("0", "ok"), ("1", "failed"), ("2", "failed"), ("3", "failed"), ("4", "failed"), ("5", "failed"),
        ("10", "ok"),
    ]  # fmt: skip
    assert rows[1]["error"] == "psf.sigma must be positive"
    assert "sharpest at psf.sigma=0.8 (0.700 1/px)" in (tmp_path / "README.md").read_text()
    assert size(tmp_path / "comparison.png")[0] >= 4 * 380
    assert size(tmp_path / "sweep.png")[0] == 1100


def test_a_sweep_that_failed_altogether_has_tables_only(tmp_path):
    write_job(tmp_path / "0", ["psf.sigma=0.3"])
    assert len(collate(tmp_path)) == 1
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0", "README.md", "report.html", "sweep.csv"]
    assert "no metrics.json" in (tmp_path / "README.md").read_text()


def test_every_product_is_a_png_under_one_stretch_beside_what_it_is_compared_with(tmp_path):
    for n, sigma in enumerate((0.3, 0.4)):
        write_job(tmp_path / str(n), [f"psf.sigma={sigma}"], metrics=ok())
    collate(tmp_path)
    names = ["0_psf.sigma=0.3.png", "1_psf.sigma=0.4.png", "bicubic.png", "observation.png"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == names
    assert [size(tmp_path / "pictures" / name) for name in names] == [(80, 64), (80, 64), (80, 64), (20, 16)]


def test_the_truth_is_shown_last_at_its_own_scale(tmp_path):
    scene = write_job(tmp_path / "0", ["seed=0"], metrics=ok())
    write_truth(tmp_path / "0", scene, 4, (0.0, 0.0))
    collate(tmp_path)
    assert size(tmp_path / "pictures" / "truth.png") == (80, 64)
    with Image.open(tmp_path / "comparison.png") as image:
        *_, product, truth = np.split(np.asarray(image)[100:-40, 20:], 4, 1)
    np.testing.assert_array_equal(truth, product)  # of this job they are equal


def test_a_sweep_without_a_job_says_so(tmp_path):
    (line,) = collate(tmp_path)
    assert line.startswith("none: there is no job folder in ")
    assert not list(tmp_path.iterdir())


def test_layers_that_cannot_be_laid_over_each_other_are_left_out(tmp_path):
    write_job(tmp_path / "0", ["data.bands=all"], metrics=ok())
    write_job(tmp_path / "1", ["data.bands=[B08]"], metrics=ok(), bands=("B08",))
    write_job(tmp_path / "2", ["crop=12"], metrics=ok(), shape=(12, 12))
    collate(tmp_path)
    names = {path.name.partition("_")[0] for path in (tmp_path / "pictures").iterdir()}
    assert names == {"0", "bicubic.png", "observation.png"}


def test_readme_has_the_command_the_choice_and_the_table(tmp_path):
    for n, sigma in enumerate((0.3, 0.4)):
        write_job(tmp_path / str(n), [f"psf.sigma={sigma}"], metrics=ok(1 + sigma, holdout_rmse=sigma / 100))
    write_job(tmp_path / "2", ["psf.sigma=-1"], metrics={"status": "failed", "error": "no | such\nvalue"})
    overrides = {"task": ["psf.sigma=0.3,0.4,-1", "psf='0.5'", "data.root=a b"], "hydra": ["hydra.mode=MULTIRUN"]}
    settings = {"hydra": {"mode": "MULTIRUN", "overrides": overrides}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(settings))
    collate(tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "    python sweep.py -m psf.sigma=0.3,0.4,-1 psf=0.5 'data.root=a b'" in lines
    assert "* held-out error: least at psf.sigma=0.3 (0.00300 reflectance)" in lines
    assert "* edge contrast: sharpest at psf.sigma=0.4 (1.400 1/px)" in lines
    head = next(n for n, line in enumerate(lines) if line.startswith("| run |"))
    assert lines[head] == "| run | psf.sigma | held-out error, reflectance | edge contrast, 1/px | status |"
    assert lines[head + 2 : head + 5] == [
        "| 0 | 0.3 | 0.00300 | 1.300 | ok |",
        "| 1 | 0.4 | 0.00400 | 1.400 | ok |",
        r"| 2 | -1 | – | – | no \| such value |",
    ]


def test_two_keys_groups_and_a_metric_of_the_same_name(tmp_path):
    grid = itertools.product(("lbfgs", "lbfgs_adam"), ("'0.3'", "'0.4'"))
    for n, (strategy, psf) in enumerate(grid):
        metrics = ok(0.1 * n, psnr=20 + n, strategy=strategy)
        write_job(tmp_path / str(n), [f"strategy={strategy}", f"psf={psf}"], metrics=metrics)
    assert collate(tmp_path) == []
    row = table(tmp_path)[2]
    assert (row["strategy"], row["psf"], row["strategy (run)"]) == ("lbfgs_adam", "0.3", "lbfgs_adam")
    assert size(tmp_path / "sweep.png") == (1100, 75 + 28 + 2 * 270)  # one line of legend


def test_a_sigma_by_the_evidence_is_told_with_its_error(tmp_path):
    found = {"psf_sigma": 0.44, "psf_sigma_B02_std": 0.03, "psf_sigma_B03_std": 0.04}
    for n, (psf, metrics) in enumerate({"0.4": {"psf_sigma": 0.4}, "auto": found}.items()):
        write_job(tmp_path / str(n), [f"psf={psf}"], metrics=ok(**metrics))
    collate(tmp_path)
    told = [line for line in (tmp_path / "README.md").read_text().splitlines() if "by the evidence" in line]
    assert told == ["* by the evidence, psf=auto found sigma 0.440 ± 0.025 px"]


def test_where_other_samples_judge_the_best_is_counted(tmp_path):
    """Edge contrast is sharpest at sigma .5 for two seeds and at .3 for one."""
    edges = {(0, 0.3): 1, (0, 0.5): 2, (1, 0.3): 3, (1, 0.5): 4, (2, 0.3): 6, (2, 0.5): 5}
    for n, ((seed, sigma), edge) in enumerate(edges.items()):
        write_job(tmp_path / str(n), [f"holdout.seed={seed}", f"psf.sigma={sigma}"], metrics=ok(edge))
    collate(tmp_path)
    told = "for each holdout.seed by itself: sharpest at psf.sigma=0.5 in 2 of 3, at psf.sigma=0.3 in 1 of 3"
    warned = "Runs of another holdout.seed are judged by other samples"
    for name in ("README.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert told in text
        assert warned in text
        assert text.count("by itself") == 1, "of a score that no run has there is nothing to tell"


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


def test_a_scene_of_unknown_place_is_shown_without_a_scale(tmp_path):
    write_job(tmp_path / "0", ["seed=0"], metrics=ok(), crs=None)
    assert collate(tmp_path) == []
    assert size(tmp_path / "comparison.png")[0] >= 3 * 380


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
