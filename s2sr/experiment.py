"""One run: a configuration in, the run folder out; and the functions of the Python API (see the package)."""

from __future__ import annotations

import copy
import hashlib
import logging
import resource
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import psutil
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from s2sr.data.geotiff import SceneFolder
from s2sr.data.holdout import halves
from s2sr.errors import InputError
from s2sr.fit.budget import Budget
from s2sr.fit.checkpoint import LevelCheckpoint
from s2sr.fit.evidence import sigma_errors
from s2sr.fit.forecast import observed
from s2sr.fit.module import Judge, Reconstruction
from s2sr.fit.progress import LevelLog, ProgressBar
from s2sr.fit.stages import Stage, check_levels
from s2sr.fit.uncertainty import clear_count, standard_deviation
from s2sr.model.field import SplatField
from s2sr.model.psf import detail_limit
from s2sr.model.scene import Scene
from s2sr.observations import build, check, configuration, observe, register
from s2sr.report import uncertainty
from s2sr.report.consistency import brightness, consistency, maps
from s2sr.report.dashboard import Dashboard
from s2sr.report.dated import dated, observed_on
from s2sr.report.figures import Stretch, comparison, metres_per_pixel, rgb, save, write_png
from s2sr.report.heldout import judge
from s2sr.report.loggers import summarise
from s2sr.report.products import check_disk, shifts_csv, write_baseline, write_geotiff, write_json, write_truth
from s2sr.report.resolution import by_halves, by_truth, curves
from s2sr.report.run_page import write_run_page
from s2sr.report.scores import offset_to_truth, scores

log = logging.getLogger(__name__)


def load_scene(root: str | Path, **options: Any) -> Scene:
    """The observations of a folder of GeoTIFFs; options as in conf/data/geotiff.yaml.

    Raises InputError where the folder or its files cannot be used.
    """
    return SceneFolder(root=root, **options).load()


def super_resolve(scene: Scene, *overrides: str) -> SplatField:
    """The field fitted to a scene, by a configuration with overrides as on the command line."""
    return reconstruct(scene, configuration(*overrides)).field


def withhold(scene: Scene, cfg: DictConfig) -> tuple[Scene, dict[str, Stage], Judge | None]:
    """What the fit sees, its stages, and what judges it. Where no stage stops on validation nothing validates.

    Raises InputError where that leaves too little to fit.
    """
    stages = build(cfg.strategy)
    if cfg.holdout is None:
        return scene, stages, None
    holdout = build(cfg.holdout)
    seen, dates = holdout.without_dates(scene)
    seen = holdout.split(seen, validation=any(stage.stop_on for stage in stages.values()))
    if not seen.judged.any():
        log.warning("every frame is masked too much to withhold anything: the fit is not judged")
        return seen.whole(), stages, None
    return seen, stages | ({"refit": holdout.refit} if holdout.refit else {}), partial(judge, dates=dates)


def prepare(scene: Scene, cfg: DictConfig) -> Reconstruction:
    """The registered scene, its field at the coarsest level and the stages, ready to be fitted.

    Raises InputError where configuration and scene do not go together.
    """
    scene, stages, judge = withhold(scene, cfg)
    scene, shifts = register(scene)
    if cfg.report.date:
        observed_on(scene, cfg.report.date)
    if cfg.report.frc:
        halves(scene)
    levels = check_levels(build(cfg.c2f)["levels"])
    radiometry = {"gain": cfg.radiometry.gain, "offset": cfg.radiometry.offset}
    field = SplatField(scene.grid, scene.bands, scale=levels[0], psf=build(cfg.psf), shifts=shifts, **radiometry)
    return Reconstruction(
        scene,
        field,
        stages=stages,
        levels=levels,
        misfit=build(cfg.misfit),
        tv_delta=cfg.tv_delta,
        noise=cfg.noise,
        judge=judge,
    )


