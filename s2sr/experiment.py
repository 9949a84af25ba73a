"""One run: a configuration in, the run folder out; and the functions of the Python API (see the package)."""

from __future__ import annotations

import hashlib
import logging
import math
import resource
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import psutil
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from s2sr.data.geotiff import SceneFolder, clearest
from s2sr.data.registration import estimate_shifts
from s2sr.errors import InputError
from s2sr.fit.budget import Budget
from s2sr.fit.checkpoint import LevelCheckpoint
from s2sr.fit.evidence import sigma_errors
from s2sr.fit.module import Reconstruction
from s2sr.fit.progress import LevelLog, ProgressBar
from s2sr.fit.stages import check_levels
from s2sr.model.field import SplatField
from s2sr.model.psf import detail_limit
from s2sr.model.scene import Scene
from s2sr.overrides import CONF, quoted
from s2sr.report.dashboard import Dashboard, summarise
from s2sr.report.figures import Stretch, comparison, rgb, save, write_png
from s2sr.report.products import check_disk, shifts_csv, write_baseline, write_geotiff, write_json
from s2sr.report.scores import offset_to_truth, scores

log = logging.getLogger(__name__)


def build(node: Any) -> Any:
    """The object that a node with `_target_` describes; plain Python inside, never DictConfig."""
    return instantiate(node, _convert_="all")


def configuration(*overrides: str) -> DictConfig:
    """conf/train.yaml with overrides as on the command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", quoted(overrides))


def load_scene(root: str | Path, **options: Any) -> Scene:
    """The observations of a folder of GeoTIFFs; options as in conf/data/geotiff.yaml.

    Raises InputError where the folder or its files cannot be used.
    """
    return SceneFolder(root=root, **options).load()


def super_resolve(scene: Scene, *overrides: str) -> SplatField:
    """The field fitted to a scene, by a configuration with overrides as on the command line."""
    return reconstruct(scene, configuration(*overrides)).field


def check(cfg: DictConfig) -> None:
    """Raises InputError for a number that is out of its range; names and structure are Hydra's to check."""
    whole = {"threads": 1, "n_obs": 2, "crop": 1, "report.scale": 1, "seed": 0}
    for key, least in whole.items():
        value = OmegaConf.select(cfg, key)
        if not (type(value) is int and value >= least) and not (value is None and key != "seed"):
            raise InputError(f"{key}={value}: it must be a whole number from {least}")
    for key in ("noise", "tv_delta"):
        value = OmegaConf.select(cfg, key)
        if not (isinstance(value, int | float) and 0 < value < math.inf) and not (value is None and key == "noise"):
            raise InputError(f"{key}={value}: it must be a positive number")


def observe(cfg: DictConfig) -> Scene:
    """The scene that a configuration names: loaded, cropped, the clearest `n_obs` observations.

    Raises InputError where less than two observations are left.
    """
    check(cfg)
    source = build(cfg.data)
    source.prepare()
    scene = source.load()
    if cfg.crop is not None:
        scene = scene.crop(cfg.crop)
    seen = [t for t, observation in enumerate(scene.observations) if observation.clear > 0]
    if len(seen) < len(scene):
        scene = scene.select(seen, "all of its pixels are masked")
    if cfg.n_obs is not None:
        scene = clearest(scene, cfg.n_obs)
    if len(scene) < 2:
        raise InputError(f"{len(scene)} usable observations; a reconstruction needs 2 and is good from 8")
    return scene


def register(scene: Scene) -> tuple[Scene, Tensor]:
    """The scene without observations that match no other, and the first guess of the shifts [t, 2], LR pixels.

    Where most do not match, the scene is too small or too changeable to tell: all stay, the unmatched unshifted.
    """
    found = estimate_shifts(scene)
    kept = found.trusted.nonzero()[:, 0].tolist()
    if len(kept) == len(scene) or len(kept) < max(2, len(scene) / 2):
        return scene, found.shifts
    return scene.select(kept, "it does not match the others"), found.shifts[kept]


def withhold(scene: Scene, cfg: DictConfig) -> Scene:
    """The scene without what judges the fit and, where a stage stops on validation, without what validates it."""
    if cfg.holdout is None:
        return scene
    validates = any(stage.get("stop_on") for stage in cfg.strategy.values())
    return build(cfg.holdout).split(scene, validation=True) if validates else scene


def prepare(scene: Scene, cfg: DictConfig) -> Reconstruction:
    """The registered scene, its field at the coarsest level and the stages, ready to be fitted.

    Raises InputError where configuration and scene do not go together.
    """
    scene, shifts = register(withhold(scene, cfg))
    levels = check_levels(build(cfg.c2f)["levels"])
    radiometry = {"gain": cfg.radiometry.gain, "offset": cfg.radiometry.offset}
    field = SplatField(scene.grid, scene.bands, scale=levels[0], psf=build(cfg.psf), shifts=shifts, **radiometry)
    return Reconstruction(
        scene,
        field,
        stages=build(cfg.strategy),
        levels=levels,
        misfit=build(cfg.misfit),
        tv_delta=cfg.tv_delta,
        noise=cfg.noise,
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
        log.info("%s", budget)
        facts = {"folder": folder, "group": group, "job_type": "sweep" if group else "train"}
        loggers = build(cfg.logger)(**facts, config=OmegaConf.to_container(cfg, resolve=True))
        callbacks += [Dashboard(module.scene), LevelCheckpoint(folder / "checkpoints")]
    train(module, cfg, folder=folder, loggers=loggers, callbacks=callbacks)
    return module


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
    errors = dict(zip(scene.bands, sigma_errors(module).tolist(), strict=True)) if cfg.psf.learn else {}
    metrics: dict[str, Any] = {
        "status": "ok",
        **scores(scene, image, scale, shifts),
        "residual_rms": float((residual.square().sum() / scene.valid.sum()).sqrt()),
        "psf_sigma": sum(sigma.values()) / len(sigma),
        **{f"psf_sigma_{band}": value for band, value in sigma.items()},
        **{f"psf_sigma_{band}_std": value for band, value in errors.items()},
        "detail_limit_px": max(
            detail_limit(float(s), float(w)) for s, w in zip(field.sigma_psf.detach(), field.widths, strict=True)
        ),
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
    write_baseline(folder, scene)
    stretch = Stretch.of(image, scene.bands)
    write_png(folder / "sr.png", rgb(image, scene.bands, stretch))
    shift = tuple(offset_to_truth(scene, shifts).tolist())
    save(comparison(scene, image, scale, stretch=stretch, metrics=metrics, shift=shift), folder / "comparison.png")
    radiometry = {"gains": field.radiometry.gain, "offsets": field.radiometry.offset}
    shifts_csv(folder / "shifts.csv", scene, shifts=shifts, **radiometry, noise=noise)
    metrics["runtime_s"] = time.perf_counter() - start
    metrics["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    log.info("the sensor passes under 5 %% of detail finer than %.2f pixels: what is finer here is prior", finest)
    summarise(module.trainer.loggers, metrics)
    write_json(folder / "metrics.json", metrics)
    return metrics


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
