"""Every file under conf/ is composed and run: a new one is picked up by itself and cannot be forgotten."""

import csv
import json
from pathlib import Path

import local_catalogue
import numpy as np
import pytest
import rasterio
import torch
import yaml
from omegaconf import OmegaConf
from runs import PRODUCTS, SCENE

from s2sr.data.demo import Demo
from s2sr.experiment import configuration_hash, run
from s2sr.observations import configuration
from s2sr.overrides import CONF
from s2sr.reconstruction import reconstruct

TINY = (*SCENE, "logger=csv", "data.size=20", "data.n_dates=3")
FILES = [path.relative_to(CONF) for path in sorted(CONF.rglob("*.yaml"))]
NOT_GROUPS = {"stage", "hydra"}  # stages are the parts of strategies; how the log looks is seen in every run


def choices(group: str) -> list[str]:
    return [path.stem for path in FILES if path.parent == Path(group)]


def short(cfg):
    """The overrides by which each stage takes a step or two; a misspelt key would be refused."""
    for stage in cfg.strategy.values():
        stage.steps = 2
        if "max_iter" in stage.optimizer:
            stage.optimizer.max_iter = 2
    return cfg


def finished(folder: Path) -> dict:
    assert all((folder / name).is_file() for name in PRODUCTS)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "ok"
    return metrics


def test_every_group_is_tried_here():
    groups = {path.parts[0] for path in FILES if len(path.parts) > 1}
    assert groups == {"data", "psf", "c2f", "strategy", "misfit", "logger", "trainer"} | NOT_GROUPS
    composed = {part.removeprefix("/stage@strategy.") for s in choices("strategy") for part in stages(s)}
    assert composed >= {"coarse_to_fine", "polish"}


def stages(strategy: str) -> list[str]:
    defaults = yaml.safe_load((CONF / "strategy" / f"{strategy}.yaml").read_text())["defaults"]
    return [key for entry in defaults if isinstance(entry, dict) for key in entry]


def test_no_stage_is_left_unused():
    used = {"refit"}  # of conf/train.yaml, for all strategies
    for strategy in choices("strategy"):
        defaults = yaml.safe_load((CONF / "strategy" / f"{strategy}.yaml").read_text())["defaults"]
        used |= {value for entry in defaults if isinstance(entry, dict) for value in entry.values()}
    assert used == set(choices("stage"))


@pytest.mark.parametrize("strategy", choices("strategy"))
def test_strategy(strategy, tmp_path):
    cfg = short(configuration(*TINY, f"strategy={strategy}"))
    run(cfg, tmp_path)
    metrics = finished(tmp_path)
    assert metrics["strategy"] == strategy
    assert metrics["evals"] >= 2 * len(cfg.strategy)
    assert {path.stem.rpartition("_x")[0] for path in (tmp_path / "checkpoints").glob("*_x*.ckpt")} == {
        *cfg.strategy,
        "refit",
    }


@pytest.mark.parametrize("psf", choices("psf"))
def test_psf(psf, tmp_path):
    cfg = configuration(*TINY, f"psf='{psf}'", "strategy=bayes")
    if not cfg.psf.learn:
        cfg = short(configuration(*TINY, "strategy=lbfgs", f"psf='{psf}'"))
    run(cfg, tmp_path)
    metrics = finished(tmp_path)
    if cfg.psf.learn:
        assert all(0 < metrics[f"psf_sigma_{band}_std"] < 1 for band in ("B02", "B03", "B04", "B08"))
        return
    sigma = cfg.psf.sigma
    for band in ("B02", "B03", "B04", "B08"):
        assert metrics[f"psf_sigma_{band}"] == pytest.approx(sigma[band] if OmegaConf.is_dict(sigma) else sigma)


@pytest.mark.parametrize("c2f", choices("c2f"))
def test_ladder(c2f, tmp_path):
    cfg = short(configuration(*TINY[:2], *TINY[3:], "strategy=lbfgs", f"c2f='{c2f}'"))
    assert c2f == "_".join(map(str, cfg.c2f.levels))
    run(cfg, tmp_path)
    assert finished(tmp_path)["scale"] == cfg.c2f.levels[-1]
    levels = {path.stem for path in (tmp_path / "checkpoints").glob("coarse_to_fine_x*.ckpt")}
    assert levels == {f"coarse_to_fine_x{scale}" for scale in cfg.c2f.levels}