def reconstruct(
    scene: Scene, cfg: DictConfig, *, folder: Path | None = None, group: str | None = None
) -> Reconstruction:
    """Fit the field. With a `folder` the run is logged and checkpointed there, and goes on from its last checkpoint.

    Raises InputError where configuration and scene do not go together or the scene does not fit in memory, and
    KeyboardInterrupt after Ctrl-C.
    """
    check(cfg)
    lightning.seed_everything(cfg.seed, verbose=False)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    module = prepare(scene, cfg)
    budget = Budget.of(module, cfg.report.scale or module.phases[-1].scale)
    budget.check_memory(psutil.virtual_memory().available)
    callbacks: list[Any] = [LevelLog(), ProgressBar()]
    loggers: Any = False
    if folder:
        check_disk(folder, int(budget.disk))
        log.info("%s%s", budget, "; report.frc=true takes up to three times as long" if cfg.report.frc else "")
        shifts = module.field.shifts.detach()
        module.forecast = observed(module.scene.whole(), shifts=shifts, psf=build(cfg.psf), noise=cfg.noise).forecast()
        log.info("%s", module.forecast)
        facts = {"folder": folder, "group": group, "job_type": "sweep" if group else "train"}
        loggers = build(cfg.logger)(**facts, config=OmegaConf.to_container(cfg, resolve=True))
        callbacks += [Dashboard(module.scene.whole()), LevelCheckpoint(folder / "checkpoints")]
    train(module, cfg, folder=folder, loggers=loggers, callbacks=callbacks)
    return module


def solve_again(module: Reconstruction, scene: Scene, cfg: DictConfig) -> SplatField:
    """The weights alone, solved anew by the same stages for other samples of the module's scene."""
    levels = check_levels(build(cfg.c2f)["levels"])
    seen, stages, _ = withhold(scene.whole(), OmegaConf.merge(cfg, {"holdout": {"dates": 0}}) if cfg.holdout else cfg)
    again = Reconstruction(
        seen,
        module.field.unsolved(levels[0]),
        stages=stages,
        levels=levels,
        misfit=build(cfg.misfit),
        tv_delta=cfg.tv_delta,
        noise=module.noise.detach(),
        spectrum=copy.deepcopy(module.spectrum),
    )
    train(again, cfg, callbacks=[ProgressBar()])
    return again.cpu().field


def train(
    module: Reconstruction, cfg: DictConfig, *, folder: Path | None = None, loggers: Any = False, callbacks: Any = None
) -> None:
    """Run all phases of a module, from the last checkpoint in `folder` if there is one.

    Raises InputError for what the trainer cannot be, and KeyboardInterrupt after Ctrl-C.
    """
    last = folder and folder / "checkpoints" / "last.ckpt"
    with quiet():
        try:
            trainer = lightning.Trainer(
                **build(cfg.trainer),
                max_epochs=len(module.phases),
                reload_dataloaders_every_n_epochs=1,
                logger=loggers,
                callbacks=callbacks,
                default_root_dir=folder,
                enable_progress_bar=False,
                enable_checkpointing=folder is not None,
                enable_model_summary=False,
            )
        except MisconfigurationException as error:
            raise InputError(f"trainer: {error}") from error
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, ckpt_path=str(last) if last and last.exists() else None)
        except SystemExit as exit:  # what Lightning makes of Ctrl-C, ignoring further ones
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from exit


