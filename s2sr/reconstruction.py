"""From a scene and a configuration to the fitted field: hold-out, registration, stages, one fit."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import DictConfig, OmegaConf

from s2sr.data.holdout import halves
from s2sr.errors import InputError
from s2sr.fit.budget import Budget
from s2sr.fit.checkpoint import LevelCheckpoint
from s2sr.fit.module import Reconstruction
from s2sr.fit.problem import Judge
from s2sr.fit.progress import LevelLog, ProgressBar
from s2sr.fit.sample import conditions_of
from s2sr.fit.stages import Stage, check_levels
from s2sr.model.field import SplatField
from s2sr.model.scene import Scene
from s2sr.observations import build, check, register
from s2sr.report.dashboard import Dashboard
from s2sr.report.dated import observed_on
from s2sr.report.heldout import judge
from s2sr.report.products import check_disk, remove_earlier
from s2sr.training import enough_memory, free_memory, train, trainer_of

log = logging.getLogger(__name__)


def check_fit(cfg: DictConfig) -> None:
    """Raises InputError for settings that no scene can be fitted with, before one is loaded."""
    check(cfg)
    ladder(cfg)
    stages_of(cfg)
    for key in ("psf", "misfit", "holdout"):
        build(cfg[key])


def stages_of(cfg: DictConfig) -> dict[str, Stage]:
    """The strategy. Raises InputError, naming the stage, if one is invalid, or if none of them fits anything."""
    stages = {}
    for name, node in cfg.strategy.items():
        try:
            stages[name] = build(node)
        except InputError as error:
            raise InputError(f"strategy.{name}: {error}") from error
        if not isinstance(stages[name], Stage):
            raise InputError(f"strategy.{name}: not a stage; it needs _target_: s2sr.fit.stages.Stage")
    if not any(stage.blocks for stage in stages.values()):
        raise InputError(f"strategy={cfg.name} has no stage left that fits; choose another of conf/strategy")
    return stages


def withhold(scene: Scene, cfg: DictConfig) -> tuple[Scene, dict[str, Stage], Judge | None]:
    """The scene without withheld samples, the stages, and the judge. Validation samples only if a stage stops on them.

    Raises InputError if too little is left to fit, or no stage fits anything.
    """
    stages = stages_of(cfg)
    if cfg.holdout is None:
        return scene, stages, None
    holdout = build(cfg.holdout)
    seen, dates = holdout.without_dates(scene)
    seen = holdout.split(seen, validation=any(stage.stop_on for stage in stages.values()))
    if not seen.judged.any():
        log.warning("the fit is not judged: every frame is too small, or masked too much, to withhold blocks of it")
        return scene, stages, None
    return seen, stages | ({"refit": holdout.refit} if holdout.refit else {}), partial(judge, dates=dates)


def prepare(scene: Scene, cfg: DictConfig) -> Reconstruction:
    """The registered scene, its field at the coarsest level and the stages, ready to be fitted.

    Raises InputError if the configuration does not suit the scene.
    """
    scene, stages, judge = withhold(scene, cfg)
    scene, shifts = register(scene)
    # impossible requests are refused before the fit, not after it
    if cfg.report.date:
        observed_on(scene, cfg.report.date)
    if cfg.report.frc:
        halves(scene)
    radiometry = {"gain": cfg.radiometry.gain, "offset": cfg.radiometry.offset, "samplings": scene.samplings}
    field = SplatField(scene.grid, scene.bands, scale=ladder(cfg)[0], psf=build(cfg.psf), shifts=shifts, **radiometry)
    return posed(scene, field, stages, cfg, noise=cfg.noise, judge=judge)


def posed(
    scene: Scene, field: SplatField, stages: Mapping[str, Stage], cfg: DictConfig, **known: Any
) -> Reconstruction:
    """A Reconstruction of a field at the coarsest level by `stages`; `known`: further arguments of a Problem."""
    misfit = {"misfit": build(cfg.misfit), "tv_delta": cfg.tv_delta}
    return Reconstruction(scene, field, stages=stages, levels=ladder(cfg), **misfit, **known)


def ladder(cfg: DictConfig) -> list[int]:
    """Splats per LR pixel of every level, coarse to fine. Raises InputError if one does not divide the next."""
    return check_levels(build(cfg.c2f)["levels"])


def reconstruct(
    scene: Scene, cfg: DictConfig, *, folder: Path | None = None, group: str | None = None, resume: bool = False
) -> Reconstruction:
    """Fit the field. With a `folder` the run is logged and checkpointed there; resume: from its last checkpoint.

    Raises InputError if the configuration does not suit the scene or memory does not suffice, and KeyboardInterrupt
    after Ctrl-C.
    """
    lightning.seed_everything(cfg.seed, verbose=False)
    torch.set_float32_matmul_precision("highest")  # an environment may ask for less, as NVIDIA's containers do
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device = trainer_of(cfg, logger=False, enable_checkpointing=False).strategy.root_device
    module = prepare(scene, cfg)
    scale = cfg.report.scale or module.phases[-1].scale
    with enough_memory():
        budget = Budget.of(module.to(device), scale, again=2 if cfg.report.frc else 0)
    budget.check_memory(free_memory(device))
    callbacks: list[Any] = [LevelLog(), ProgressBar()]
    if folder is None:
        train(module, cfg, callbacks=callbacks)
        return module
    check_disk(folder, int(budget.disk))
    if not resume:
        remove_earlier(folder)
    log.info("on %s: %s", device, budget)
    whole = module.scene.whole()
    known = {"shifts": module.field.shifts.detach().cpu(), "psf": build(cfg.psf), "noise": cfg.noise}
    facts = {"folder": folder, "group": group, "job_type": "sweep" if group else "train"}
    with ThreadPoolExecutor(1) as aside:  # the dashboard mostly waits for its service to start
        forecast = aside.submit(lambda: conditions_of(whole, **known).forecast())
        loggers = build(cfg.logger)(**facts, config=OmegaConf.to_container(cfg, resolve=True))
    module.forecast = forecast.result()
    log.info("%s", module.forecast)
    callbacks += [Dashboard(whole), LevelCheckpoint(folder / "checkpoints")]
    train(module, cfg, folder=folder, loggers=loggers, callbacks=callbacks)
    return module


def solve_again(module: Reconstruction, scene: Scene, cfg: DictConfig) -> SplatField:
    """Solve again for the weights alone, by the same stages, from other samples of the module's scene."""
    cfg = cfg.copy()
    if cfg.holdout:
        cfg.holdout.dates = 0  # whole dates are no longer in the module's scene
    seen, stages, _ = withhold(scene.whole(), cfg)
    field = module.field.unsolved(ladder(cfg)[0])
    again = posed(seen, field, stages, cfg, noise=module.noise.detach(), spectrum=copy.deepcopy(module.spectrum))
    train(again, cfg, callbacks=[ProgressBar()])
    return again.cpu().field