@pytest.mark.parametrize("logger", choices("logger"))
def test_logger(logger, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")  # the runs that are kept: test_wandb.py
    run(short(configuration(*TINY, "strategy=lbfgs", f"logger={logger}")), tmp_path)
    finished(tmp_path)
    assert (tmp_path / "metrics.csv").is_file()  # the dashboard comes besides
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize("trainer", choices("trainer"))
def test_trainer(trainer):
    """The keys are those of lightning.Trainer; an unknown one would be refused."""
    cfg = short(configuration(*TINY, "strategy=adam", f"trainer={trainer}"))
    module = reconstruct(Demo(size=20, n_dates=3).load(), cfg)
    assert module.trainer.num_devices == cfg.trainer.devices
    assert module.trainer.current_epoch == len(module.phases)


@pytest.mark.parametrize("data", choices("data"))
def test_data(data, tmp_path):
    catalogue = ("data.start=2023-05-01", "data.end=2023-05-31", f"data.root={tmp_path / 'scene'}", "data.min_scenes=3")
    catalogue += (f"data.bbox={local_catalogue.bbox((24, 24), row=8, column=8)}".replace(" ", ""),)
    own = {
        "demo": ("data.size=16", "data.n_dates=3"),
        "geotiff": (f"data.root={tmp_path / 'scene'}",),
        "planetary_computer": (f"data.catalog={tmp_path / 'archive' / 'items.json'}", *catalogue),
        "earth_search": (f"data.catalog={tmp_path / 'archive' / 'items.json'}", *catalogue),
    }
    assert data in own, f"say here how to run data={data}"
    if data == "geotiff":
        Demo(size=16, n_dates=3, cloudy=0).write(tmp_path / "scene")
    elif data != "demo":
        names = local_catalogue.PLANETARY if data == "planetary_computer" else local_catalogue.EARTH_SEARCH
        local_catalogue.season(tmp_path / "archive", ["2023-05-02", "2023-05-07", "2023-05-12"], names)
    run(short(configuration("c2f.levels=[1,2]", "logger=csv", "strategy=lbfgs", f"data={data}", *own[data])), tmp_path)
    assert ("psnr" in finished(tmp_path)) == (data == "demo")


@pytest.mark.parametrize(
    ("override", "check"),
    [
        ("psf.sigma=0.45", lambda m, _: m["psf_sigma"] == pytest.approx(0.45)),
        ("psf.sigma={B02:0.39,B03:0.41,B04:0.45,B08:0.46}", lambda m, _: m["psf_sigma_B03"] == pytest.approx(0.41)),
        ("psf.learn=false", lambda m, _: m["psf_sigma_B02"] == pytest.approx(0.387)),
        ("radiometry.gain=false", lambda _, rows: {row["gain_B02"] for row in rows} == {"1"}),
        ("radiometry.offset=false", lambda _, rows: {row["offset_B02"] for row in rows} == {"0"}),
        ("noise=0.003", lambda _, rows: {row["noise_B04"] for row in rows} == {"0.003"}),
        ("report.scale=3", lambda m, _: m["scale"] == 3),
        ("n_obs=2", lambda m, rows: m["n_obs"] == 2 and [row["used"] for row in rows].count("yes") == 2),
        ("holdout=null", lambda m, _: not any(key.startswith("holdout") for key in m)),
        ("holdout.judged=0.3", lambda m, _: m["holdout_rmse_B08"] > 0 and "holdout_dates_rmse" not in m),
        ("holdout.refit=false", lambda m, _: m["holdout_rmse"] > 0),
        ("holdout.dates=1", lambda m, rows: m["holdout_dates_rmse"] > 0 and judges(rows) == 1),
        ("+strategy.extra=${strategy.coarse_to_fine}", lambda m, _: m["evals"] > 0),
    ],
    ids=lambda value: value.partition("=")[0] if isinstance(value, str) else "",
)
def test_a_setting_does_what_it_says(override, check, tmp_path):
    finest = ("c2f.levels=[2]",) if "extra" in override else ()
    run(short(configuration(*TINY, *finest, "strategy=lbfgs", override)), tmp_path)
    with (tmp_path / "shifts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = finished(tmp_path)
    assert check(metrics, rows), (metrics, rows)


def test_a_learnt_psf_moves_and_has_standard_errors(tmp_path):
    run(configuration(*TINY, "strategy=lbfgs", "psf.learn=true"), tmp_path)
    metrics = finished(tmp_path)
    assert abs(metrics["psf_sigma_B02"] - 0.387) > 1e-3
    assert metrics["psf_sigma_B02_std"] > 0


def judges(rows) -> int:
    return [row["used"] for row in rows].count("no: withheld to judge the fit (holdout.dates)")


@pytest.mark.parametrize(
    "how", [["strategy=bayes", "holdout=null"], ["strategy=lbfgs", "+strategy.coarse_to_fine.stop_on=validation"]]
)
def test_the_resolution_from_two_halves(how, tmp_path):
    run(short(configuration(*SCENE[1:], "logger=csv", "data.size=20", "report.frc=true", *how)), tmp_path)
    metrics = finished(tmp_path)
    assert (tmp_path / "frc.png").is_file()
    for key in ("", *(f"_{band}" for band in ("B02", "B03", "B04", "B08"))):
        assert 0 < metrics[f"frc_frequency{key}"] <= 1.1
        assert metrics[f"frc_resolution_m{key}"] == pytest.approx(5 / metrics[f"frc_frequency{key}"], rel=1e-3)
        assert 0 < metrics[f"truth_frequency{key}"] <= 1.1


def test_a_date_of_reference(tmp_path):
    run(short(configuration(*TINY, "strategy=lbfgs", "report.date=2023-05-08")), tmp_path)
    finished(tmp_path)
    with rasterio.open(tmp_path / "sr_2023-05-07.tif") as dated, rasterio.open(tmp_path / "sr.tif") as product:
        assert (dated.crs, dated.transform, dated.shape) == (product.crs, product.transform, product.shape)
        assert dated.tags()["datetimes"].startswith("2023-05-07")
        assert not np.array_equal(dated.read(), product.read())


def test_a_stage_can_be_left_out():
    cfg = configuration(*TINY, "strategy=lbfgs_adam", "~strategy.polish")
    assert list(cfg.strategy) == ["coarse_to_fine"]
    cfg = configuration(*TINY, "strategy=lbfgs_adam", "strategy.polish.steps=3")
    assert cfg.strategy.polish.steps == 3


def test_the_hash_in_a_products_tags_is_that_of_what_decides_the_product():
    elsewhere = ("threads=1", "logger=csv", "trainer.accelerator=cpu")
    one, same, other = (configuration_hash(configuration(*o)) for o in ((), elsewhere, ("psf=0.5",)))
    assert one == same != other


def test_the_seed_decides(tmp_path):
    torch.manual_seed(5)  # must not matter
    products = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(short(configuration(*TINY, "strategy=lbfgs", f"seed={seed}")), tmp_path / name)
        products.append((tmp_path / name / "shifts.csv").read_text())
    assert products[0] == products[1] != products[2]
