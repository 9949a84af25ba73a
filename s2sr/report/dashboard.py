"""The run as it is watched: a Weights & Biases run, or a CSV file for those who want none.

The x-axis is `evals`, evaluations of the objective: an LBFGS step takes about twenty, an Adam step one.
"""

from __future__ import annotations

import csv
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from s2sr.errors import InputError
from s2sr.model.scene import Scene
from s2sr.report.figures import Stretch, pixels, residual_map, rgb, shift_plot
from s2sr.report.metrics import bicubic
from s2sr.report.products import clearest, observation_rows
from s2sr.report.scores import scores

log = logging.getLogger(__name__)

MODES = ("online", "offline", "disabled")


def csv_logger(*, folder: Path, group: str | None, job_type: str, config: Mapping[str, Any]) -> Logger:
    """metrics.csv in the run folder; a resumed run appends to it."""
    path = folder / "metrics.csv"
    earlier: list[dict[str, Any]] = []
    if path.is_file():
        with path.open(newline="") as file:
            earlier = list(csv.DictReader(file))
    logger = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not empty")
        logger.experiment.metrics += earlier  # Lightning has removed the file
    return logger


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

    Never asks for anything, and goes offline where there is no key or the server does not answer in 15 s.
    Raises InputError for an unknown mode.
    """
    import wandb

    if mode not in (None, *MODES):
        raise InputError(f"logger.mode={mode}; choose from {', '.join(MODES)}")
    settings = wandb.Settings(init_timeout=15, finish_timeout=60, silent=True, console="off")
    wandb.setup(settings)
    mode = mode or os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    if mode == "online" and not _logged_in():
        log.warning("dashboard: no key for Weights & Biases, so the run is logged offline; log in with `wandb login`")
        mode = "offline"
    own = _run_id(folder)
    common: dict[str, Any] = {
        "dir": folder,
        "project": project,
        "name": f"{group}/{folder.name}" if group else folder.name,
        "group": group,
        "job_type": job_type,
        "config": dict(config),
        "id": own,
        "settings": settings,
    }
    try:
        # only a server can say what it has of an earlier run
        run = wandb.init(mode=mode, resume="allow" if own and mode == "online" else None, **common)  # type: ignore[arg-type]
    except Exception as error:  # whatever a network or a server can think of must not cost the fit
        log.warning(
            "dashboard: Weights & Biases cannot be reached, so the run is logged offline (%s)",
            str(error).splitlines()[0],
        )
        run = wandb.init(mode="offline", **common)
    run.define_metric("evals")
    run.define_metric("*", step_metric="evals", step_sync=True)
    if run.disabled:
        pass
    elif run.offline:
        place = folder / "wandb"
        log.info(
            "dashboard: offline; look with `wandb leet %s`, upload with `wandb sync %s/offline-run-*`", place, place
        )
    else:
        log.info("dashboard: %s", run.url)
    return WandbLogger(experiment=run)


def summarise(loggers: Sequence[Logger], metrics: Mapping[str, Any]) -> None:
    """The final numbers, those of metrics.json, as the run's summary in the dashboard."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(dict(metrics))


def _logged_in() -> bool:
    import wandb

    try:
        return wandb.login(prompt=False, verify=False)
    except Exception as error:  # a key that is none
        log.warning("dashboard: %s", str(error).splitlines()[0])
        return False


def _run_id(folder: Path) -> str | None:
    """Of the wandb run that the folder has already: a resumed run goes on in its own."""
    earlier = sorted(path.name.removeprefix("offline-") for path in (folder / "wandb").glob("*run-*-*"))
    return earlier[-1].rpartition("-")[2] if earlier else None


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
        seen = module.valid.sum(0).cpu()
        normalised = (residual.sum(0) / seen).where(seen > 0, torch.nan)
        t = clearest(scene)
        frame = scene.frames[t].where(scene.valid[t], torch.nan)
        truth = scene.truth.shifts if scene.truth else None
        level = f"{module.phase.name} {field.scale}x"
        pictures = {
            "observation": rgb(frame, scene.bands, self.stretch),
            "bicubic": rgb(bicubic(self.mean, field.scale), scene.bands, self.stretch),
            "reconstruction": rgb(image, scene.bands, self.stretch),
            "residual": pixels(residual_map(normalised, f"Mean residual / noise, {level}")),
            "shifts": shift_plot(shifts, [o.datetime[:10] for o in scene.observations], truth),
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
            columns: list[str | int] = list(rows[0])
            media["observations"] = wandb.Table(
                columns=columns, data=[[row.get(str(c)) for c in columns] for row in rows]
            )
            logger.experiment.log({**media, "evals": evals})