def run(cfg: DictConfig, folder: Path, *, group: str | None = None) -> dict[str, Any]:
    """Load, fit, write the run folder; returns what metrics.json holds. `group`: the sweep that the run belongs to.

    Raises what `observe` and `reconstruct` raise.
    """
    start = time.perf_counter()
    scene = observe(cfg)
    log.info("%s", scene)
    module = reconstruct(scene, cfg, folder=folder, group=group)
    scene = module.scene
    field, noise = module.field.cpu(), module.noise.detach().cpu()
    scale = cfg.report.scale or field.scale
    grid = scene.grid.scaled(scale)
    image, shifts = field.render(grid), field.shifts.detach()
    sigma = field.sigma_by_band()
    with torch.no_grad():
        residual = module.cpu().residual()
        predicted = field()
    errors = dict(zip(scene.bands, sigma_errors(module).tolist(), strict=True)) if cfg.psf.learn else {}
    metrics: dict[str, Any] = {
        "status": "ok",
        **scores(scene, image, scale, shifts),
        **module.judgement,
        **consistency(scene, predicted, noise),
        **brightness(scene, image, scale),
        "residual_rms": float((residual.square().sum() / scene.valid.sum()).sqrt()),
        "psf_sigma": sum(sigma.values()) / len(sigma),
        **{f"psf_sigma_{band}": value for band, value in sigma.items()},
        **{f"psf_sigma_{band}_std": value for band, value in errors.items()},
        "detail_limit_px": max(
            detail_limit(float(s), float(w)) for s, w in zip(field.sigma_psf.detach(), field.widths, strict=True)
        ),
        **(module.forecast.metrics() if module.forecast else {}),
        "scale": scale,
        "n_obs": len(scene),
        "strategy": cfg.name,
        "evals": module.evals,
    }
    finest = metrics["detail_limit_px"]
    tags = {
        "datetimes": ", ".join(o.datetime for o in scene.observations),
        "s2sr_version": version("s2sr"),
        "configuration_sha256": configuration_hash(cfg),
        "detail_limit_px": f"{finest:.3f}",
        "attribution": scene.attribution,
    }
    write_geotiff(folder / "sr.tif", image, grid, scene.bands, tags=tags)
    metrics |= uncertainty.report(
        folder,
        scene,
        image,
        standard_deviation(module, image, scale),
        clear_count(scene.valid, shifts, scale),
        scale=scale,
        splat=field.lattice.sigma,
        shifts=shifts,
        tags=tags,
    )
    write_baseline(folder, scene)
    stretch = Stretch.of(image, scene.bands)
    write_png(folder / "sr.png", rgb(image, scene.bands, stretch))
    shift = tuple(offset_to_truth(scene, shifts).tolist())
    write_truth(folder, scene, scale, shift)
    save(comparison(scene, image, scale, stretch=stretch, metrics=metrics, shift=shift), folder / "comparison.png")
    save(maps(scene, predicted, noise), folder / "consistency.png")
    metrics |= tell_resolution(module, cfg, folder, (shift[0], shift[1]), metrics.get("forecast_frequency"))
    if cfg.report.date:
        t = observed_on(scene, cfg.report.date)
        seen = {"datetimes": scene.observations[t].datetime, "datetimes_of_detail": tags["datetimes"]}
        path = folder / f"sr_{scene.observations[t].datetime[:10]}.tif"
        write_geotiff(path, dated(field, scene, t).render(grid), grid, scene.bands, tags=tags | seen)
        log.info("%s has the reflectance of that date", path.name)
    radiometry = {"gains": field.radiometry.gain, "offsets": field.radiometry.offset}
    shifts_csv(folder / "shifts.csv", scene, shifts=shifts, **radiometry, noise=noise)
    metrics["runtime_s"] = time.perf_counter() - start
    metrics["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    log.info("the sensor passes under 5 %% of detail finer than %.2f pixels: what is finer here is prior", finest)
    summarise(module.trainer.loggers, metrics)
    write_json(folder / "metrics.json", metrics)
    write_run_page(folder)
    return metrics


def tell_resolution(
    module: Reconstruction, cfg: DictConfig, folder: Path, offset: tuple[float, float], forecast: float | None
) -> dict[str, float]:
    """The resolution by the truth, where it is known, and by two halves of the dates if asked for, with frc.png."""
    scene, field, metre = module.scene, module.field, metres_per_pixel(module.scene.grid)
    truth = by_truth(scene, field, offset) if scene.truth else None
    found = truth.metrics("truth", metre) if truth else {}
    if cfg.report.frc:
        log.info("the resolution: the weights once more from each half of the dates")
        scenes = halves(scene)
        fields = [solve_again(module, half, cfg) for half in scenes]
        told = by_halves(field, fields, scenes, module.noise.detach())
        save(curves(told, fields, truth=truth, forecast=forecast, metre=metre), folder / "frc.png")
        found |= told.metrics("frc", metre)
    return found


def configuration_hash(cfg: DictConfig) -> str:
    """Of what decides the product: not of where it was computed or logged."""
    decisive = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("trainer", "logger", "threads")])
    return hashlib.sha256(OmegaConf.to_yaml(decisive).encode()).hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks on hardware, loaders and other products; its errors stay."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", module="torch.jit")
        yield
    logger.setLevel(level)
