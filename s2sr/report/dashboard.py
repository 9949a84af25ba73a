"""The run as it is watched: a Weights & Biases run, or a CSV file for those who want none.

The x-axis is `evals`, evaluations of the objective: an LBFGS step takes about twenty, an Adam step one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from s2sr.model.scene import Scene
from s2sr.report.figures import Stretch, pixels, residual_map, rgb, shift_plot
from s2sr.report.metrics import bicubic
from s2sr.report.products import clearest, observation_rows
from s2sr.report.scores import scores

log = logging.getLogger(__name__)


def csv_logger(*, folder: Path, group: str | None, job_type: str, config: Mapping[str, Any]) -> Logger:
    """metrics.csv in the run folder."""
    return CSVLogger(folder, name="", version="")


def wandb_logger(
    *,
    folder: Path,
    group: str | None,
    job_type: str,
    config: Mapping[str, Any],
    project: str = "s2sr",
    mode: str | None = None,
) -> Logger:
    """A run of its own in `folder`/wandb, in the mode asked for, else online if the user is logged in, else offline.

    Never asks for anything, and goes offline where the server does not answer.
    """
    import wandb

    mode = mode or os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    earlier = sorted((folder / "wandb").glob("*run-*-*"))
    common = {
        "save_dir": folder,
        "project": project,
        "name": f"{group}/{folder.name}" if group else folder.name,
        "group": group,
        "job_type": job_type,
        "config": dict(config),
        "id": earlier[-1].name.rsplit("-", 1)[-1] if earlier else None,  # a resumed run goes on in its own
        "resume": "allow" if earlier and mode == "online" else None,
        "settings": wandb.Settings(init_timeout=30, silent=True, console="off"),
    }
    try:
        logger = WandbLogger(mode=mode, **common)
        run = logger.experiment
    except Exception as error:  # whatever a network or a server can think of must not cost the fit
        log.warning("Weights & Biases cannot be reached (%s): the run is logged offline", str(error).splitlines()[0])
        mode = "offline"
        logger = WandbLogger(mode=mode, **{**common, "resume": None})
        run = logger.experiment
    run.define_metric("evals")
    run.define_metric("*", step_metric="evals", step_sync=True)
    if mode == "offline":
        log.info(
            "dashboard: offline; look with `wandb leet %s`, upload with `wandb sync %s`",
            folder / "wandb",
            run.dir.removesuffix("/files"),
        )
    elif mode == "online":
        log.info("dashboard: %s", run.url)
    return logger


class Dashboard(Callback):
    """Objective and shifts while the fit runs; scores, pictures and the table of observations after each level."""

    EVERY = 10  # evaluations between two points of a curve: a point costs more than an Adam step of a small scene

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.mean = scene.temporal_mean()
        self.stretch = Stretch.of(self.mean, scene.bands)
        self._logged = -self.EVERY

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, step: int) -> None:
        if module.evals - self._logged < self.EVERY:
            return
        self._logged = module.evals
        point = {f"fit/{name}": float(value) for name, value in module.parts.items()}
        point |= {"fit/loss": sum(point.values()), "fit/tv_weight": module.tv, "fit/scale": module.field.scale}
        point |= {"shifts/spread_px": float(module.field.shifts.detach().std(0).mean())}
        _log(trainer.loggers, module.evals, point)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not module.phase.ends_level:
            return
        field, scene = module.field, self.scene
        image, shifts = field.render().cpu(), field.shifts.detach().cpu()
        found = scores(scene, image, field.scale, shifts)
        groups = {"psnr": "fidelity", "ssim": "fidelity", "shift": "shifts"}
        point = {f"{groups.get(key.split('_')[0], 'sharpness')}/{key}": value for key, value in found.items()}
        point |= {f"psf/sigma_{band}": sigma for band, sigma in field.sigma_by_band().items()}
        _log(trainer.loggers, module.evals, point)
        with torch.no_grad():
            residual = (-module.residual() / module.noise[..., None, None]).cpu()
        seen = scene.valid.sum(0)
        normalised = (residual.sum(0) / seen).where(seen > 0, torch.nan)
        t = clearest(scene)
        frame = scene.frames[t].where(scene.valid[t], torch.nan)
        level = f"{module.phase.name} {field.scale}x"
        pictures = {
            "observation": rgb(frame, scene.bands, self.stretch),
            "bicubic": rgb(bicubic(self.mean, field.scale), scene.bands, self.stretch),
            "reconstruction": rgb(image, scene.bands, self.stretch),
            "residual": pixels(residual_map(normalised, f"Mean residual / noise, {level}")),
            "shifts": shift_plot(
                shifts, [o.datetime[:10] for o in scene.observations], scene.truth and scene.truth.shifts
            ),
        }
        rows = observation_rows(
            scene, shifts=shifts, gains=field.radiometry.gain, offsets=field.radiometry.offset, noise=module.noise
        )
        _log_pictures(trainer.loggers, module.evals, pictures, level, rows)


def _log(loggers: Sequence[Logger], evals: int, point: Mapping[str, float]) -> None:
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.log({**point, "evals": evals})
        else:
            logger.log_metrics({**point, "evals": evals}, step=evals)


def _log_pictures(
    loggers: Sequence[Logger], evals: int, pictures: Mapping[str, Any], caption: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            media: dict[str, Any] = {}
            for name, picture in pictures.items():
                media[f"pictures/{name}"] = wandb.Image(picture, caption=caption)
            columns = list(rows[0])
            media["observations"] = wandb.Table(columns=columns, data=[[row.get(c) for c in columns] for row in rows])
            logger.experiment.log({**media, "evals": evals})
